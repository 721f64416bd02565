//! Unsigned variable-length integers: seven bits a byte, the lowest first.

use alloc::vec::Vec;

/// Most bytes that a 32-bit value takes.
pub const LEN_MAX: usize = 5;

/// Appends `value`.
pub fn write(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a value; returns it and its length in bytes. `None` where the bytes end too early, or where
/// the value does not fit 32 bits.
pub fn read(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value: u32 = 0;
    for (place, byte) in bytes.iter().take(LEN_MAX).enumerate() {
        let bits = u32::from(byte & 0x7f);
        if place == LEN_MAX - 1 && bits > 0x0f {
            return None; // 4 x 7 bits went before, so that four are left.
        }
        value |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_there_and_back() {
        for (value, len) in [(0, 1), (127, 1), (128, 2), (300, 2), (16_384, 3), (u32::MAX, 5)] {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            assert_eq!(read(&bytes), Some((value, len)));
            assert_eq!(read(&bytes[..len - 1]), None, "cut short");
        }
    }

    #[test]
    fn values_beyond_32_bits_are_refused() {
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(read(&[0x80; 6]), None);
    }
}
