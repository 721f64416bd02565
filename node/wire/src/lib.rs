//! Frames, the API table and error codes: the only crate that names kafka-protocol.
