//! The scenarios themselves: one file for each kind of fault.

pub mod answers;
pub mod power;
pub mod swapped;
