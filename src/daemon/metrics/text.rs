//! Prometheus's text format: families of samples.
//!
//! Source: Prometheus's exposition formats, version 0.0.4.

use std::fmt::Write;

/// What a family's values mean.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The text, as far as it is written.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    /// Of the family under way.
    name: &'static str,
}

// Writing to a string does not fail.
impl Page {
    /// Begins a family; its samples follow. Names are ours and well formed.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.name());
    }

    /// One sample of the family; `suffix` is of a histogram's parts.
    pub(super) fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{name}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        // Rust writes a float without an exponent and as short as it can be read back.
        let _ = writeln!(self.text, "{end} {value}");
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_is_escaped() {
        let mut page = Page::default();
        page.family("a_total", Kind::Counter, "one\\two\nthree");
        page.sample("", &[("x", "a\"b\\c\nd"), ("y", "")], 1.5);
        page.sample("", &[], 12_345_678_901.0);
        assert_eq!(
            page.finish(),
            "# HELP a_total one\\\\two\\nthree\n# TYPE a_total counter\na_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1.5\n\
             a_total 12345678901\n"
        );
    }
}
