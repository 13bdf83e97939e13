//! Round trips, archives of foreign writers, and archives that mean harm. They need root: owners, devices
//! and `trusted.` attributes are part of a layer.

mod fuzz;
mod overlay;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tar::{Entry, Kind, Time, Writer};
use super::*;

/// A directory that is gone when the test is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("dewar-layer-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn file(path: &str, content: &str) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path, Kind::File, 0o644);
    entry.size = content.len() as u64;
    (entry, content.into())
}

fn link(path: &str, kind: Kind, target: &str) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(path, kind, 0o777);
    entry.link = target.into();
    (entry, Vec::new())
}

fn bare(path: &str, kind: Kind, mode: u32) -> (Entry, Vec<u8>) {
    (Entry::new(path, kind, mode), Vec::new())
}

fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap().0
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok().map(|length| value[..length].to_vec())
}

fn is_whiteout(path: &Path) -> bool {
    let stat = fs::symlink_metadata(path).unwrap();
    stat.file_type().is_char_device() && stat.rdev() == 0
}

/// Everything about every file below `root`, one line each.
fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = match stat.file_type() {
            kind if kind.is_file() => format!("{:?}", fs::read(&path).unwrap()),
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            kind if kind.is_dir() => {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            }
            _ => format!("{:x}", stat.rdev()),
        };
        let attributes: Vec<_> = ["user.a", "security.capability", OPAQUE]
            .iter()
            .filter_map(|name| xattr(&path, name).map(|value| (*name, value)))
            .collect();
        lines.push(format!(
            "{} {:o} {}:{} {}.{:09} links {} {attributes:?} {content}",
            path.strip_prefix(root).unwrap().display(),
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            if stat.is_dir() { 0 } else { stat.nlink() },
        ));
    }
    lines.sort();
    lines
}

fn sample() -> Vec<(Entry, Vec<u8>)> {
    let mut capable = file("usr/bin/ping", "elf");
    capable.0.mode = 0o4755;
    (capable.0.uid, capable.0.gid) = (1000, 70_000);
    capable.0.mtime = Time { secs: 1_700_000_000, nanos: 123_456_789 };
    capable.0.xattrs = vec![
        (b"user.a".to_vec(), b"x\ny".to_vec()),
        (b"security.capability".to_vec(), [[1, 0, 0, 2].as_slice(), &[0, 32, 0, 0], &[0; 12]].concat()),
        (b"trusted.overlay.redirect".to_vec(), b"/etc/shadow".to_vec()),
    ];
    let mut usr = bare("usr/", Kind::Directory, 0o2755);
    usr.0.mtime = Time { secs: 5, nanos: 7 };
    let mut null = bare("dev/null", Kind::Char, 0o666);
    null.0.device = (1, 3);
    let mut long = file(&format!("long/{}/{}", "d".repeat(200), "f".repeat(250)), "far");
    long.0.mtime = Time { secs: -3, nanos: 4 };
    vec![
        bare("./", Kind::Directory, 0o755),
        usr,
        capable,
        link("usr/bin/pong", Kind::HardLink, "usr/bin/ping"),
        link("bin", Kind::Symlink, "usr/bin"),
        link("out", Kind::Symlink, "/../../etc/passwd"),
        null,
        bare("run/pipe", Kind::Fifo, 0o600),
        long,
        file("etc/.wh.motd", ""),
        bare("var/", Kind::Directory, 0o755),
        file("var/.wh..wh..opq", ""),
        file("empty", ""),
    ]
}

#[test]
fn a_layer_keeps_everything_both_ways() {
    let scratch = Scratch::new("both-ways");
    let (first, second) = (scratch.dir("first"), scratch.dir("second"));
    let unpacked = unpack(archive(&sample()).as_slice(), &first, Limits::default()).unwrap();
    assert_eq!(unpacked, Unpacked { bytes: 6, entries: 13 });

    let ping = fs::metadata(first.join("usr/bin/ping")).unwrap();
    assert_eq!((ping.mode() & 0o7777, ping.uid(), ping.gid()), (0o4755, 1000, 70_000));
    assert_eq!((ping.mtime(), ping.mtime_nsec(), ping.nlink()), (1_700_000_000, 123_456_789, 2));
    assert_eq!(xattr(&first.join("usr/bin/ping"), "user.a").unwrap(), b"x\ny");
    assert_eq!(xattr(&first.join("usr/bin/ping"), "security.capability").unwrap().len(), 20);
    assert_eq!(xattr(&first.join("usr/bin/ping"), "trusted.overlay.redirect"), None);
    let usr = fs::metadata(first.join("usr")).unwrap();
    assert_eq!((usr.mode() & 0o7777, usr.mtime(), usr.mtime_nsec()), (0o2755, 5, 7));
    assert!(is_whiteout(&first.join("etc/motd")));
    assert_eq!(xattr(&first.join("var"), OPAQUE).unwrap(), b"y");

    let mut packed = Vec::new();
    let size = pack(&first, &mut packed).unwrap();
    assert_eq!(size, packed.len() as u64);
    unpack(packed.as_slice(), &second, Limits::default()).unwrap();
    assert_eq!(describe(&first), describe(&second));
    let mut again = Vec::new();
    pack(&second, &mut again).unwrap();
    assert_eq!(packed, again, "equal trees give equal streams");
}

#[test]
fn a_plain_directory_keeps_names_that_look_like_whiteouts() {
    let scratch = Scratch::new("plain");
    let (first, second) = (scratch.dir("first"), scratch.dir("second"));
    fs::write(first.join(".wh.x"), "x").unwrap();
    fs::set_permissions(&first, fs::Permissions::from_mode(0o1777)).unwrap();
    let mut packed = Vec::new();
    pack_plain(&first, &mut packed).unwrap();
    unpack_plain(packed.as_slice(), &second, Limits::default()).unwrap();
    assert_eq!(describe(&first), describe(&second));
    assert_eq!(fs::read(second.join(".wh.x")).unwrap(), b"x");
}

#[test]
fn a_stream_is_written_again_byte_for_byte() {
    let scratch = Scratch::new("split");
    let diff = scratch.dir("diff");
    let mut stream = archive(&sample());
    stream.extend_from_slice(&[0; 10_240]);
    let mut record = Vec::new();
    unpack_recording(stream.as_slice(), &diff, Limits::default(), &mut record).unwrap();
    let mut again = Vec::new();
    assert_eq!(reassemble(record.as_slice(), &diff, &mut again).unwrap(), stream.len() as u64);
    assert_eq!(stream, again);

    fs::remove_file(diff.join("usr/bin/ping")).unwrap();
    symlink("/etc/passwd", diff.join("usr/bin/ping")).unwrap();
    let failure = reassemble(record.as_slice(), &diff, io::sink()).unwrap_err().to_string();
    assert!(failure.contains("usr/bin/ping"), "{failure}");
    for end in 0..record.len() {
        let _ = reassemble(&record[..end], &diff, io::sink());
    }
}

#[test]
fn whiteouts_and_directories_of_one_layer_meet_in_any_order() {
    let scratch = Scratch::new("whiteouts");
    let diff = scratch.dir("diff");
    let entries = [
        file(".wh.before", ""),
        bare("before/", Kind::Directory, 0o755),
        bare("after/", Kind::Directory, 0o755),
        file(".wh.after", ""),
        file(".wh.implied", ""),
        file("implied/file", ""),
        file("kept", "x"),
        file(".wh.kept", ""),
        file(".wh.replaced", ""),
        file("replaced", "y"),
        file(".wh..wh.plnk", ""),
    ];
    unpack(archive(&entries).as_slice(), &diff, Limits::default()).unwrap();
    for name in ["before", "after", "implied"] {
        assert_eq!(xattr(&diff.join(name), OPAQUE).unwrap(), b"y", "{name}");
    }
    assert_eq!(fs::read(diff.join("kept")).unwrap(), b"x");
    assert_eq!(fs::read(diff.join("replaced")).unwrap(), b"y");
    assert_eq!(fs::read_dir(&diff).unwrap().count(), 5);
}

#[test]
fn the_later_entry_wins() {
    let scratch = Scratch::new("later");
    let diff = scratch.dir("diff");
    let entries = [
        file("a", "old"),
        file("a", "new"),
        file("b/c/d", "deep"),
        file("b", "flat"),
        file("c", "flat"),
        bare("c/", Kind::Directory, 0o700),
        file("d", "self"),
        link("d", Kind::HardLink, "d"),
        file("e/f", "one"),
        file("e/g", "two"),
        link("e/f", Kind::HardLink, "e/g"),
    ];
    unpack(archive(&entries).as_slice(), &diff, Limits::default()).unwrap();
    assert_eq!(fs::read(diff.join("a")).unwrap(), b"new");
    assert_eq!(fs::read(diff.join("b")).unwrap(), b"flat");
    assert!(diff.join("c").is_dir());
    assert_eq!(fs::read(diff.join("d")).unwrap(), b"self");
    assert_eq!(fs::read(diff.join("e/f")).unwrap(), b"two");
}

/// Every archive here tries to write where it must not, and is refused with its own words.
#[test]
fn archives_that_lead_out_are_refused() {
    type Case = (&'static str, Vec<(Entry, Vec<u8>)>);
    let cases: Vec<Case> = vec![
        ("leads out by \"..\"", vec![file("../escaped", "x")]),
        ("leads out by \"..\"", vec![file("a/../../escaped", "x")]),
        ("is an absolute path", vec![file("/escaped", "x")]),
        ("passes through a symbolic link", vec![link("a", Kind::Symlink, ".."), file("a/escaped", "x")]),
        ("passes through a symbolic link", vec![link("a", Kind::Symlink, "/tmp"), file("a/b/escaped", "x")]),
        ("passes through a symbolic link", vec![link("a", Kind::Symlink, ".."), file("a/.wh.escaped", "")]),
        (
            "passes through a symbolic link",
            vec![link("a", Kind::Symlink, ".."), link("b", Kind::HardLink, "a/outside")],
        ),
        ("leads out by \"..\"", vec![link("b", Kind::HardLink, "../outside")]),
        ("is an absolute path", vec![link("b", Kind::HardLink, "/etc/passwd")]),
        ("which is not there", vec![link("b", Kind::HardLink, "nothing")]),
        ("which is not there", vec![link("b", Kind::HardLink, ".")]),
        (
            "a hard link to the directory",
            vec![bare("d/", Kind::Directory, 0o755), link("b", Kind::HardLink, "d")],
        ),
        ("which is not there", vec![file("d/x", "x"), link("d", Kind::HardLink, "d/x")]),
        ("is no directory", vec![file("a", "x"), file("a/b", "x")]),
        ("a whiteout of no file", vec![file(".wh...", "")]),
        ("a whiteout of no file", vec![file("d/.wh.", "")]),
        ("takes the place of the directory", vec![file(".", "x")]),
        ("takes the place of the directory", vec![link("./", Kind::Symlink, "/")]),
        ("a symbolic link to nothing", vec![link("a", Kind::Symlink, "")]),
        ("unknown type 'Q'", vec![bare("a", Kind::Other(b'Q'), 0)]),
        ("a name of", vec![file(&"a/".repeat(3000), "")]),
    ];
    let scratch = Scratch::new("hostile");
    fs::write(scratch.0.join("outside"), "untouched").unwrap();
    for (at, (wanted, entries)) in cases.into_iter().enumerate() {
        let diff = scratch.dir(&format!("diff-{at}"));
        let failure = unpack(archive(&entries).as_slice(), &diff, Limits::default()).unwrap_err();
        assert!(matches!(failure.cause, Cause::Refused(_)), "{failure}");
        assert!(failure.to_string().contains(wanted), "case {at}: {failure}");
        fs::remove_dir_all(&diff).unwrap();
    }
    let left: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["outside"]);
    assert_eq!(fs::metadata(scratch.0.join("outside")).unwrap().nlink(), 1);
}

#[test]
fn bombs_meet_the_limits() {
    let scratch = Scratch::new("bombs");
    let diff = scratch.dir("diff");
    let limits = Limits { entries: 3, bytes: 1 << 20, name: 100 };
    let refused = |archive: &[u8], wanted: &str| {
        let failure = unpack(archive, &diff, limits).unwrap_err().to_string();
        assert!(failure.contains(wanted), "{failure}");
    };
    refused(&archive(&[file("a", ""), file("b", ""), file("c", ""), file("d", "")]), "more than 3 entries");
    refused(&archive(&[file("a", &"x".repeat(2 << 20))]), "2097152 bytes");
    refused(&archive(&[file("a", &"x".repeat(700 << 10)), file("b", &"x".repeat(700 << 10))]), "more than");
    let mut endless = archive(&[file("a", "")]);
    endless.resize(2 << 20, 0);
    refused(&endless, "more than 1048576 bytes");
    let mut claim = archive(&[file("a", "x")]);
    claim.truncate(520);
    refused(&claim, "truncated");
    refused(
        b"not a tar archive at all, but longer than one block would be".repeat(20).as_slice(),
        "not a tar",
    );
}

/// GNU tar and Python write what they can; names, numbers and sparse maps must come out the same.
#[test]
fn archives_of_other_writers_are_read() {
    let scratch = Scratch::new("foreign");
    let source = scratch.dir("source");
    let long = source.join("n".repeat(120));
    fs::write(&long, "long").unwrap();
    symlink("t".repeat(150), source.join("link")).unwrap();
    fs::write(source.join("zw\u{f6}lf"), "12").unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    for at in 0..40_u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", at * 25_000).unwrap();
    }
    drop(sparse);
    let formats = [
        "--format=gnu",
        "--format=pax",
        "--format=gnu -S",
        "--format=pax -S",
        "--format=pax -S --sparse-version=0.0",
        "--format=pax -S --sparse-version=0.1",
    ];
    for (at, options) in formats.into_iter().enumerate() {
        let name = scratch.0.join("archive.tar");
        let status = Command::new("tar")
            .args(options.split(' '))
            .arg("-C")
            .arg(&source)
            .arg("-cf")
            .arg(&name)
            .arg(".")
            .status()
            .unwrap();
        assert!(status.success());
        let into = scratch.dir(&format!("into-{at}"));
        let stream = fs::read(&name).unwrap();
        let mut record = Vec::new();
        unpack_recording(stream.as_slice(), &into, Limits::default(), &mut record)
            .unwrap_or_else(|failure| panic!("{options}: {failure}"));
        let whole = |lines: Vec<String>| -> Vec<String> {
            lines
                .into_iter()
                .map(|line| line.split(' ').filter(|word| !word.contains('.')).collect())
                .collect()
        };
        assert_eq!(whole(describe(&source)), whole(describe(&into)), "{options}");
        if options.contains("-S") {
            let blocks = fs::metadata(into.join("sparse")).unwrap().blocks();
            assert!(blocks < 1024, "{options}: {blocks} blocks");
        }
        let mut again = Vec::new();
        reassemble(record.as_slice(), &into, &mut again).unwrap();
        assert!(stream == again, "{options}");
    }
    let script = "import sys,tarfile,io\n\
        for f in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):\n\
        \x20t=tarfile.open(sys.argv[1]+str(f),'w',format=f)\n\
        \x20i=tarfile.TarInfo('d/'+'p'*150); i.size=3; i.uid=3000000000; i.mtime=12; t.addfile(i,io.BytesIO(b'abc'))\n\
        \x20i=tarfile.TarInfo('h'); i.type=tarfile.LNKTYPE; i.linkname='d/'+'p'*150; t.addfile(i)\n\
        \x20t.close()\n";
    let prefix = scratch.0.join("python");
    assert!(Command::new("python3").args(["-c", script]).arg(&prefix).status().unwrap().success());
    for format in [1, 2] {
        let into = scratch.dir(&format!("python-{format}-into"));
        let stream = fs::read(format!("{}{format}", prefix.display())).unwrap();
        unpack(stream.as_slice(), &into, Limits::default()).unwrap();
        let stat = fs::metadata(into.join("h")).unwrap();
        assert_eq!((stat.uid(), stat.mtime(), stat.nlink(), stat.len()), (3_000_000_000, 12, 2, 3));
    }
}

#[test]
fn other_readers_read_what_is_packed() {
    let scratch = Scratch::new("readers");
    let (first, second) = (scratch.dir("first"), scratch.dir("second"));
    let mut entries = sample();
    entries.retain(|(entry, _)| !entry.path.starts_with(b"etc") && !entry.path.starts_with(b"var"));
    unpack(archive(&entries).as_slice(), &first, Limits::default()).unwrap();
    let name = scratch.0.join("packed.tar");
    pack(&first, fs::File::create(&name).unwrap()).unwrap();
    let output = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-C"])
        .arg(&second)
        .arg("-xpf")
        .arg(&name)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(describe(&first), describe(&second));
}

#[test]
fn putting_follows_links_inside_the_root_only() {
    let scratch = Scratch::new("put");
    let root = scratch.dir("root");
    fs::create_dir_all(root.join("data/real")).unwrap();
    symlink("/data/real", root.join("inside")).unwrap();
    symlink("../../../../../..", root.join("up")).unwrap();
    symlink(&scratch.0, root.join("outside")).unwrap();
    let opened = fs::File::open(&root).unwrap();
    let opened = std::os::fd::AsFd::as_fd(&opened);
    let entries = archive(&[file("/f", "1"), file("sub/.wh.g", "2")]);
    put(opened, b"/inside", entries.as_slice(), Put::default()).unwrap();
    assert_eq!(fs::read(root.join("data/real/f")).unwrap(), b"1");
    assert_eq!(fs::read(root.join("data/real/sub/.wh.g")).unwrap(), b"2");
    put(opened, b"/up", entries.as_slice(), Put { owner: Some((7, 8)), ..Put::default() }).unwrap();
    let stat = fs::metadata(root.join("f")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (7, 8));
    assert!(put(opened, b"/outside", entries.as_slice(), Put::default()).is_err());
    let through = archive(&[file("outside/f", "3")]);
    assert!(put(opened, b"/", through.as_slice(), Put::default()).is_err());
    assert!(!scratch.0.join("f").exists());
    let strict = Put { no_overwrite_dir_non_dir: true, ..Put::default() };
    let onto_dir = archive(&[file("data", "4")]);
    let failure = put(opened, b"/", onto_dir.as_slice(), strict).unwrap_err().to_string();
    assert!(failure.ends_with("cannot overwrite directory with non-directory"), "{failure}");
    let onto_file = archive(&[bare("f/", Kind::Directory, 0o755)]);
    let failure = put(opened, b"/", onto_file.as_slice(), strict).unwrap_err().to_string();
    assert!(failure.ends_with("cannot overwrite non-directory with directory"), "{failure}");
}

#[test]
fn a_live_tree_may_shrink_and_has_no_entry_for_its_root() {
    let scratch = Scratch::new("shrink");
    fs::write(scratch.0.join("file"), vec![b'x'; 300_000]).unwrap();
    let (root, truncated) = (fs::File::open(&scratch.0).unwrap(), scratch.0.join("file"));
    /// Cuts the file once its header has passed.
    struct Cutting<'a>(Vec<u8>, &'a Path);
    impl io::Write for Cutting<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            fs::File::options().write(true).open(self.1)?.set_len(0)?;
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writer = Writer::new(Cutting(Vec::new(), &truncated));
    pack_tree(std::os::fd::AsFd::as_fd(&root), b".", Trees::Bare, &mut writer).unwrap();
    let bytes = writer.finish().unwrap().0.0;
    let mut reader = super::tar::Reader::new(bytes.as_slice(), Limits::default());
    let entry = reader.next_entry().unwrap().unwrap();
    assert_eq!((entry.path.as_slice(), entry.size), (b"file".as_slice(), 300_000));
    assert!(reader.next_entry().unwrap().is_none());
}
