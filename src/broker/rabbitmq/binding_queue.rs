//! Changes of bindings on their way from the layer to the binder.

use std::task::Waker;

use crate::broker::{BindingChange, BindingEpoch};
use crate::sync::Mutex;

/// What the layer wants to be changed, in one epoch; outlives connections.
#[derive(Debug, Default)]
pub(super) struct BindingQueue(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// `None` while nothing can be bound.
    epoch: Option<BindingEpoch>,
    changes: Vec<BindingChange>,
    /// Of the I/O thread on which the binder works.
    binder: Option<Waker>,
}

impl BindingQueue {
    /// Takes changes of this epoch from now on.
    pub(super) fn begin(&self, epoch: BindingEpoch) {
        self.replace(Some(epoch));
    }

    /// The epoch is over, and so is the work of its binder.
    pub(super) fn end(&self) {
        self.replace(None);
    }

    fn replace(&self, epoch: Option<BindingEpoch>) {
        let before = std::mem::replace(
            &mut *self.0.lock(),
            Queue {
                epoch,
                ..Queue::default()
            },
        );
        if let Some(binder) = before.binder {
            binder.wake();
        }
    }

    /// Adds changes, unless `epoch` is over.
    pub(super) fn push(&self, epoch: BindingEpoch, mut changes: Vec<BindingChange>) {
        let binder = {
            let mut queue = self.0.lock();
            if queue.epoch != Some(epoch) {
                return;
            }
            let is_first = queue.changes.is_empty();
            queue.changes.append(&mut changes);
            // For the others it was woken.
            queue.binder.clone().filter(|_| is_first)
        };
        if let Some(binder) = binder {
            binder.wake();
        }
    }

    /// All that was added, or `None` where `epoch` is over. `binder` is woken when that has changed.
    pub(super) fn take(&self, epoch: BindingEpoch, binder: &Waker) -> Option<Vec<BindingChange>> {
        let mut queue = self.0.lock();
        if queue.epoch != Some(epoch) {
            return None;
        }
        match &mut queue.binder {
            Some(waker) => waker.clone_from(binder),
            none => *none = Some(binder.clone()),
        }
        Some(std::mem::take(&mut queue.changes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn change(group: &str) -> Vec<BindingChange> {
        vec![BindingChange::bind(group)]
    }

    #[test]
    fn a_binder_is_woken_once_for_what_it_has_not_taken() {
        let queue = BindingQueue::default();
        let wakes = Arc::new(Wakes::default());
        let waker = Arc::clone(&wakes).into();
        queue.begin(1);
        queue.push(1, change("before"));
        assert_eq!(queue.take(1, &waker), Some(change("before")));
        queue.push(1, change("a"));
        queue.push(1, change("b"));
        assert_eq!(wakes.0.swap(0, Ordering::SeqCst), 1);
        let both = [change("a"), change("b")].concat();
        assert_eq!(queue.take(1, &waker), Some(both));
        queue.push(1, change("c"));
        assert_eq!(wakes.0.swap(0, Ordering::SeqCst), 1);
    }

    #[test]
    fn changes_of_an_epoch_that_is_over_are_void_and_its_binder_hears_of_the_end() {
        let queue = BindingQueue::default();
        let wakes = Arc::new(Wakes::default());
        let waker = Arc::clone(&wakes).into();
        queue.push(1, change("too early"));
        queue.begin(1);
        assert_eq!(queue.take(1, &waker), Some(Vec::new()));
        queue.push(1, change("late"));
        queue.end();
        assert_eq!(wakes.0.swap(0, Ordering::SeqCst), 2);
        assert_eq!(queue.take(1, &waker), None);
        queue.begin(2);
        queue.push(1, change("later"));
        assert_eq!(queue.take(1, &waker), None);
        assert_eq!(queue.take(2, &waker), Some(Vec::new()));
    }
}
