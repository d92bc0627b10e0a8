//! Counters of a layer, and the numbers by which the C API names counters and gauges.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// A counter or gauge of a layer. The numbers are those of the C API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Stat {
            $($(#[$doc])* $name = $number,)*
        }

        impl Stat {
            /// Every counter and gauge, in the order of their numbers.
            pub const ALL: &[Stat] = &[$(Stat::$name,)*];
        }
    };
}

stats! {
    /// Counts sends that the broker confirmed.
    SendsConfirmed = 1,
    /// Counts sends that the broker refused because a queue was full.
    SendsFull = 2,
    /// Counts sends to a channel whose queue does not exist.
    SendsNoChannel = 3,
    /// Counts sends that were handed over and never confirmed in time: nobody knows.
    SendsUnknown = 4,
    /// Counts sends that were accepted and certainly not handed over.
    SendsUnsent = 5,
    /// Counts messages that arrived from the broker.
    Deliveries = 6,
    /// Counts messages that were given to a receiver; one to a group counts once per member.
    Received = 7,
    /// Counts messages dropped because nobody received them within `local_expiry`.
    DroppedExpired = 8,
    /// Counts messages dropped because their channel held `channel_capacity` of them.
    DroppedChannelFull = 9,
    /// Counts messages dropped because the broker flagged them as perhaps delivered before.
    DroppedRedelivered = 10,
    /// Counts messages dropped because they are not one map with one recipient.
    DroppedMalformed = 11,
    /// Counts messages dropped because their group had no local member any more.
    DroppedNoMember = 12,
    /// Counts messages dropped because they name a channel of another queue.
    DroppedForeign = 13,
    /// Counts messages dropped because their channel was discarded or the layer closed.
    DroppedDiscarded = 14,
    /// Counts log records and state changes that were dropped because too many were waiting.
    EventsDropped = 15,
    /// The number of consuming connections so far.
    Generation = 16,
    /// The number of messages that wait in memory for a receiver.
    Backlog = 17,
    /// The number of sends whose outcome is not delivered yet.
    InFlight = 18,
    /// The number of channels that hold a message or a receiver.
    Channels = 19,
    /// The number of receivers.
    Receivers = 20,
    /// The number of groups with local members.
    Groups = 21,
    /// The number of memberships.
    Memberships = 22,
    /// The number of groups that the broker routes here.
    GroupsBound = 23,
    /// 1 while the broker blocks publishers, else 0.
    PublishersBlocked = 24,
    /// The number of deliveries that are held, so that the broker sends no more.
    DeliveriesHeld = 25,
}

impl Stat {
    /// The one of this number.
    pub fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }
}

/// The counters of one layer.
#[derive(Debug)]
pub(crate) struct Counters([AtomicU64; Stat::ALL.len()]);

impl Counters {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(crate) fn add(&self, stat: Stat, count: usize) {
        if count > 0
            && let Some(counter) = self.0.get(stat as usize - 1)
        {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, stat: Stat) -> u64 {
        self.0
            .get(stat as usize - 1)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_from_one_so_that_the_c_api_can_grow() {
        for (index, stat) in Stat::ALL.iter().enumerate() {
            assert_eq!(*stat as usize, index + 1);
            assert_eq!(Stat::from_number(*stat as u32), Some(*stat));
        }
        assert_eq!(Stat::from_number(0), None);
        assert_eq!(Stat::from_number(Stat::ALL.len() as u32 + 1), None);
    }

    #[test]
    fn counters_are_apart() {
        let counters = Counters::new();
        counters.add(Stat::Received, 3);
        counters.add(Stat::Deliveries, 0);
        assert_eq!(counters.get(Stat::Received), 3);
        assert_eq!(counters.get(Stat::Deliveries), 0);
    }
}
