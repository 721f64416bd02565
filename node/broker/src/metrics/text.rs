//! Prometheus' text format, version 0.0.4.

use super::Metric;
use std::fmt::{Display, Write};

/// Writing into a `String` cannot fail.
const TEXT_GROWS: &str = "a String takes any text";

/// The series of one metric, as they are written. The metric's header comes with the first.
pub struct Series<'a> {
    metric: &'static Metric,
    text: &'a mut String,
    begun: bool,
}

impl<'a> Series<'a> {
    /// No series yet.
    pub fn new(metric: &'static Metric, text: &'a mut String) -> Self {
        Self { metric, text, begun: false }
    }

    /// Writes one series: a value for each label of the metric, empty to leave the label out.
    pub fn put(&mut self, labels: &[&str], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Writes a summary: how many, and the value at each quantile.
    pub fn summary(&mut self, labels: &[&str], count: u64, quantiles: &[(&str, f64)]) {
        for (quantile, value) in quantiles {
            self.line("", labels, Some(quantile), value);
        }
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: &[&str], quantile: Option<&str>, value: impl Display) {
        let metric = self.metric;
        assert_eq!(labels.len(), metric.labels.len(), "labels of {}", metric.name);
        if !std::mem::replace(&mut self.begun, true) {
            let (name, kind) = (metric.name, metric.kind.name());
            writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help)
                .expect(TEXT_GROWS);
        }
        self.text.push_str(metric.name);
        self.text.push_str(suffix);
        let named = metric.labels.iter().copied().zip(labels.iter().copied());
        let all = named.chain(quantile.map(|value| ("quantile", value)));
        let mut separator = '{';
        for (label, value) in all.filter(|(_, value)| !value.is_empty()) {
            self.text.push(separator);
            separator = ',';
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(value, self.text);
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
        writeln!(self.text, " {value}").expect(TEXT_GROWS);
    }
}

/// "label_value can be any sequence of UTF-8 characters, but the backslash, double-quote, and line
/// feed characters have to be escaped."
fn escape(value: &str, text: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Kind;

    static LATENCY: Metric = Metric {
        name: "latency_ms",
        kind: Kind::Summary,
        labels: &["request", "dir"],
        help: "How long.",
        read: |_, _| {},
    };

    #[test]
    fn one_header_then_the_series() {
        let mut text = String::new();
        let mut series = Series::new(&LATENCY, &mut text);
        series.put(&["", ""], 1);
        series.summary(&["Fetch", "a\"b\\c\nd"], 7, &[("0.5", 0.25)]);
        let escaped = r#"dir="a\"b\\c\nd""#;
        let want = format!(
            "# HELP latency_ms How long.\n# TYPE latency_ms summary\nlatency_ms 1\n\
             latency_ms{{request=\"Fetch\",{escaped},quantile=\"0.5\"}} 0.25\n\
             latency_ms_count{{request=\"Fetch\",{escaped}}} 7\n"
        );
        assert_eq!(text, want);
    }
}
