//! Which topics a consumer reads, from its protocol metadata.
//!
//! Separate because this is the only place that looks into what members tell each other. Version 0
//! of `ConsumerProtocolSubscription` is the beginning of all later ones, so we read that much.

use crate::request::Text;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_schema::{Message, Reader, schema};

schema! {
    /// The part that all versions of a consumer's subscription begin with.
    message ConsumerProtocolSubscription = -1, versions 0..=0, flexible never {
        /// Topic names.
        topics: Vec<String>,
    }
}

/// The topics of a subscription; `None` where `metadata` is none.
pub(crate) fn subscribed_topics(metadata: &[u8]) -> Option<impl Iterator<Item = Text>> {
    let mut reader = Reader::new(metadata);
    let version = i16::from_be_bytes(reader.array().ok()?);
    if version < 0 {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::decode_from(0, &mut reader).ok()?;
    Some(subscription.topics.into_iter().map(Text::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(metadata: &[u8]) -> Option<Vec<Text>> {
        subscribed_topics(metadata).map(Iterator::collect)
    }

    #[test]
    fn any_version_begins_with_its_topics() {
        let v1 = [0, 1, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(topics(&v1), Some([Text::from("t")].to_vec()));
        assert_eq!(topics(&[0, 0, 0, 0, 0, 0]), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_subscription_tells_nothing() {
        for bad in [&b""[..], &[0], &[0, 0, 0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0, 0, 0, 0]] {
            assert_eq!(topics(bad), None);
        }
    }
}
