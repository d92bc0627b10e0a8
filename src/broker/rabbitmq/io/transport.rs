//! The socket of a connection: TCP, with TLS or without. Nothing here waits.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::task::Poll;

use rustls::ClientConnection;
use socket2::SockRef;

use crate::runtime::receive_into;

/// The first byte of what a TLS server says that was not spoken to in TLS. AMQP begins with none
/// such.
const TLS_ALERT: u8 = 0x15;

/// What a connection is read from and written to.
#[derive(Debug)]
pub(in crate::broker::rabbitmq) enum Transport {
    Plain(Plain),
    Tls(Box<Tls>),
}

/// TCP without TLS.
#[derive(Debug)]
pub(in crate::broker::rabbitmq) struct Plain {
    socket: Socket,
    has_heard: bool,
}

/// A TLS connection whose handshake is done.
#[derive(Debug)]
pub(in crate::broker::rabbitmq) struct Tls {
    socket: Socket,
    session: ClientConnection,
    has_heard: bool,
}

/// A TCP socket that does not block. To write to one that is dead raises no SIGPIPE in the host
/// process.
#[derive(Debug)]
struct Socket(TcpStream);

/// Somebody answers in TLS who was spoken to without it.
#[derive(Debug)]
pub(in crate::broker::rabbitmq) struct AnswersInTls;

impl fmt::Display for AnswersInTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other side answers in TLS")
    }
}

impl std::error::Error for AnswersInTls {}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        SockRef::from(&self.0).send_vectored_with_flags(parts, libc::MSG_NOSIGNAL)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A call on a socket that does not block, again where a signal came in between.
fn attempt<T>(mut call: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            result => return Poll::Ready(result),
        }
    }
}

impl Transport {
    /// A socket that does not block.
    pub(in crate::broker::rabbitmq) const fn plain(socket: TcpStream) -> Self {
        Self::Plain(Plain {
            socket: Socket(socket),
            has_heard: false,
        })
    }

    /// The same, with a TLS session whose handshake is done.
    pub(in crate::broker::rabbitmq) fn tls(socket: TcpStream, session: ClientConnection) -> Self {
        Self::Tls(Box::new(Tls {
            socket: Socket(socket),
            session,
            has_heard: false,
        }))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(plain) => &plain.socket.0,
            Self::Tls(tls) => &tls.socket.0,
        }
    }

    /// Reads what there is; 0 bytes is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(plain) => plain.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    /// Reads at most `most` bytes behind what is in `buffer`, into room that it has. `None`: this
    /// transport reads in another way alone.
    pub(super) fn read_behind(
        &mut self,
        buffer: &mut Vec<u8>,
        most: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        match self {
            Self::Plain(plain) => {
                let socket = plain.socket.0.as_fd();
                Some(attempt(|| receive_into(socket, buffer, most)))
            }
            Self::Tls(_) => None,
        }
    }

    /// Writes as much as there is room for.
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(plain) => attempt(|| plain.socket.write_vectored(parts)),
            Self::Tls(tls) => tls.write(parts),
        }
    }

    /// Writes what was taken from a write before and is not sent yet: TLS keeps some.
    pub(super) fn flush(&mut self) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// Whether a read that brought less than it might have brought all there is.
    pub(super) const fn short_reads_are_all(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether to write costs no more than the system's call.
    pub(super) const fn writes_at_once(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// The end of the connection. What was written before is sent still.
    pub(super) fn shut_down(&mut self) {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
            // The other side sees the end of the socket in any case.
            let _ = tls.flush();
        }
        // It may have been shut down before.
        let _ = self.socket().shutdown(Shutdown::Both);
    }
}

impl Plain {
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = attempt(|| self.socket.read(buffer));
        if let Poll::Ready(Ok(1..)) = read
            && !std::mem::replace(&mut self.has_heard, true)
            && buffer.first() == Some(&TLS_ALERT)
        {
            let error = io::Error::new(io::ErrorKind::InvalidData, AnswersInTls);
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl Tls {
    fn read(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.reader().read(buffer) {
                Ok(count) => {
                    self.has_heard = true;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The end came without a goodbye: it is one.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(0));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            match attempt(|| self.session.read_tls(&mut self.socket)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(_)) => {}
            }
            if let Err(error) = self.session.process_new_packets() {
                // An alert that says why may have to go out.
                let _ = self.flush();
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }

    fn write(&mut self, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // What is kept goes first: so no more than some records are.
        if let Poll::Ready(Err(error)) = self.flush() {
            return Poll::Ready(Err(error));
        }
        let written = match self.session.writer().write_vectored(parts) {
            Ok(0) if !parts.iter().all(|part| part.is_empty()) => return Poll::Pending,
            written => written,
        };
        match self.flush() {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(written),
        }
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match attempt(|| self.session.write_tls(&mut self.socket)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.last_words(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What to say instead of the error of a write. A broker that does not like our certificate
    /// says so and hangs up, and we may hear of the second first: but if it said nothing else yet,
    /// that is what is still to be read.
    fn last_words(&mut self, error: io::Error) -> io::Error {
        if !self.has_heard
            && let Poll::Ready(Ok(1..)) = attempt(|| self.session.read_tls(&mut self.socket))
            && let Err(said) = self.session.process_new_packets()
        {
            return io::Error::new(io::ErrorKind::InvalidData, said);
        }
        error
    }
}
