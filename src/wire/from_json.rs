//! A message written as JSON text becomes a body.
//!
//! The reader is our own, since serde_json takes an integer above 64 bits for a float, rounds some
//! floats wrongly, lets a key stand twice and stops at depth 127 (all without features that change
//! it for the whole program). The tests hold the two against each other.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fault::Fault;
use super::msgpack::Head;
use super::{BYTES_MARK, Recipient, RecipientEntry, check_depth, check_not_reserved, check_size};
use crate::error::Error;

/// The body for a message that is one JSON object, with the recipient last. A string of U+FFFF and
/// base64 becomes a byte string.
pub(crate) fn encode_json(
    json: &[u8],
    to: Recipient<'_>,
    max_size: usize,
) -> Result<Vec<u8>, Error> {
    let text = std::str::from_utf8(json).map_err(|error| {
        Error::invalid("message: the JSON text is not valid UTF-8").caused_by(error)
    })?;
    let in_message = |fault: Fault| fault.into_error("message");
    let mut parser = Parser {
        text,
        at: 0,
        flat: Vec::with_capacity(text.len()),
        opened: Vec::new(),
        keys: Vec::new(),
    };
    parser.document().map_err(in_message)?;
    // The outer object is opened first, and the recipient is one more entry of it.
    if let Some(outer) = parser.opened.first_mut() {
        outer.count += 1;
    }
    let recipient = RecipientEntry::new(to).map_err(in_message)?;
    let mut size = parser.flat.len() + recipient.len();
    for opened in &parser.opened {
        size += opened.head().map_err(in_message)?.as_slice().len();
    }
    check_size(size, max_size)?;

    let mut body = Vec::with_capacity(size);
    let mut done = 0;
    for opened in &parser.opened {
        let before = parser.flat.get(done..opened.at).unwrap_or_default();
        body.extend_from_slice(before);
        body.extend_from_slice(opened.head().map_err(in_message)?.as_slice());
        done = opened.at;
    }
    body.extend_from_slice(parser.flat.get(done..).unwrap_or_default());
    recipient.append_to(&mut body);
    Ok(body)
}

/// An object or array: its head can be written only when its end was seen.
struct Opened {
    /// Where in `flat` its head is missing.
    at: usize,
    is_map: bool,
    count: usize,
}

impl Opened {
    fn head(&self) -> Result<Head, Fault> {
        if self.is_map {
            Head::map(self.count)
        } else {
            Head::array(self.count)
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// The byte of `text` to be read next.
    at: usize,
    /// MessagePack without the heads of maps and arrays.
    flat: Vec<u8>,
    /// These heads, in the order of their places.
    opened: Vec<Opened>,
    /// Where in `flat` the keys so far of all open objects are, the outermost first.
    keys: Vec<Range<usize>>,
}

impl<'a> Parser<'a> {
    /// Reads the whole text: one object.
    fn document(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.object(1)?,
            _ => return Err(self.unexpected("a message is one JSON object, which begins with '{'")),
        }
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("nothing may follow the JSON object")),
        }
    }

    /// Reads one value with `depth` objects and arrays around it.
    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string_value(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.word("null", Head::nil()),
            Some(b't') => self.word("true", Head::bool(true)),
            Some(b'f') => self.word("false", Head::bool(false)),
            _ => Err(self.unexpected("here a JSON value is needed")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        let opened = self.open(true);
        let outer_keys = self.keys.len();
        let mut count = 0;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("here a key in quotes is needed"));
                }
                let key = self.string()?;
                if depth == 1 {
                    check_not_reserved(key.as_bytes())?;
                }
                self.put_str(&key)?;
                self.keys.push(self.flat.len() - key.len()..self.flat.len());
                let under_key = |fault: Fault| fault.under_key(key.as_bytes());
                if self.peek() != Some(b':') {
                    return Err(under_key(self.unexpected("here a ':' is needed")));
                }
                self.at += 1;
                self.value(depth).map_err(under_key)?;
                count += 1;
                if self.ends(b'}')? {
                    break;
                }
            }
        }
        self.close(opened, count);
        self.close_keys(outer_keys)
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        let opened = self.open(false);
        let mut count = 0;
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.value(depth).map_err(|fault| fault.at_item(count))?;
                count += 1;
                if self.ends(b']')? {
                    break;
                }
            }
        }
        self.close(opened, count);
        Ok(())
    }

    /// Passes a bracket and marks where its head will be.
    fn open(&mut self, is_map: bool) -> usize {
        self.at += 1;
        self.opened.push(Opened {
            at: self.flat.len(),
            is_map,
            count: 0,
        });
        self.opened.len() - 1
    }

    fn close(&mut self, opened: usize, count: usize) {
        if let Some(opened) = self.opened.get_mut(opened) {
            opened.count = count;
        }
    }

    /// Passes a comma, or `end`; whether it was the end.
    fn ends(&mut self, end: u8) -> Result<bool, Fault> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.unexpected(&format!("here a ',' or a '{}' is needed", char::from(end)))),
        }
    }

    /// Forgets the keys of the innermost object, unless one of them stands twice.
    fn close_keys(&mut self, outer_keys: usize) -> Result<(), Fault> {
        let flat = self.flat.as_slice();
        let key = |range: &Range<usize>| flat.get(range.clone()).unwrap_or_default();
        let keys = self.keys.get_mut(outer_keys..).unwrap_or_default();
        // Sorting takes no hash, so nobody can send keys that collide.
        keys.sort_unstable_by(|a, b| key(a).cmp(key(b)));
        for pair in keys.windows(2) {
            if let [a, b] = pair
                && key(a) == key(b)
            {
                return Err(Fault::new("this key stands twice in its object").under_key(key(a)));
            }
        }
        self.keys.truncate(outer_keys);
        Ok(())
    }

    fn string_value(&mut self) -> Result<(), Fault> {
        let text = self.string()?;
        let Some(boxed) = text.strip_prefix(BYTES_MARK) else {
            return self.put_str(&text);
        };
        let bytes = STANDARD.decode(boxed).map_err(|error| {
            Fault::new(format!(
                "a string that begins with U+FFFF stands for bytes, and what follows is not \
                 base64 (standard alphabet, padded): {error}"
            ))
        })?;
        self.flat
            .extend_from_slice(Head::bin(bytes.len())?.as_slice());
        self.flat.extend_from_slice(&bytes);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        let mut is_float = false;
        if self.byte() == Some(b'.') {
            is_float = true;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            is_float = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        let literal = self.text.get(start..self.at).unwrap_or_default();
        let head = if is_float {
            let value = literal
                .parse::<f64>()
                .ok()
                .filter(|value| value.is_finite());
            Head::float(value.ok_or_else(|| out_of_range(literal, "a 64 bit float"))?)
        } else {
            let value = literal.parse().map(Head::int);
            value.or_else(|_| above_signed(literal))?
        };
        self.flat.extend_from_slice(head.as_slice());
        Ok(())
    }

    /// Passes one digit or more.
    fn digits(&mut self) -> Result<(), Fault> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => Err(self.unexpected("here a digit is needed")),
            count => {
                self.at += count;
                Ok(())
            }
        }
    }

    fn word(&mut self, word: &str, head: Head) -> Result<(), Fault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(self.unexpected("here a JSON value is needed"));
        }
        self.at += word.len();
        self.flat.extend_from_slice(head.as_slice());
        Ok(())
    }

    /// Reads a string from its opening quote on.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.at += 1;
        let mut decoded = Cow::Borrowed("");
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
            let Some(len) = rest.bytes().position(special) else {
                return Err(Fault::new("the JSON text ends inside a string"));
            };
            // Borrows the text as long as `decoded` is empty.
            decoded += rest.get(..len).unwrap_or_default();
            self.at += len;
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(decoded);
                }
                Some(b'\\') => {
                    self.at += 1;
                    decoded.to_mut().push(self.escape()?);
                }
                _ => {
                    return Err(self.unexpected("in a string, control characters must be escaped"));
                }
            }
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<char, Fault> {
        let c = match self.byte() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.unexpected("no such escape in a JSON string")),
        };
        self.at += 1;
        Ok(c)
    }

    /// Reads what follows `\u`: four digits, or the two halves of a surrogate pair.
    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let lone = || Fault::new("half of a surrogate pair (\\ud800 to \\udfff) in a string");
        let first = self.four_hex_digits()?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first).ok_or_else(lone);
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with("\\u") {
            return Err(lone());
        }
        self.at += 2;
        let second = self.four_hex_digits()?;
        if !(0xDC00..0xE000).contains(&second) {
            return Err(lone());
        }
        let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        char::from_u32(code).ok_or_else(lone)
    }

    fn four_hex_digits(&mut self) -> Result<u32, Fault> {
        let digits = self.text.get(self.at..self.at + 4);
        let value = digits
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match value {
            Some(value) => {
                self.at += 4;
                Ok(value)
            }
            None => Err(self.unexpected("here four hexadecimal digits are needed")),
        }
    }

    fn put_str(&mut self, text: &str) -> Result<(), Fault> {
        self.flat
            .extend_from_slice(Head::str(text.len())?.as_slice());
        self.flat.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// The next byte after white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// A fault of the text at this place; `needed` says what could have been there.
    #[cold]
    fn unexpected(&self, needed: &str) -> Fault {
        let rest = self.text.get(self.at..).unwrap_or_default();
        match rest.chars().next() {
            Some(found) => Fault::new(format!(
                "not JSON: {found:?} at byte {} of the text; {needed}",
                self.at
            )),
            None => Fault::new(format!("not JSON: the text ends too early; {needed}")),
        }
    }
}

/// An integer that is none of 64 bits with a sign, which few are.
#[cold]
fn above_signed(literal: &str) -> Result<Head, Fault> {
    let value = literal.parse().map(Head::uint);
    value.map_err(|_| out_of_range(literal, "-2^63 to 2^64-1"))
}

/// A number that nothing on the wire can hold.
#[cold]
fn out_of_range(literal: &str, range: &str) -> Fault {
    let shown = literal.get(..40).unwrap_or(literal);
    let more = if shown.len() < literal.len() {
        "..."
    } else {
        ""
    };
    Fault::new(format!("the number {shown}{more} is outside {range}"))
}
