//! What lapin runs on: tokio, with a socket of our own and tasks that can be ended.
//!
//! lapin's own adapter for tokio does not fit a library. It wraps sockets so that one dropped by
//! lapin's I/O thread starts a second runtime, with a thread that never ends; and its heartbeat
//! task sleeps on for seconds after the connection is gone.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::{Task, TaskImpl};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::sync::Mutex;

/// The runtime of one connection.
#[derive(Debug, Clone)]
pub(super) struct Kit {
    tokio: Tokio,
    handle: Handle,
    tasks: Tasks,
}

impl Kit {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            tokio: Tokio::default().with_handle(handle.clone()),
            handle,
            tasks: Tasks::default(),
        }
    }

    /// The tasks that lapin starts for this connection.
    pub(super) fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }
}

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = LapinTask<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.tokio.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        let (output, receiver) = oneshot::channel();
        let task = async move {
            // Nobody may be left who wants to know.
            let _ = output.send(future.await);
        };
        self.tasks.spawn(task, &self.handle);
        LapinTask(receiver).into()
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        body: F,
    ) -> Task<Self::Task<T>> {
        let (output, receiver) = oneshot::channel();
        self.handle.spawn_blocking(move || {
            let _ = output.send(body());
        });
        LapinTask(receiver).into()
    }
}

impl Reactor for Kit {
    type TcpStream = Socket;
    type Sleep = tokio::time::Sleep;

    // lapin calls neither this nor `tcp_connect_addr`: it is given a connected stream.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Socket, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// The tasks of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, handle: &Handle) {
        let mut tasks = self.0.lock();
        // Heartbeats are tasks too, so those that are done must not pile up.
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, handle);
    }

    /// Ends all of them. Only for when lapin's thread has ended: without its tasks, that would in
    /// some states spin.
    pub(super) async fn end(self) {
        let mut tasks = std::mem::take(&mut *self.0.lock());
        tasks.shutdown().await;
    }
}

/// The end of a task of lapin, which never asks for it.
pub(super) struct LapinTask<T>(oneshot::Receiver<T>);

impl<T: Send + 'static> TaskImpl for LapinTask<T> {}

impl<T> Future for LapinTask<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(cx) {
            Poll::Ready(Ok(output)) => Poll::Ready(output),
            // A task that was ended has no output.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A TCP socket that can be dropped on any thread.
///
/// Writes are never vectored, since `writev` on a dead socket raises SIGPIPE in the host process
/// and `send` does not.
#[derive(Debug)]
pub(super) struct Socket(pub(super) TcpStream);

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
