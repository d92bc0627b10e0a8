//! The stream in memory through which lapin speaks to the broker, in place of a socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_io::{AsyncRead, AsyncWrite};

use super::wakeup::Wakeup;
use crate::amqp::write_for_lapin;
use crate::sync::Mutex;

/// How much of what lapin writes may wait to be sent. lapin then waits as it would for a socket.
const MOST_FROM_LAPIN: usize = 64 << 10;

/// Of how much that lapin has not read nothing more is read from the socket.
const MOST_FOR_LAPIN: usize = 1 << 20;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wakeup: Arc<Wakeup>,
}

#[derive(Debug, Default)]
struct State {
    for_lapin: Vec<u8>,
    /// How much of it was read.
    read: usize,
    reader: Option<Waker>,
    from_lapin: Vec<u8>,
    writer: Option<Waker>,
    end: End,
    /// lapin has closed or dropped its side.
    is_closed: bool,
}

/// What lapin reads behind everything.
#[derive(Debug, Default)]
enum End {
    #[default]
    Open,
    /// The socket has ended.
    Eof,
    /// It has failed: lapin has yet to hear of it.
    Error(io::Error),
}

/// lapin's side.
#[derive(Debug)]
pub(in crate::broker::rabbitmq) struct ControlStream(Arc<Shared>);

/// The side of the I/O thread.
#[derive(Debug)]
pub(super) struct ControlEnd(Arc<Shared>);

/// Both sides. `wakeup` is told of what lapin writes.
pub(super) fn pair(wakeup: Arc<Wakeup>) -> (ControlStream, ControlEnd) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        wakeup,
    });
    (ControlStream(Arc::clone(&shared)), ControlEnd(shared))
}

impl ControlEnd {
    /// Gives lapin a frame that the broker has sent.
    pub(super) fn give(&self, frame: &[u8]) {
        let mut state = self.0.state.lock();
        if state.is_closed {
            return;
        }
        if state.read == state.for_lapin.len() {
            state.for_lapin.clear();
            state.read = 0;
        }
        write_for_lapin(frame, &mut state.for_lapin);
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Whether lapin has so much to read that it is to read some of it first.
    pub(super) fn is_full(&self) -> bool {
        let state = self.0.state.lock();
        state.for_lapin.len() - state.read >= MOST_FOR_LAPIN
    }

    /// Appends what lapin has written, and makes room for more; whether it has closed its side.
    pub(super) fn take(&self, out: &mut Vec<u8>) -> bool {
        let mut state = self.0.state.lock();
        out.extend_from_slice(&state.from_lapin);
        state.from_lapin.clear();
        let writer = state.writer.take();
        let is_closed = state.is_closed;
        drop(state);
        wake(writer);
        is_closed
    }

    /// Whether lapin has closed its side.
    pub(super) fn is_closed(&self) -> bool {
        self.0.state.lock().is_closed
    }

    /// The socket has ended, for this reason if there is one.
    pub(super) fn end(&self, error: Option<io::Error>) {
        let mut state = self.0.state.lock();
        if matches!(state.end, End::Open) {
            state.end = error.map_or(End::Eof, End::Error);
        }
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().for_each(wake);
    }
}

/// Whoever waits for the other side is not left to wait for ever.
impl Drop for ControlEnd {
    fn drop(&mut self) {
        self.end(None);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl ControlStream {
    fn close(&self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        state.for_lapin = Vec::new();
        state.read = 0;
        drop(state);
        self.0.wakeup.notify();
    }
}

impl Drop for ControlStream {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncRead for ControlStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.state.lock();
        let waits = state.for_lapin.get(state.read..).unwrap_or_default();
        if waits.is_empty() {
            return match std::mem::replace(&mut state.end, End::Eof) {
                End::Open => {
                    state.end = End::Open;
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
                End::Eof => Poll::Ready(Ok(0)),
                End::Error(error) => Poll::Ready(Err(error)),
            };
        }
        let was_full = waits.len() >= MOST_FOR_LAPIN;
        let count = waits.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(waits) {
            *to = *from;
        }
        state.read += count;
        drop(state);
        if was_full {
            self.0.wakeup.notify();
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for ControlStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.state.lock();
        if !matches!(state.end, End::Open) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = MOST_FROM_LAPIN.saturating_sub(state.from_lapin.len());
        if room == 0 && !buffer.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (part, _) = buffer.split_at(room.min(buffer.len()));
        state.from_lapin.extend_from_slice(part);
        drop(state);
        self.0.wakeup.notify();
        Poll::Ready(Ok(part.len()))
    }

    // The I/O thread writes what it was given, without being asked again.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{AsyncReadExt, AsyncWriteExt, FutureExt};

    use super::*;

    fn both() -> (ControlStream, ControlEnd) {
        pair(Arc::new(Wakeup::new().unwrap()))
    }

    #[test]
    fn each_side_gets_what_the_other_gives() {
        let (mut lapin, thread) = both();
        let mut buffer = [0; 4];
        assert!(lapin.read(&mut buffer).now_or_never().is_none());
        thread.give(b"from ");
        thread.give(b"it");
        let mut all = Vec::new();
        while let Some(read) = lapin.read(&mut buffer).now_or_never() {
            all.extend_from_slice(&buffer[..read.unwrap()]);
        }
        assert_eq!(all, b"from it");
        lapin.write_all(b"to it").now_or_never().unwrap().unwrap();
        let mut out = Vec::new();
        assert!(!thread.take(&mut out));
        assert_eq!(out, b"to it");
    }

    #[test]
    fn lapin_waits_where_nobody_takes_what_it_writes() {
        let (mut lapin, thread) = both();
        let much = vec![1; MOST_FROM_LAPIN + 1];
        assert!(lapin.write_all(&much).now_or_never().is_none());
        let mut out = Vec::new();
        thread.take(&mut out);
        assert_eq!(out.len(), MOST_FROM_LAPIN);
        lapin.write_all(b"x").now_or_never().unwrap().unwrap();
        thread.give(&vec![1; MOST_FOR_LAPIN]);
        assert!(thread.is_full());
        lapin.read(&mut [0; 1]).now_or_never().unwrap().unwrap();
        assert!(!thread.is_full());
    }

    #[test]
    fn an_end_is_heard_behind_everything_and_once_with_its_reason() {
        let (mut lapin, thread) = both();
        thread.give(b"x");
        thread.end(Some(io::ErrorKind::ConnectionReset.into()));
        let mut buffer = [0; 4];
        let mut read = || lapin.read(&mut buffer).now_or_never().unwrap();
        assert_eq!(read().unwrap(), 1);
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(read().unwrap(), 0);
        let written = lapin.write(b"x").now_or_never().unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_lapin_wrote_before_it_closed_is_taken() {
        let (mut lapin, thread) = both();
        lapin.write_all(b"bye").now_or_never().unwrap().unwrap();
        drop(lapin);
        let mut out = Vec::new();
        assert!(thread.take(&mut out));
        assert_eq!(out, b"bye");
        thread.give(b"too late");
    }

    #[test]
    fn a_thread_that_is_gone_leaves_nobody_waiting() {
        let (mut lapin, thread) = both();
        drop(thread);
        let read = lapin.read(&mut [0; 4]).now_or_never().unwrap();
        assert_eq!(read.unwrap(), 0);
    }
}
