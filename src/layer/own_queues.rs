//! The names of the own queue: the one that it has now, and those that it had before.

use std::sync::Arc;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// The names of the own queue. Channels keep the name that they were made with, so that an earlier
/// queue's are own channels too.
#[derive(Debug)]
pub(super) struct OwnQueues {
    first: Arc<str>,
    /// How many there are in `later`: nearly always none.
    renamed: AtomicUsize,
    later: Mutex<Vec<Arc<str>>>,
}

impl OwnQueues {
    pub(super) fn new(first: String) -> Self {
        Self {
            first: first.into(),
            renamed: AtomicUsize::new(0),
            later: Mutex::default(),
        }
    }

    /// The name that new channels get.
    pub(super) fn current(&self) -> Arc<str> {
        if self.renamed() > 0
            && let Some(last) = self.later.lock().last()
        {
            return Arc::clone(last);
        }
        Arc::clone(&self.first)
    }

    /// Whether `queue` is, or was, the own queue.
    pub(super) fn contain(&self, queue: &str) -> bool {
        *self.first == *queue
            || (self.renamed() > 0 && self.later.lock().iter().any(|later| **later == *queue))
    }

    /// How often the queue got another name.
    pub(super) fn renamed(&self) -> usize {
        self.renamed.load(Ordering::Acquire)
    }

    /// The queue has this name from now on.
    pub(super) fn begin(&self, queue: &str) {
        if *self.current() != *queue {
            let mut later = self.later.lock();
            later.push(queue.into());
            self.renamed.store(later.len(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_names_stay_own_and_new_channels_get_the_last() {
        let queues = OwnQueues::new("a".to_owned());
        queues.begin("a");
        assert_eq!((queues.renamed(), &*queues.current()), (0, "a"));
        assert!(!queues.contain("b"));
        queues.begin("b");
        queues.begin("b");
        queues.begin("c");
        assert_eq!((queues.renamed(), &*queues.current()), (2, "c"));
        assert!(["a", "b", "c"].iter().all(|name| queues.contain(name)));
        assert!(!queues.contain("d"));
    }
}
