//! Kafka's 128-bit ids and their 22-character text form (base64url, no padding).

use alloc::string::ToString;
use core::fmt;
use core::str::FromStr;

/// A topic id, directory id, cluster id or incarnation id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub u128);

impl Uuid {
    /// "No id" on the wire; also Kafka's `DirectoryId.MIGRATING`.
    pub const ZERO: Self = Self(0);
    /// Topic id of `__cluster_metadata`; as a directory id, Kafka's `UNASSIGNED`.
    pub const METADATA_TOPIC: Self = Self(1);
    /// Ids below this are reserved (KIP-858).
    const RESERVED_BELOW: u128 = 100;

    /// A random id from 16 random bytes, as Kafka makes them: version 4, never reserved, and never
    /// with a text form that starts with `-` (a command line would take it for an option).
    /// `None` where these bytes do not give one: draw again.
    pub fn from_random(bytes: [u8; 16]) -> Option<Self> {
        let mut bytes = bytes;
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let id = Self(u128::from_be_bytes(bytes));
        (id.0 >= Self::RESERVED_BELOW && !id.to_string().starts_with('-')).then_some(id)
    }

    /// The 16 bytes as they stand on the wire.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads the 16 bytes as they stand on the wire.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Whether this is "no id".
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// 16 bytes in base64 without padding.
const TEXT_LEN: usize = 22;

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are 21 digits of 6 bits and a last one of 2, which base64 pads on its right.
        for digit in 0..TEXT_LEN {
            let bits = if digit < TEXT_LEN - 1 { self.0 >> (122 - 6 * digit) } else { self.0 << 4 };
            write!(f, "{}", char::from(ALPHABET[(bits & 63) as usize]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseUuidError;

impl fmt::Display for ParseUuidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not an id: expected 22 characters of base64url, such as MkU3OEVBNTcwNTJENDM2Qg",
        )
    }
}

impl core::error::Error for ParseUuidError {}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let text = text.strip_suffix("==").unwrap_or(text).as_bytes();
        if text.len() != TEXT_LEN {
            return Err(ParseUuidError);
        }
        let mut bits: u128 = 0;
        for (place, byte) in text.iter().enumerate() {
            let digit = ALPHABET.iter().position(|a| a == byte).ok_or(ParseUuidError)? as u128;
            // The last digit carries two bits; the four to its right are padding.
            bits =
                if place < TEXT_LEN - 1 { (bits << 6) | digit } else { (bits << 2) | (digit >> 4) };
        }
        Ok(Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_kafkas() {
        assert_eq!(Uuid::METADATA_TOPIC.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        // org.apache.kafka.common.Uuid.fromString("MkU3OEVBNTcwNTJENDM2Qg") is this ASCII text.
        assert_eq!("MkU3OEVBNTcwNTJENDM2Qg".parse(), Ok(Uuid::from_bytes(*b"2E78EA57052D436B")));
    }

    #[test]
    fn text_form_goes_there_and_back() {
        for bits in [1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            assert_eq!(Uuid(bits).to_string().parse(), Ok(Uuid(bits)));
        }
    }

    #[test]
    fn reserved_and_dashed_ids_are_not_drawn() {
        assert!(Uuid::from_random([0xff; 16]).is_some());
        assert_eq!(Uuid::from_random([0xf8; 16]), None, "0xf8 starts with '-'");
    }
}
