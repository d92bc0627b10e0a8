//! What the consumer records for the sender of probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::io::IoThread;
use crate::sync::Mutex;

/// What has arrived at the queue, and whether more can.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Messages for receivers.
    delivered: AtomicU64,
    /// The consumer has as many unacknowledged deliveries as it may.
    credit_is_used_up: AtomicBool,
    /// The same, at any time since it was last asked.
    credit_was_used_up: AtomicBool,
    /// The ids of probes.
    probes: Mutex<Vec<String>>,
    probed: Notify,
    /// That of the consuming link.
    io_thread: Mutex<Option<Arc<IoThread>>>,
}

impl Arrivals {
    pub(super) fn follow(&self, io_thread: Arc<IoThread>) {
        *self.io_thread.lock() = Some(io_thread);
    }

    /// How far the consuming connection has come: changes when a message arrives, or a part of a large one.
    pub(super) fn progress(&self) -> u64 {
        let of_bodies = self
            .io_thread
            .lock()
            .as_ref()
            .map_or(0, |io| io.of_bodies());
        self.delivered() + of_bodies
    }

    pub(super) fn add_delivered(&self, count: u64) {
        self.delivered.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn set_credit_used_up(&self, is_used_up: bool) {
        self.credit_is_used_up.store(is_used_up, Ordering::Relaxed);
        if is_used_up {
            self.credit_was_used_up.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn credit_is_used_up(&self) -> bool {
        self.credit_is_used_up.load(Ordering::Relaxed)
    }

    /// Whether it was used up at any time since this was last asked.
    pub(super) fn credit_was_used_up(&self) -> bool {
        self.credit_was_used_up.swap(false, Ordering::Relaxed) || self.credit_is_used_up()
    }

    pub(super) fn add_probe(&self, id: String) {
        self.probes.lock().push(id);
        self.probed.notify_one();
    }

    pub(super) fn take_probes(&self) -> Vec<String> {
        std::mem::take(&mut *self.probes.lock())
    }

    /// Done when a probe has arrived. One that arrives before this is polled counts.
    pub(super) fn probed(&self) -> Notified<'_> {
        self.probed.notified()
    }
}
