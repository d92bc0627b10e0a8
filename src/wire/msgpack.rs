//! The parts of MessagePack: a reader of one value's head or scalar at a time, and the writer of
//! the same.

use rmp::Marker;

use super::fault::Fault;

/// One scalar, or the head of a map or an array. What is borrowed is borrowed from the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    /// An integer by its value, whatever its width and sign on the wire.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    Float(f64),
    /// Perhaps not UTF-8.
    Str(&'a [u8]),
    Bin(&'a [u8]),
    /// The type of an extension; its data is passed over.
    Ext(i8),
    /// So many values follow.
    Array(u32),
    /// So many pairs of values follow.
    Map(u32),
}

impl Token<'_> {
    /// How it is called in an error.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Nil => "nil".to_owned(),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Int(value) => format!("the integer {value}"),
            Self::Uint(value) => format!("the integer {value}"),
            Self::Float(value) => format!("the float {value}"),
            Self::Str(_) => "a string".to_owned(),
            Self::Bin(_) => "a byte string".to_owned(),
            Self::Ext(kind) => format!("ext type {kind}"),
            Self::Array(_) => "an array".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }

    /// How many values follow that belong to it.
    fn children(&self) -> u64 {
        match self {
            Self::Array(count) => u64::from(*count),
            Self::Map(count) => 2 * u64::from(*count),
            _ => 0,
        }
    }
}

/// Why bytes are not MessagePack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// They end where more was claimed.
    Truncated,
    /// The byte 0xc1, which begins nothing.
    Reserved,
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::new(match malformed {
            Malformed::Truncated => "not complete MessagePack: the bytes end inside this value",
            Malformed::Reserved => "not MessagePack: no value begins with the byte 0xc1",
        })
    }
}

/// Reads tokens. No claimed length is believed before the bytes are there.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads one scalar, or one head.
    #[inline]
    pub(super) fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let [first] = self.array()?;
        Ok(match Marker::from_u8(first) {
            Marker::FixPos(value) => Token::Int(value.into()),
            Marker::FixNeg(value) => Token::Int(value.into()),
            Marker::Null => Token::Nil,
            Marker::True => Token::Bool(true),
            Marker::False => Token::Bool(false),
            Marker::U8 => Token::Int(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Token::Int(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Token::Int(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => {
                let value = u64::from_be_bytes(self.array()?);
                i64::try_from(value).map_or(Token::Uint(value), Token::Int)
            }
            Marker::I8 => Token::Int(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Token::Int(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Token::Int(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Token::Int(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(len) => Token::Str(self.bytes(len.into())?),
            Marker::Str8 => Token::Str(self.bytes_after_u8()?),
            Marker::Str16 => Token::Str(self.bytes_after_u16()?),
            Marker::Str32 => Token::Str(self.bytes_after_u32()?),
            Marker::Bin8 => Token::Bin(self.bytes_after_u8()?),
            Marker::Bin16 => Token::Bin(self.bytes_after_u16()?),
            Marker::Bin32 => Token::Bin(self.bytes_after_u32()?),
            Marker::FixArray(count) => Token::Array(count.into()),
            Marker::Array16 => Token::Array(u16::from_be_bytes(self.array()?).into()),
            Marker::Array32 => Token::Array(u32::from_be_bytes(self.array()?)),
            Marker::FixMap(count) => Token::Map(count.into()),
            Marker::Map16 => Token::Map(u16::from_be_bytes(self.array()?).into()),
            Marker::Map32 => Token::Map(u32::from_be_bytes(self.array()?)),
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => {
                let len = u8::from_be_bytes(self.array()?);
                self.ext(len.into())?
            }
            Marker::Ext16 => {
                let len = u16::from_be_bytes(self.array()?);
                self.ext(len.into())?
            }
            Marker::Ext32 => {
                let len = u32::from_be_bytes(self.array()?);
                self.ext(len)?
            }
            Marker::Reserved => return Err(Malformed::Reserved),
        })
    }

    /// Reads all that belongs to a token that was just read.
    ///
    /// Keeps a count and no stack, so that no depth is too deep: each round takes a byte at least.
    pub(super) fn skip_inside(&mut self, token: Token<'_>) -> Result<(), Malformed> {
        let mut left = token.children();
        while left > 0 {
            left = (left - 1).saturating_add(self.token()?.children());
        }
        Ok(())
    }

    /// Reads one value with all that belongs to it.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let token = self.token()?;
        self.skip_inside(token)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn bytes(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed::Truncated)?;
        let split = self.rest.split_at_checked(len);
        let (bytes, rest) = split.ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn bytes_after_u8(&mut self) -> Result<&'a [u8], Malformed> {
        let len = u8::from_be_bytes(self.array()?);
        self.bytes(len.into())
    }

    fn bytes_after_u16(&mut self) -> Result<&'a [u8], Malformed> {
        let len = u16::from_be_bytes(self.array()?);
        self.bytes(len.into())
    }

    fn bytes_after_u32(&mut self) -> Result<&'a [u8], Malformed> {
        let len = u32::from_be_bytes(self.array()?);
        self.bytes(len)
    }

    fn ext(&mut self, len: u32) -> Result<Token<'a>, Malformed> {
        let kind = i8::from_be_bytes(self.array()?);
        self.bytes(len)?;
        Ok(Token::Ext(kind))
    }
}

/// An encoded scalar without data, or the head that goes before data or values. The shortest form,
/// as Python's msgpack writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    bytes: [u8; 9],
    len: u8,
}

impl Head {
    pub(super) fn nil() -> Self {
        Self::new(Marker::Null, [])
    }

    pub(super) fn bool(value: bool) -> Self {
        Self::new(if value { Marker::True } else { Marker::False }, [])
    }

    pub(super) fn int(value: i64) -> Self {
        if let Ok(value) = u64::try_from(value) {
            Self::uint(value)
        } else if value >= -0x20 {
            Self::new(Marker::FixNeg(value as i8), [])
        } else if let Ok(value) = i8::try_from(value) {
            Self::new(Marker::I8, value.to_be_bytes())
        } else if let Ok(value) = i16::try_from(value) {
            Self::new(Marker::I16, value.to_be_bytes())
        } else if let Ok(value) = i32::try_from(value) {
            Self::new(Marker::I32, value.to_be_bytes())
        } else {
            Self::new(Marker::I64, value.to_be_bytes())
        }
    }

    pub(super) fn uint(value: u64) -> Self {
        if value < 0x80 {
            Self::new(Marker::FixPos(value as u8), [])
        } else if let Ok(value) = u8::try_from(value) {
            Self::new(Marker::U8, value.to_be_bytes())
        } else if let Ok(value) = u16::try_from(value) {
            Self::new(Marker::U16, value.to_be_bytes())
        } else if let Ok(value) = u32::try_from(value) {
            Self::new(Marker::U32, value.to_be_bytes())
        } else {
            Self::new(Marker::U64, value.to_be_bytes())
        }
    }

    pub(super) fn float(value: f64) -> Self {
        Self::new(Marker::F64, value.to_be_bytes())
    }

    pub(super) fn str(len: usize) -> Result<Self, Fault> {
        let len = count(len)?;
        Ok(if len < 0x20 {
            Self::new(Marker::FixStr(len as u8), [])
        } else if let Ok(len) = u8::try_from(len) {
            Self::new(Marker::Str8, len.to_be_bytes())
        } else if let Ok(len) = u16::try_from(len) {
            Self::new(Marker::Str16, len.to_be_bytes())
        } else {
            Self::new(Marker::Str32, len.to_be_bytes())
        })
    }

    pub(super) fn bin(len: usize) -> Result<Self, Fault> {
        let len = count(len)?;
        Ok(if let Ok(len) = u8::try_from(len) {
            Self::new(Marker::Bin8, len.to_be_bytes())
        } else if let Ok(len) = u16::try_from(len) {
            Self::new(Marker::Bin16, len.to_be_bytes())
        } else {
            Self::new(Marker::Bin32, len.to_be_bytes())
        })
    }

    pub(super) fn array(len: usize) -> Result<Self, Fault> {
        let len = count(len)?;
        Ok(if len < 0x10 {
            Self::new(Marker::FixArray(len as u8), [])
        } else if let Ok(len) = u16::try_from(len) {
            Self::new(Marker::Array16, len.to_be_bytes())
        } else {
            Self::new(Marker::Array32, len.to_be_bytes())
        })
    }

    pub(super) fn map(len: usize) -> Result<Self, Fault> {
        let len = count(len)?;
        Ok(if len < 0x10 {
            Self::new(Marker::FixMap(len as u8), [])
        } else if let Ok(len) = u16::try_from(len) {
            Self::new(Marker::Map16, len.to_be_bytes())
        } else {
            Self::new(Marker::Map32, len.to_be_bytes())
        })
    }

    /// The encoded bytes.
    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }

    /// `N` is at most 8.
    fn new<const N: usize>(marker: Marker, value: [u8; N]) -> Self {
        let mut bytes = [0; 9];
        bytes[0] = marker.to_u8();
        for (to, from) in bytes.iter_mut().skip(1).zip(value) {
            *to = from;
        }
        Self {
            bytes,
            len: 1 + N as u8,
        }
    }
}

/// A length as MessagePack can hold it.
fn count(len: usize) -> Result<u32, Fault> {
    u32::try_from(len).map_err(|_| {
        Fault::new(format!(
            "a length of {len} is more than MessagePack can hold"
        ))
    })
}
