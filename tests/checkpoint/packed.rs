//! Checkpoints whose memory is kept compressed.

use super::{counting, numbers, numbers_of, peers};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

#[test]
fn memory_is_kept_compressed_and_thawed() {
    requires!(root, criu);
    let daemon = Daemon::start();
    peers::run(&daemon, "web", &[], &format!("{}24", peers::MEMORY));
    let whole = || daemon.logs("web").matches("whole").count();
    eventually("its memory to be filled", || whole() > 0);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "plain"]).ok();
    daemon.dewar(&["checkpoint", "create", "--compress", "web", "packed"]).ok();
    let id = daemon.dewar(&["inspect", "-f", "{{.Id}}", "web"]).ok().trimmed().to_owned();
    let at = daemon.dir().join("data/containers").join(id).join("checkpoints");
    let images = |name: &str| -> Vec<String> {
        let entries = std::fs::read_dir(at.join(name).join("images")).expect("it is there");
        let names = entries.map(|entry| entry.expect("it is there").file_name().into_string().expect("text"));
        names.filter(|name| name.starts_with("pages-")).collect()
    };
    assert!(images("plain").iter().all(|name| name.ends_with(".img")));
    assert!(images("packed").iter().all(|name| name.ends_with(".img.zst")) && !images("packed").is_empty());
    let lazy = daemon.dewar(&["start", "--lazy", "--checkpoint", "packed", "web"]).run();
    assert!(lazy.code != 0, "{lazy}");
    lazy.stderr_has("its memory is compressed");
    let before = whole();
    daemon.dewar(&["start", "--checkpoint", "packed", "web"]).ok();
    eventually("its memory to be whole", || whole() > before + 1);
    let left: Vec<_> =
        std::fs::read_dir(&at).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    // Copies and archives of it, too.
    daemon.dewar(&["restore", "--name", "copy", "web", "packed"]).ok();
    eventually("the copy's memory to be whole", || daemon.logs("copy").contains("whole"));
}

#[test]
fn a_compressed_checkpoint_travels_as_an_archive() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["checkpoint", "create", "--compress", "web", "cp1"]).ok();
    let frozen = numbers(&daemon).len() as u32;
    let file = daemon.dir().join("cp1.tar").display().to_string();
    daemon.dewar(&["checkpoint", "export", "-o", &file, "web", "cp1"]).ok();
    daemon.dewar(&["rm", "-v", "web"]).ok();
    daemon.dewar(&["checkpoint", "import", &file]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    eventually("it counting on", || !numbers_of(&daemon, "web").is_empty());
    let first = numbers_of(&daemon, "web")[0];
    assert!(first > 1 && first <= frozen + 1, "it began with {first}, frozen by {frozen}");
}
