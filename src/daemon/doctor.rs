//! `dewar doctor`: what this host has for containers, without a daemon: on a broken host there is none.
//!
//! In: the configuration the daemon would have. Out: a table, or JSON, of findings; each that is no good says what
//! it costs and how to get it. The exit code is 1 when something is missing without which no container runs.
//!
//! The probing is the runtime's (`runtime::host`); the same findings are the warnings in `info`.

use std::fmt::Write as _;

use serde::Serialize;

use super::config::Config;
use super::error::{Error, Result};
use crate::runtime::host::{self, Check, Verdict};

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// The findings.
#[derive(Debug, Serialize)]
struct Report {
    /// Nothing is missing without which no container runs.
    usable: bool,
    checks: Vec<Check>,
}

/// Looks, and gives what is to be printed and whether the host is usable. Must be called by the only thread of a
/// process; leaves nothing on the host.
///
/// # Errors
/// System, when the findings have no place in JSON.
pub fn run(config: &Config, format: Format) -> Result<(String, bool)> {
    let mut checks = host::thorough(&config.data_root);
    checks.extend(host::criu(config.criu.as_deref()));
    let usable = checks.iter().all(|check| check.status != Verdict::Missing);
    let report = Report { usable, checks };
    let text = match format {
        Format::Text => text(&report),
        Format::Json => {
            serde_json::to_string_pretty(&report)
                .map_err(|cause| Error::system("print the findings", cause))?
                + "\n"
        }
    };
    Ok((text, usable))
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut area = "";
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in &report.checks {
        if check.area != area {
            let gap = if area.is_empty() { "" } else { "\n" };
            area = check.area;
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "{gap}{area}");
        }
        let mark = match check.status {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Missing => "MISSING",
        };
        let _ = writeln!(text, "  {mark:7}  {:width$}  {}", check.name, check.found);
        if check.status != Verdict::Ok {
            let _ = writeln!(text, "{:11}{:width$}  costs: {}", "", "", check.costs);
            let _ = writeln!(text, "{:11}{:width$}  to get it: {}", "", "", check.remedy);
        }
    }
    let count = |verdict| report.checks.iter().filter(|check| check.status == verdict).count();
    let (missing, warnings) = (count(Verdict::Missing), count(Verdict::Warning));
    let conclusion = match (missing, warnings) {
        (0, 0) => "Containers can run here.".to_owned(),
        (0, 1) => "Containers can run here; 1 thing does not work.".to_owned(),
        (0, warnings) => format!("Containers can run here; {warnings} things do not work."),
        (1, _) => "Containers cannot run here: 1 thing is missing.".to_owned(),
        (missing, _) => format!("Containers cannot run here: {missing} things are missing."),
    };
    let _ = writeln!(text, "\n{conclusion}");
    text
}

/// What `info` warns of, beside what has words of Docker's: found by looking only.
pub fn warnings() -> Vec<String> {
    host::quick()
        .iter()
        .filter(|check| check.status != Verdict::Ok && check.name != "open files")
        // Docker's clients know these by other words.
        .filter(|check| {
            check.area != "cgroups" || matches!(check.name.as_str(), "mounts" | "devices" | "freezer")
        })
        .map(|check| format!("WARNING: {} ({}): {}", check.name, check.found, check.costs))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_what_it_costs() {
        let good = Check::ok("kernel", "version", "6.1");
        let poor = Check::ok("kernel", "swap", "not there").but(Verdict::Warning, "x", "y");
        let bad = Check::ok("rights", "user", "1000").but(Verdict::Missing, "all", "be root");
        let report = |checks: &[&Check]| Report {
            usable: true,
            checks: checks.iter().map(|&check| check.clone()).collect(),
        };
        let told = text(&report(&[&good, &poor, &bad]));
        assert!(
            told.starts_with("kernel\n  ok       version  6.1\n  warning  swap     not there\n"),
            "{told}"
        );
        assert!(told.contains("costs: x\n") && told.contains("to get it: be root\n"), "{told}");
        assert!(told.ends_with("\nContainers cannot run here: 1 thing is missing.\n"), "{told}");
        assert!(text(&report(&[&good])).ends_with("\nContainers can run here.\n"));
        let json = serde_json::to_value(report(&[&good, &bad])).unwrap();
        assert_eq!(json["checks"][1]["status"], "missing");
        assert!(json["checks"][0].get("costs").is_none());
    }
}
