//! The scenarios themselves: one file for each kind of fault.

pub mod answers;
pub mod bad_disk;
pub mod batches;
pub mod breadth;
mod chart;
pub mod clock;
pub mod damage;
pub mod frames;
pub mod kill;
mod known;
pub mod limits;
pub mod many;
pub mod power;
pub mod soak;
pub mod space;
pub mod swapped;
pub mod vanish;
pub mod weaker;
