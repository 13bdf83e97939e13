//! ARCHITECTURE.md's import table against every `crate::` path in the source.

use super::{assert_no, files};
use crate::support::source;

/// Rows of the table under "Who may import whom": module, and what it may import. The longest module that a file's
/// own begins with decides.
fn table() -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(source().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md exists");
    let section = text.split("## Who may import whom").nth(1).expect("the section with the table");
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let table: Vec<_> = rows
        .filter_map(|row| {
            let mut cells = row.trim_matches('|').split('|');
            let module = words(cells.next()?).first()?.clone();
            Some((module, words(cells.next()?)))
        })
        .collect();
    assert!(table.len() >= 6, "the table has a row per top-level module: {table:?}");
    table
}

/// `a` itself or something below it.
fn within(path: &str, module: &str) -> bool {
    path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"))
}

/// Every `crate::…` path of a text, braces expanded one level.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let stem = rest[..end].trim_end_matches(':');
        if rest[end..].starts_with('!') {
            // A macro: its home is a module, but its name is the crate's.
            continue;
        }
        if rest[end..].starts_with('{') {
            let inside = rest[end + 1..].split(['}', '{']).next().unwrap_or_default();
            for item in inside.split(',').map(str::trim).filter(|item| !item.is_empty()) {
                let item = item.split_whitespace().next().unwrap_or_default().trim_end_matches("::");
                found.push(if stem.is_empty() { item.to_owned() } else { format!("{stem}::{item}") });
            }
        } else {
            found.push(stem.to_owned());
        }
    }
    found
}

#[test]
fn imports_point_down_the_picture() {
    let table = table();
    let files = files();
    // An exported macro is named by the crate, wherever it is defined; its module is what counts.
    let mut macros = Vec::new();
    for file in &files {
        let names = file.code().filter_map(|(_, line)| line.trim().strip_prefix("macro_rules! "));
        macros.extend(names.map(|rest| (rest.trim_end_matches(" {").to_owned(), file.module.clone())));
    }
    let mut offenders = Vec::new();
    for file in &files {
        let row = table
            .iter()
            .filter(|(module, _)| within(&file.module, module))
            .max_by_key(|(module, _)| module.len());
        let Some((module, allowed)) = row else {
            offenders.push(format!("{}: no row for module \"{}\"", file.path.display(), file.module));
            continue;
        };
        let code: Vec<_> = file.code().map(|(_, line)| line).collect();
        for path in paths(&code.join("\n")) {
            let path =
                macros.iter().find(|(name, _)| *name == path).map_or(path, |(_, module)| module.clone());
            let fine = within(&path, module) || allowed.iter().any(|allowed| within(&path, allowed));
            if !fine {
                offenders.push(format!("{}: imports crate::{path}", file.path.display()));
            }
        }
    }
    assert_no(offenders, "imports that ARCHITECTURE.md does not allow");
}

#[test]
fn every_row_names_a_module_that_exists() {
    let modules: Vec<_> = files().into_iter().map(|file| file.module).collect();
    let missing = table()
        .into_iter()
        .flat_map(|(module, allowed)| allowed.into_iter().chain([module]))
        .filter(|name| !modules.iter().any(|module| within(module, name)))
        .collect();
    assert_no(missing, "ARCHITECTURE.md's import table names modules that are not there");
}

#[test]
fn braces_and_paths_are_understood() {
    assert_eq!(
        paths("use crate::http::api::{Class, query::Query};"),
        ["http::api::Class", "http::api::query::Query"]
    );
    assert_eq!(paths("pub(in crate::daemon) fn x(y: crate::runtime::Error)"), ["daemon", "runtime::Error"]);
    assert_eq!(paths("use crate::{cli, http};"), ["cli", "http"]);
    assert!(paths("crate::query! { x }").is_empty());
    assert!(within("runtime::sys::fd", "runtime") && !within("runtime_else", "runtime"));
}
