//! Bytes as what a broker sends, and as what lapin sends, in one piece and in many.
//!
//! The first byte of an input says whether the two sides have agreed before, the second where the
//! stream is cut.

use crate::amqp::{
    FRAME_MIN, HEAD_LEN, Header, Inbound, Incoming, Kind, Malformed, OVERHEAD, Received, Sent,
    Shares, Tune, next_of_lapin, write_tune, write_tune_ok,
};

use super::{Verdict, ensure};

/// What is under test; a test puts a broken one in its place.
pub(super) trait Amqp {
    fn next<'a>(
        &self,
        inbound: &mut Inbound,
        bytes: &'a [u8],
    ) -> Result<Option<(Received<'a>, usize)>, Malformed> {
        inbound.next(bytes)
    }

    fn next_of_lapin<'a>(
        &self,
        bytes: &'a [u8],
        shares: Option<Shares>,
    ) -> Result<Option<(Sent<'a>, usize)>, Malformed> {
        next_of_lapin(bytes, shares)
    }

    fn method<'a>(&self, payload: &'a [u8]) -> Result<Incoming<'a>, Malformed> {
        Incoming::parse(payload)
    }

    fn header<'a>(&self, payload: &'a [u8]) -> Result<Header<'a>, Malformed> {
        Header::parse(payload)
    }
}

/// The library as it is.
pub(super) struct Library;

impl Amqp for Library {}

/// What the broker grants where both sides have agreed before.
const GRANTED: Tune = Tune {
    channel_max: 100,
    frame_max: 4096,
    heartbeat: 60,
};

/// What came out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    ForLapin(Vec<u8>),
    Own(u8, u16, Vec<u8>),
    /// Parts on one channel that follow each other.
    Body(u16, Vec<u8>),
}

/// All of it, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    items: Vec<Item>,
    /// How many bytes were left that are no whole frame.
    left: usize,
    malformed: Option<Malformed>,
}

impl Read {
    fn body(&mut self, channel: u16, part: &[u8]) {
        match self.items.last_mut() {
            Some(Item::Body(last, parts)) if *last == channel => parts.extend_from_slice(part),
            _ => self.items.push(Item::Body(channel, part.to_vec())),
        }
    }

    /// Of a body without its end as much is passed on as came before that was seen.
    fn end(mut self, left: usize, malformed: Option<Malformed>) -> Self {
        if malformed.is_some() {
            while self
                .items
                .pop_if(|last| matches!(last, Item::Body(..)))
                .is_some()
            {}
        } else {
            self.left = left;
        }
        self.malformed = malformed;
        self
    }
}

/// A share of the rules that says whose frame is whose, read plainly.
#[derive(Clone, Copy)]
struct Rules {
    first_own: u32,
    frame_max: usize,
}

impl Rules {
    fn of(granted: Tune) -> Self {
        let last = match granted.channel_max {
            0 => u16::MAX,
            most => most,
        };
        let of_lapin = if last >= 128 { last - 64 } else { last / 2 };
        Self {
            first_own: u32::from(of_lapin.max(1)) + 1,
            frame_max: match granted.frame_max {
                0 => 16 << 20,
                most => most as usize,
            },
        }
    }
}

const BEFORE: Rules = Rules {
    first_own: u32::MAX,
    frame_max: FRAME_MIN,
};

/// The same by a plain reading of the whole.
fn plainly(mut bytes: &[u8], mut rules: Rules) -> Read {
    let mut read = Read::default();
    loop {
        let has_agreed = rules.first_own != BEFORE.first_own;
        if !has_agreed && bytes.first() == Some(&b'A') {
            let Some((header, rest)) = bytes.split_at_checked(8) else {
                return read.end(bytes.len(), None);
            };
            read.items.push(Item::ForLapin(header.to_vec()));
            bytes = rest;
            continue;
        }
        let Some((head, rest)) = bytes.split_at_checked(7) else {
            return read.end(bytes.len(), None);
        };
        let (kind, channel) = (head[0], u16::from_be_bytes([head[1], head[2]]));
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if ![1, 2, 3, 8].contains(&kind) {
            return read.end(0, Some(Malformed::Frame));
        }
        if size + 8 > rules.frame_max.max(8) {
            return read.end(0, Some(Malformed::TooLong));
        }
        let is_own = u32::from(channel) >= rules.first_own;
        if rest.len() <= size {
            if is_own && kind == 3 {
                read.body(channel, rest);
                return read.end(0, None);
            }
            return read.end(bytes.len(), None);
        }
        let (payload, end) = rest.split_at(size);
        if end[0] != 0xce {
            return read.end(0, Some(Malformed::Frame));
        }
        match (is_own, kind, payload) {
            (true, 3, _) => read.body(channel, payload),
            (true, _, _) => read.items.push(Item::Own(kind, channel, payload.to_vec())),
            (false, 1, [0, 10, 0, 30, ..]) if channel == 0 && has_agreed => {
                return read.end(0, Some(Malformed::Frame));
            }
            (false, 1, [0, 10, 0, 30, tune @ ..]) if channel == 0 => {
                let [c0, c1, f0, f1, f2, f3, h0, h1] = *tune else {
                    let is_short = tune.len() < 8;
                    let malformed = if is_short {
                        Malformed::Truncated
                    } else {
                        Malformed::Surplus
                    };
                    return read.end(0, Some(malformed));
                };
                let granted = Tune {
                    channel_max: u16::from_be_bytes([c0, c1]),
                    frame_max: u32::from_be_bytes([f0, f1, f2, f3]),
                    heartbeat: u16::from_be_bytes([h0, h1]),
                };
                rules = Rules::of(granted);
                let told = Tune {
                    channel_max: u16::try_from(rules.first_own - 1).unwrap(),
                    frame_max: match granted.frame_max {
                        0 => 8192,
                        most => most.min(8192),
                    },
                    ..granted
                };
                read.items.push(Item::ForLapin(tune_frame(told)));
            }
            (false, 1, [0, 10, 0, 50, close @ ..]) if channel == 0 => {
                // A code, a short string, a class and a method.
                let wanted = close.get(2).map(|len| usize::from(*len) + 7);
                match wanted {
                    Some(wanted) if close.len() == wanted => {}
                    Some(wanted) if close.len() > wanted => {
                        return read.end(0, Some(Malformed::Surplus));
                    }
                    _ => return read.end(0, Some(Malformed::Truncated)),
                }
                read.items.push(Item::ForLapin(bytes[..size + 8].to_vec()));
            }
            _ => read.items.push(Item::ForLapin(bytes[..size + 8].to_vec())),
        }
        bytes = &bytes[size + 8..];
    }
}

fn tune_frame(tune: Tune) -> Vec<u8> {
    let mut frame = Vec::new();
    write_tune(tune, &mut frame);
    frame
}

/// An `Inbound` that has seen the broker's limits.
fn agreed(amqp: &dyn Amqp) -> Inbound {
    let mut inbound = Inbound::new();
    let tune = tune_frame(GRANTED);
    assert!(amqp.next(&mut inbound, &tune).is_ok());
    inbound
}

/// What the library makes of a stream that comes in these pieces.
fn read<'a>(
    amqp: &dyn Amqp,
    has_agreed: bool,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Read, String> {
    let mut inbound = match has_agreed {
        true => agreed(amqp),
        false => Inbound::new(),
    };
    let (mut read, mut held) = (Read::default(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut taken = 0;
        loop {
            let bytes = &held[taken..];
            let (received, len) = match amqp.next(&mut inbound, bytes) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(malformed) => return Ok(read.end(0, Some(malformed))),
            };
            ensure!(
                (1..=bytes.len()).contains(&len),
                "{len} bytes of {} were taken",
                bytes.len()
            );
            match received {
                Received::ForLapin(frame) | Received::Notice(_, frame) => {
                    read.items.push(Item::ForLapin(frame.to_vec()));
                }
                Received::Tune(told) => read.items.push(Item::ForLapin(tune_frame(told))),
                Received::OwnBody { channel, part } => read.body(channel, part),
                Received::Own(frame) => {
                    let kind = match frame.head.kind {
                        Kind::Method => 1,
                        Kind::Header => 2,
                        Kind::Body => 3,
                        Kind::Heartbeat => 8,
                    };
                    let payload = frame.payload.to_vec();
                    read.items
                        .push(Item::Own(kind, frame.head.channel, payload));
                }
            }
            taken += len;
        }
        held.drain(..taken);
        // So much is kept at the most: what the other side claims costs no memory.
        ensure!(
            held.len() < inbound.frame_max().max(OVERHEAD),
            "{} bytes are kept of frames of {}",
            held.len(),
            inbound.frame_max()
        );
    }
    let left = held.len();
    Ok(read.end(left, None))
}

/// Pieces of sizes that `seed` determines.
fn pieces(mut bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(seed) | 0x100;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = 1 + (state >> 16) as usize % (1 << (state >> 28));
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn check_inbound(amqp: &dyn Amqp, has_agreed: bool, seed: u8, stream: &[u8]) -> Verdict {
    let rules = match has_agreed {
        true => Rules::of(GRANTED),
        false => BEFORE,
    };
    let wanted = plainly(stream, rules);
    let whole = read(amqp, has_agreed, std::iter::once(stream))?;
    ensure!(
        whole == wanted,
        "the stream was read as {whole:?} instead of {wanted:?}"
    );
    for (how, cut) in [
        ("in pieces", read(amqp, has_agreed, pieces(stream, seed))?),
        ("byte by byte", read(amqp, has_agreed, stream.chunks(1))?),
    ] {
        ensure!(
            cut == wanted,
            "{how} the stream was read as {cut:?} instead of {wanted:?}"
        );
    }
    for item in &wanted.items {
        match item {
            Item::Own(1, _, payload) => check_method(amqp, payload)?,
            Item::Own(2, _, payload) => check_header(amqp, payload)?,
            _ => {}
        }
    }
    Ok(())
}

/// A payload that is taken is neither with a byte less nor with one more.
fn check_whole(what: &str, payload: &[u8], read: &dyn Fn(&[u8]) -> Option<Malformed>) -> Verdict {
    for len in (0..payload.len()).rev().take(300) {
        let refused = read(&payload[..len]);
        ensure!(
            refused == Some(Malformed::Truncated),
            "{len} bytes of a {what} of {} are read: {refused:?}",
            payload.len()
        );
    }
    let longer = [payload, &[0]].concat();
    let refused = read(&longer);
    ensure!(
        refused == Some(Malformed::Surplus),
        "a {what} with a byte behind it is read: {refused:?}"
    );
    Ok(())
}

fn check_method(amqp: &dyn Amqp, payload: &[u8]) -> Verdict {
    match amqp.method(payload) {
        Err(_) | Ok(Incoming::Other { .. }) => Ok(()),
        Ok(_) => check_whole("method", payload, &|bytes| amqp.method(bytes).err()),
    }
}

fn check_header(amqp: &dyn Amqp, payload: &[u8]) -> Verdict {
    let Ok(header) = amqp.header(payload) else {
        return Ok(());
    };
    let size = payload[4..12].try_into().map_or(0, u64::from_be_bytes);
    ensure!(
        header.body_size == size,
        "the body has {} bytes instead of {size}",
        header.body_size
    );
    check_whole("header", payload, &|bytes| amqp.header(bytes).err())
}

/// What of lapin's is passed on, and what is left or wrong.
type Passed = (Vec<u8>, Result<usize, Malformed>);

fn pass<'a>(
    amqp: &dyn Amqp,
    shares: Option<Shares>,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Passed, String> {
    let (mut passed, mut held) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut taken = 0;
        loop {
            let bytes = &held[taken..];
            let (sent, len) = match amqp.next_of_lapin(bytes, shares) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(malformed) => return Ok((passed, Err(malformed))),
            };
            ensure!(
                (1..=bytes.len()).contains(&len),
                "{len} bytes of {} of lapin were taken",
                bytes.len()
            );
            match sent {
                Sent::AsIs(frame) => {
                    ensure!(
                        frame == &bytes[..len],
                        "of {len} bytes of lapin {} are passed on",
                        frame.len()
                    );
                    // Ours may follow.
                    let is_whole = frame.first() == Some(&b'A') || frame.last() == Some(&0xce);
                    ensure!(is_whole, "a part of a frame of lapin is passed on");
                    passed.extend_from_slice(frame);
                }
                Sent::TuneOk(tune) => write_tune_ok(tune, &mut passed),
            }
            taken += len;
        }
        held.drain(..taken);
        // Unless it is as long as it claims, nothing more than a head is waited for.
        ensure!(
            held.len() < HEAD_LEN || claimed(&held) > held.len(),
            "{} bytes of lapin are kept that are a frame",
            held.len()
        );
    }
    Ok((passed, Ok(held.len())))
}

/// How long the frame is that `bytes` begin with.
fn claimed(bytes: &[u8]) -> usize {
    match bytes.get(3..7).and_then(|size| size.try_into().ok()) {
        Some(size) if bytes[0] != b'A' => u32::from_be_bytes(size) as usize + OVERHEAD,
        _ => OVERHEAD,
    }
}

fn check_lapin(amqp: &dyn Amqp, has_agreed: bool, seed: u8, stream: &[u8]) -> Verdict {
    let shares = has_agreed.then(|| agreed(amqp).shares()).flatten();
    let whole = pass(amqp, shares, std::iter::once(stream))?;
    for cut in [
        pass(amqp, shares, pieces(stream, seed))?,
        pass(amqp, shares, stream.chunks(1))?,
    ] {
        ensure!(
            cut == whole,
            "of lapin {cut:?} is passed on instead of {whole:?}"
        );
    }
    Ok(())
}

pub(super) fn check(amqp: &dyn Amqp, input: &[u8]) -> Verdict {
    let [flags, seed, stream @ ..] = input else {
        return Ok(());
    };
    let has_agreed = flags & 1 != 0;
    check_inbound(amqp, has_agreed, *seed, stream)?;
    check_lapin(amqp, has_agreed, *seed, stream)?;
    check_method(amqp, stream)?;
    check_header(amqp, stream)
}
