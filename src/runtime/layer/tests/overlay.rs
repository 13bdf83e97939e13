//! Layers under the kernel's overlay: the whiteouts it reads, and what has changed in a mounted container, as that is
//! told and as it is packed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::{Scratch, archive, file};
use crate::runtime::layer::{Change, Limits, changes, pack, pack_live, tar, unpack};

/// Two layers mounted as a container would have them, and a look at the lower one.
struct Mounted {
    scratch: Scratch,
    below: std::os::fd::OwnedFd,
}

impl Mounted {
    /// `prepare` fills the lower layer, `work` runs on the mounted root.
    fn new(name: &str, prepare: impl FnOnce(&Path), work: impl FnOnce(&Path) + Send) -> Mounted {
        let scratch = Scratch::new(name);
        let overlay = crate::runtime::Overlay {
            lower: vec![scratch.dir("init"), scratch.dir("lower")],
            upper: scratch.dir("upper"),
            work: scratch.dir("work"),
            volatile: false,
            shared: None,
        };
        prepare(&overlay.lower[1]);
        let at = scratch.dir("at");
        let view = crate::runtime::look::View::of_layers(&overlay, &at, &[]).unwrap();
        let root = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view.root()));
        work(Path::new(&root));
        let below = crate::runtime::look::below(&overlay, &at).unwrap();
        Mounted { scratch, below }
    }

    fn changes(&self) -> Vec<String> {
        let found = changes(&self.scratch.0.join("upper"), std::os::fd::AsFd::as_fd(&self.below)).unwrap();
        let line = |(path, change): (&Vec<u8>, &Change)| {
            let letter = match change {
                Change::Modified => 'C',
                Change::Added => 'A',
                Change::Deleted => 'D',
            };
            format!("{letter} {}", String::from_utf8_lossy(path))
        };
        found.iter().map(line).collect()
    }
}

#[test]
fn changes_are_told_as_docker_tells_them() {
    let prepare = |lower: &Path| {
        for dir in ["etc", "gone/deep", "fresh", "swap", "still", "chmod", "copied"] {
            fs::create_dir_all(lower.join(dir)).unwrap();
        }
        for file in
            ["etc/a", "etc/b", "gone/deep/x", "fresh/old", "swap/in", "still/f", "file", "copied/same"]
        {
            fs::write(lower.join(file), file).unwrap();
        }
        symlink("a", lower.join("etc/l")).unwrap();
    };
    let work = |root: &Path| {
        fs::write(root.join("etc/a"), "changed").unwrap();
        fs::remove_file(root.join("etc/b")).unwrap();
        fs::create_dir_all(root.join("etc/new/deep")).unwrap();
        fs::remove_file(root.join("etc/l")).unwrap();
        symlink("b", root.join("etc/l")).unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::remove_dir_all(root.join("fresh")).unwrap();
        fs::create_dir(root.join("fresh")).unwrap();
        fs::write(root.join("fresh/new"), "").unwrap();
        fs::remove_dir_all(root.join("swap")).unwrap();
        fs::write(root.join("swap"), "now a file").unwrap();
        fs::remove_file(root.join("file")).unwrap();
        fs::create_dir_all(root.join("file/inside")).unwrap();
        fs::set_permissions(root.join("chmod"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(root.join("passing"), "").unwrap();
        fs::remove_file(root.join("passing")).unwrap();
        // Copied up and put back as it was: no change.
        let same = root.join("copied/same");
        let time = fs::metadata(&same).unwrap().modified().unwrap();
        let file = fs::File::options().append(true).open(&same).unwrap();
        file.set_modified(time).unwrap();
    };
    let mounted = Mounted::new("changes", prepare, work);
    assert!(mounted.scratch.0.join("upper/copied/same").exists(), "the test touches nothing");
    let wanted = "C /chmod, C /etc, C /etc/a, D /etc/b, C /etc/l, A /etc/new, A /etc/new/deep, C /file, \
                  A /file/inside, C /fresh, A /fresh/new, D /fresh/old, D /gone, C /swap";
    assert_eq!(mounted.changes().join(", "), wanted);
}

#[test]
fn a_capability_is_a_change_and_an_untouched_layer_has_none() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mounted = Mounted::new(
        "capability",
        |lower| fs::write(lower.join("tool"), "x").unwrap(),
        |root| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join("tool"), "security.capability", &capability, flags).unwrap();
        },
    );
    assert_eq!(mounted.changes(), ["C /tool"]);
    assert!(Mounted::new("untouched", |_| {}, |_| {}).changes().is_empty());
}

#[test]
fn all_names_of_a_file_change_with_it() {
    let prepare = |lower: &Path| {
        for dir in ["in/deep", "own", "gone"] {
            fs::create_dir_all(lower.join(dir)).unwrap();
        }
        fs::set_permissions(lower.join("in/deep"), fs::Permissions::from_mode(0o711)).unwrap();
        fs::write(lower.join("a"), "old").unwrap();
        for other in ["b", "in/deep/c", "own/d", "gone/e", "removed", "replaced"] {
            fs::hard_link(lower.join("a"), lower.join(other)).unwrap();
        }
        fs::write(lower.join("x"), "untouched").unwrap();
        fs::hard_link(lower.join("x"), lower.join("y")).unwrap();
    };
    let work = |root: &Path| {
        fs::remove_file(root.join("removed")).unwrap();
        fs::remove_file(root.join("replaced")).unwrap();
        fs::write(root.join("replaced"), "mine").unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        fs::create_dir(root.join("gone")).unwrap();
        fs::write(root.join("own/new"), "").unwrap();
        use std::io::Write;
        fs::File::options().append(true).open(root.join("a")).unwrap().write_all(b" and new").unwrap();
        assert_eq!(fs::read_to_string(root.join("in/deep/c")).unwrap(), "old and new", "index=on");
    };
    let mounted = Mounted::new("aliases", prepare, work);
    let wanted = "C /a, C /b, C /gone, D /gone/e, C /in, C /in/deep, C /in/deep/c, C /own, C /own/d, A /own/new, \
                  D /removed, C /replaced";
    assert_eq!(mounted.changes().join(", "), wanted);
    let (mut layer, below) = (Vec::new(), std::os::fd::AsFd::as_fd(&mounted.below));
    pack_live(&mounted.scratch.0.join("upper"), below, &mut layer).unwrap();
    let diff = mounted.scratch.dir("diff");
    unpack(layer.as_slice(), &diff, Limits::default()).unwrap();
    for name in ["a", "b", "in/deep/c", "own/d"] {
        assert_eq!(fs::read_to_string(diff.join(name)).unwrap(), "old and new", "{name}");
    }
    assert_eq!(fs::metadata(diff.join("a")).unwrap().nlink(), 4);
    assert_eq!(fs::metadata(diff.join("in/deep")).unwrap().mode() & 0o777, 0o711);
    for absent in ["gone/e", "x", "y"] {
        assert!(!diff.join(absent).exists(), "{absent}");
    }
}

/// The overlay the kernel makes of what was unpacked shows what the layers mean.
#[test]
fn the_kernel_reads_the_whiteouts() {
    let scratch = Scratch::new("overlay");
    let names = ["lower", "upper", "changes", "work", "merged"];
    let [lower, upper, changes, work, merged] = names.map(|name| scratch.dir(name));
    let below = [file("gone", "x"), file("dir/old", "x"), file("stays", "x")];
    let above = [file(".wh.gone", ""), file("dir/.wh..wh..opq", ""), file("dir/new", "x")];
    unpack(archive(&below).as_slice(), &lower, Limits::default()).unwrap();
    unpack(archive(&above).as_slice(), &upper, Limits::default()).unwrap();
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        upper.display(),
        lower.display(),
        changes.display(),
        work.display()
    );
    let mounted =
        Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).status();
    assert!(mounted.unwrap().success());
    let outcome = std::panic::catch_unwind(|| {
        assert!(!merged.join("gone").exists() && merged.join("stays").exists());
        let listed: Vec<_> =
            fs::read_dir(merged.join("dir")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(listed, ["new"]);
        fs::remove_file(merged.join("stays")).unwrap();
        fs::remove_dir_all(merged.join("dir")).unwrap();
        fs::create_dir(merged.join("dir")).unwrap();
        fs::write(merged.join("dir/newer"), "x").unwrap();
    });
    assert!(Command::new("umount").arg(&merged).status().unwrap().success());
    outcome.unwrap();
    let mut packed = Vec::new();
    pack(&changes, &mut packed).unwrap();
    let mut reader = tar::Reader::new(packed.as_slice(), Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    assert_eq!(names, ["./", "dir/", "dir/.wh..wh..opq", "dir/newer", ".wh.stays"]);
}
