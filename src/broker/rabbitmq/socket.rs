//! What lapin speaks through: TCP, with TLS or without.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncRead as TokioRead, AsyncWrite as TokioWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::client::TlsStream;

use super::body_meter::BodyMeter;
use super::io_thread::{IoThread, Stirred};
use super::login::Progress;

/// The first byte of what a TLS server says that was not spoken to in TLS. AMQP begins with none
/// such.
const TLS_ALERT: u8 = 0x15;

/// A TCP socket, watched by the reactor of the runtime or by the thread that reads it.
///
/// Writes are never vectored, since `writev` on a dead socket raises SIGPIPE in the host process
/// and `send` does not.
#[derive(Debug)]
pub(super) struct Tcp {
    watched: Watched,
    handle: Handle,
    has_heard: bool,
    /// Who waits until there is room to write. The reactor forgets it when the socket is taken from
    /// it.
    writer: Option<Waker>,
}

#[derive(Debug)]
enum Watched {
    ByReactor(TcpStream),
    ByThread(StdTcpStream),
    /// It went lost between the two.
    Broken,
}

impl Tcp {
    /// Of a socket that the reactor of `handle` watches.
    pub(super) fn new(stream: TcpStream, handle: Handle) -> Self {
        Self {
            watched: Watched::ByReactor(stream),
            handle,
            has_heard: false,
            writer: None,
        }
    }

    /// Whether the other side has said anything at all.
    pub(super) fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Takes it from the reactor. From now on, nobody is woken when it is ready.
    fn watch_by_thread(&mut self) -> io::Result<()> {
        self.watched = match std::mem::replace(&mut self.watched, Watched::Broken) {
            Watched::ByReactor(stream) => Watched::ByThread(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    /// Gives it to the reactor.
    fn watch_by_reactor(&mut self) -> io::Result<()> {
        self.watched = match std::mem::replace(&mut self.watched, Watched::Broken) {
            Watched::ByThread(stream) => {
                let _runtime = self.handle.enter();
                Watched::ByReactor(TcpStream::from_std(stream)?)
            }
            other => other,
        };
        if let (Watched::ByReactor(stream), Some(writer)) = (&self.watched, self.writer.clone()) {
            // It is woken at once if there is room already, or never will be.
            if stream
                .poll_write_ready(&mut Context::from_waker(&writer))
                .is_ready()
            {
                self.writer = None;
                writer.wake();
            }
        }
        Ok(())
    }

    fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.watched {
            Watched::ByReactor(stream) => Ok(stream.as_fd()),
            Watched::ByThread(stream) => Ok(stream.as_fd()),
            Watched::Broken => Err(broken()),
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the socket was lost between its watchers")
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

impl TokioRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match &mut self.watched {
            Watched::ByReactor(stream) => ready!(Pin::new(stream).poll_read(cx, buffer))?,
            Watched::ByThread(stream) => {
                let read = ready!(attempt(|| stream.read(buffer.initialize_unfilled())))?;
                buffer.advance(read);
            }
            Watched::Broken => return Poll::Ready(Err(broken())),
        }
        self.has_heard |= buffer.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl TokioWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.watched {
            Watched::ByReactor(stream) => Pin::new(stream).poll_write(cx, buffer),
            Watched::ByThread(stream) => attempt(|| stream.write(buffer)),
            Watched::Broken => Poll::Ready(Err(broken())),
        };
        self.writer = written.is_pending().then(|| cx.waker().clone());
        written
    }

    // TCP has nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.watched {
            Watched::ByReactor(stream) => Pin::new(stream).poll_shutdown(cx),
            Watched::ByThread(stream) => Poll::Ready(stream.shutdown(Shutdown::Write)),
            Watched::Broken => Poll::Ready(Err(broken())),
        }
    }
}

/// What lapin speaks through. It can be dropped on any thread.
#[derive(Debug)]
pub(super) struct Socket {
    transport: Transport,
    io_thread: Arc<IoThread>,
    round: Round,
    /// Whether it is not worth a system call to look whether there is something to read: the
    /// thread's wait will tell.
    is_empty: bool,
    /// Until the login is over.
    login: Option<Progress>,
    bodies: BodyMeter,
}

#[derive(Debug)]
pub(super) enum Transport {
    Plain(Tcp),
    Tls(Tls),
}

/// What this round of lapin's loop has read. A round begins with a flush, and ends with reads until
/// one finds nothing; what was read is looked at only then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Nothing,
    Something,
    /// All there was.
    Everything,
}

/// A TLS connection whose handshake is done.
#[derive(Debug)]
pub(super) struct Tls {
    stream: Box<TlsStream<Tcp>>,
    has_heard: bool,
}

impl Tls {
    pub(super) fn new(stream: TlsStream<Tcp>) -> Self {
        Self {
            stream: Box::new(stream),
            has_heard: false,
        }
    }

    /// What to say instead of the error of a write. A broker that does not like our certificate
    /// says so and hangs up, and we may hear of the second first: but if it said nothing else yet,
    /// that is what is still to be read.
    fn last_words(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        if !self.has_heard {
            let mut unread = [0];
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut unread));
            if let Poll::Ready(Err(said)) = read
                && said.kind() == io::ErrorKind::InvalidData
            {
                return said;
            }
        }
        error
    }
}

/// Somebody answers in TLS who was spoken to without it.
#[derive(Debug)]
pub(super) struct AnswersInTls;

impl std::fmt::Display for AnswersInTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the other side answers in TLS")
    }
}

impl std::error::Error for AnswersInTls {}

impl Transport {
    fn tcp(&mut self) -> &mut Tcp {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.stream.get_mut().0,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        match self {
            Self::Plain(tcp) => {
                let is_first = !tcp.has_heard();
                ready!(Pin::new(tcp).poll_read(cx, &mut buffer))?;
                if is_first && buffer.filled().first() == Some(&TLS_ALERT) {
                    let error = io::Error::new(io::ErrorKind::InvalidData, AnswersInTls);
                    return Poll::Ready(Err(error));
                }
            }
            Self::Tls(tls) => {
                ready!(Pin::new(&mut tls.stream).poll_read(cx, &mut buffer))?;
                tls.has_heard = true;
            }
        }
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl Socket {
    pub(super) fn new(transport: Transport, io_thread: Arc<IoThread>) -> Self {
        Self {
            transport,
            io_thread,
            round: Round::Nothing,
            is_empty: false,
            login: None,
            bodies: BodyMeter::default(),
        }
    }

    /// Lets `progress` look at what is read until the login is over.
    pub(super) fn watch_login(&mut self, progress: Progress) {
        self.login = Some(progress);
    }

    /// Reads, and where there is nothing to read, does the work of the thread and waits with it.
    fn read_or_work(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut is_empty = std::mem::take(&mut self.is_empty);
        loop {
            if !is_empty && let Poll::Ready(read) = self.transport.poll_read(cx, buffer) {
                return Poll::Ready(read);
            }
            is_empty = false;
            if !self.io_thread.has_work() {
                return self.park(cx, buffer);
            }
            let tcp = self.transport.tcp();
            tcp.watch_by_thread()?;
            let wants_write = tcp.writer.is_some();
            let socket = tcp.descriptor()?;
            match self.io_thread.work_and_wait(socket, wants_write)? {
                Stirred::Readable => {}
                Stirred::Idle => return self.park(cx, buffer),
                Stirred::Frames => break,
                Stirred::Writable => {
                    if let Some(writer) = self.transport.tcp().writer.take() {
                        writer.wake();
                    }
                    break;
                }
            }
        }
        self.is_empty = true;
        // To write, and to come back.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Leaves the socket to the reactor, and lapin to its own way of waiting.
    fn park(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.transport.tcp().watch_by_reactor()?;
        let read = self.transport.poll_read(cx, buffer);
        if read.is_pending() && !self.io_thread.park(cx.waker()) {
            cx.waker().wake_by_ref();
        }
        read
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.io_thread.leave();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.io_thread.unpark();
        let read = match this.round {
            Round::Nothing => this.read_or_work(cx, buffer),
            Round::Something => this.transport.poll_read(cx, buffer),
            Round::Everything => Poll::Pending,
        };
        match &read {
            Poll::Ready(Ok(length)) => {
                let bytes = buffer.get(..*length).unwrap_or_default();
                match this.bodies.count(bytes) {
                    0 => {}
                    of_bodies => this.io_thread.add_of_bodies(of_bodies),
                }
                if let Some(login) = &this.login
                    && !login.look(bytes)
                {
                    this.login = None;
                }
                // TLS may have more, which it has read already; and an end is to be read again.
                let is_all = (1..buffer.len()).contains(length)
                    && matches!(this.transport, Transport::Plain(_));
                this.round = if is_all {
                    Round::Everything
                } else {
                    Round::Something
                };
            }
            // lapin has something to look at before it waits; and then the work is next, or it would
            // never be while more keeps coming.
            Poll::Pending if this.round != Round::Nothing => {
                this.is_empty = true;
                cx.waker().wake_by_ref();
            }
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_write(cx, buffer),
            Transport::Tls(tls) => {
                let written = ready!(Pin::new(&mut tls.stream).poll_write(cx, buffer));
                Poll::Ready(written.map_err(|error| tls.last_words(cx, error)))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.round = Round::Nothing;
        match &mut this.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Transport::Tls(tls) => {
                let flushed = ready!(Pin::new(&mut tls.stream).poll_flush(cx));
                Poll::Ready(flushed.map_err(|error| tls.last_words(cx, error)))
            }
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // It takes its time where there is no room to say goodbye, and no turn comes any more.
        this.io_thread.leave();
        this.transport.tcp().watch_by_reactor()?;
        match &mut this.transport {
            Transport::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Tcp, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        (Tcp::new(ours, Handle::current()), theirs)
    }

    #[tokio::test]
    async fn a_socket_that_changes_its_watcher_loses_nothing() {
        let (mut ours, mut theirs) = pair().await;
        for round in 0_u8..50 {
            theirs.write_all(&[round]).await.unwrap();
            let mut byte = [0];
            if round % 2 == 0 {
                ours.watch_by_thread().unwrap();
                let read = loop {
                    let mut buffer = ReadBuf::new(&mut byte);
                    let mut cx = Context::from_waker(Waker::noop());
                    match Pin::new(&mut ours).poll_read(&mut cx, &mut buffer) {
                        Poll::Ready(read) => break read,
                        Poll::Pending => tokio::task::yield_now().await,
                    }
                };
                read.unwrap();
                ours.watch_by_reactor().unwrap();
            } else {
                ours.read_exact(&mut byte).await.unwrap();
            }
            assert_eq!(byte, [round]);
        }
    }

    #[tokio::test]
    async fn who_waits_for_room_is_woken_by_the_reactor_too() {
        let (mut ours, mut theirs) = pair().await;
        ours.watch_by_thread().unwrap();
        let reads = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.map(|_| all.len())
        });
        let chunk = [0; 64 * 1024];
        let mut written = 0;
        let mut waited = 0;
        while written < 64 * 1024 * 1024 {
            written += poll_fn(|cx| {
                let result = Pin::new(&mut ours).poll_write(cx, &chunk);
                if result.is_pending() {
                    waited += 1;
                    assert!(ours.writer.is_some());
                    ours.watch_by_reactor().unwrap();
                }
                result
            })
            .await
            .unwrap();
            ours.watch_by_thread().unwrap();
        }
        assert!(waited > 0);
        drop(ours);
        assert_eq!(reads.await.unwrap().unwrap(), written);
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn who_waits_for_room_at_the_reactor_still_waits_when_the_thread_watches_again() {
        let (mut ours, mut theirs) = pair().await;
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let chunk = [0; 64 * 1024];
        for by_thread_first in [true, false] {
            if by_thread_first {
                ours.watch_by_thread().unwrap();
            } else {
                ours.watch_by_reactor().unwrap();
            }
            while Pin::new(&mut ours).poll_write(&mut cx, &chunk).is_ready() {}
            ours.watch_by_reactor().unwrap();
            ours.watch_by_thread().unwrap();
            assert!(ours.writer.is_some() || woken.0.load(Ordering::SeqCst) > 0);
            let mut sink = vec![0; 1024 * 1024];
            while Pin::new(&mut ours).poll_write(&mut cx, &[0]).is_pending() {
                let _ = theirs.read(&mut sink).await.unwrap();
            }
            assert!(ours.writer.is_none());
        }
    }

    #[tokio::test]
    async fn without_work_the_thread_goes_to_rest_whatever_it_was_told() {
        let (ours, _theirs) = pair().await;
        let io_thread = IoThread::new().unwrap();
        let mut socket = Socket::new(Transport::Plain(ours), Arc::clone(&io_thread));
        io_thread.write_frames();
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut socket).poll_flush(&mut cx).is_ready());
        let read = Pin::new(&mut socket).poll_read(&mut cx, &mut [0; 100]);
        assert!(read.is_pending());
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    }
}
