//! The messages that wait in memory, each kept once however many channels it waits in.

use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::message::Body;

/// Names a message that waits. In a queue it stands for one copy.
pub(super) type ArrivalKey = u32;

/// Room for more messages than this is given back when none waits.
const KEPT: usize = 1024;

#[derive(Debug)]
struct Arrival {
    body: Arc<Body>,
    at: Instant,
    /// In how many channels it waits; one more while it is being delivered.
    copies: u32,
}

/// What has arrived and was not taken by each channel that it is for.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    arrivals: Slab<Arrival>,
    copies: usize,
}

impl Arrivals {
    /// Copies that wait.
    pub(super) fn copies(&self) -> usize {
        self.copies
    }

    /// Messages of which at least one copy waits.
    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// A message has arrived. It waits nowhere yet, and is kept until [`Arrivals::delivered`]: the
    /// channels that it goes to may lose their copies before the last has one.
    pub(super) fn insert(&mut self, body: Arc<Body>, at: Instant) -> ArrivalKey {
        // Four billion messages do not fit into any memory.
        self.arrivals.insert(Arrival {
            body,
            at,
            copies: 1,
        }) as ArrivalKey
    }

    /// Each channel that a message is for has its copy, or has lost it.
    pub(super) fn delivered(&mut self, key: ArrivalKey) {
        if let Some(arrival) = self.arrivals.get_mut(key as usize) {
            arrival.copies -= 1;
            if arrival.copies == 0 {
                self.forget(key);
            }
        }
    }

    fn forget(&mut self, key: ArrivalKey) -> Arrival {
        let arrival = self.arrivals.remove(key as usize);
        if self.arrivals.is_empty() && self.arrivals.capacity() > KEPT {
            self.arrivals = Slab::new();
        }
        arrival
    }

    /// One more copy waits.
    pub(super) fn add_copy(&mut self, key: ArrivalKey) {
        if let Some(arrival) = self.arrivals.get_mut(key as usize) {
            arrival.copies += 1;
            self.copies += 1;
        }
    }

    /// When it arrived.
    pub(super) fn at(&self, key: ArrivalKey) -> Option<Instant> {
        self.arrivals.get(key as usize).map(|arrival| arrival.at)
    }

    /// A copy is taken.
    #[inline]
    pub(super) fn take(&mut self, key: ArrivalKey) -> Option<(Arc<Body>, Instant)> {
        let arrival = self.arrivals.get_mut(key as usize)?;
        self.copies -= 1;
        arrival.copies -= 1;
        if arrival.copies > 0 {
            return Some((Arc::clone(&arrival.body), arrival.at));
        }
        let Arrival { body, at, .. } = self.forget(key);
        Some((body, at))
    }

    /// A copy does not wait any more.
    pub(super) fn remove_copy(&mut self, key: ArrivalKey) {
        drop(self.take(key));
    }

    /// A copy of `body` that was taken as `key` waits again. Other copies of it may have waited all
    /// the time: then it is the same message still.
    pub(super) fn put_back(
        &mut self,
        key: ArrivalKey,
        body: &Arc<Body>,
        at: Instant,
    ) -> ArrivalKey {
        let is_it = |arrival: &Arrival| Arc::ptr_eq(&arrival.body, body);
        if self.arrivals.get(key as usize).is_some_and(is_it) {
            self.add_copy(key);
            return key;
        }
        let key = self.insert(Arc::clone(body), at);
        self.add_copy(key);
        self.delivered(key);
        key
    }
}
