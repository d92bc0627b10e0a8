//! The header of a content: how long its body is, and its properties.

use super::Malformed;
use super::reader::Reader;

/// The class whose contents there are.
const BASIC: u16 = 60;

// Which properties follow, in their order, and that there are more of these flags.
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
const UNKNOWN: u16 = 1 << 1;
const MORE: u16 = 1;

/// What we read of a header. All other properties are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub(crate) body_size: u64,
    pub(crate) message_id: Option<&'a [u8]>,
    pub(crate) kind: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// Reads the payload of a header frame.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.short_uint()? != BASIC {
            return Err(Malformed::Class);
        }
        let _weight = reader.short_uint()?;
        let body_size = reader.long_long_uint()?;
        let flags = reader.short_uint()?;
        if flags & (UNKNOWN | MORE) != 0 {
            return Err(Malformed::Property);
        }
        let has = |flag| flags & flag != 0;
        for flag in [CONTENT_TYPE, CONTENT_ENCODING] {
            if has(flag) {
                reader.short_string()?;
            }
        }
        if has(HEADERS) {
            reader.skip_long()?;
        }
        for flag in [DELIVERY_MODE, PRIORITY] {
            if has(flag) {
                reader.octet()?;
            }
        }
        for flag in [CORRELATION_ID, REPLY_TO, EXPIRATION] {
            if has(flag) {
                reader.short_string()?;
            }
        }
        let message_id = has(MESSAGE_ID).then(|| reader.short_string()).transpose()?;
        if has(TIMESTAMP) {
            reader.long_long_uint()?;
        }
        let kind = has(TYPE).then(|| reader.short_string()).transpose()?;
        for flag in [USER_ID, APP_ID, CLUSTER_ID] {
            if has(flag) {
                reader.short_string()?;
            }
        }
        reader.end()?;
        Ok(Self {
            body_size,
            message_id,
            kind,
        })
    }
}

/// The properties that we write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Properties<'a> {
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) expiration: Option<ShortStr<'a>>,
    pub(crate) message_id: Option<ShortStr<'a>>,
    pub(crate) kind: Option<ShortStr<'a>>,
}

/// A string of at most 255 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ShortStr<'a>(&'a str);

impl<'a> ShortStr<'a> {
    /// `None`: it is longer.
    pub(crate) fn new(text: &'a str) -> Option<Self> {
        u8::try_from(text.len()).is_ok().then_some(Self(text))
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        // It fits: `new` has seen to that.
        out.push(u8::try_from(self.0.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(self.0.as_bytes());
    }
}

/// Writes the payload of a header frame.
pub(super) fn write_header(out: &mut Vec<u8>, body_size: u64, properties: &Properties<'_>) {
    let Properties {
        delivery_mode,
        expiration,
        message_id,
        kind,
    } = properties;
    let flag = |is_there: bool, flag: u16| if is_there { flag } else { 0 };
    let flags = flag(delivery_mode.is_some(), DELIVERY_MODE)
        | flag(expiration.is_some(), EXPIRATION)
        | flag(message_id.is_some(), MESSAGE_ID)
        | flag(kind.is_some(), TYPE);
    out.extend_from_slice(&BASIC.to_be_bytes());
    out.extend_from_slice(&0_u16.to_be_bytes());
    out.extend_from_slice(&body_size.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend(delivery_mode);
    for text in [expiration, message_id, kind].into_iter().flatten() {
        text.write(out);
    }
}
