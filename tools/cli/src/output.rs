//! What is printed: tables for people, the same rows as JSON for programs.
//!
//! Separate so that every command that prints a table has `--json`, with the same names.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// Rows under named columns.
pub struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// An empty table; names are as they stand in JSON.
    pub const fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row: a value for each column.
    pub fn push<const N: usize>(&mut self, row: [Value; N]) {
        assert_eq!(N, self.columns.len(), "a value for each column");
        self.rows.push(row.into());
    }

    /// Number of rows.
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows as JSON objects.
    pub fn to_json(&self) -> Value {
        let object = |row: &Vec<Value>| {
            let names = self.columns.iter().map(|name| (*name).to_owned());
            Value::Object(names.zip(row.iter().cloned()).collect::<Map<_, _>>())
        };
        self.rows.iter().map(object).collect()
    }

    /// The rows in columns; numbers stand on the right.
    pub fn to_text(&self) -> String {
        let cells: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(plain).collect()).collect();
        let titles: Vec<String> =
            self.columns.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
        let width = |at: usize| {
            let widths = cells.iter().map(|row| row[at].chars().count());
            widths.chain([titles[at].len()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let right: Vec<bool> = (0..self.columns.len())
            .map(|at| self.rows.iter().any(|row| row[at].is_number()))
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&cells) {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[at] - cell.chars().count());
                let gap = if at == 0 { "" } else { "  " };
                line.push_str(gap);
                line.push_str(&if right[at] { padding + cell } else { cell.clone() + &padding });
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints it in the one form or the other.
    pub fn print(&self, json: bool) -> io::Result<()> {
        if json {
            print_json(&self.to_json())
        } else {
            write!(io::stdout().lock(), "{}", self.to_text())
        }
    }
}

/// Prints a JSON document.
pub fn print_json(value: &Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{value:#}")
}

/// Prints a line.
pub fn say(line: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Prints what was done: a line, or the same as JSON.
pub fn done(json: bool, value: &Value, line: impl std::fmt::Display) -> io::Result<()> {
    if json { print_json(value) } else { say(line) }
}

/// A value without quotes; lists with commas, nothing as `-`.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// Bytes in words: three digits and a unit of 1,000s, as disks and networks are sold.
pub fn bytes_text(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Milliseconds since 1970 as ISO 8601 in UTC, such as `2026-03-01T12:00:00.250Z`; `None` for "no
/// timestamp".
pub fn time_text(ms: i64) -> Option<String> {
    if ms < 0 {
        return None;
    }
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date_of(days);
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"))
}

/// Year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`: years begin in
/// March, so that the leap day is the last one).
fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // Days from 0000-03-01 to 1970-01-01.
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Milliseconds since 1970 of `2026-03-01`, `2026-03-01T12:00`, `2026-03-01T12:00:00[.250][Z]`
/// (UTC), or of a plain number of milliseconds.
pub fn parse_time(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut numbers = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let mut parts = time.trim_end_matches('Z').split(':');
    let (hour, minute) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let seconds = parts.next().map_or(Some(0.0), |part| part.parse::<f64>().ok())?;
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..60.0).contains(&seconds)
        && (1970..10_000).contains(&year);
    if !in_range || numbers.next().is_some() || parts.next().is_some() {
        return None;
    }
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    if date_of(days) != (year, month, day) {
        return None; // The 30th of February.
    }
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + (seconds * 1000.0).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_have_two_forms() {
        let mut table = Table::new(&["topic", "log_end", "replicas"]);
        table.push([json!("a"), json!(7), json!([1, 2])]);
        table.push([json!("long"), json!(null), json!([])]);
        assert_eq!(
            table.to_text(),
            "TOPIC  LOG END  REPLICAS\na            7  1,2\nlong         -  -\n"
        );
        assert_eq!(
            table.to_json(),
            json!([{"topic": "a", "log_end": 7, "replicas": [1, 2]}, {"topic": "long", "log_end": null, "replicas": []}])
        );
    }

    #[test]
    fn bytes_have_three_digits() {
        for (bytes, want) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1500.0, "1.5 kB"),
            (123_456_789.0, "123 MB"),
            (2e15, "2000 TB"),
        ] {
            assert_eq!(bytes_text(bytes), want);
        }
    }

    #[test]
    fn times_go_there_and_back() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_772_366_400_250, "2026-03-01T12:00:00.250Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(time_text(ms).as_deref(), Some(text));
            assert_eq!(parse_time(text), Some(ms));
        }
        assert_eq!(time_text(-1), None);
        assert_eq!(parse_time("2026-03-01"), Some(1_772_323_200_000));
        assert_eq!(parse_time("2026-03-01 12:00"), Some(1_772_366_400_000));
        assert_eq!(parse_time("1772366400250"), Some(1_772_366_400_250));
        for bad in ["", "yesterday", "2026-13-01", "2026-02-30", "2026-03-01T25:00", "2026-03"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
