//! Lenient in: finds the recipient of a delivery and shows the rest of it as the message.

use std::ffi::{CStr, CString};
use std::ops::Range;

use super::fault::Fault;
use super::msgpack::{Head, Reader, Token};
use super::{CHANNEL_KEY, GROUP_KEY};
use crate::error::Error;
use crate::message::Body;

/// Whom a delivery is for. The name holds no NUL; nothing else is sure of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnedRecipient {
    /// A channel, by its full name.
    Channel(String),
    /// A group.
    Group(String),
}

/// A delivery taken apart.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) recipient: OwnedRecipient,
    pub(crate) body: Body,
}

/// Takes a delivery apart: any well-formed map with exactly one recipient, whatever its other keys
/// and values are. No depth is refused, since none is dangerous here: no stack is kept.
///
/// The body shows the map without the recipient, made in place in `bytes`.
pub(crate) fn decode(mut bytes: Vec<u8>) -> Result<Decoded, Error> {
    let found = Found::in_bytes(&bytes).map_err(|fault| fault.into_error("delivery"))?;
    let group = match &found.recipient {
        OwnedRecipient::Channel(_) => None,
        OwnedRecipient::Group(name) => {
            let name = CString::new(name.as_str());
            Some(name.map_err(|nul| Error::invalid("delivery: a NUL in the group").caused_by(nul))?)
        }
    };
    let view = cut_out(&mut bytes, &found).map_err(|fault| fault.into_error("delivery"))?;
    Ok(Decoded {
        recipient: found.recipient,
        body: Body::new(bytes, view, group),
    })
}

/// The string under the top-level key `type`, if there is one without a NUL. The first, where the
/// key stands twice.
pub(crate) fn message_type(body: &Body) -> Option<&CStr> {
    body.kind_or_init(find_type)
}

fn find_type(data: &[u8]) -> Option<CString> {
    let mut reader = Reader::new(data);
    let Token::Map(count) = reader.token().ok()? else {
        return None;
    };
    for _ in 0..count {
        let key = reader.token().ok()?;
        if key == Token::Str(b"type") {
            let Token::Str(value) = reader.token().ok()? else {
                return None;
            };
            return CString::new(std::str::from_utf8(value).ok()?).ok();
        }
        reader.skip_inside(key).ok()?;
        reader.skip().ok()?;
    }
    None
}

/// The outer map and the entry in it that names the recipient.
struct Found {
    /// How many entries the map has, the recipient with them.
    count: u32,
    /// How long the head of the map is.
    head_len: usize,
    /// Where key and value of the recipient are.
    entry: Range<usize>,
    recipient: OwnedRecipient,
}

impl Found {
    fn in_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes);
        let read = |reader: &Reader<'_>| bytes.len() - reader.rest().len();
        let count = match reader.token()? {
            Token::Map(count) => count,
            token => return Err(Fault::new(format!("{}, not a map", token.describe()))),
        };
        let head_len = read(&reader);
        let mut found = None;
        for _ in 0..count {
            let start = read(&reader);
            let key = reader.token()?;
            let kind = match key {
                Token::Str(key) if key == CHANNEL_KEY.as_bytes() => OwnedRecipient::Channel,
                Token::Str(key) if key == GROUP_KEY.as_bytes() => OwnedRecipient::Group,
                _ => {
                    reader.skip_inside(key)?;
                    reader.skip()?;
                    continue;
                }
            };
            let name = recipient_name(reader.token()?)?;
            if found.replace((start..read(&reader), kind(name))).is_some() {
                return Err(Fault::new("more than one recipient"));
            }
        }
        match reader.rest().len() {
            0 => {}
            more => return Err(Fault::new(format!("{more} bytes follow the map"))),
        }
        let (entry, recipient) = found.ok_or_else(|| {
            Fault::new(format!(
                "no recipient: neither {CHANNEL_KEY} nor {GROUP_KEY}"
            ))
        })?;
        Ok(Self {
            count,
            head_len,
            entry,
            recipient,
        })
    }
}

fn recipient_name(token: Token<'_>) -> Result<String, Fault> {
    let (Token::Str(name) | Token::Bin(name)) = token else {
        return Err(Fault::new(format!(
            "the recipient is {}, not a string",
            token.describe()
        )));
    };
    match std::str::from_utf8(name) {
        Ok(name) if !name.contains('\0') => Ok(name.to_owned()),
        Ok(_) => Err(Fault::new("a NUL in the name of the recipient")),
        Err(_) => Err(Fault::new("the name of the recipient is not valid UTF-8")),
    }
}

/// Takes the recipient out of the map, in place, and returns where the rest of the map is. Of what
/// stands before the entry and what stands after it, the shorter one moves: nothing, as a rule.
fn cut_out(bytes: &mut Vec<u8>, found: &Found) -> Result<Range<usize>, Fault> {
    let left = (found.count as usize).saturating_sub(1);
    let Range { start, end } = found.entry;
    let before = start - found.head_len;
    let after = bytes.len() - end;
    if after <= before {
        bytes.copy_within(end.., start);
        bytes.truncate(start + after);
        // The shortest head is never longer than the one that counted an entry more.
        let head = Head::map(left)?;
        let at = found.head_len - head.as_slice().len();
        put(bytes, at, head.as_slice());
        Ok(at..bytes.len())
    } else {
        bytes.copy_within(found.head_len..start, end - before);
        // A head is never longer than the entry that was cut out, so there is room for it.
        let head = Head::map(left)?;
        let at = end - before - head.as_slice().len();
        put(bytes, at, head.as_slice());
        Ok(at..bytes.len())
    }
}

/// Overwrites the bytes from `at`.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(new) {
        *to = *from;
    }
}
