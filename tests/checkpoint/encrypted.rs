//! Exports for nobody else's eyes: what `age` makes of them, dewar of its, and what is refused.

use std::path::Path;

use super::archive::{export, on_disk};
use super::{counting, counts_on};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir};

/// Runs a command on a terminal, and types PHRASE whenever it asks for something.
const TYPIST: &str = "
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
said = b''
while True:
    try:
        part = os.read(fd, 1024)
    except OSError:
        break
    if not part:
        break
    said += part
    if said.rstrip().endswith(b':'):
        os.write(fd, sys.argv[1].encode() + b'\\n')
        said = b''
sys.stderr.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

fn typing(phrase: &str) -> Cmd {
    Cmd::new("python3").args(["-c", TYPIST, phrase])
}

/// A new key: the file with the secret one, and the public one.
fn key(dir: &Path, name: &str) -> (String, String) {
    let path = dir.join(name).display().to_string();
    Cmd::new("age-keygen").args(["-o", &path]).ok();
    let public = Cmd::new("age-keygen").args(["-y", &path]).ok().trimmed().to_owned();
    (path, public)
}

fn frozen() -> Daemon {
    let daemon = counting(&[]);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    daemon
}

#[test]
fn what_dewar_encrypts_age_decrypts_and_the_other_way_round() {
    requires!(root, criu, age);
    let daemon = frozen();
    let dir = TempDir::new();
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let read = |name: &str| std::fs::read(file(name)).expect("it was written");
    let (ours, public) = key(dir.path(), "ours");
    let (theirs, other) = key(dir.path(), "theirs");
    export(&daemon, &["--compress", "none"], &file("plain"));

    std::fs::write(file("list"), format!("# somebody\n\n{other}\n")).expect("a directory of ours");
    let flags = ["--compress", "none", "--recipient", &public, "--recipients-file", &path("list")];
    export(&daemon, &flags, &file("sealed"));
    assert!(read("sealed").starts_with(b"age-encryption.org/v1\n"));
    for identity in [&ours, &theirs] {
        Cmd::new("age").args(["-d", "-i", identity, "-o", &path("opened"), &path("sealed")]).ok();
        assert!(read("opened") == read("plain"), "age finds in it what was not encrypted");
    }
    let import = |flags: &[&str], name: &str, from: &str| {
        daemon.dewar(&[&["checkpoint", "import", "--name", name], flags, &[from]].concat())
    };
    import(&["--identity", &theirs], "first", &path("sealed")).ok().stdout_is("first cp1\n");
    Cmd::new("age").args(["-r", &public, "-o", &path("from-age"), &path("plain")]).ok();
    // On standard input, too, and with an identity that does not fit before the one that does.
    import(&["--identity", &theirs, "--identity", &ours], "second", "-")
        .stdin(read("from-age"))
        .ok()
        .stdout_is("second cp1\n");
    daemon.dewar(&["start", "--checkpoint", "cp1", "second"]).ok();
    counts_on(&daemon, "second");
    // And on standard output.
    let script =
        "\"$0\" -H \"$1\" checkpoint export --recipient \"$2\" web cp1 | age -d -i \"$3\" | zstd -dc";
    let piped = Cmd::new("sh")
        .args(["-c", &format!("{script} > \"$4\"")])
        .arg(crate::support::binary())
        .args([daemon.host(), public, ours, path("piped")]);
    piped.ok();
    assert!(read("piped") == read("plain"));
}

#[test]
fn a_passphrase_is_asked_for_or_read_from_a_file() {
    requires!(root, criu, age);
    let daemon = frozen();
    let dir = TempDir::new();
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    export(&daemon, &["--compress", "none"], &file("plain"));
    std::fs::write(file("phrase"), "open sesame\n").expect("a directory of ours");
    std::fs::write(file("wrong"), "open barley\n").expect("a directory of ours");
    let dewar = |words: &[&str]| {
        let program = crate::support::binary().display().to_string();
        let host = daemon.host();
        typing("open sesame").args([&[program.as_str(), "-H", host.as_str()], words].concat())
    };
    dewar(&[
        "checkpoint",
        "export",
        "--compress",
        "none",
        "--passphrase",
        "-o",
        &path("asked"),
        "web",
        "cp1",
    ])
    .ok();
    typing("open sesame").args(["age", "-d", "-o", &path("opened"), &path("asked")]).ok();
    let read = |name: &str| std::fs::read(file(name)).expect("it was written");
    assert!(read("opened") == read("plain"));
    typing("open sesame").args(["age", "-p", "-o", &path("from-age"), &path("plain")]).ok();
    let import = |flag: &[&str], from: &str| {
        daemon.dewar(&[&["checkpoint", "import", "--name", "copy"], flag, &[from]].concat())
    };
    let before = on_disk(&daemon);
    import(&["--passphrase-file", &path("wrong")], &path("from-age"))
        .fails(1)
        .stderr_has("the passphrase is wrong")
        .no_panic();
    import(&[], &path("from-age")).fails(1).stderr_has("--passphrase-file opens it");
    import(&["--passphrase"], &path("from-age")).fails(1).stderr_has("no terminal to ask");
    assert_eq!(on_disk(&daemon), before);
    import(&["--passphrase-file", &path("phrase")], &path("from-age")).ok().stdout_is("copy cp1\n");
}

#[test]
fn what_cannot_be_decrypted_to_its_end_leaves_nothing() {
    requires!(root, criu, age);
    let daemon = frozen();
    let dir = TempDir::new();
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let (ours, public) = key(dir.path(), "ours");
    let (theirs, _) = key(dir.path(), "theirs");
    export(&daemon, &["--recipient", &public], &file("sealed"));
    let sealed = std::fs::read(file("sealed")).expect("it was written");
    let before = on_disk(&daemon);
    let refuse = |what: &str, archive: &[u8], identity: &str, words: &str| {
        let flags = ["checkpoint", "import", "--name", "other", "--identity", identity, "-"];
        let refused = daemon.dewar(&flags).stdin(archive).fails(1);
        refused.stderr_has(words).no_panic();
        // The daemon may still be at it when the client has gone.
        crate::support::eventually(what, || on_disk(&daemon) == before);
        let all = daemon.api("GET", "/containers/json?all=1").json();
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{what}");
    };
    refuse("another's key", &sealed, &theirs, "for somebody else");
    refuse("nothing", b"", &ours, "not encrypted");
    refuse("plain text", b"a tar of sorts, longer than the first line", &ours, "not encrypted");
    for part in [1, 2, 3] {
        refuse("a part", &sealed[..sealed.len() * part / 4], &ours, "cut off");
    }
    refuse("without its last byte", &sealed[..sealed.len() - 1], &ours, "cut off, or was changed");
    for at in [100, sealed.len() / 2, sealed.len() - 1] {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let words = if at == 100 { "standard input: " } else { "was changed" };
        refuse("a changed byte", &changed, &ours, words);
    }
    let export = |flags: &[&str]| {
        let to = path("new");
        let refused =
            daemon.dewar(&[&["checkpoint", "export", "-o", &to], flags, &["web", "cp1"]].concat()).fails(1);
        assert!(!file("new").exists(), "nothing is written: {flags:?}");
        refused
    };
    let secret = std::fs::read_to_string(&ours).expect("it was made");
    let secret = secret.lines().find(|line| !line.starts_with('#')).expect("a key").to_owned();
    export(&["--recipient", "age1nonsense"]).stderr_has("--recipient age1nonsense: it is no public key");
    export(&["--recipient", &secret]).stderr_has("secret key");
    export(&["--recipients-file", &path("none")]).stderr_has("open ");
    export(&["--recipients-file", &ours]).stderr_has("secret key");
    export(&["--recipient", &public, "--passphrase-file", &ours]).stderr_has("exclude one another");
    // The sealed one is good, for whom it is.
    let flags = ["checkpoint", "import", "--name", "other", "--identity", &ours, &path("sealed")];
    daemon.dewar(&flags).ok().stdout_is("other cp1\n");
}
