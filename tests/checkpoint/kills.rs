//! kill -9 of criu, shim and daemon in the middle of dumps, hibernations and thaws: nothing lost, nothing doubled,
//! nothing left. `DEWAR_TEST_KILLS` says how many rounds, a handful otherwise; `DEWAR_SEED` replays one.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{kinds_of_run, with_run};
use crate::support::prop::{self, Gen};
use crate::support::requires::requires;
use crate::support::{Daemon, TempDir, binary, within};

/// Rounds of a run that does not ask for more.
const ROUNDS: u64 = 6;
/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Criu,
    Shim,
    Daemon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// `checkpoint create --leave-running`
    Dump,
    /// `stop`, which freezes.
    Freeze,
    /// `start` of what a stop froze.
    Thaw,
    /// The daemon's end, which freezes.
    Hibernate,
    /// The daemon's start, which thaws.
    Wake,
}

#[test]
fn nothing_is_lost_doubled_or_left_whatever_dies() {
    requires!(root, criu);
    let rounds = std::env::var("DEWAR_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let disk = TempDir::new();
    for mount in kinds_of_run(disk.path()) {
        eprintln!("{mount}");
        let mut daemon = with_run(&mount, "--checkpoint-on-shutdown");
        let id =
            daemon.run_detached("web", &["--stop-mode", "checkpoint", "--stop-timeout", "0"], super::COUNTER);
        within(PATIENCE, "it counting", || lives(&daemon)[0].len() > 3);
        prop::check("kills", rounds.div_ceil(2), |chance| round(&mut daemon, &id, chance));
    }
}

fn round(daemon: &mut Daemon, id: &str, chance: &mut Gen) {
    let work = *chance.pick(&[Work::Dump, Work::Freeze, Work::Thaw, Work::Hibernate, Work::Wake]);
    let victim = *chance.pick(&[Victim::Criu, Victim::Shim, Victim::Daemon]);
    let delay = Duration::from_millis(chance.below(200) as u64);
    if work == Work::Thaw {
        daemon.dewar(&["stop", "web"]).ok();
    }
    let before = lives(daemon);
    let failure = |daemon: &Daemon| daemon.state("web")["Checkpointing"]["ThawFailure"].clone();
    let old_failure = failure(daemon);
    let log_before = daemon.log().len();
    let is_hit = strike(daemon, work, victim, delay);
    settle(daemon);
    let after = lives(daemon);
    let reason = Some(failure(daemon)).filter(|now| !now.is_null() && *now != old_failure);
    let told = format!("{victim:?} {}killed {delay:?} into {work:?}", if is_hit { "" } else { "not " });
    eprintln!("{told}: lives {} -> {}, {reason:?}", before.len(), after.len());
    // A life ends with its shim, and with a criu that does not freeze it when the daemon ends. One that may have run
    // from a checkpoint is not begun there again, which is told.
    let is_its_end = is_hit && (victim == Victim::Shim || (victim, work) == (Victim::Criu, Work::Hibernate));
    // Nor can a process go on in which CRIU's code runs when CRIU dies, which is told, too.
    let was_struck =
        is_hit && victim == Victim::Criu && daemon.log()[log_before..].contains("inside of its processes");
    let is_excused = is_its_end || was_struck || reason.is_some();
    assert!(
        after.len() == before.len() || is_excused,
        "{told}: begun anew: {before:?}\n{after:?}\n{}",
        daemon.log()
    );
    assert!(after.len() <= before.len() + 1, "{told}: {before:?}\n{after:?}");
    let same = &after[before.len() - 1];
    let was = &before[before.len() - 1];
    assert!(same.len() >= was.len(), "{told}: its words are lost: {was:?}\n{same:?}");
    nothing_is_left(daemon, id, &told);
    daemon.dewar(&["checkpoint", "rm", "web", "cp"]).run();
}

/// What it has said, life by life. Fails the test unless each counts from 1 on, none lost and none twice.
#[track_caller]
fn lives(daemon: &Daemon) -> Vec<Vec<u32>> {
    let logs = daemon.logs("web");
    let mut lives: Vec<Vec<u32>> = vec![Vec::new()];
    for number in logs.split_whitespace().map(|word| word.parse::<u32>().expect("a number")) {
        let life = lives.last_mut().expect("it is never empty");
        let next = life.last().map_or(1, |last| last + 1);
        if number == next {
            life.push(number);
        } else {
            assert_eq!(number, 1, "after {:?}: lost or doubled", life.last());
            lives.push(vec![1]);
        }
    }
    lives
}

/// Begins the work, and kills in its middle; whether there was something to kill.
fn strike(daemon: &mut Daemon, work: Work, victim: Victim, delay: Duration) -> bool {
    let client = |daemon: &Daemon, args: &[&str]| -> Child {
        let mut command = Command::new(binary());
        command.args(["-H", &daemon.host()]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the binary is there")
    };
    let client = match work {
        Work::Dump => Some(client(daemon, &["checkpoint", "create", "--leave-running", "web", "cp"])),
        Work::Freeze => Some(client(daemon, &["stop", "web"])),
        Work::Thaw => Some(client(daemon, &["start", "web"])),
        Work::Hibernate => {
            let pid = Pid::from_raw(daemon.pid() as i32).expect("it has a pid");
            kill_process(pid, Signal::TERM).expect("it runs");
            None
        }
        Work::Wake => {
            assert_eq!(daemon.stop(), 0, "{}", daemon.log());
            daemon.restart();
            None
        }
    };
    let is_hit = match victim {
        Victim::Daemon => {
            std::thread::sleep(delay);
            daemon.kill9();
            true
        }
        // It takes a tenth of a second, and seeing it a part of that.
        Victim::Criu => hit(daemon, "swrk", delay / 8),
        Victim::Shim => {
            std::thread::sleep(delay);
            hit(daemon, "dewar-shim", Duration::ZERO)
        }
    };
    if let Some(mut client) = client {
        client.wait().expect("a child of ours");
    }
    if work == Work::Hibernate && victim != Victim::Daemon {
        assert_eq!(daemon.wait(), 0, "{}", daemon.log());
    }
    if work == Work::Hibernate || victim == Victim::Daemon {
        daemon.restart();
    }
    is_hit
}

/// Kills what has `word` in its command line, `delay` after it has come.
fn hit(daemon: &Daemon, word: &str, delay: Duration) -> bool {
    let begin = Instant::now();
    loop {
        let processes = daemon.leftovers().processes;
        let found: Vec<u32> =
            processes.iter().filter(|(_, line)| line.contains(word)).map(|(pid, _)| *pid).collect();
        if !found.is_empty() {
            std::thread::sleep(delay);
            let kill = |pid: &u32| kill_process(Pid::from_raw(*pid as i32).expect("not 0"), Signal::KILL);
            return found.iter().map(kill).filter(Result::is_ok).count() > 0;
        }
        if begin.elapsed() > Duration::from_secs(1) {
            return false;
        }
    }
}

/// Waits until it counts on, starting it where it was left stopped.
#[track_caller]
fn settle(daemon: &Daemon) {
    let said = daemon.logs("web").len();
    within(PATIENCE, "it going on", || {
        if daemon.state("web")["Status"] == "exited" {
            // Refused while its shim is waited for.
            daemon.dewar(&["start", "web"]).run();
        }
        daemon.state("web")["Status"] == "running" && daemon.logs("web").len() > said + 30
    });
}

/// Fails the test unless there is one container, and nothing of others or of earlier lives.
#[track_caller]
fn nothing_is_left(daemon: &Daemon, id: &str, told: &str) {
    let found = std::cell::RefCell::new(String::new());
    let is_clean = || {
        let left = daemon.leftovers();
        let count = |word: &str| left.processes.iter().filter(|(_, line)| line.contains(word)).count();
        let dir = daemon.dir().join("data/containers").join(id);
        let names = |dir: &std::path::Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let layers = names(&dir).iter().filter(|name| name.starts_with("rw-")).count();
        let half_made =
            names(&dir.join("checkpoints")).iter().filter(|name| name.ends_with(".partial")).count();
        let foreign = left.cgroups.iter().filter(|path| !path.to_string_lossy().contains(id)).count();
        *found.borrow_mut() = format!("{layers} layers, {half_made} half made, {foreign} cgroups, {left:#?}");
        count("dewar-shim") == 1
            && count("swrk") == 0
            && count("i=$((i+1))") == 1
            && (layers, half_made, foreign) == (1, 0, 0)
    };
    let begin = Instant::now();
    while !is_clean() {
        assert!(begin.elapsed() < PATIENCE, "{told}: left: {}", found.borrow());
        std::thread::sleep(Duration::from_millis(20));
    }
}
