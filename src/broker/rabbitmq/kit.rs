//! What lapin runs on: tokio, with a stream in memory for a socket and tasks that can be ended.
//!
//! lapin's own adapter for tokio does not fit a library. It wraps sockets so that one dropped by
//! lapin's I/O thread starts a second runtime, with a thread that never ends; and its heartbeat
//! task sleeps on for seconds after the connection is gone.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::{Task, TaskImpl};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::io::ControlStream;
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
    type TcpStream = ControlStream;
    type Sleep = tokio::time::Sleep;

    // lapin calls neither this nor `tcp_connect_addr`: it is given a connected stream.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<ControlStream, _>(io::ErrorKind::Unsupported.into())
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
pub(super) struct Tasks(Arc<Mutex<TaskSet>>);

#[derive(Debug, Default)]
struct TaskSet {
    tasks: JoinSet<()>,
    /// Closes when the first task has ended.
    first: Option<watch::Receiver<()>>,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, handle: &Handle) {
        let mut set = self.0.lock();
        // Heartbeats are tasks too, so those that are done must not pile up.
        while set.tasks.try_join_next().is_some() {}
        if set.first.is_none() {
            let (runs, first) = watch::channel(());
            set.first = Some(first);
            let task = async move {
                task.await;
                drop(runs);
            };
            set.tasks.spawn_on(task, handle);
        } else {
            set.tasks.spawn_on(task, handle);
        }
    }

    /// Ends all of them. Only for when lapin's thread has ended: without its tasks, that would in
    /// some states spin.
    ///
    /// The first task carries out what the thread leaves to it, and ends then: it has that long. If
    /// it is ended before, a connection that was still logging in holds itself for ever.
    pub(super) async fn end(self, patience: Duration) {
        let first = self.0.lock().first.clone();
        if let Some(mut first) = first {
            // `changed` fails once it has ended; in vain if its time is up.
            let _ = timeout(patience, first.changed()).await;
        }
        let mut tasks = std::mem::take(&mut self.0.lock().tasks);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_first_task_comes_to_its_end_and_the_others_are_ended() {
        let tasks = Tasks::default();
        let handle = Handle::current();
        let (ended, second_is_there) = (Arc::new(AtomicBool::new(false)), Arc::new(()));
        let (end, second) = (Arc::clone(&ended), Arc::clone(&second_is_there));
        let first = async move {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            end.store(true, Ordering::SeqCst);
        };
        tasks.spawn(first, &handle);
        let endless = async move {
            std::future::pending::<()>().await;
            drop(second);
        };
        tasks.spawn(endless, &handle);
        tasks.end(Duration::from_secs(60)).await;
        assert!(ended.load(Ordering::SeqCst));
        assert_eq!(Arc::strong_count(&second_is_there), 1);
    }

    #[tokio::test]
    async fn a_first_task_that_does_not_end_in_time_is_ended() {
        let tasks = Tasks::default();
        tasks.spawn(std::future::pending(), &Handle::current());
        tasks.end(Duration::from_millis(1)).await;
        // None was ever started.
        Tasks::default().end(Duration::from_secs(60)).await;
    }
}
