//! Tests of the wire: what is fixed here; properties of any input are in a file of their own.

#![allow(clippy::unwrap_used, clippy::panic)]

mod decode;
mod encode;
mod json;
mod properties;

use super::*;
use crate::message::Body;

const TO_CHANNEL: Recipient<'static> = Recipient::Channel("channels_abcdefghijkl!xyz");
const TO_GROUP: Recipient<'static> = Recipient::Group("g");
const NO_LIMIT: usize = usize::MAX;

/// The entry `"__asgi_group__": "g"`.
const GROUP_ENTRY: &[u8] = b"\xae__asgi_group__\xa1g";

// Bodies as Python's msgpack 1.2.4 writes them. Each is what `channels_rabbitmq` would send.

/// `{"type": "chat.message", "text": "hi", "__asgi_channel__": "channels_abcdefghijkl!xyz"}`
const PYTHON_CHANNEL: &[u8] = b"\x83\xa4type\xacchat.message\xa4text\xa2hi\
    \xb0__asgi_channel__\xb9channels_abcdefghijkl!xyz";

/// `{"type": "chat.message", "n": [1, -1, 300, 70000, 2**40, -2**63, 2**63-1, 1.5, None, True,
/// False], "b": b"\x00\xff", "u": "h\u00e9", "__asgi_group__": "room.1"}`
const PYTHON_GROUP: &[u8] = b"\x85\xa4type\xacchat.message\xa1n\x9b\x01\xff\xcd\x01\x2c\
    \xce\x00\x01\x11\x70\xcf\x00\x00\x01\x00\x00\x00\x00\x00\xd3\x80\x00\x00\x00\x00\x00\x00\x00\
    \xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xc0\xc3\xc2\
    \xa1b\xc4\x02\x00\xff\xa1u\xa3h\xc3\xa9\xae__asgi_group__\xa6room.1";

/// `{"k0": 0, ... "k14": 14, "__asgi_group__": "g"}`
const PYTHON_MAP16: &[u8] = b"\xde\x00\x10\xa2k0\x00\xa2k1\x01\xa2k2\x02\xa2k3\x03\xa2k4\x04\
    \xa2k5\x05\xa2k6\x06\xa2k7\x07\xa2k8\x08\xa2k9\x09\xa3k10\x0a\xa3k11\x0b\xa3k12\x0c\
    \xa3k13\x0d\xa3k14\x0e\xae__asgi_group__\xa1g";

/// `{"type": "t", "f": 0.5, "__asgi_group__": "g"}` with `use_single_float=True`
const PYTHON_FLOAT32: &[u8] = b"\x83\xa4type\xa1t\xa1f\xca\x3f\x00\x00\x00\xae__asgi_group__\xa1g";

/// `{"__asgi_group__": "g", "type": "t"}`
const PYTHON_FIRST: &[u8] = b"\x82\xae__asgi_group__\xa1g\xa4type\xa1t";

/// `{"t": Timestamp(1, 0), "e": ExtType(5, b"abc"), "__asgi_group__": "g"}`
const PYTHON_EXT: &[u8] =
    b"\x83\xa1t\xd6\xff\x00\x00\x00\x01\xa1e\xc7\x03\x05abc\xae__asgi_group__\xa1g";

/// `{"n": 2**64-1, "__asgi_group__": "g"}`
const PYTHON_UINT64: &[u8] =
    b"\x82\xa1n\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xae__asgi_group__\xa1g";

/// The map of one entry, `"v": value`.
fn under_v(value: &[u8]) -> Vec<u8> {
    [b"\x81\xa1v", value].concat()
}

/// `value` inside `depth` arrays.
fn nested(depth: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x91".repeat(depth);
    bytes.extend_from_slice(value);
    bytes
}

/// An error of this kind whose message is or holds this.
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, with: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    assert!(message.contains(with), "{message:?} lacks {with:?}");
}
