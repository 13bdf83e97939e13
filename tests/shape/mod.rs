//! Rules about the source that the compiler does not hold. Each failure lists every offender.

mod documents;
mod imports;
mod lines;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::source;

/// One file below `src/`, its unit tests cut off.
struct File {
    /// `src/http/route.rs`
    path: PathBuf,
    /// `http::route`; `main` for main.rs.
    module: String,
    /// Everything before `#[cfg(test)]` at the start of a line.
    text: String,
}

impl File {
    /// Lines that are code, with their numbers: comments are cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().filter_map(|(index, line)| {
            let code = match line.trim_start().starts_with("//") {
                true => "",
                // Good enough: a `//` inside a string only hides the rest of its line.
                false => line.split(" // ").next().unwrap_or_default(),
            };
            (!code.trim().is_empty()).then_some((index + 1, code))
        })
    }

    /// The `//!` lines at the top.
    fn header(&self) -> String {
        self.text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
    }
}

fn files() -> Vec<File> {
    let mut found = Vec::new();
    let mut dirs = vec![source().join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the source").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "tests") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(source()).expect("below the source").to_owned();
                if relative.file_stem().is_some_and(|stem| stem == "tests") {
                    continue;
                }
                let text = fs::read_to_string(&path).expect("source is text");
                let ends = ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub mod "].map(|end| text.find(end));
                let end = ends.into_iter().flatten().min().unwrap_or(text.len());
                found.push(File {
                    module: module_of(&relative),
                    path: relative,
                    text: text[..end].to_owned(),
                });
            }
        }
    }
    assert!(found.len() > 10, "the source was not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn module_of(path: &Path) -> String {
    let parts: Vec<_> =
        path.with_extension("").iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("::")
}

#[track_caller]
fn assert_no(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}
