//! The I/O thread of a connection, which owns the socket.
//!
//! lapin speaks on AMQP channels of its own, through a stream in memory ([`control_stream`]). All
//! other channels belong to [`Handler`]s, which read and write their frames here, without a hop to
//! another thread: [`connection`] says what goes where. The thread sleeps until the socket is ready,
//! somebody wakes it ([`wakeup`]), or something is due.

mod channels;
mod connection;
mod control_stream;
#[cfg(test)]
mod lapin_tests;
mod outbound;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transport;
mod wakeup;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::channels::{Channels, HandlerId};
use self::connection::{Connection, Next};
pub(super) use self::control_stream::ControlStream;
use self::outbound::Outbound;
pub(super) use self::outbound::{LARGE, SharedBody};
#[cfg(test)]
pub(super) use self::testing::TestIo;
pub(super) use self::transport::{AnswersInTls, Transport};
use self::wakeup::Wakeup;
use super::failure::{ENDED, End};
use super::login::Progress;
use crate::amqp::{Header, Incoming, Writer};
use crate::broker::Host;
use crate::runtime::{Ready, TimerFd, spawn_thread, wait_for_socket};
use crate::sync::Mutex;

/// So much may wait to be sent. Those who have more to send wait until some of it is.
const MOST_TO_SEND: usize = 256 << 10;

/// Why a connection ends where a handler has panicked.
const PANICKED: &str = "what reads and writes the connection has panicked";

/// What reads and writes on AMQP channels of its own.
///
/// All calls come from one thread at a time, and none may wait. An error ends the handler alone, and
/// says why.
pub(super) trait Handler: Send {
    /// The broker has sent a method on one of its channels.
    fn method(&mut self, channel: u16, method: &Incoming<'_>, io: &mut Io<'_>) -> Result<(), End>;

    /// The header of a content. Its method came before.
    fn header(&mut self, channel: u16, header: &Header<'_>, io: &mut Io<'_>) -> Result<(), End>;

    /// A part of the body of a content.
    fn body(&mut self, channel: u16, part: &[u8], io: &mut Io<'_>) -> Result<(), End>;

    /// Where to read more of a body, at the end; `None` if it is to come by [`Handler::body`].
    fn body_buffer(&mut self, _channel: u16) -> Option<&mut Vec<u8>> {
        None
    }

    /// So many bytes were read behind what was in [`Handler::body_buffer`].
    fn body_was_read(&mut self, _channel: u16, _count: usize, _io: &mut Io<'_>) -> Result<(), End> {
        Ok(())
    }

    /// Whether it waits for nothing, so that whoever gives it something to do may do the next turn, on a
    /// thread of its own.
    fn is_at_rest(&self) -> bool {
        false
    }

    /// All has been read that was there, or the thread was woken, or something is due: does what
    /// there is to do.
    fn turn(&mut self, io: &mut Io<'_>) -> Result<Turn, End>;

    /// Called once, at the end: nothing is read or written any more.
    fn end(&mut self, end: &End);
}

/// What one turn came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// When there will be something to do even if nothing happens.
    pub(super) due: Option<Instant>,
    /// How long more had better be waited for; see [`super::gathering`].
    pub(super) gather: Duration,
}

impl Turn {
    fn and(self, other: Self) -> Self {
        Self {
            due: self.due.into_iter().chain(other.due).min(),
            gather: self.gather.max(other.gather),
        }
    }
}

/// What a handler may do in a call.
#[derive(Debug)]
pub(super) struct Io<'a> {
    handler: HandlerId,
    out: &'a mut Outbound,
    channels: &'a mut Channels,
    /// The longest frame that the broker takes.
    pub(super) frame_max: usize,
    /// The broker takes no messages, for want of memory or disk.
    pub(super) is_blocked: bool,
    pub(super) now: Instant,
    /// Has the thread call [`Handler::turn`].
    pub(super) waker: &'a Waker,
}

impl Io<'_> {
    /// A number for one more channel, which is to be opened next; `None` where the broker allows no
    /// more.
    pub(super) fn take_channel(&mut self) -> Option<u16> {
        self.channels.take(self.handler)
    }

    /// A channel is closed on both sides.
    pub(super) fn release_channel(&mut self, channel: u16) {
        self.channels.release(channel);
    }

    /// Writes on a channel.
    pub(super) fn writer(&mut self, channel: u16) -> Writer<'_> {
        Writer::new(self.out.end(), channel)
    }

    /// Appends the frames of a body, which is sent from where it is.
    pub(super) fn write_shared(&mut self, channel: u16, body: &SharedBody) {
        self.out.append_shared(channel, body, self.frame_max);
    }

    /// Whether more had better be written now, or later.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < MOST_TO_SEND
    }
}

/// The I/O thread of one connection.
pub(super) struct IoThread {
    connection: Mutex<Connection>,
    wakeup: Arc<Wakeup>,
    /// The same socket as the connection's, to wait for it and to shut it down.
    socket: TcpStream,
    /// Whom the handlers serve. Their last reference to it must not go under the connection's lock.
    host: OnceLock<Weak<dyn Host>>,
    next_handler: AtomicU64,
    /// How many bytes of the bodies of messages were read on channels of ours.
    of_bodies: AtomicU64,
}

impl fmt::Debug for IoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoThread").finish_non_exhaustive()
    }
}

/// A thread that was started, and what it serves.
pub(super) struct Started {
    pub(super) io: Arc<IoThread>,
    pub(super) lapin: ControlStream,
    pub(super) thread: JoinHandle<()>,
}

impl IoThread {
    /// Starts a thread that serves `transport`, of which `socket` is another handle.
    pub(super) fn start(
        transport: Transport,
        socket: TcpStream,
        login: Progress,
    ) -> io::Result<Started> {
        let wakeup = Arc::new(Wakeup::new()?);
        let (lapin, control) = control_stream::pair(Arc::clone(&wakeup));
        let timer = TimerFd::new()?;
        let io = Arc::new(Self {
            connection: Mutex::new(Connection::new(
                transport,
                control,
                login,
                Arc::clone(&wakeup).into(),
            )),
            wakeup,
            socket,
            host: OnceLock::new(),
            next_handler: AtomicU64::new(0),
            of_bodies: AtomicU64::new(0),
        });
        let its = Arc::clone(&io);
        let thread = spawn_thread("layer-io".to_owned(), move || its.run(&timer))?;
        Ok(Started { io, lapin, thread })
    }

    fn run(&self, timer: &TimerFd) {
        let mut ready = Ready::default();
        let mut armed: Option<Instant> = None;
        loop {
            match self.step(ready) {
                Next::End => return,
                Next::Gather(time) => {
                    sleep(time);
                    ready = Ready {
                        readable: true,
                        writable: false,
                    };
                }
                Next::Wait {
                    reads,
                    writes,
                    due,
                    now,
                } => {
                    // One that rings too early costs less than to set it anew each time.
                    let is_armed = armed.is_some_and(|at| at > now);
                    if let Some(due) = due
                        && !(is_armed && armed <= Some(due))
                    {
                        timer.arm(due.saturating_duration_since(now));
                        armed = Some(due);
                    }
                    ready = if self.wakeup.may_sleep() {
                        let socket = self.socket.as_fd();
                        wait_for_socket(socket, (reads, writes), self.wakeup.alarm(), timer)
                    } else {
                        // Those who wake it again and again are not to keep it from reading.
                        Ready {
                            readable: reads,
                            writable: false,
                        }
                    };
                }
            }
            self.wakeup.awake();
        }
    }

    fn step(&self, ready: Ready) -> Next {
        self.with_connection(|connection| {
            let next = guarded(connection, Next::End, |connection| connection.step(ready));
            self.of_bodies
                .store(connection.of_bodies(), Ordering::Relaxed);
            next
        })
    }

    /// Has the thread look at what was given to a handler.
    pub(super) fn wake(&self) {
        self.wakeup.notify();
    }

    /// Does a turn on the calling thread, if all handlers are at rest and no other thread is at it; else
    /// has the thread look. To wake it takes longer than to write what one caller has to say.
    pub(super) fn work_here(&self) {
        let _host = self.host();
        let is_done = match self.connection.try_lock() {
            None => false,
            Some(mut connection) => guarded(&mut connection, false, Connection::turn_of_caller),
        };
        if !is_done {
            self.wake();
        }
    }

    /// The handlers are to serve this host.
    pub(super) fn serve(&self, host: Weak<dyn Host>) {
        // A connection has one.
        let _ = self.host.set(host);
    }

    /// To be held around what takes the connection's lock.
    fn host(&self) -> Option<Arc<dyn Host>> {
        self.host.get().and_then(Weak::upgrade)
    }

    fn with_connection<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        let _host = self.host();
        act(&mut self.connection.lock())
    }

    fn remove(&self, handler: HandlerId, end: &End) {
        self.with_connection(|connection| connection.remove(handler, end));
    }

    /// How many bytes of the bodies of messages have been read, of one that is not complete too.
    pub(super) fn of_bodies(&self) -> u64 {
        self.of_bodies.load(Ordering::Relaxed)
    }

    /// Whether the connection has not ended. It has where a handler has ended with it.
    pub(super) fn stands(&self) -> bool {
        self.with_connection(|connection| connection.stands())
    }

    /// How many AMQP channels of ours may be open at a time.
    pub(super) fn most_channels(&self) -> usize {
        self.with_connection(|connection| connection.most_channels())
    }

    /// Shuts the socket down: reads end, writes fail, and so the thread ends, and lapin's.
    pub(super) fn cut(&self) {
        // It may have been shut down by the other side.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Lets `handler` take part.
    pub(super) fn begin(self: &Arc<Self>, handler: impl Handler + 'static) -> Task {
        let id = self.next_handler.fetch_add(1, Ordering::Relaxed);
        let (tells, ended) = oneshot::channel();
        self.with_connection(|connection| connection.add(id, Box::new(handler), tells));
        self.wake();
        Task {
            io: Arc::clone(self),
            id,
            ended,
        }
    }
}

/// What `act` returns; or `failed`, where a handler has panicked, which ends the connection.
fn guarded<T>(connection: &mut Connection, failed: T, act: impl FnOnce(&mut Connection) -> T) -> T {
    if let Ok(result) = catch_unwind(AssertUnwindSafe(|| act(connection))) {
        return result;
    }
    // Each handler is ended once, and one that panics then too is the last that does.
    while catch_unwind(AssertUnwindSafe(|| connection.end(&PANICKED.into(), None))).is_err() {}
    failed
}

/// A handler at work. It is ended with this.
#[derive(Debug)]
pub(super) struct Task {
    io: Arc<IoThread>,
    id: HandlerId,
    ended: oneshot::Receiver<End>,
}

impl Task {
    /// Done when the handler has ended by itself or with its connection: why.
    pub(super) async fn ended(&mut self) -> End {
        let ended = poll_fn(|cx| Pin::new(&mut self.ended).poll(cx)).await;
        ended.unwrap_or_else(|_| ENDED.into())
    }

    /// Ends the handler for this reason, if it has not ended.
    pub(super) fn end(self, end: &End) {
        self.io.remove(self.id, end);
    }

    pub(super) fn wake(&self) {
        self.io.wake();
    }

    pub(super) fn io(&self) -> Arc<IoThread> {
        Arc::clone(&self.io)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.io
            .remove(self.id, &"the connection was given up".into());
    }
}
