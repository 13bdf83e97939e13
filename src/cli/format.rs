//! What the client prints: tables, sizes, durations, and `--format`.
//!
//! A listing is a list of [`Row`]s: JSON objects with the field names Docker's templates use. One [`Format`]
//! prints them as a table, through a template, or as JSON lines, so every listing understands `--format`
//! alike.
//!
//! Compat: column titles, the three blanks between columns and the units are Docker's, because scripts cut
//! them up.

pub mod serialize;
pub mod template;
pub mod value;

use std::io::Write;

use serde_json::Map;

use super::error::Error;
use template::Template;
use value::Value;

/// One line of a listing: field name to value.
///
/// A name that starts with a blank is for templates only: ` Label` is the method `.Label "key"`, ` type` what
/// Go calls the row in its complaints.
pub type Row = Map<String, serde_json::Value>;

/// A column of a table: the title, and the field it shows.
pub type Column = (&'static str, &'static str);

/// How a listing is printed.
#[derive(Debug)]
pub enum Format {
    /// The columns given, or those the caller has by default.
    Table(Option<Template>),
    /// One JSON object per line.
    Json,
    Template(Template),
}

impl Format {
    /// Reads `--format`: nothing, `table`, `json`, `table TEMPLATE` or `TEMPLATE`.
    pub fn parse(text: &str) -> Result<Format, Error> {
        // The shell leaves \t and \n as they are typed; Docker's client expands them in listings.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let read = |text: &str| {
            Template::parse(text).map_err(|cause| Error::local("failed to parse template", cause))
        };
        match text.trim_matches(' ') {
            "" | "table" => Ok(Format::Table(None)),
            "json" => Ok(Format::Json),
            other => match other.strip_prefix("table ") {
                Some(columns) => Ok(Format::Table(Some(read(columns.trim())?))),
                None => Ok(Format::Template(read(other)?)),
            },
        }
    }

    /// Reads `--format` if it is given.
    pub fn given(text: Option<&str>) -> Result<Option<Format>, Error> {
        text.filter(|text| !text.is_empty()).map(Format::parse).transpose()
    }

    /// What was given, else what the settings say, else a table.
    pub fn choose(given: Option<Format>, setting: Option<&str>) -> Result<Format, Error> {
        given.map_or_else(|| Format::parse(setting.unwrap_or_default()), Ok)
    }

    /// Whether a template asks for the field `name`.
    pub fn mentions(&self, name: &str) -> bool {
        match self {
            Format::Table(Some(template)) | Format::Template(template) => template.mentions(name),
            Format::Table(None) | Format::Json => false,
        }
    }

    /// Prints `rows`. `columns` are the default table; `titles` are known for `table TEMPLATE`.
    pub fn print(&self, rows: &[Row], columns: &[Column], titles: &[Column]) -> Result<String, Error> {
        let failed = |cause: String| Error::local("failed to execute template", cause);
        match self {
            Format::Json => Ok(rows.iter().map(|row| Value::row(row).json(true) + "\n").collect()),
            Format::Template(template) => {
                let mut out = String::new();
                for row in rows {
                    out += &template.render(&Value::row(row)).map_err(failed)?;
                    out.push('\n');
                }
                Ok(out)
            }
            Format::Table(None) => {
                let lines = rows.iter().map(|row| {
                    columns
                        .iter()
                        .map(|(_, field)| {
                            row.get(*field).map(|value| Value::from_json(value).show()).unwrap_or_default()
                        })
                        .collect()
                });
                Ok(table(&columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>(), lines))
            }
            Format::Table(Some(template)) => {
                let mut lines = vec![titles_of(template, columns, titles)];
                for row in rows {
                    lines.push(template.render(&Value::row(row)).map_err(failed)?);
                }
                Ok(align(&lines))
            }
        }
    }
}

/// The head of `table TEMPLATE`: the template over the titles.
fn titles_of(template: &Template, columns: &[Column], titles: &[Column]) -> String {
    let row: Row =
        columns.iter().chain(titles).map(|(title, field)| ((*field).to_owned(), (*title).into())).collect();
    // A template that computes has no title for its column; its text stands in.
    template.render(&Value::row(&row)).unwrap_or_default()
}

/// Lines of cells under a head, columns three blanks apart.
pub fn table(head: &[String], lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut all = vec![head.join("\t")];
    all.extend(lines.map(|cells| cells.join("\t")));
    align(&all)
}

/// [`table`] with columns of at least 20 characters, as `top` has them.
pub fn wide_table(head: &[String], lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut all = vec![head.join("\t")];
    all.extend(lines.map(|cells| cells.join("\t")));
    aligned(&all, 17)
}

/// Tabs to columns. Docker gives every cell at least 10 characters, three blanks of padding among them.
fn align(lines: &[String]) -> String {
    aligned(lines, 7)
}

fn aligned(lines: &[String], width: usize) -> String {
    let mut out = tabwriter::TabWriter::new(Vec::new()).minwidth(width).padding(3);
    for line in lines {
        // A cell's own control characters must not move the cursor of whoever looks.
        let line: String = line.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
        out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).expect("memory does not fail");
    }
    let bytes = out.into_inner().map_err(|_| ()).expect("memory does not fail");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes in decimal units with three significant digits, as image sizes are shown: `7.83MB`.
pub fn size_decimal(bytes: i64) -> String {
    size(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// Bytes in decimal units with four significant digits, as sums are shown: `1.234MB`.
pub fn size_total(bytes: i64) -> String {
    size(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 4)
}

/// Bytes in binary units with four significant digits, as memory is shown: `1.952GiB`.
pub fn size_binary(bytes: i64) -> String {
    size(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn size(bytes: i64, base: f64, units: &[&str], digits: usize) -> String {
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, digits), units[unit])
}

/// Go's `%.{digits}g` for the numbers that occur here.
fn significant(number: f64, digits: usize) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let magnitude = number.abs().log10().floor() as i32 + 1;
    let decimals = usize::try_from(digits as i32 - magnitude).unwrap_or(0);
    let text = format!("{number:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        // Rounding may carry into one more digit (999.9 with 3 digits): Go switches to exponents there.
        false if text.trim_start_matches('-').len() > digits => {
            let exponent = text.len() - 1;
            format!("{}e+{exponent:02}", significant(number / 10f64.powi(exponent as i32), digits))
        }
        false => text,
    }
}

/// A span of time in words: `2 minutes`.
pub fn span(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match seconds {
        i64::MIN..=0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago `unix_secs` was: `2 minutes ago`.
pub fn ago(unix_secs: i64) -> String {
    match unix_secs {
        0 => "N/A".to_owned(),
        _ => format!("{} ago", span(jiff::Timestamp::now().as_second() - unix_secs)),
    }
}

/// A moment as Docker's templates print it: `2026-01-02 15:04:05 +0000 UTC`.
pub fn moment(unix_secs: i64) -> String {
    jiff::Timestamp::from_second(unix_secs)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
        .unwrap_or_default()
}

/// The first `width` characters, the last of them an ellipsis if something is missing.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// An ID as listings show it: no algorithm, twelve digits.
pub fn short_id(id: &str) -> String {
    id.split_once(':').map_or(id, |(_, digits)| digits).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_dockers_digits() {
        let decimal =
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (7_834_000, "7.83MB"), (123_456_789, "123MB")];
        for (bytes, text) in decimal {
            assert_eq!(size_decimal(bytes), text);
        }
        assert_eq!(size_decimal(999_900), "1e+03kB", "Go's %g rounds and switches to exponents");
        assert_eq!(size_binary(2_095_702_016), "1.952GiB");
        assert_eq!(size_binary(64 << 20), "64MiB");
    }

    #[test]
    fn spans_are_spoken() {
        let spans = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (125, "2 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (3 * 86400, "3 days"),
            (21 * 86400, "3 weeks"),
            (90 * 86400, "3 months"),
            (900 * 86400, "2 years"),
        ];
        for (seconds, text) in spans {
            assert_eq!(span(seconds), text, "{seconds}");
        }
        assert_eq!(moment(1_700_000_000), "2023-11-14 22:13:20 +0000 UTC");
    }

    fn rows() -> Vec<Row> {
        let row = |id: &str, name: &str| {
            let mut row = Row::new();
            row.insert("ID".into(), id.into());
            row.insert("Names".into(), name.into());
            row.insert(" secret".into(), "x".into());
            row
        };
        vec![row("0123456789ab", "web"), row("ab", "a\u{1b}[2J")]
    }

    const COLUMNS: &[Column] = &[("CONTAINER ID", "ID"), ("NAMES", "Names")];

    #[test]
    fn a_listing_prints_in_four_ways() {
        let print = |format: &str| Format::parse(format).unwrap().print(&rows(), COLUMNS, &[]).unwrap();
        assert_eq!(print("table"), "CONTAINER ID   NAMES\n0123456789ab   web\nab             a [2J\n");
        assert_eq!(print("table {{.Names}}\t{{.ID}}").lines().next(), Some("NAMES     CONTAINER ID"));
        assert_eq!(print("{{.ID}}").lines().collect::<Vec<_>>(), ["0123456789ab", "ab"]);
        assert_eq!(print("json").lines().next(), Some(r#"{"ID":"0123456789ab","Names":"web"}"#));
    }

    #[test]
    fn ids_and_long_texts_are_cut() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(ellipsis("\"sh -c 'a long command'\"", 20), "\"sh -c 'a long comm…");
        assert_eq!(ellipsis("short", 20), "short");
    }
}
