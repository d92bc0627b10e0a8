//! Strict out: checks a message of the caller and adds the recipient.

use super::fault::Fault;
use super::msgpack::{Head, Reader, Token};
use super::{Recipient, RecipientEntry, check_depth, check_not_reserved, check_size};
use crate::error::Error;

/// What an error says after the type that is not allowed.
const ALLOWED: &str =
    "allowed are nil, booleans, integers, floats, strings, byte strings, arrays and maps";

/// The body for `message`, one MessagePack map: the caller's entries as they are, and the recipient
/// last, as a Python peer puts it. Refuses what could end the reader of a peer.
///
/// One pass, and one allocation at the end of it. A key that stands twice in a map passes: peers
/// take the last, and to find it would cost more than all other checks together.
pub(crate) fn encode(message: &[u8], to: Recipient<'_>, max_size: usize) -> Result<Vec<u8>, Error> {
    let in_message = |fault: Fault| fault.into_error("message");
    let mut check = Check {
        reader: Reader::new(message),
    };
    let count = check.open().map_err(in_message)?;
    let entries = check.reader.rest();
    let recipient = RecipientEntry::new(to).map_err(in_message)?;
    let head = Head::map((count as usize).saturating_add(1)).map_err(in_message)?;
    let size = head.as_slice().len() + entries.len() + recipient.len();
    // First, since it costs nothing: a message that is far too large is not read at all.
    check_size(size, max_size)?;
    check.map(count, 1).map_err(in_message)?;
    check.end().map_err(in_message)?;

    let mut body = Vec::with_capacity(size);
    body.extend_from_slice(head.as_slice());
    body.extend_from_slice(entries);
    recipient.append_to(&mut body);
    Ok(body)
}

/// Reads a message and refuses what must not go out.
struct Check<'a> {
    reader: Reader<'a>,
}

impl Check<'_> {
    /// Reads the head of the outer map and returns how many entries it has.
    fn open(&mut self) -> Result<u32, Fault> {
        if self.reader.rest().is_empty() {
            return Err(Fault::new("no bytes; a message is one MessagePack map"));
        }
        match self.reader.token()? {
            Token::Map(count) => Ok(count),
            token => Err(Fault::new(format!(
                "{}; a message is one MessagePack map",
                token.describe()
            ))),
        }
    }

    /// Refuses bytes after the outer map.
    fn end(&self) -> Result<(), Fault> {
        match self.reader.rest().len() {
            0 => Ok(()),
            more => Err(Fault::new(format!(
                "{more} bytes follow the end of the MessagePack map"
            ))),
        }
    }

    /// Reads the entries of a map that is the `depth`th around its values.
    fn map(&mut self, count: u32, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        for i in 0..count {
            let key = match self.reader.token()? {
                Token::Str(key) => key,
                token => {
                    return Err(Fault::new(format!(
                        "key number {} is {}; keys must be strings",
                        u64::from(i) + 1,
                        token.describe()
                    )));
                }
            };
            check_utf8(key).map_err(|fault| fault.under_key(key))?;
            if depth == 1 {
                check_not_reserved(key)?;
            }
            self.value(depth).map_err(|fault| fault.under_key(key))?;
        }
        Ok(())
    }

    /// Reads one value with `depth` maps and arrays around it.
    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        match self.reader.token()? {
            Token::Nil
            | Token::Bool(_)
            | Token::Int(_)
            | Token::Uint(_)
            | Token::Float(_)
            | Token::Bin(_) => Ok(()),
            Token::Str(text) => check_utf8(text),
            Token::Map(count) => self.map(count, depth + 1),
            Token::Array(count) => {
                check_depth(depth + 1)?;
                for i in 0..count {
                    self.value(depth + 1)
                        .map_err(|fault| fault.at_item(i as usize))?;
                }
                Ok(())
            }
            token @ Token::Ext(_) => Err(Fault::new(format!(
                "{} is not allowed; {ALLOWED}",
                token.describe()
            ))),
        }
    }
}

fn check_utf8(text: &[u8]) -> Result<(), Fault> {
    // Most texts of a message are short and ASCII, which is seen faster than that they are UTF-8.
    if text.is_ascii() {
        return Ok(());
    }
    match std::str::from_utf8(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(format!(
            "a string that is not valid UTF-8 from its byte {}; send bytes as a byte string (bin)",
            error.valid_up_to()
        ))),
    }
}
