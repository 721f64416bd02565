//! Randomness for ids: the kernel's, read as a file, so that no crate is needed for 16 bytes.

use std::fs::File;
use std::io::{self, Read};

use flowstone_types::Uuid;

/// A fresh id, as Kafka makes them.
pub fn uuid() -> io::Result<Uuid> {
    let mut source = File::open("/dev/urandom")?;
    loop {
        let mut bytes = [0; 16];
        source.read_exact(&mut bytes)?;
        if let Some(id) = Uuid::from_random(bytes) {
            return Ok(id);
        }
    }
}
