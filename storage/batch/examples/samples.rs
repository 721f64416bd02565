//! Writes a batch in each codec into a folder, for Kafka's own classes to read:
//! `cargo run -p flowstone-batch --example samples -- DIR`, then `tests/golden/Golden.java read`.
#![allow(clippy::disallowed_methods)] // Writes files; the crate itself must not.

use std::path::PathBuf;

use bytes::Bytes;
use flowstone_batch::{Codec, Compression, Rules, TimestampType, check};
use flowstone_types::Timestamp;

fn main() {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("a folder to write to"));
    let lz4 = Bytes::from_static(include_bytes!("../tests/golden/lz4.bin"));
    for codec in Codec::ALL {
        for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
            let compression = Compression::Fixed { codec, level: None };
            let rules = Rules { compression, timestamp_type, ..Rules::default() };
            let checked = check(lz4.clone(), &rules, Timestamp(3000)).expect("a golden batch");
            let name = format!("{}-{timestamp_type:?}.bin", codec.name());
            std::fs::write(folder.join(name), checked.bytes).expect("a folder to write to");
        }
    }
}
