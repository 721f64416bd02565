//! What is wrong with a configuration, and where.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Where a setting comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A line of a file, from 1.
    Line {
        /// The file's name, as it was given.
        file: String,
        /// The line.
        line: usize,
    },
    /// An option on the command line.
    Flag,
    /// Nowhere: it is the lack of something, or follows from several settings.
    Nowhere,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line { file, line } => write!(f, "{file}:{line}: {}", self.text),
            Place::Flag => write!(f, "--set: {}", self.text),
            Place::Nowhere => f.write_str(&self.text),
        }
    }
}

/// All that is wrong with a configuration, so that it is put right in one go. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Problems {}
