//! JSON text as serde_json reads it, with nothing of it lost.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::reading::{MARK, Value};

/// What serde_json reads, with all entries of an object, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    Uint(u64),
    Float(f64),
    Str(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(i64::try_from(value).map_or(Json::Uint(value), Json::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Str(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element()? {
            read.push(item);
        }
        Ok(Json::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut read = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            read.push(entry);
        }
        Ok(Json::Object(read))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

impl Json {
    /// Reads the JSON of the library; `None` where serde_json has no word for the last level.
    pub(super) fn read(text: &[u8]) -> Result<Option<Self>, String> {
        match serde_json::from_slice(text) {
            Ok(json) => Ok(Some(json)),
            Err(error) if too_deep(&error) => Ok(None),
            Err(error) => Err(format!(
                "serde_json refuses: {error}: {}",
                String::from_utf8_lossy(text)
            )),
        }
    }

    /// Whether it is the view of this value.
    pub(super) fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Nil) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Int(a), Value::Int(b)) => i128::from(*a) == *b,
            (Self::Uint(a), Value::Int(b)) => i128::from(*a) == *b,
            (Self::Float(a), Value::Float(b)) => same_float(*a, *b),
            // serde_json keeps the sign of "-0".
            (Self::Float(a), Value::Int(b)) => *a == 0.0 && *b == 0,
            (Self::Str(text), Value::Bin(bytes)) => {
                text.strip_prefix(MARK).and_then(unboxed).as_ref() == Some(bytes)
            }
            (Self::Str(text), Value::Str(other)) => {
                !text.starts_with(MARK) && text.as_bytes() == other.as_slice()
            }
            (Self::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is(b))
            }
            (Self::Object(a), Value::Map(b)) => {
                let same = |((key, a), (other, b)): (&(String, Self), &(Value, Value))| {
                    *other == Value::Str(key.as_bytes().to_vec()) && a.is(b)
                };
                a.len() == b.len() && a.iter().zip(b).all(same)
            }
            _ => false,
        }
    }

    /// The paths of all that a message must not hold, each with a word of the error.
    pub(super) fn faults(&self, path: &str, top: bool, found: &mut Vec<(String, &'static str)>) {
        match self {
            Self::Str(text)
                if text
                    .strip_prefix(MARK)
                    .is_some_and(|rest| unboxed(rest).is_none()) =>
            {
                found.push((path.to_owned(), "base64"));
            }
            Self::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    item.faults(&format!("{path}[{i}]"), false, found);
                }
            }
            Self::Object(entries) => {
                for (i, (key, value)) in entries.iter().enumerate() {
                    if top && (key == "__asgi_channel__" || key == "__asgi_group__") {
                        found.push((path.to_owned(), "reserved"));
                    }
                    let under = step(path, key);
                    if entries[..i].iter().any(|(other, _)| other == key) {
                        found.push((under.clone(), "twice"));
                    }
                    value.faults(&under, false, found);
                }
            }
            _ => {}
        }
    }

    /// Whether there is a number in it that serde_json took for a float.
    pub(super) fn has_float(&self) -> bool {
        match self {
            Self::Float(_) => true,
            Self::Array(items) => items.iter().any(Self::has_float),
            Self::Object(entries) => entries.iter().any(|(_, value)| value.has_float()),
            _ => false,
        }
    }
}

/// serde_json without its feature `float_roundtrip` is wrong by a few last bits at times.
fn same_float(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= 4.0 * f64::EPSILON * b.abs().max(f64::MIN_POSITIVE)
}

pub(super) fn too_deep(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("recursion limit exceeded")
}

/// A path with one more key, as an error writes it: of a long one 40 characters.
fn step(path: &str, key: &str) -> String {
    let key: String = key.chars().take(40).collect();
    let mut bytes = key.bytes();
    let plain = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    if bytes.next().is_some_and(plain) && bytes.all(|byte| plain(byte) || byte.is_ascii_digit()) {
        format!("{path}.{key}")
    } else {
        format!("{path}[{key:?}]")
    }
}

/// Base64 by the standard alphabet, padded, each text the only one of its bytes.
fn unboxed(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    for group in digits.as_bytes().chunks(4) {
        let mut bits: u32 = 0;
        for digit in group {
            let value = ALPHABET.iter().position(|known| known == digit)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let whole = match group.len() {
            4 => 3,
            3 if bits & 0b11 == 0 => 2,
            2 if bits & 0b1111 == 0 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..1 + whole]);
    }
    Some(bytes)
}

/// How deep brackets nest outside of strings. For text that is JSON.
pub(super) fn depth(text: &[u8]) -> usize {
    let (mut deepest, mut depth, mut in_string, mut escaped) = (0, 0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
