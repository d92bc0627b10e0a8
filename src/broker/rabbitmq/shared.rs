//! What the calls of the layer and the tasks of both links share.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::arrivals::Arrivals;
use super::binding_queue::BindingQueue;
use super::credit::Credit;
use super::doorbell::Doorbell;
use super::io::IoThread;
use super::standing::{Place, Standing};
use crate::broker::{BindingEpoch, Generation, Host};
use crate::sync::Mutex;

/// How long a message that found no groups exchange waits for the own groups too. A layer has them back in
/// some hundredths of a second, or on a busy machine in one.
const BOUND_SOON: Duration = Duration::from_secs(2);

/// What the calls of the layer and the tasks of both links share.
pub(super) struct Shared {
    pub(super) host: Weak<dyn Host>,
    pub(super) doorbell: Doorbell,
    /// The thread of the connection that publishes.
    publishing: Mutex<Option<Arc<IoThread>>>,
    pub(super) credit: Credit,
    pub(super) bindings: BindingQueue,
    pub(super) closing: Closing,
    pub(super) standing: Standing,
    /// Where the consuming link is logged in, whatever it has there.
    pub(super) reached: watch::Sender<Option<Place>>,
    /// Counts how often the groups exchange was declared.
    pub(super) declared: watch::Sender<u64>,
    /// The queue that is consumed.
    pub(super) consumed: watch::Sender<Option<OwnQueue>>,
    /// To the consuming link.
    pub(super) complaints: mpsc::UnboundedSender<Complaint>,
    pub(super) arrivals: Arrivals,
}

/// The own queue, as it is consumed and bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnQueue {
    pub(super) name: Arc<str>,
    pub(super) generation: Generation,
    pub(super) epoch: BindingEpoch,
    /// The key by which the groups exchange routes probes to it. No group can have it, for its `!`.
    pub(super) probe_key: Arc<str>,
    /// Groups are taken to be bound that an earlier link has bound.
    pub(super) is_presumed: bool,
    /// [`Arrivals::delivered`] when it was made.
    pub(super) delivered_before: u64,
}

/// What others have found out about the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Complaint {
    /// The bindings of this epoch do not route, or the groups exchange is gone.
    NotBound { epoch: BindingEpoch, reason: String },
    /// The queue of this generation hears nothing any more.
    Lost {
        generation: Generation,
        reason: String,
    },
}

impl Shared {
    pub(super) fn new(host: Weak<dyn Host>, complaints: mpsc::UnboundedSender<Complaint>) -> Self {
        Self {
            standing: Standing::new(Weak::clone(&host)),
            host,
            doorbell: Doorbell::default(),
            publishing: Mutex::new(None),
            credit: Credit::default(),
            bindings: BindingQueue::default(),
            closing: Closing::default(),
            reached: watch::Sender::new(None),
            declared: watch::Sender::new(0),
            consumed: watch::Sender::new(None),
            complaints,
            arrivals: Arrivals::default(),
        }
    }

    /// The publisher is at work on this thread, or nowhere.
    pub(super) fn publishes_on(&self, io: Option<Arc<IoThread>>) {
        *self.publishing.lock() = io;
    }

    /// Publications wait for the publisher. Where that has nothing else to do, this thread does its work.
    pub(super) fn publications_wait(&self) {
        if self.doorbell.ring() {
            let io = self.publishing.lock().clone();
            // Where there is none, the next one looks by itself.
            if let Some(io) = io {
                io.work_here();
            }
        }
    }

    /// Has the groups exchange declared again, and waits for that at most so long; whether it was. Where
    /// the own groups are bound soon after, that is waited for too.
    pub(super) async fn declare_again(&self, reason: String, within: Duration) -> bool {
        let (mut declared, mut consumed) = (self.declared.subscribe(), self.consumed.subscribe());
        let before = *declared.borrow();
        let epoch = consumed.borrow().as_ref().map(|queue| queue.epoch);
        if let Some(epoch) = epoch {
            // If nobody takes it, the broker is being closed.
            let _ = self.complaints.send(Complaint::NotBound { epoch, reason });
        }
        let is_declared = declared.wait_for(|count| *count > before);
        if !matches!(timeout(within, is_declared).await, Ok(Ok(_))) {
            return false;
        }
        let is_later = |queue: &Option<OwnQueue>| {
            queue
                .as_ref()
                .is_some_and(|queue| Some(queue.epoch) > epoch)
        };
        // Many groups take longer, and other messages are not to wait for them.
        let _ = timeout(BOUND_SOON, consumed.wait_for(is_later)).await;
        true
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
