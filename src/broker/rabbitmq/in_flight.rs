//! Futures that are started in order, polled again only when woken, and drained exactly.
//!
//! [`futures_util::stream::FuturesUnordered`] would do but for the last: it may stop in between,
//! with futures left that were woken long before. The publisher must know that none is left. The
//! storage of a future that is done serves the next, so a message costs no allocation here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Idle storage above this many futures is given back.
const KEPT: usize = 1024;

/// Futures under way, each with a key that says what it is for.
pub(super) struct InFlight<K, F> {
    slots: Vec<Slot<K, F>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// The slots that are being polled; empty in between, kept for its storage.
    turn: Vec<usize>,
}

struct Slot<K, F> {
    key: Option<K>,
    future: Pin<Box<Option<F>>>,
    wake: Arc<SlotWake>,
    waker: Waker,
}

/// Which slots were woken, and who drains them.
#[derive(Default)]
struct Woken {
    slots: Mutex<Vec<usize>>,
    drainer: AtomicWaker,
}

struct SlotWake {
    slot: usize,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for SlotWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let is_first = {
            let mut slots = self.woken.slots.lock();
            slots.push(self.slot);
            slots.len() == 1
        };
        // Whoever made the list non-empty has woken the drainer, which takes all of it.
        if is_first {
            self.woken.drainer.wake();
        }
    }
}

impl<K, F: Future> InFlight<K, F> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            woken: Arc::default(),
            turn: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The task to wake when there may be something to drain; to be called before a drain.
    pub(super) fn register(&self, waker: &Waker) {
        self.woken.drainer.register(waker);
    }

    /// Starts `future` by a first poll. Returns its output if it is done already.
    pub(super) fn start(&mut self, key: K, future: F) -> Option<(K, F::Output)> {
        let index = self.free.pop().unwrap_or(self.slots.len());
        if index == self.slots.len() {
            let wake = Arc::new(SlotWake {
                slot: index,
                queued: AtomicBool::new(false),
                woken: Arc::clone(&self.woken),
            });
            self.slots.push(Slot {
                key: None,
                future: Box::pin(None),
                waker: Arc::clone(&wake).into(),
                wake,
            });
        }
        let slot = self.slots.get_mut(index)?;
        slot.key = Some(key);
        slot.future.set(Some(future));
        self.poll(index)
    }

    /// Polls what was woken, until nothing woken is left, and passes on what is done.
    pub(super) fn drain(&mut self, mut done: impl FnMut(K, F::Output)) {
        loop {
            let mut turn = std::mem::take(&mut self.turn);
            std::mem::swap(&mut *self.woken.slots.lock(), &mut turn);
            if turn.is_empty() {
                self.turn = turn;
                break;
            }
            for index in turn.drain(..) {
                if let Some(slot) = self.slots.get(index) {
                    // Before the poll: a wake from here on must queue the slot again.
                    slot.wake.queued.swap(false, Ordering::AcqRel);
                }
                if let Some((key, output)) = self.poll(index) {
                    done(key, output);
                }
            }
            self.turn = turn;
        }
        if self.len() == 0 && self.slots.len() > KEPT {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
    }

    /// Drops all futures and returns their keys.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = K> {
        self.free = Vec::new();
        std::mem::take(&mut self.slots)
            .into_iter()
            .filter_map(|slot| slot.key)
    }

    fn poll(&mut self, index: usize) -> Option<(K, F::Output)> {
        let slot = self.slots.get_mut(index)?;
        // A late wake may be for a future that is gone.
        let future = slot.future.as_mut().as_pin_mut()?;
        match future.poll(&mut Context::from_waker(&slot.waker)) {
            Poll::Pending => None,
            Poll::Ready(output) => {
                slot.future.set(None);
                self.free.push(index);
                slot.key.take().map(|key| (key, output))
            }
        }
    }
}

/// Polls `future` once and drops it: for calls of lapin whose first poll does all that we need.
pub(super) fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    let future = std::pin::pin!(future);
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_was_woken_is_drained_and_the_drainer_is_woken_once() {
        let mut in_flight = InFlight::new();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        in_flight.register(&Arc::clone(&count).into());
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..3).map(|_| oneshot::channel::<u32>()).unzip();
        for (key, receiver) in receivers.into_iter().enumerate() {
            assert!(in_flight.start(key, receiver).is_none());
        }
        let mut senders = senders.into_iter().map(Some).collect::<Vec<_>>();
        for key in [2, 0] {
            let sender = senders[key].take();
            assert!(sender.is_some_and(|sender| sender.send(key as u32 * 10).is_ok()));
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);

        let mut done = Vec::new();
        in_flight.drain(|key, output| done.push((key, output)));
        assert_eq!(done, [(2, Ok(20)), (0, Ok(0))]);
        assert_eq!(in_flight.len(), 1);
        assert_eq!(in_flight.abandon().collect::<Vec<_>>(), [1]);
        assert_eq!(in_flight.len(), 0);
    }

    #[test]
    fn a_future_that_is_ready_at_once_never_takes_part() {
        let mut in_flight = InFlight::new();
        assert_eq!(in_flight.start("a", std::future::ready(1)), Some(("a", 1)));
        assert_eq!(in_flight.len(), 0);
        in_flight.drain(|_, _| {});
    }

    #[test]
    fn storage_is_used_again_and_given_back() {
        let mut in_flight = InFlight::new();
        let mut senders = Vec::new();
        for key in 0..KEPT + 1 {
            let (sender, receiver) = oneshot::channel::<()>();
            senders.push(sender);
            assert!(in_flight.start(key, receiver).is_none());
        }
        drop(senders);
        let mut done = 0;
        in_flight.drain(|_, output| done += usize::from(output.is_err()));
        assert_eq!(done, KEPT + 1);
        assert!(in_flight.slots.is_empty());
        let (sender, receiver) = oneshot::channel::<()>();
        assert!(in_flight.start(0, receiver).is_none());
        assert!(sender.send(()).is_ok());
        in_flight.drain(|_, _| done += 1);
        assert_eq!(
            (done, in_flight.len(), in_flight.slots.len()),
            (KEPT + 2, 0, 1)
        );
    }
}
