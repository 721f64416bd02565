//! What a run tells of itself: lines a person can follow, made only when somebody listens.

use std::fmt;

use crate::plan::Seconds;
use crate::world::Micros;

/// Collects the lines of a run, or nothing.
#[derive(Debug, Default)]
pub struct Story {
    lines: Option<Vec<String>>,
}

impl Story {
    /// Collects nothing: for the many runs in which nothing goes wrong.
    pub const fn silent() -> Self {
        Self { lines: None }
    }

    /// Collects everything.
    pub const fn told() -> Self {
        Self { lines: Some(Vec::new()) }
    }

    /// Whether anybody listens.
    pub const fn listens(&self) -> bool {
        self.lines.is_some()
    }

    /// Notes what happened at `now`. The words are not put together where nobody listens.
    pub fn tell(&mut self, now: Micros, words: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>11}  {words}", Seconds(now).to_string()));
        }
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}

/// Tells something in the story of a run: `tell!(story, now, "{machine} leads")`.
#[macro_export]
macro_rules! tell {
    ($story:expr, $now:expr, $($words:tt)+) => {
        if $story.listens() {
            $story.tell($now, format_args!($($words)+));
        }
    };
}
