//! What must not be in the source: line by line.

use super::{assert_no, files};

/// Lines of all files for which `bad` holds, as `path:line: code`.
fn lines(bad: impl Fn(&super::File, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files() {
        for (number, line) in file.code() {
            if bad(&file, line) {
                found.push(format!("{}:{number}: {}", file.path.display(), line.trim()));
            }
        }
    }
    found
}

/// Whether `word` stands in `line` as a word of its own, outside string literals.
fn has_word(line: &str, word: &str) -> bool {
    let outside: String = line.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    outside.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|part| part == word)
}

#[test]
fn unsafe_is_only_on_the_floor() {
    let found = lines(|file, line| has_word(line, "unsafe") && !file.module.starts_with("runtime::sys::"));
    assert_no(found, "unsafe outside src/runtime/sys/");
}

#[test]
fn nothing_unfinished_is_left_in() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", ".unwrap()"];
    assert_no(lines(|_, line| words.iter().any(|word| line.contains(word))), "unfinished or debugging code");
    let notes = files().into_iter().flat_map(|file| {
        let mut found = Vec::new();
        for (index, line) in file.text.lines().enumerate() {
            if ["TODO", "FIXME", "XXX", "HACK"].iter().any(|word| has_word(&line.replace('"', ""), word)) {
                found.push(format!("{}:{}: {}", file.path.display(), index + 1, line.trim()));
            }
        }
        found
    });
    assert_no(notes.collect(), "notes to oneself: open an issue instead");
}

#[test]
fn no_module_is_excused_from_a_lint() {
    let excused = lines(|file, line| {
        line.contains("#![allow(")
            && !(line.contains("unsafe_code") && file.module.starts_with("runtime::sys"))
    });
    assert_no(excused, "module-wide allow: use #[expect(…, reason = …)] where it is needed");
    let silent = lines(|_, line| line.contains("allow(dead_code"));
    assert_no(silent, "code nobody calls is removed, not excused");
}

#[test]
fn imports_show_where_things_come_from() {
    let hidden = lines(|_, line| line.contains("use super::*") || line.contains("use crate::*"));
    assert_no(hidden, "glob imports hide direction");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = files().into_iter().filter(|file| file.header().is_empty());
    assert_no(silent.map(|file| file.path.display().to_string()).collect(), "files without a header");
}

#[test]
fn long_files_say_why_they_stay_whole() {
    let long = files()
        .into_iter()
        .filter(|file| file.text.lines().count() > 500 && !file.header().contains("whole"));
    let offenders = long.map(|file| format!("{}: {} lines", file.path.display(), file.text.lines().count()));
    assert_no(
        offenders.collect(),
        "files of more than 500 lines whose header does not say why they stay whole",
    );
}

#[test]
fn words_are_found_outside_strings() {
    assert!(has_word("unsafe { x }", "unsafe"));
    assert!(!has_word(r#"let a = "unsafe";"#, "unsafe") && !has_word("unsafe_code", "unsafe"));
}
