//! Hostile archives by the thousand: those of `tests/hostile/corpus`, changed at random, are unpacked in every way
//! there is. Nothing may panic, and nothing beside the directory unpacked into may change.
//!
//! `DEWAR_FUZZ_ROUNDS=n` runs longer, `DEWAR_SEED=n` begins (or replays) elsewhere; a failure names its seed. Needs
//! root, as unpacking does.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::runtime::Cause;
use crate::runtime::layer::{Limits, Put, pack, put, reassemble, unpack, unpack_plain, unpack_recording};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/corpus");
const LIMITS: Limits = Limits { entries: 200, bytes: 4 << 20, name: 1024 };

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.roll() >> 16) as usize % bound.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// A directory with what must not change, and in it the one that is unpacked into.
struct Arena {
    root: PathBuf,
}

impl Arena {
    fn new(name: &str) -> Arena {
        let root = std::env::temp_dir().join(format!("dewar-fuzz-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("in/beside")).unwrap();
        for file in ["outside", "in/outside", "in/beside/outside"] {
            fs::write(root.join(file), "untouched").unwrap();
        }
        symlink("outside", root.join("in/link")).unwrap();
        Arena { root }
    }

    fn target(&self) -> PathBuf {
        self.root.join("in/target")
    }

    /// Everything about everything but the target. The change time tells of each write, link and attribute.
    fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut pending = vec![self.root.clone()];
        while let Some(path) = pending.pop() {
            let stat = fs::symlink_metadata(&path).unwrap();
            // The directory the target is in changes with it; its list of names tells the rest.
            let time = if path == self.root.join("in") { 0 } else { stat.ctime_nsec() };
            let nlink = if stat.is_dir() { 0 } else { stat.nlink() };
            lines.push(format!("{} {:o} {} {nlink} {time}", path.display(), stat.mode(), stat.ino()));
            if stat.is_dir() {
                let inside = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
                pending.extend(inside.filter(|path| *path != self.target()));
            }
        }
        lines.sort();
        lines
    }

    /// Unpacks `archive` in the way `how` and looks at the harm. Whether it was taken whole.
    fn try_one(&self, archive: &[u8], how: usize, before: &[String]) -> bool {
        let target = self.target();
        fs::create_dir(&target).unwrap();
        let mut record = Vec::new();
        let outcome = match how {
            0 => unpack(archive, &target, LIMITS),
            1 => unpack_plain(archive, &target, LIMITS),
            2 => {
                // What a container may have put in the way.
                symlink("../../outside", target.join("l")).unwrap();
                symlink("/", target.join("d")).unwrap();
                symlink(self.root.join("in"), target.join("etc")).unwrap();
                let opened = fs::File::open(&target).unwrap();
                put(opened.as_fd(), b"/", archive, Put { limits: LIMITS, ..Put::default() })
            }
            _ => unpack_recording(archive, &target, LIMITS, &mut record),
        };
        let is_whole = outcome.is_ok();
        match outcome {
            Ok(unpacked) => {
                assert!(unpacked.entries <= LIMITS.entries && unpacked.bytes <= LIMITS.bytes);
                if how == 3 {
                    // A later entry may have replaced a file; then it fails, or differs, but only so.
                    let mut again = Vec::new();
                    if reassemble(record.as_slice(), &target, &mut again).is_ok() {
                        assert_eq!(again.len(), archive.len());
                    }
                }
                if how == 0 {
                    let mut packed = Vec::new();
                    pack(&target, &mut packed).unwrap();
                }
            }
            Err(failure) => {
                let text = failure.to_string();
                assert!(!text.is_empty() && text.len() < 16 << 10, "{text}");
                // The system's failures are few: what an archive asks for must not look like one.
                if let Cause::Io(cause) = &failure.cause {
                    let known =
                        [rustix::io::Errno::NAMETOOLONG, rustix::io::Errno::INVAL, rustix::io::Errno::LOOP];
                    let errno = cause.raw_os_error();
                    assert!(known.iter().any(|known| Some(known.raw_os_error()) == errno), "{text}");
                }
            }
        }
        fs::remove_dir_all(&target).unwrap();
        assert_eq!(self.describe(), before, "something outside has changed");
        is_whole
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut archives: Vec<_> = fs::read_dir(CORPUS)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    archives.sort();
    assert!(archives.len() > 20, "the corpus is gone");
    archives
}

/// Headers, by where they begin: blocks with the right sum.
fn headers(archive: &[u8]) -> Vec<usize> {
    let starts = (0..archive.len() / 512).map(|block| block * 512);
    starts
        .filter(|start| archive[start + 156] != 0 && sum(&archive[*start..]) == said(&archive[*start..]))
        .collect()
}

fn sum(header: &[u8]) -> u64 {
    let byte = |at: usize| u64::from(if (148..156).contains(&at) { b' ' } else { header[at] });
    (0..512).map(byte).sum()
}

fn said(header: &[u8]) -> u64 {
    let digits: String =
        header[148..156].iter().map(|byte| char::from(*byte)).filter(char::is_ascii_digit).collect();
    u64::from_str_radix(&digits, 8).unwrap_or(0)
}

fn mend(header: &mut [u8]) {
    let text = format!("{:06o}\0 ", sum(header));
    header[148..156].copy_from_slice(text.as_bytes());
}

/// One change, most of them such that the archive is still read to its end.
fn change(archive: &mut Vec<u8>, others: &[(String, Vec<u8>)], outside: &str, dice: &mut Dice) {
    let all = headers(archive);
    let header = (!all.is_empty()).then(|| all[dice.below(all.len())]);
    let names = [
        "..",
        "../outside",
        "a/../../outside",
        "/",
        "/etc/passwd",
        ".",
        "",
        "./",
        "bin",
        "bin/tool",
        "l",
        "l/outside",
        "d",
        "d/l/x",
        "etc/link/x",
        "etc/absolute/x",
        ".wh..",
        ".wh.",
        ".wh...",
        ".wh.bin",
        ".wh..wh..opq",
        "etc/.wh.link",
        "dir/.wh..wh..opq",
        "a/b/c/d/e/f/g",
        "x\0y",
        outside,
    ];
    match (dice.below(10), header) {
        (0, Some(at)) => {
            let name = dice.pick(&names).as_bytes();
            let field = &mut archive[at..at + 100];
            field.fill(0);
            field[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
            mend(&mut archive[at..at + 512]);
        }
        (1, Some(at)) => {
            let name = dice.pick(&names).as_bytes();
            let field = &mut archive[at + 157..at + 257];
            field.fill(0);
            field[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
            mend(&mut archive[at..at + 512]);
        }
        (2, Some(at)) => {
            archive[at + 156] = *b"01234567LKxgSDV\0".get(dice.below(16)).unwrap();
            mend(&mut archive[at..at + 512]);
        }
        (3, Some(at)) => {
            // Mode, owners, size, time, device numbers: a large number, a negative one, or none.
            let (from, length) =
                [(100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (337, 8)][dice.below(7)];
            let field = &mut archive[at + from..at + from + length];
            match dice.below(4) {
                0 => field.fill(b'7'),
                1 => field.fill(0xff),
                2 => field.fill(0),
                _ => field[dice.below(length)] = dice.roll() as u8,
            }
            mend(&mut archive[at..at + 512]);
        }
        (4, Some(at)) => {
            archive[at + dice.below(512)] ^= 1 << dice.below(8);
            mend(&mut archive[at..at + 512]);
        }
        (5, Some(at)) => {
            // An extended header's text: digits, lengths and keys.
            let end = archive.len().min(at + 2048);
            let place = at + dice.below(end - at);
            archive[place] = *b"0123456789 =\n\0/.-".get(dice.below(17)).unwrap();
        }
        (6, Some(at)) => {
            let length = (1 + dice.below(3)) * 512;
            let piece = archive[at..archive.len().min(at + length)].to_vec();
            let to = all[dice.below(all.len())];
            archive.splice(to..to, piece);
        }
        (7, Some(at)) => drop(archive.drain(at..archive.len().min(at + 512 * (1 + dice.below(3))))),
        (8, _) => {
            let (_, other) = &others[dice.below(others.len())];
            let end = header.unwrap_or(archive.len());
            archive.truncate(end);
            archive.extend_from_slice(other);
        }
        _ if dice.below(4) == 0 => archive.truncate(dice.below(archive.len() + 1)),
        _ if !archive.is_empty() => {
            let place = dice.below(archive.len());
            archive[place] = dice.roll() as u8;
        }
        _ => {}
    }
}

#[test]
fn the_corpus_is_taken_or_refused() {
    let arena = Arena::new("corpus");
    let before = arena.describe();
    for (name, archive) in corpus() {
        for how in [0, 3] {
            assert_eq!(arena.try_one(&archive, how, &before), !name.starts_with("refused-"), "{name}");
        }
        for how in [1, 2] {
            arena.try_one(&archive, how, &before);
        }
    }
}

#[test]
fn nothing_outside_changes_whatever_an_archive_says() {
    /// Says how to see a failure again.
    struct Tell(u64);
    impl Drop for Tell {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("fuzz: failed with DEWAR_SEED={} DEWAR_FUZZ_ROUNDS=1", self.0);
            }
        }
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, rounds) = (number("DEWAR_SEED").unwrap_or(1), number("DEWAR_FUZZ_ROUNDS").unwrap_or(500));
    let arena = Arena::new("rounds");
    let outside = arena.root.join("outside").display().to_string();
    let (before, corpus) = (arena.describe(), corpus());
    let mut taken = 0;
    for seed in first..first + rounds {
        let _tell = Tell(seed);
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut archive = corpus[dice.below(corpus.len())].1.clone();
        for _ in 0..1 + dice.below(6) {
            change(&mut archive, &corpus, &outside, &mut dice);
        }
        taken += u64::from(arena.try_one(&archive, dice.below(4), &before));
    }
    // Archives that are all refused at their first block would prove nothing.
    assert!(rounds < 100 || taken > rounds / 50, "{taken} of {rounds} archives were taken");
    assert!(Path::new(&outside).exists());
}
