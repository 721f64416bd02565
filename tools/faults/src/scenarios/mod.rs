//! The scenarios themselves: one file for each kind of fault.

pub mod answers;
pub mod kill;
pub mod power;
pub mod space;
pub mod swapped;
pub mod weaker;
