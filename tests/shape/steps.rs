//! ARCHITECTURE.md's table of the daemon's steps against the code: each function is where the table says, and
//! `daemon::run` takes the steps in the table's order.

use super::assert_no;
use crate::support::source;

/// Rows of the table under "From options to the end": step, file, function.
fn rows() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(source().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md exists");
    let section = text.split("## From options to the end").nth(1).expect("the section with the table");
    section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|row| {
            let (step, place) = row.trim_matches('|').split_once('|').expect("a row has two cells");
            let words: Vec<&str> = place.split('`').skip(1).step_by(2).collect();
            let [file, function] = words[..] else { panic!("a row names a file and a function: {row}") };
            (step.trim().to_owned(), file.to_owned(), function.to_owned())
        })
        .collect()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(source().join(file)).unwrap_or_default()
}

#[test]
fn every_step_has_its_function() {
    let rows = rows();
    assert!(rows.len() >= 18, "Docker's start has 18 steps: {rows:?}");
    let is_lost = |file: &str, function: &str| {
        let name = function.rsplit("::").next().expect("split gives one at least");
        let text = read(file);
        !text.contains(&format!("fn {name}("))
            && !text.contains(&format!("fn {name}<"))
            && !text.contains(&format!("static {name}:"))
    };
    let lost = rows.iter().filter(|(_, file, function)| is_lost(file, function));
    assert_no(
        lost.map(|row| format!("{row:?}")).collect(),
        "steps whose function is not where the table says",
    );
}

#[test]
fn the_steps_are_taken_in_the_tables_order() {
    let text = read("src/main.rs") + &read("src/daemon.rs");
    // What is called by name in `run_daemon` and `run`, between their heads and their ends.
    let body = |name: &str| {
        let start = text.find(&format!("fn {name}(")).expect("the function is there");
        let end = text[start..].find("\n}\n").expect("it ends");
        text[start..start + end].to_owned()
    };
    let calls = body("run_daemon").replace("daemon::run(", "\0") + &body("run");
    let mut last = 0;
    let mut offenders = Vec::new();
    for (step, _, function) in rows() {
        // Steps below these two functions are not called here.
        let Some(at) = calls.find(&format!("{function}(")) else { continue };
        if at < last {
            offenders.push(format!("{step}: {function}"));
        }
        last = at.max(last);
    }
    assert_no(offenders, "steps that come earlier than the table says");
}
