//! Record batch v2: its format, validation, compression and builders.
