//! Containers on a terminal, typed at through dewar's client on a pty.

use crate::support::requires::requires;
use crate::support::terminal::Terminal;
use crate::support::{Daemon, binary, eventually};

fn on_terminal(daemon: &Daemon, args: &[&str]) -> Terminal {
    let host = daemon.host();
    let args: Vec<&str> = ["-H", &host].into_iter().chain(args.iter().copied()).collect();
    Terminal::start(&binary(), &args)
}

#[test]
fn a_shell_on_a_terminal() {
    requires!(root);
    let daemon = Daemon::start();
    let mut terminal = on_terminal(&daemon, &["run", "--rm", "-it", "--network", "none", "busybox", "sh"]);
    terminal.expect("#");
    // The pattern is not in what is typed, so that the echo of it does not count.
    terminal.send("echo a$((40+2))b; tty; stty size\n");
    terminal.expect("a42b");
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    terminal.resize(50, 132);
    eventually("the new size", || {
        terminal.send("stty size\n");
        std::thread::sleep(std::time::Duration::from_millis(100));
        terminal.seen().contains("50 132")
    });
    terminal.send("exit 5\n");
    assert_eq!(terminal.wait(), 5);
}

#[test]
fn control_c_reaches_the_container() {
    requires!(root);
    let daemon = Daemon::start();
    let mut terminal = on_terminal(&daemon, &["run", "--rm", "-it", "--network", "none", "busybox", "sh"]);
    terminal.expect("#");
    terminal.send("sleep 1000 || echo br$((1+1))oken\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.send("\u{3}");
    terminal.send("echo al$((1+1))ive\n");
    terminal.expect("al2ive");
    terminal.send("exit 0\n");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn detach_keys_leave_it_running() {
    requires!(root);
    let daemon = Daemon::start();
    let mut terminal =
        on_terminal(&daemon, &["run", "-it", "--name", "web", "--network", "none", "busybox", "sh"]);
    terminal.expect("#");
    terminal.send("\u{10}\u{11}");
    assert_eq!(terminal.wait(), 0);
    assert_eq!(daemon.state("web")["Running"], true);
    let mut again = on_terminal(&daemon, &["attach", "web"]);
    again.send("echo ba$((1+1))ck\n");
    again.expect("ba2ck");
    again.send("exit 3\n");
    assert_eq!(again.wait(), 3);
}

#[test]
fn exec_on_a_terminal() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let mut terminal = on_terminal(&daemon, &["exec", "-it", "web", "sh"]);
    terminal.expect("#");
    terminal.send("test -t 0 && echo is$((1+1))tty; exit 9\n");
    terminal.expect("is2tty");
    assert_eq!(terminal.wait(), 9);
}

#[test]
fn the_terminal_is_given_back_as_it_was() {
    requires!(root);
    let daemon = Daemon::start();
    let script = format!(
        "{} -H {} run --rm -it --network none busybox true; stty -a",
        binary().display(),
        daemon.host()
    );
    let mut terminal = Terminal::start(std::path::Path::new("/bin/sh"), &["-c", &script]);
    terminal.expect(" icanon");
    terminal.expect(" echo ");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn a_pty_without_a_client_is_logged() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-t"], "tty; stty size; echo done");
    daemon.dewar(&["wait", "web"]).ok().stdout_is("0\n");
    daemon.dewar(&["logs", "web"]).ok().stdout_has("/dev/pts/0").stdout_has("done\r\n");
}

#[test]
fn asking_for_a_terminal_without_one_is_refused() {
    requires!(root);
    let daemon = Daemon::start();
    let output =
        daemon.dewar(&["run", "--rm", "-it", "--network", "none", "busybox", "true"]).stdin("x").run();
    assert!(output.code != 0, "{output}");
    // Compat: scripts know these words.
    output.stderr_has("not a TTY");
    daemon.dewar(&["ps", "-aq"]).ok().stdout_is("");
}
