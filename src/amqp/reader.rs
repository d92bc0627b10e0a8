//! The parts of a method or a header: numbers, strings, tables.

use super::Malformed;

/// Reads from the front. No claimed length is believed before the bytes are there, and nothing is
/// allocated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (first, rest) = self.0.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn octet(&mut self) -> Result<u8, Malformed> {
        let [octet] = self.array()?;
        Ok(octet)
    }

    pub(super) fn short_uint(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn long_uint(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn long_long_uint(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string of at most 255 bytes, perhaps not UTF-8.
    pub(super) fn short_string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.octet()?;
        self.bytes(len.into())
    }

    /// Passes over a table or a long string, whatever is in it.
    pub(super) fn skip_long(&mut self) -> Result<(), Malformed> {
        let len = self.long_uint()?;
        self.bytes(len as usize).map(|_| ())
    }

    /// That nothing is left.
    pub(super) const fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Surplus)
        }
    }
}
