//! Frames: where one ends, and what its head says.

use super::Malformed;

/// The bytes of a frame before its payload.
pub(crate) const HEAD_LEN: usize = 7;

/// The bytes of a frame that are not its payload: the head, and one that ends it.
pub(crate) const OVERHEAD: usize = HEAD_LEN + 1;

/// Ends each frame.
pub(super) const END: u8 = 0xce;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Method,
    /// The size and the properties of a content.
    Header,
    /// A part of a content.
    Body,
    Heartbeat,
}

impl Kind {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }
}

/// The first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) channel: u16,
    /// Of the payload.
    pub(crate) size: usize,
}

impl Head {
    /// Reads the head of a frame, which may be `frame_max` bytes long in all. `None`: it is not
    /// complete.
    pub(crate) fn parse(bytes: &[u8], frame_max: usize) -> Result<Option<Self>, Malformed> {
        let Some([kind, c0, c1, s0, s1, s2, s3]) = bytes.first_chunk() else {
            return Ok(None);
        };
        let kind = match kind {
            1 => Kind::Method,
            2 => Kind::Header,
            3 => Kind::Body,
            8 => Kind::Heartbeat,
            _ => return Err(Malformed::Frame),
        };
        let size = u32::from_be_bytes([*s0, *s1, *s2, *s3]) as usize;
        if size > frame_max.saturating_sub(OVERHEAD) {
            return Err(Malformed::TooLong);
        }
        Ok(Some(Self {
            kind,
            channel: u16::from_be_bytes([*c0, *c1]),
            size,
        }))
    }

    /// How long the whole frame is.
    pub(crate) const fn frame_len(self) -> usize {
        self.size + OVERHEAD
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.push(self.kind.number());
        out.extend_from_slice(&self.channel.to_be_bytes());
        // A frame is never longer than `frame_max`, which is 32 bits on the wire.
        out.extend_from_slice(&u32::try_from(self.size).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// A whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) head: Head,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame that `bytes` begin with, and how long it is. `None`: it is not complete.
    pub(crate) fn split(
        bytes: &'a [u8],
        frame_max: usize,
    ) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(head) = Head::parse(bytes, frame_max)? else {
            return Ok(None);
        };
        let Some(whole) = bytes.get(HEAD_LEN..head.frame_len()) else {
            return Ok(None);
        };
        match whole.split_last() {
            Some((&END, payload)) => Ok(Some((Self { head, payload }, head.frame_len()))),
            _ => Err(Malformed::Frame),
        }
    }
}

/// Writes a frame whose payload `write` writes.
pub(super) fn write_frame(
    out: &mut Vec<u8>,
    kind: Kind,
    channel: u16,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    Head {
        kind,
        channel,
        size: 0,
    }
    .write(out);
    write(out);
    // The size is the last of the head.
    write_len(out, start + HEAD_LEN - size_of::<u32>());
    out.push(END);
}

/// Writes at `start` how many bytes follow behind the four that say so.
pub(super) fn write_len(out: &mut [u8], start: usize) {
    let behind = start + size_of::<u32>();
    let len = u32::try_from(out.len() - behind).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..behind) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}
