//! Frames and requests.

use bytes::Bytes;
use flowstone_wire::frame::{
    FIXED_HEADER_LEN, PREFIX_LEN, UNAUTHENTICATED_BYTES_MAX, body_len, check_api_limit,
};
use flowstone_wire::{Api, decode};

use crate::bytes_in::Input;

/// `socket.request.max.bytes`, unless it is set.
const REQUEST_BYTES_MAX: usize = 104_857_600;

/// A length prefix is believed only in range, and what follows it is a request or an error.
pub(crate) fn frame(data: &[u8]) {
    let Some((prefix, rest)) = data.split_first_chunk::<PREFIX_LEN>() else { return };
    for limit in [UNAUTHENTICATED_BYTES_MAX, REQUEST_BYTES_MAX] {
        match body_len(*prefix, limit) {
            Ok(length) => assert!((FIXED_HEADER_LEN..=limit).contains(&length)),
            Err(error) => drop(error.to_string()),
        }
    }
    if let Some(key) = rest.first_chunk() {
        let limited = check_api_limit(*key, rest.len());
        let limit = Api::from_key(i16::from_be_bytes(*key)).map(|api| api.row().request_bytes_max);
        assert_eq!(limited.is_ok(), limit.is_none_or(|limit| rest.len() <= limit));
    }
    read(Bytes::copy_from_slice(rest));
}

/// The first two bytes choose the API and one of its versions; what follows is the rest of the frame.
pub(crate) fn request(data: &[u8]) {
    let mut input = Input(data);
    let row = input.one_of(Api::ALL).row();
    let served = row.lowest..=row.highest;
    let version = row.lowest + i16::from(input.byte()) % served.count() as i16;
    let mut frame = (row.api as i16).to_be_bytes().to_vec();
    frame.extend(version.to_be_bytes());
    frame.extend(input.array::<4>());
    frame.extend(input.0);
    read(frame.into());
}

/// What decodes can be written, and decodes to the same; what was written is written the same again.
fn read(frame: Bytes) {
    let request = match decode(frame) {
        Ok(request) => request,
        Err(error) => return drop(error.to_string()),
    };
    let header = &request.header;
    assert_eq!(header.reply_to().api, header.api);
    if !header.api.row().serves(header.version) {
        return; // KIP-511: nothing of an ApiVersions in an unknown version was read.
    }
    let written = request.encode().expect("what was read can be written");
    let again = decode(written.clone());
    if again.is_err() && format!("{request:?}").contains("unknown_tagged_fields: {-") {
        return; // kafka-protocol counts unknown tags above 2^31 and does not write them; nor does the daemon write requests.
    }
    assert_eq!(again.as_ref(), Ok(&request), "it was written as {written:?}");
    assert_eq!(request.encode().as_ref(), Ok(&written));
}
