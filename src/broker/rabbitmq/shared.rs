//! What the calls of the layer and the tasks share, and how they are told to end.

use std::pin::pin;
use std::sync::Weak;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::binder::Change;
use super::credit::Credit;
use super::doorbell::Doorbell;
use crate::broker::{Generation, Host};
use crate::sync::Mutex;

/// What the calls of the layer and the tasks share.
pub(super) struct Shared {
    pub(super) host: Weak<dyn Host>,
    pub(super) doorbell: Doorbell,
    pub(super) credit: Credit,
    pub(super) bindings: Mutex<Option<(Generation, mpsc::UnboundedSender<Vec<Change>>)>>,
    pub(super) closing: Closing,
}

/// What the tasks of a session are told.
#[derive(Debug, Clone)]
pub(super) enum Stop {
    No,
    /// The broker is closed: finish what is in flight.
    Finish,
    /// The session is over, for this reason.
    Now(String),
}

/// Waits until the tasks of a session are told to end. Where nobody could tell them any more, they may
/// finish.
pub(super) async fn stopped(told: &mut watch::Receiver<Stop>) -> Stop {
    match told.wait_for(|stop| !matches!(stop, Stop::No)).await {
        Ok(stop) => stop.clone(),
        Err(_) => Stop::Finish,
    }
}

/// Whether the broker is being closed, since when and until when.
#[derive(Debug)]
pub(super) struct Closing(watch::Sender<Option<(Instant, Instant)>>);

impl Default for Closing {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Closing {
    /// Begins, or if it has begun, lets it end sooner.
    pub(super) fn begin(&self, timeout: Duration) {
        let now = Instant::now();
        let until = now + timeout;
        self.0.send_if_modified(|closing| match closing {
            Some((_, before)) if *before <= until => false,
            Some((_, before)) => {
                *before = until;
                true
            }
            None => {
                *closing = Some((now, until));
                true
            }
        });
    }

    /// Done once it has begun.
    pub(super) async fn begun(&self) {
        // An error would mean that the sender is gone, which is `self`.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    /// Done once this part of its time is over.
    pub(super) async fn passed(&self, part: f64) {
        let mut changes = self.0.subscribe();
        loop {
            let closing = *changes.borrow_and_update();
            let changed = pin!(changes.changed());
            match closing {
                None => {
                    let _ = changed.await;
                }
                Some((from, until)) => {
                    let time = until.saturating_duration_since(from).mul_f64(part);
                    let over = pin!(sleep_until(from + time));
                    if let Either::Left(_) = select(over, changed).await {
                        return;
                    }
                }
            }
        }
    }
}
