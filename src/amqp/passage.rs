//! What passes between lapin and the broker on the connection that we share: which frames are whose,
//! and how the numbers of AMQP channels and the sizes of frames are shared out.
//!
//! lapin speaks on its channels as if it were alone. It is told of fewer channels than the broker
//! grants, so that the numbers above are ours; and of shorter frames, since it keeps room for 64 of
//! them, while long ones are for the bodies of our messages.

use super::frame::{END, Frame, HEAD_LEN, Head, Kind, write_frame};
use super::incoming::Close;
use super::outgoing::Writer;
use super::reader::Reader;
use super::{FRAME_UNLIMITED, Malformed};

/// What a client sends before its first frame.
const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// The shortest `frame_max` that AMQP 0-9-1 has, and what holds before the two sides have agreed.
pub(crate) const FRAME_MIN: usize = 4096;

/// As long as lapin's frames may be.
const FRAMES_OF_LAPIN: u32 = 8192;

/// So many AMQP channels are ours, where there are enough: lapin does not use a number again that the
/// broker has closed, and so needs many.
const OWN_CHANNELS: u16 = 64;

/// The arguments of `connection.tune` and `connection.tune-ok`. 0 is no limit, or no heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tune {
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
    /// In seconds.
    pub(crate) heartbeat: u16,
}

impl Tune {
    fn parse(arguments: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(arguments);
        let tune = Self {
            channel_max: reader.short_uint()?,
            frame_max: reader.long_uint()?,
            heartbeat: reader.short_uint()?,
        };
        reader.end()?;
        Ok(tune)
    }

    fn write(self, method: u16, out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(12);
        payload.extend_from_slice(&10_u16.to_be_bytes());
        payload.extend_from_slice(&method.to_be_bytes());
        payload.extend_from_slice(&self.channel_max.to_be_bytes());
        payload.extend_from_slice(&self.frame_max.to_be_bytes());
        payload.extend_from_slice(&self.heartbeat.to_be_bytes());
        write_frame(out, Kind::Method, 0, |out| out.extend_from_slice(&payload));
    }
}

/// What the broker grants, shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    granted: Tune,
    /// The first AMQP channel that is ours; all above are too.
    pub(crate) first_own: u16,
    /// The last one.
    pub(crate) last_own: u16,
}

impl Shares {
    fn of(granted: Tune) -> Self {
        let last_own = match granted.channel_max {
            0 => u16::MAX,
            most => most,
        };
        // Where there are few, lapin has half of them, or one less.
        let of_lapin = last_own
            .saturating_sub(OWN_CHANNELS)
            .max(last_own / 2)
            .max(1);
        Self {
            granted,
            first_own: of_lapin.saturating_add(1),
            last_own,
        }
    }

    fn for_lapin(self) -> Tune {
        let frame_max = match self.granted.frame_max {
            0 => FRAMES_OF_LAPIN,
            most => most.min(FRAMES_OF_LAPIN),
        };
        Tune {
            channel_max: self.first_own - 1,
            frame_max,
            heartbeat: self.granted.heartbeat,
        }
    }

    /// How long a frame may be.
    pub(crate) fn frame_max(self) -> usize {
        match self.granted.frame_max {
            0 => FRAME_UNLIMITED,
            most => most as usize,
        }
    }

    const fn is_own(self, channel: u16) -> bool {
        channel >= self.first_own
    }
}

/// What the broker has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// These bytes are for lapin.
    ForLapin(&'a [u8]),
    /// They are too, and say something of the connection.
    Notice(Notice<'a>, &'a [u8]),
    /// The two sides agree; lapin is to be told this by [`write_tune`].
    Tune(Tune),
    /// A method or a header, on a channel of ours.
    Own(Frame<'a>),
    /// A part of a body, on a channel of ours: as much of a frame as is there.
    OwnBody { channel: u16, part: &'a [u8] },
}

/// What happens to the whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice<'a> {
    /// Whether the broker takes no messages, for want of memory or disk.
    Blocked(bool),
    /// The broker closes it.
    Closing(Close<'a>),
}

/// Splits what comes from the broker.
#[derive(Debug)]
pub(crate) struct Inbound {
    shares: Option<Shares>,
    frame_max: usize,
    /// Of a frame with a part of a body, on a channel of ours: the channel, and how much is to come.
    body: Option<(u16, usize)>,
}

impl Inbound {
    pub(crate) const fn new() -> Self {
        Self {
            shares: None,
            frame_max: FRAME_MIN,
            body: None,
        }
    }

    pub(crate) const fn shares(&self) -> Option<Shares> {
        self.shares
    }

    /// How long a frame may be.
    pub(crate) const fn frame_max(&self) -> usize {
        self.frame_max
    }

    /// What `bytes` begin with, and how long it is. `None`: it is not complete.
    pub(crate) fn next<'a>(
        &mut self,
        bytes: &'a [u8],
    ) -> Result<Option<(Received<'a>, usize)>, Malformed> {
        if let Some((channel, left)) = self.body {
            return self.body_part(channel, left, 0, bytes);
        }
        // A broker that does not speak this protocol answers with the one it speaks.
        if self.shares.is_none() && bytes.first() == PROTOCOL_HEADER.first() {
            let header = bytes.get(..PROTOCOL_HEADER.len());
            return Ok(header.map(|header| (Received::ForLapin(header), header.len())));
        }
        let Some(head) = Head::parse(bytes, self.frame_max)? else {
            return Ok(None);
        };
        let is_own = self
            .shares
            .is_some_and(|shares| shares.is_own(head.channel));
        if is_own && head.kind == Kind::Body {
            return self.body_part(head.channel, head.size, HEAD_LEN, bytes);
        }
        let Some((frame, len)) = Frame::split(bytes, self.frame_max)? else {
            return Ok(None);
        };
        if is_own {
            return Ok(Some((Received::Own(frame), len)));
        }
        let whole = bytes.get(..len).unwrap_or_default();
        let received = match method_of_connection(&frame) {
            // Once: numbers of channels are in use.
            Some((30, _)) if self.shares.is_some() => return Err(Malformed::Frame),
            Some((30, arguments)) => {
                let shares = Shares::of(Tune::parse(arguments)?);
                self.frame_max = shares.frame_max();
                self.shares = Some(shares);
                Received::Tune(shares.for_lapin())
            }
            Some((50, arguments)) => {
                Received::Notice(Notice::Closing(Close::parse(arguments)?), whole)
            }
            Some((60, _)) => Received::Notice(Notice::Blocked(true), whole),
            Some((61, _)) => Received::Notice(Notice::Blocked(false), whole),
            _ => Received::ForLapin(whole),
        };
        Ok(Some((received, len)))
    }

    /// The channel of ours whose body comes next, and how much of it: it may be read elsewhere.
    pub(crate) const fn body(&self) -> Option<(u16, usize)> {
        self.body
    }

    /// So much of [`Inbound::body`] was read elsewhere.
    pub(crate) const fn body_was_read(&mut self, count: usize) {
        if let Some((_, left)) = &mut self.body {
            *left = left.saturating_sub(count);
        }
    }

    /// As much as there is of a body, of which `left` bytes are to come behind the first `skip`.
    fn body_part<'a>(
        &mut self,
        channel: u16,
        left: usize,
        skip: usize,
        bytes: &'a [u8],
    ) -> Result<Option<(Received<'a>, usize)>, Malformed> {
        let rest = bytes.get(skip..).unwrap_or_default();
        let whole = rest.split_at_checked(left);
        let (part, is_whole) = match whole {
            Some((part, [END, ..])) => (part, true),
            Some((_, [_, ..])) => return Err(Malformed::Frame),
            Some((part, [])) => (part, false),
            None => (rest, false),
        };
        let end = usize::from(is_whole);
        if skip + part.len() + end == 0 {
            return Ok(None);
        }
        self.body = (!is_whole).then_some((channel, left - part.len()));
        let len = skip + part.len() + end;
        Ok(Some((Received::OwnBody { channel, part }, len)))
    }
}

/// Writes a frame of the broker's as lapin may read it: a part of a body in several, where it is longer than
/// lapin was told that frames are.
pub(crate) fn write_for_lapin(frame: &[u8], out: &mut Vec<u8>) {
    let most = FRAMES_OF_LAPIN as usize;
    match Frame::split(frame, usize::MAX) {
        Ok(Some((Frame { head, payload }, _))) if head.kind == Kind::Body && frame.len() > most => {
            Writer::new(out, head.channel).body(payload, most);
        }
        _ => out.extend_from_slice(frame),
    }
}

/// Writes the frame that tells lapin what the broker grants it.
pub(crate) fn write_tune(tune: Tune, out: &mut Vec<u8>) {
    tune.write(30, out);
}

/// What lapin sends, for the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent<'a> {
    /// As it is.
    AsIs(&'a [u8]),
    /// What was agreed upon, for the whole connection: to be written by [`write_tune_ok`].
    TuneOk(Tune),
}

/// What `bytes` of lapin begin with, and how long it is: a whole frame, so that ours can follow.
/// `None`: it is not complete.
pub(crate) fn next_of_lapin(
    bytes: &[u8],
    shares: Option<Shares>,
) -> Result<Option<(Sent<'_>, usize)>, Malformed> {
    if bytes.first() == PROTOCOL_HEADER.first() {
        let header = bytes.get(..PROTOCOL_HEADER.len());
        return Ok(header.map(|header| (Sent::AsIs(header), header.len())));
    }
    let Some((frame, len)) = Frame::split(bytes, usize::MAX)? else {
        return Ok(None);
    };
    let sent = match (method_of_connection(&frame), shares) {
        (Some((31, arguments)), Some(Shares { granted, .. })) => {
            let of_lapin = Tune::parse(arguments)?;
            Sent::TuneOk(Tune {
                heartbeat: of_lapin.heartbeat,
                ..granted
            })
        }
        _ => Sent::AsIs(bytes.get(..len).unwrap_or_default()),
    };
    Ok(Some((sent, len)))
}

/// Writes the frame that tells the broker what was agreed upon.
pub(crate) fn write_tune_ok(tune: Tune, out: &mut Vec<u8>) {
    tune.write(31, out);
}

/// A method of the class `connection`, by its number, and its arguments.
fn method_of_connection<'a>(frame: &Frame<'a>) -> Option<(u16, &'a [u8])> {
    let Head { kind, channel, .. } = frame.head;
    if kind != Kind::Method || channel != 0 {
        return None;
    }
    let (class_and_method, arguments) = frame.payload.split_first_chunk()?;
    let [0, 10, m0, m1] = class_and_method else {
        return None;
    };
    Some((u16::from_be_bytes([*m0, *m1]), arguments))
}

/// Writes a heartbeat.
pub(crate) fn write_heartbeat(out: &mut Vec<u8>) {
    write_frame(out, Kind::Heartbeat, 0, |_| {});
}
