//! What one connection reads and writes: which frames are whose, and when what is done.

use std::io;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::channels::{Channels, HandlerId};
use super::control_stream::ControlEnd;
use super::outbound::{LARGE, Outbound};
use super::{Handler, Io, MOST_TO_SEND, Transport, Turn};
use crate::amqp::{
    Header, Inbound, Incoming, Kind, Malformed, Notice, Received, Sent, next_of_lapin,
    write_heartbeat, write_tune, write_tune_ok,
};
use crate::broker::rabbitmq::failure::{self, End};
use crate::broker::rabbitmq::login::{Progress, Stage};
use crate::runtime::Ready;

/// How much is read at once at most.
const INPUT: usize = 64 << 10;

/// How much is read at once where large bodies come: of these, most is to be read straight to where it is
/// kept.
const BEFORE_LARGE: usize = 4 << 10;

/// How often is read before what was read is answered.
const READS: usize = 8;

/// lapin is told in so many parts of a heartbeat's interval that the broker is alive: its idea of when
/// that was last is late by as much.
const SIGNS_OF_LIFE: u32 = 8;

/// What the thread does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Sleep for so long, then read.
    Gather(Duration),
    Wait {
        reads: bool,
        writes: bool,
        due: Option<Instant>,
        now: Instant,
    },
    End,
}

/// A handler that has not ended.
struct Running {
    id: HandlerId,
    handler: Box<dyn Handler>,
    ended: oneshot::Sender<End>,
}

impl Running {
    fn end(mut self, end: &End) {
        self.handler.end(end);
        // Whoever ended it does not ask.
        let _ = self.ended.send(end.clone());
    }
}

pub(super) struct Connection {
    transport: Transport,
    control: ControlEnd,
    /// Of the thread.
    waker: Waker,
    login: Progress,
    inbound: Inbound,
    input: Vec<u8>,
    /// What of it was read from the socket and not looked at.
    unread: std::ops::Range<usize>,
    /// How much is read at once.
    window: usize,
    out: Outbound,
    /// What lapin has written that is not a whole frame yet.
    of_lapin: Vec<u8>,
    /// `None` until the two sides have agreed.
    channels: Option<Channels>,
    handlers: Vec<Running>,
    is_blocked: bool,
    /// The thread has waited for something to read. If not, `readable` is an error or the end.
    waited_to_read: bool,
    /// There may be something to read that the socket does not tell of.
    may_be_more: bool,
    heartbeat: Duration,
    last_read: Instant,
    lapin_heard: Instant,
    of_bodies: u64,
    /// Why the connection ends, or has ended.
    end: Option<End>,
    has_ended: bool,
}

/// Why a connection cannot go on.
enum Fault {
    Eof,
    Io(io::Error),
    Malformed(Malformed),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Connection {
    pub(super) fn new(
        transport: Transport,
        control: ControlEnd,
        login: Progress,
        waker: Waker,
    ) -> Self {
        let now = Instant::now();
        Self {
            transport,
            control,
            waker,
            login,
            inbound: Inbound::new(),
            input: vec![0; INPUT],
            unread: 0..0,
            window: INPUT,
            out: Outbound::default(),
            of_lapin: Vec::new(),
            channels: None,
            handlers: Vec::new(),
            is_blocked: false,
            waited_to_read: true,
            may_be_more: false,
            heartbeat: Duration::ZERO,
            last_read: now,
            lapin_heard: now,
            of_bodies: 0,
            end: None,
            has_ended: false,
        }
    }

    pub(super) const fn of_bodies(&self) -> u64 {
        self.of_bodies
    }

    /// Whether messages come and go.
    pub(super) const fn stands(&self) -> bool {
        self.end.is_none()
    }

    pub(super) fn most_channels(&self) -> usize {
        self.channels.as_ref().map_or(0, Channels::most)
    }

    pub(super) fn add(
        &mut self,
        id: HandlerId,
        handler: Box<dyn Handler>,
        ended: oneshot::Sender<End>,
    ) {
        let running = Running { id, handler, ended };
        match &self.end {
            Some(end) => running.end(end),
            None => self.handlers.push(running),
        }
    }

    pub(super) fn remove(&mut self, id: HandlerId, end: &End) {
        if let Some(place) = self.handlers.iter().position(|running| running.id == id) {
            self.handlers.remove(place).end(end);
        }
    }

    /// Ends the connection, unless it has ended; lapin hears of `error`.
    pub(super) fn end(&mut self, end: &End, error: Option<io::Error>) {
        // Before the handlers: a panic in one leaves nobody waiting.
        if !std::mem::replace(&mut self.has_ended, true) {
            self.control.end(error);
            self.transport.shut_down();
            // Others may know this until there is another connection.
            self.out = Outbound::default();
        }
        self.end_handlers(end);
    }

    /// No message comes or goes any more.
    fn end_handlers(&mut self, end: &End) {
        let end = self.end.get_or_insert_with(|| end.clone());
        while let Some(running) = self.handlers.pop() {
            running.end(end);
        }
    }

    /// Does all there is to do.
    pub(super) fn step(&mut self, ready: Ready) -> Next {
        if self.has_ended {
            return Next::End;
        }
        let now = Instant::now();
        match self.work(ready, now) {
            Ok(next) => {
                self.waited_to_read = !matches!(next, Next::Wait { reads: false, .. });
                next
            }
            Err(fault) => {
                self.fail(fault);
                Next::End
            }
        }
    }

    /// Does a turn on the thread of a caller, if all handlers are at rest. `false` if the connection's own
    /// thread has to look.
    pub(super) fn turn_of_caller(&mut self) -> bool {
        let is_at_rest = self.transport.writes_at_once()
            && self.out.is_empty()
            && self
                .handlers
                .iter()
                .all(|running| running.handler.is_at_rest());
        if self.has_ended || !is_at_rest {
            return false;
        }
        let turn = self.turns(Instant::now());
        match self.write() {
            Ok(is_sent) => is_sent && turn.due.is_none(),
            Err(fault) => {
                self.fail(fault);
                false
            }
        }
    }

    fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::Eof => self.end(&failure::CUT.into(), None),
            Fault::Io(error) => self.end(&failure::describe_io(&error).into(), Some(error)),
            Fault::Malformed(malformed) => {
                let reason = format!("what the broker sent is not AMQP: {malformed:?}");
                let error = io::Error::new(io::ErrorKind::InvalidData, reason.clone());
                self.end(&reason.into(), Some(error));
            }
        }
    }

    fn work(&mut self, ready: Ready, now: Instant) -> Result<Next, Fault> {
        // lapin waits as it would for a socket.
        let lapin_is_gone = if self.out.len() < MOST_TO_SEND {
            self.take_of_lapin()?
        } else {
            self.control.is_closed()
        };
        // A socket that has failed is reported until it is read.
        if (ready.readable || self.may_be_more) && !(self.waited_to_read && self.control.is_full())
        {
            self.may_be_more = self.read(now)?;
        }
        let turn = self.turns(now);
        let was_full = self.out.len() >= MOST_TO_SEND;
        let is_sent = match self.write() {
            Ok(is_sent) => is_sent,
            Err(fault) => {
                // What the broker has said before it hung up counts; that it did is known.
                let _ = self.read(now);
                return Err(fault);
            }
        };
        if was_full && is_sent {
            // There is room for those who had none, and no other event need tell them.
            self.waker.wake_by_ref();
        }
        if lapin_is_gone && (is_sent || self.is_silent(now)) {
            let reason = if self.is_silent(now) {
                failure::SILENT
            } else {
                failure::ENDED
            };
            self.end(&reason.into(), None);
            return Ok(Next::End);
        }
        if self.may_be_more && !self.control.is_full() {
            // TLS may have it already, so that the socket does not say so.
            self.waker.wake_by_ref();
        } else if !turn.gather.is_zero() && is_sent {
            return Ok(Next::Gather(turn.gather));
        }
        Ok(Next::Wait {
            reads: !self.control.is_full(),
            writes: !is_sent,
            due: turn.due,
            now,
        })
    }

    fn is_silent(&self, now: Instant) -> bool {
        !self.heartbeat.is_zero()
            && now.saturating_duration_since(self.last_read) >= 2 * self.heartbeat
    }

    /// Passes on what lapin has written; whether it has closed its side.
    fn take_of_lapin(&mut self) -> Result<bool, Fault> {
        let is_closed = self.control.take(&mut self.of_lapin);
        let mut rest = self.of_lapin.as_slice();
        while let Some((sent, len)) = next_of_lapin(rest, self.inbound.shares())? {
            match sent {
                Sent::AsIs(bytes) => self.out.end().extend_from_slice(bytes),
                Sent::TuneOk(tune) => {
                    self.heartbeat = Duration::from_secs(tune.heartbeat.into());
                    write_tune_ok(tune, self.out.end());
                }
            }
            rest = rest.get(len..).unwrap_or_default();
        }
        let passed = self.of_lapin.len() - rest.len();
        self.of_lapin.drain(..passed);
        Ok(is_closed)
    }

    /// Reads what there is, and has it dealt with; whether there may be more.
    fn read(&mut self, now: Instant) -> Result<bool, Fault> {
        for _ in 0..READS {
            match self.read_body(now)? {
                Some(true) => continue,
                Some(false) => return Ok(false),
                None => {}
            }
            self.make_room();
            let end = self.input.len().min(self.unread.end + self.window);
            let room = self.input.get_mut(self.unread.end..end).unwrap_or_default();
            let most = room.len();
            let count = match self.transport.read(room) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(Fault::Eof),
                Poll::Ready(read) => read?,
            };
            self.unread.end += count;
            self.last_read = now;
            self.deal_with_input(now)?;
            self.window = match self.inbound.body() {
                Some((_, LARGE..)) => BEFORE_LARGE,
                _ => INPUT,
            };
            if count < most && self.transport.short_reads_are_all() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads more of a large body straight to where it is kept; whether there may be more. `None`: there
    /// is none.
    fn read_body(&mut self, now: Instant) -> Result<Option<bool>, Fault> {
        let Some((channel, left @ LARGE..)) = self.inbound.body() else {
            return Ok(None);
        };
        let owner = self.channels.as_ref().and_then(|all| all.owner_of(channel));
        let mut handlers = self.handlers.iter_mut();
        let Some(running) = handlers.find(|running| Some(running.id) == owner) else {
            return Ok(None);
        };
        let Some(buffer) = running.handler.body_buffer(channel) else {
            return Ok(None);
        };
        let most = left.min(buffer.capacity() - buffer.len());
        if most == 0 {
            return Ok(None);
        }
        let count = match self.transport.read_behind(buffer, most) {
            None => return Ok(None),
            Some(Poll::Pending) => return Ok(Some(false)),
            Some(Poll::Ready(Ok(0))) => return Err(Fault::Eof),
            Some(Poll::Ready(read)) => read?,
        };
        self.last_read = now;
        self.inbound.body_was_read(count);
        self.of_bodies += count as u64;
        self.handle(channel, now, |handler, io| {
            handler.body_was_read(channel, count, io)
        });
        self.tell_lapin_of_life(now);
        Ok(Some(count == most))
    }

    /// Sees to it that there is room to read into.
    fn make_room(&mut self) {
        if self.unread.start > 0 {
            self.input.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.unread.end == self.input.len() {
            // A frame that must be whole, of a broker whose frames are long.
            self.input.resize(2 * self.input.len(), 0);
        }
    }

    fn deal_with_input(&mut self, now: Instant) -> Result<(), Fault> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.get(self.unread.clone()).unwrap_or_default();
        let mut has_heard = false;
        let dealt = loop {
            match self.inbound.next(rest) {
                Ok(None) => break Ok(()),
                Ok(Some((received, len))) => {
                    has_heard |= !matches!(received, Received::Own(_) | Received::OwnBody { .. });
                    if let Err(malformed) = self.received(received, now) {
                        break Err(malformed);
                    }
                    self.unread.start += len;
                    rest = rest.get(len..).unwrap_or_default();
                }
                Err(malformed) => break Err(malformed),
            }
        };
        self.input = input;
        if has_heard {
            self.lapin_heard = now;
        } else {
            self.tell_lapin_of_life(now);
        }
        Ok(dealt?)
    }

    /// lapin has heard nothing for a while, since all was ours.
    fn tell_lapin_of_life(&mut self, now: Instant) {
        let silence = now.saturating_duration_since(self.lapin_heard);
        if !self.heartbeat.is_zero() && silence >= self.heartbeat / SIGNS_OF_LIFE {
            let mut sign = Vec::new();
            write_heartbeat(&mut sign);
            self.control.give(&sign);
            self.lapin_heard = now;
        }
    }

    fn received(&mut self, received: Received<'_>, now: Instant) -> Result<(), Malformed> {
        match received {
            Received::ForLapin(bytes) => self.control.give(bytes),
            Received::Notice(notice, bytes) => {
                match notice {
                    Notice::Blocked(is_blocked) => self.is_blocked = is_blocked,
                    Notice::Closing(close) => {
                        self.end_handlers(&End::said(&close));
                    }
                }
                self.control.give(bytes);
            }
            Received::Tune(tune) => {
                self.login.reach(Stage::Tune);
                if let Some(shares) = self.inbound.shares() {
                    self.channels = Some(Channels::new(shares.first_own, shares.last_own));
                }
                let mut told = Vec::new();
                write_tune(tune, &mut told);
                self.control.give(&told);
            }
            // The end of a frame that was read elsewhere.
            Received::OwnBody { part: [], .. } => {}
            Received::OwnBody { channel, part } => {
                self.of_bodies += part.len() as u64;
                self.handle(channel, now, |handler, io| handler.body(channel, part, io));
            }
            Received::Own(frame) => {
                let channel = frame.head.channel;
                match frame.head.kind {
                    Kind::Method => {
                        let method = Incoming::parse(frame.payload)?;
                        self.handle(channel, now, |handler, io| {
                            handler.method(channel, &method, io)
                        });
                    }
                    Kind::Header => {
                        let header = Header::parse(frame.payload)?;
                        self.handle(channel, now, |handler, io| {
                            handler.header(channel, &header, io)
                        });
                    }
                    Kind::Body => {}
                    Kind::Heartbeat => return Err(Malformed::Frame),
                }
            }
        }
        Ok(())
    }

    /// Has the handler of `channel` deal with something.
    fn handle(
        &mut self,
        channel: u16,
        now: Instant,
        deal: impl FnOnce(&mut dyn Handler, &mut Io<'_>) -> Result<(), End>,
    ) {
        let Some(channels) = &mut self.channels else {
            return;
        };
        // Nobody cares for what comes on a channel whose handler has ended: it was given up with it.
        let owner = channels.owner_of(channel);
        let mut handlers = self.handlers.iter_mut();
        let Some(running) = handlers.find(|running| Some(running.id) == owner) else {
            return;
        };
        let id = running.id;
        let mut io = Io {
            handler: id,
            out: &mut self.out,
            channels,
            frame_max: self.inbound.frame_max(),
            is_blocked: self.is_blocked,
            now,
            waker: &self.waker,
        };
        if let Err(end) = deal(&mut *running.handler, &mut io) {
            self.remove(id, &end);
        }
    }

    /// A turn of each handler.
    fn turns(&mut self, now: Instant) -> Turn {
        let Some(channels) = &mut self.channels else {
            return Turn::default();
        };
        let mut turn = Turn::default();
        let mut ended = Vec::new();
        for running in &mut self.handlers {
            let mut io = Io {
                handler: running.id,
                out: &mut self.out,
                channels,
                frame_max: self.inbound.frame_max(),
                is_blocked: self.is_blocked,
                now,
                waker: &self.waker,
            };
            match running.handler.turn(&mut io) {
                Ok(its) => turn = turn.and(its),
                Err(end) => ended.push((running.id, end)),
            }
        }
        for (id, end) in ended {
            self.remove(id, &end);
        }
        turn
    }

    /// Sends what was written; whether all of it is sent.
    fn write(&mut self) -> Result<bool, Fault> {
        while !self.out.is_empty() {
            let mut parts = Vec::new();
            self.out.first(&mut parts);
            match self.transport.write(&parts) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(written) => {
                    let count = written?;
                    drop(parts);
                    self.out.advance(count);
                }
            }
        }
        match self.transport.flush() {
            Poll::Pending => Ok(false),
            Poll::Ready(flushed) => {
                flushed?;
                Ok(true)
            }
        }
    }
}
