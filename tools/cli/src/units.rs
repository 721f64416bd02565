//! Numbers with units on the command line: `1MiB`, `30s`, `200MB`.

use std::time::Duration;

/// Bytes: a number, or one with kB, MB, GB (1,000s) or KiB, MiB, GiB (1,024s).
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let each: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err("expected bytes, such as 16384, 16KiB or 1MB".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "expected a number of bytes".to_owned())?;
    let bytes = number * each as f64;
    if (0.0..=i64::MAX as f64).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err("too many bytes".to_owned())
    }
}

/// A time span: a number with ms, s, m, h or d; seconds without.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time span, such as 500ms, 30s or 5m".to_owned();
    let (number, unit) = split(text);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..end].trim(), text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(bytes("16384"), Ok(16384));
        assert_eq!(bytes("16KiB"), Ok(16384));
        assert_eq!(bytes("1.5 MB"), Ok(1_500_000));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "x", "1 parsec", "-1s", "-1"] {
            assert!(bytes(bad).is_err() && duration(bad).is_err(), "{bad}");
        }
    }
}
