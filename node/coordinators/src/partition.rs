//! Which partition of an internal topic a group (or transactional id) belongs to.

/// Partition of `__consumer_offsets` whose leader coordinates `id`: Java's `String.hashCode` (over
/// UTF-16 units), its absolute value with 0 for the one that has none, modulo `partition_count`.
pub fn partition_for(id: &str, partition_count: u32) -> u32 {
    assert!(partition_count > 0, "an internal topic has partitions");
    let hash =
        id.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    let absolute = if hash == i32::MIN { 0 } else { hash.unsigned_abs() };
    absolute % partition_count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Utils.abs(id.hashCode()) % 50` as Java 17 computes it.
    #[test]
    fn the_hash_is_javas() {
        for (id, want) in [
            ("", 0),
            ("a", 47),
            ("my-group", 12),
            ("console-consumer-12345", 6),
            ("connect-cluster", 13),
            ("größe", 7),
            ("😀-group", 43),
        ] {
            assert_eq!(partition_for(id, 50), want, "{id}");
        }
    }

    /// "polygenelubricants" is the well-known string whose hash is `Integer.MIN_VALUE`.
    #[test]
    fn the_hash_without_an_absolute_value_counts_as_zero() {
        assert_eq!(partition_for("polygenelubricants", 50), 0);
    }
}
