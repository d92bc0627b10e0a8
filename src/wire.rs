//! Messages on the wire: one MessagePack map with the recipient as one more entry. Strict in what
//! goes out, lenient in what comes in; and the same messages as JSON text.

mod decode;
mod encode;
mod fault;
mod from_json;
mod msgpack;
mod to_json;

use crate::error::{Error, ErrorKind};

pub(crate) use decode::{Decoded, OwnedRecipient, decode, message_type};
pub(crate) use encode::encode;
pub(crate) use from_json::encode_json;
pub(crate) use to_json::json;

use fault::Fault;
use msgpack::Head;

/// How deep maps and arrays may nest in what we send and in JSON; the message itself is the first.
pub(crate) const MAX_DEPTH: usize = 128;

/// The key of the full channel name that a message goes to.
const CHANNEL_KEY: &str = "__asgi_channel__";

/// The key of the group that a message goes to.
const GROUP_KEY: &str = "__asgi_group__";

/// What marks a JSON string as boxed bytes: base64 follows it.
const BYTES_MARK: char = '\u{FFFF}';

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipient<'a> {
    /// A channel, by its full name.
    Channel(&'a str),
    /// A group.
    Group(&'a str),
}

/// The entry that names the recipient.
struct RecipientEntry<'a> {
    key: &'static str,
    name: &'a str,
    key_head: Head,
    name_head: Head,
}

impl<'a> RecipientEntry<'a> {
    fn new(to: Recipient<'a>) -> Result<Self, Fault> {
        let (key, name) = match to {
            Recipient::Channel(name) => (CHANNEL_KEY, name),
            Recipient::Group(name) => (GROUP_KEY, name),
        };
        Ok(Self {
            key,
            name,
            key_head: Head::str(key.len())?,
            name_head: Head::str(name.len())?,
        })
    }

    /// How many bytes it takes.
    fn len(&self) -> usize {
        let heads = self.key_head.as_slice().len() + self.name_head.as_slice().len();
        heads + self.key.len() + self.name.len()
    }

    fn append_to(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(self.key_head.as_slice());
        body.extend_from_slice(self.key.as_bytes());
        body.extend_from_slice(self.name_head.as_slice());
        body.extend_from_slice(self.name.as_bytes());
    }
}

/// Refuses a top-level key that is ours to set.
fn check_not_reserved(key: &[u8]) -> Result<(), Fault> {
    if key == CHANNEL_KEY.as_bytes() || key == GROUP_KEY.as_bytes() {
        return Err(Fault::new(format!(
            "the key {:?} is reserved: the layer sets it by itself",
            String::from_utf8_lossy(key)
        )));
    }
    Ok(())
}

/// Refuses a map or an array that would be the `depth`th around its values.
fn check_depth(depth: usize) -> Result<(), Fault> {
    if depth > MAX_DEPTH {
        return Err(Fault::new(format!(
            "maps and arrays nest deeper than {MAX_DEPTH}"
        )));
    }
    Ok(())
}

/// Refuses a body of `size` bytes if it is too large.
fn check_size(size: usize, max_size: usize) -> Result<(), Error> {
    if size > max_size {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "the encoded message is {size} bytes long; at most {max_size} are allowed \
                 (option 'max_message_size')"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
