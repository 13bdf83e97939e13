//! The documents beside the code keep their habits.

use std::fs;

use super::assert_no;
use crate::support::{Cmd, binary, source};

fn read(name: &str) -> String {
    fs::read_to_string(source().join(name)).unwrap_or_else(|cause| panic!("reading {name}: {cause}"))
}

#[test]
fn the_changelog_keeps_its_headings() {
    let text = read("CHANGELOG.md");
    let known = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    let mut offenders = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            if !known.contains(&heading) {
                offenders.push(line.to_owned());
            }
        } else if let Some(heading) = line.strip_prefix("## ") {
            // [Unreleased] or [1.2.3] - 2026-01-31
            let released = heading.split_once("] - ").is_some_and(|(_, date)| date.len() == 10);
            if heading != "[Unreleased]" && !(heading.starts_with('[') && released) {
                offenders.push(line.to_owned());
            }
        }
    }
    assert_no(offenders, "headings that Keep a Changelog does not know");
    assert!(text.contains("## [Unreleased]"), "there is always a place for the next change");
}

#[test]
fn the_version_is_written_once() {
    let cargo = read("Cargo.toml");
    let version =
        cargo.lines().find_map(|line| line.strip_prefix("version = ")).expect("a version").trim_matches('"');
    Cmd::new(binary()).arg("--version").ok().stdout_has(version);
}

#[test]
fn architecture_stays_short() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(
        lines <= 250,
        "ARCHITECTURE.md has {lines} lines; what does not fit belongs into a file's header"
    );
}

#[test]
fn links_between_documents_resolve() {
    let mut offenders = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = read(name);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !source().join(file).exists() {
                offenders.push(format!("{name}: {target}"));
            }
        }
        // `src/…` paths in prose are promises too.
        for path in text.split('`').skip(1).step_by(2).filter(|word| {
            ["src/", "tests/", "scripts/", "bench/", "examples/"].iter().any(|dir| word.starts_with(dir))
        }) {
            if !path.contains(['*', '<', '{', ' ', '…']) && !source().join(path).exists() {
                offenders.push(format!("{name}: `{path}`"));
            }
        }
    }
    assert_no(offenders, "documents that point at files which are not there");
}

#[test]
fn scripts_say_what_they_do_and_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut offenders = Vec::new();
    for dir in ["scripts", "bench", "examples"] {
        for entry in fs::read_dir(source().join(dir)).into_iter().flatten().flatten() {
            if entry.path().extension().is_none_or(|extension| extension != "sh") {
                continue;
            }
            let text = fs::read_to_string(entry.path()).expect("a script is text");
            let mode = entry.metadata().expect("a file of the source").permissions().mode();
            if mode & 0o111 == 0
                || !text.starts_with("#!/bin/")
                || !text.lines().nth(1).is_some_and(|l| l.starts_with("# "))
            {
                offenders.push(entry.path().display().to_string());
            }
        }
    }
    assert_no(offenders, "scripts that are not executable or do not begin with what they do");
}
