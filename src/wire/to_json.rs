//! The JSON view of a message.

use std::ffi::{CStr, CString};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::fault::Fault;
use super::msgpack::{Reader, Token};
use super::{BYTES_MARK, check_depth};
use crate::error::Error;
use crate::message::Body;

/// The message as compact JSON text, made once. Bytes are a string of U+FFFF and base64. What JSON
/// cannot hold, or a reader could take for something else, is an error with its path.
pub(crate) fn json(body: &Body) -> Result<&CStr, Error> {
    body.json_or_init(|data| {
        let mut writer = Writer {
            reader: Reader::new(data),
            text: Vec::with_capacity(data.len() + data.len() / 2),
            keys: Vec::new(),
        };
        writer
            .value(0)
            .map_err(|fault| fault.into_error("message"))?;
        // Control characters are escaped, so there is no NUL.
        CString::new(writer.text)
            .map_err(|nul| Error::invalid("message: a NUL in its JSON view").caused_by(nul))
    })
}

struct Writer<'a> {
    reader: Reader<'a>,
    text: Vec<u8>,
    /// The keys so far of all maps that are open, the outermost first.
    keys: Vec<&'a str>,
}

impl<'a> Writer<'a> {
    /// Writes one value with `depth` maps and arrays around it.
    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        match self.reader.token()? {
            Token::Nil => self.put(&()),
            Token::Bool(value) => self.put(&value),
            Token::Int(value) => self.put(&value),
            Token::Uint(value) => self.put(&value),
            Token::Float(value) if value.is_finite() => self.put(&value),
            Token::Float(value) => Err(Fault::new(format!("JSON has no float {value}"))),
            Token::Str(text) => {
                let text = utf8(text)?;
                if text.starts_with(BYTES_MARK) {
                    return Err(Fault::new(
                        "a string that begins with U+FFFF would be taken for bytes in JSON",
                    ));
                }
                self.put(text)
            }
            Token::Bin(bytes) => {
                let mut boxed = String::from(BYTES_MARK);
                STANDARD.encode_string(bytes, &mut boxed);
                self.put(boxed.as_str())
            }
            Token::Array(count) => self.array(count, depth + 1),
            Token::Map(count) => self.map(count, depth + 1),
            token @ Token::Ext(_) => Err(Fault::new(format!("JSON has no {}", token.describe()))),
        }
    }

    fn array(&mut self, count: u32, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        self.text.push(b'[');
        for i in 0..count {
            if i > 0 {
                self.text.push(b',');
            }
            self.value(depth)
                .map_err(|fault| fault.at_item(i as usize))?;
        }
        self.text.push(b']');
        Ok(())
    }

    fn map(&mut self, count: u32, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        let outer_keys = self.keys.len();
        self.text.push(b'{');
        for i in 0..count {
            if i > 0 {
                self.text.push(b',');
            }
            let key = match self.reader.token()? {
                Token::Str(key) => utf8(key).map_err(|fault| fault.under_key(key))?,
                token => {
                    return Err(Fault::new(format!(
                        "a key is {}; JSON has only strings as keys",
                        token.describe()
                    )));
                }
            };
            self.keys.push(key);
            self.put(key)?;
            self.text.push(b':');
            self.value(depth)
                .map_err(|fault| fault.under_key(key.as_bytes()))?;
        }
        self.text.push(b'}');
        self.close_keys(outer_keys)
    }

    /// Forgets the keys of the innermost map, unless one of them stands twice.
    fn close_keys(&mut self, outer_keys: usize) -> Result<(), Fault> {
        let keys = self.keys.get_mut(outer_keys..).unwrap_or_default();
        // Sorting takes no hash, so nobody can send keys that collide.
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair.first() == pair.last()) {
            let key = twice.first().copied().unwrap_or_default();
            return Err(Fault::new("this key stands twice in its map").under_key(key.as_bytes()));
        }
        self.keys.truncate(outer_keys);
        Ok(())
    }

    fn put(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Fault> {
        serde_json::to_writer(&mut self.text, value).map_err(|error| Fault::new(error.to_string()))
    }
}

fn utf8(text: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(text).map_err(|error| {
        Fault::new(format!(
            "a string that is not valid UTF-8 from its byte {}",
            error.valid_up_to()
        ))
    })
}
