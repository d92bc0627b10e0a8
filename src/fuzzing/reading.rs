//! MessagePack read a second time, from its specification and with no thought of speed, so that the
//! library's own reader has something to be held against.

/// How deep a message may nest.
const MAX_DEPTH: usize = 128;

/// The mark of boxed bytes in JSON.
pub(super) const MARK: char = '\u{FFFF}';

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Int(i128),
    /// Of either width.
    Float(f64),
    Str(Vec<u8>),
    Bin(Vec<u8>),
    Ext,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

/// One head: what it is and how many values follow that belong to it.
struct Head {
    value: Value,
    children: u64,
    next: usize,
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let digits = bytes.get(at..at.checked_add(width)?)?;
    Some(
        digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | u64::from(*digit)),
    )
}

fn head(bytes: &[u8], at: usize) -> Option<Head> {
    let first = *bytes.get(at)?;
    let plain = |value, width: usize| {
        Some(Head {
            value,
            children: 0,
            next: at + 1 + width,
        })
    };
    let unsigned = |width| plain(Value::Int(number(bytes, at + 1, width)?.into()), width);
    let signed = |width: usize| {
        let shift = 64 - 8 * width;
        let value = ((number(bytes, at + 1, width)? << shift) as i64) >> shift;
        plain(Value::Int(value.into()), width)
    };
    // A length of `width` bytes, then so many of data after `between` more.
    let data = |make: fn(Vec<u8>) -> Value, width: usize, fixed: u64, between: usize| {
        let len = match width {
            0 => fixed,
            _ => number(bytes, at + 1, width)?,
        };
        let start = at + 1 + width + between;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        let value = make(bytes.get(start..end)?.to_vec());
        plain(value, end - at - 1)
    };
    let ext: fn(Vec<u8>) -> Value = |_| Value::Ext;
    let nest = |value, each: u64, width: usize, fixed: u64| {
        let count = match width {
            0 => fixed,
            _ => number(bytes, at + 1, width)?,
        };
        Some(Head {
            value,
            children: each * count,
            next: at + 1 + width,
        })
    };
    let (array, map) = (Value::Array(Vec::new()), Value::Map(Vec::new()));
    let low = |mask: u8| u64::from(first & mask);
    match first {
        0x00..=0x7f => plain(Value::Int(first.into()), 0),
        0x80..=0x8f => nest(map, 2, 0, low(0x0f)),
        0x90..=0x9f => nest(array, 1, 0, low(0x0f)),
        0xa0..=0xbf => data(Value::Str, 0, low(0x1f), 0),
        0xc0 => plain(Value::Nil, 0),
        0xc1 => None,
        0xc2 => plain(Value::Bool(false), 0),
        0xc3 => plain(Value::Bool(true), 0),
        0xc4 => data(Value::Bin, 1, 0, 0),
        0xc5 => data(Value::Bin, 2, 0, 0),
        0xc6 => data(Value::Bin, 4, 0, 0),
        0xc7 => data(ext, 1, 0, 1),
        0xc8 => data(ext, 2, 0, 1),
        0xc9 => data(ext, 4, 0, 1),
        0xca => {
            let bits = u32::try_from(number(bytes, at + 1, 4)?).ok()?;
            plain(Value::Float(f32::from_bits(bits).into()), 4)
        }
        0xcb => plain(Value::Float(f64::from_bits(number(bytes, at + 1, 8)?)), 8),
        0xcc => unsigned(1),
        0xcd => unsigned(2),
        0xce => unsigned(4),
        0xcf => unsigned(8),
        0xd0 => signed(1),
        0xd1 => signed(2),
        0xd2 => signed(4),
        0xd3 => signed(8),
        0xd4 => data(ext, 0, 1, 1),
        0xd5 => data(ext, 0, 2, 1),
        0xd6 => data(ext, 0, 4, 1),
        0xd7 => data(ext, 0, 8, 1),
        0xd8 => data(ext, 0, 16, 1),
        0xd9 => data(Value::Str, 1, 0, 0),
        0xda => data(Value::Str, 2, 0, 0),
        0xdb => data(Value::Str, 4, 0, 0),
        0xdc => nest(array, 1, 2, 0),
        0xdd => nest(array, 1, 4, 0),
        0xde => nest(map, 2, 2, 0),
        0xdf => nest(map, 2, 4, 0),
        0xe0..=0xff => plain(Value::Int(i128::from(first) - 256), 0),
    }
}

/// Where the value at `at` ends, however deep it is.
fn end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut open = vec![1_u64];
    let mut at = at;
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let head = head(bytes, at)?;
        at = head.next;
        if head.children > 0 {
            open.push(head.children);
        }
    }
    Some(at)
}

/// An entry of the outer map.
pub(super) struct Entry<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The entries of a map that all of `bytes` are.
pub(super) fn entries(bytes: &[u8]) -> Option<Vec<Entry<'_>>> {
    let outer = head(bytes, 0)?;
    if !matches!(outer.value, Value::Map(_)) {
        return None;
    }
    let mut at = outer.next;
    let mut entries = Vec::new();
    for _ in 0..outer.children / 2 {
        let middle = end(bytes, at)?;
        let after = end(bytes, middle)?;
        entries.push(Entry {
            key: &bytes[at..middle],
            value: &bytes[middle..after],
        });
        at = after;
    }
    (at == bytes.len()).then_some(entries)
}

/// The text of an encoded string.
pub(super) fn text(bytes: &[u8]) -> Option<Vec<u8>> {
    match head(bytes, 0)?.value {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

/// A map of these entries with the shortest head.
pub(super) fn map_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = match entries.len() {
        count @ 0..16 => vec![0x80 + count as u8],
        count if count < 1 << 16 => vec![0xde, (count >> 8) as u8, count as u8],
        count => [&[0xdf][..], &(count as u32).to_be_bytes()].concat(),
    };
    for entry in entries {
        bytes.extend_from_slice(entry.key);
        bytes.extend_from_slice(entry.value);
    }
    bytes
}

/// What a delivery must be taken for.
pub(super) struct Delivery {
    pub(super) to_group: bool,
    pub(super) name: String,
    pub(super) data: Vec<u8>,
}

/// A delivery by the lenient rules, or `None` if it must be dropped.
pub(super) fn delivery(bytes: &[u8]) -> Option<Delivery> {
    let mut entries = entries(bytes)?;
    let kind = |entry: &Entry<'_>| match text(entry.key)?.as_slice() {
        b"__asgi_channel__" => Some(false),
        b"__asgi_group__" => Some(true),
        _ => None,
    };
    let found: Vec<usize> = (0..entries.len())
        .filter(|at| kind(&entries[*at]).is_some())
        .collect();
    let [at] = found[..] else {
        return None;
    };
    let entry = entries.remove(at);
    let name = match head(entry.value, 0)?.value {
        Value::Str(name) | Value::Bin(name) => String::from_utf8(name).ok()?,
        _ => return None,
    };
    if name.contains('\0') {
        return None;
    }
    Some(Delivery {
        to_group: kind(&entry)?,
        name,
        data: map_of(&entries),
    })
}

/// The value that all of `bytes` are, if it does not nest too deep.
pub(super) fn value(bytes: &[u8]) -> Option<Value> {
    let mut at = 0;
    let value = value_at(bytes, &mut at, 0)?;
    (at == bytes.len()).then_some(value)
}

fn value_at(bytes: &[u8], at: &mut usize, depth: usize) -> Option<Value> {
    let Head {
        value,
        children,
        next,
    } = head(bytes, *at)?;
    *at = next;
    match value {
        Value::Array(mut items) => {
            if depth == MAX_DEPTH {
                return None;
            }
            for _ in 0..children {
                items.push(value_at(bytes, at, depth + 1)?);
            }
            Some(Value::Array(items))
        }
        Value::Map(mut entries) => {
            if depth == MAX_DEPTH {
                return None;
            }
            for _ in 0..children / 2 {
                let key = value_at(bytes, at, depth + 1)?;
                entries.push((key, value_at(bytes, at, depth + 1)?));
            }
            Some(Value::Map(entries))
        }
        value => Some(value),
    }
}

impl Value {
    /// Whether it may go out inside a message.
    fn may_go_out(&self) -> bool {
        match self {
            Self::Nil | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Bin(_) => true,
            Self::Str(text) => str::from_utf8(text).is_ok(),
            Self::Ext => false,
            Self::Array(items) => items.iter().all(Self::may_go_out),
            Self::Map(entries) => entries.iter().all(|(key, value)| {
                matches!(key, Self::Str(_)) && key.may_go_out() && value.may_go_out()
            }),
        }
    }

    /// Whether JSON can hold it.
    pub(super) fn fits_json(&self) -> bool {
        match self {
            Self::Float(value) => value.is_finite(),
            Self::Str(text) => str::from_utf8(text).is_ok_and(|text| !text.starts_with(MARK)),
            Self::Array(items) => items.iter().all(Self::fits_json),
            Self::Map(entries) => {
                let mut keys: Vec<&[u8]> = Vec::new();
                for (key, value) in entries {
                    match key {
                        Self::Str(key) if str::from_utf8(key).is_ok() => keys.push(key),
                        _ => return false,
                    }
                    if !value.fits_json() {
                        return false;
                    }
                }
                keys.sort_unstable();
                keys.windows(2).all(|pair| pair[0] != pair[1])
            }
            other => other.may_go_out(),
        }
    }
}

/// Whether `bytes` are a message by the strict rules.
pub(super) fn may_go_out(bytes: &[u8]) -> bool {
    let Some(message @ Value::Map(_)) = value(bytes) else {
        return false;
    };
    let Value::Map(entries) = &message else {
        return false;
    };
    let reserved = |key: &Value| {
        *key == Value::Str(b"__asgi_channel__".to_vec())
            || *key == Value::Str(b"__asgi_group__".to_vec())
    };
    message.may_go_out() && !entries.iter().any(|(key, _)| reserved(key))
}
