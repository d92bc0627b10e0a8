//! The tasks of one link, and how they are told to end.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, poll_fn, select};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connect::{Link, Options};
use super::shared::Closing;

/// How long a dying connection may take to say why, or to say goodbye.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(200);

/// What tasks are told.
#[derive(Debug, Clone)]
pub(super) enum Stop {
    No,
    /// The broker is closed: finish what is in flight.
    Finish,
    /// The link is lost, for this reason.
    Now(String),
}

/// Waits until tasks are told to end. Where nobody could tell them any more, they may finish.
pub(super) async fn stopped(stop: &mut watch::Receiver<Stop>) -> Stop {
    match stop.wait_for(|stop| !matches!(stop, Stop::No)).await {
        Ok(stop) => stop.clone(),
        Err(_) => Stop::Finish,
    }
}

/// The tasks of a link, each with its role. Dropping it aborts them.
pub(super) struct Workers<R> {
    tasks: JoinSet<(R, String)>,
    stop: watch::Sender<Stop>,
    options: Options,
}

impl<R: Copy + Send + 'static> Workers<R> {
    pub(super) fn new(options: Options) -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: watch::Sender::new(Stop::No),
            options,
        }
    }

    /// For a task that ends by itself when it is told to.
    pub(super) fn stop_receiver(&self) -> watch::Receiver<Stop> {
        self.stop.subscribe()
    }

    /// Starts a task that ends with the link.
    pub(super) fn spawn(&mut self, role: R, task: impl Future<Output = String> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        self.spawn_to_the_end(role, async move {
            match select(pin!(task), pin!(stopped(&mut stop))).await {
                Either::Left((reason, _)) => reason,
                Either::Right(_) => String::new(),
            }
        });
    }

    /// Starts a task that ends by itself.
    pub(super) fn spawn_to_the_end(
        &mut self,
        role: R,
        task: impl Future<Output = String> + Send + 'static,
    ) {
        let alive = self.options.alive.clone();
        let task = async move {
            // Also where the task is aborted: what it holds goes first.
            let _alive = alive;
            (role, task.await)
        };
        self.tasks.spawn_on(task, &self.options.handle);
    }

    pub(super) fn stop(&self, stop: Stop) {
        self.stop.send_replace(stop);
    }

    /// Waits for all.
    pub(super) async fn join(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Why the link has ended: a task is about to hear.
    pub(super) async fn last_words(&mut self) -> String {
        let ended = poll_fn(|cx| self.poll_ended(cx));
        match timeout(LAST_WORDS, ended).await {
            Ok((_, reason)) => reason,
            Err(_) => "the connection has ended".to_owned(),
        }
    }

    /// Lets all finish and says goodbye to the broker, as the time to close allows.
    pub(super) async fn finish(&mut self, link: &Link, closing: &Closing) {
        self.stop(Stop::Finish);
        self.join().await;
        select(pin!(link.close()), pin!(closing.passed(0.9))).await;
    }

    /// Ready with a task that has ended, and why. The role is unknown of one that panicked. Those that
    /// were aborted are passed over.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<(Option<R>, String)> {
        loop {
            match self.tasks.poll_join_next(cx) {
                Poll::Ready(Some(Ok((role, reason)))) => {
                    return Poll::Ready((Some(role), reason));
                }
                Poll::Ready(Some(Err(error))) if error.is_cancelled() => {}
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready((None, format!("a task of the layer failed: {error}")));
                }
                Poll::Ready(None) => {
                    return Poll::Ready((None, "the connection has ended".to_owned()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
