//! The numbers of `layer_stat`, as C sees them.

use crate::stats::Stat;

/// What `layer_stat` can be asked. Counters only grow; gauges say how it is now. Later versions add
/// numbers and never change one.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum layer_stat_t {
    /// Counts sends that the broker confirmed.
    LAYER_STAT_SENDS_CONFIRMED = 1,
    /// Counts sends that the broker refused because a queue was full.
    LAYER_STAT_SENDS_FULL = 2,
    /// Counts sends to a channel whose queue does not exist.
    LAYER_STAT_SENDS_NO_CHANNEL = 3,
    /// Counts sends of which nobody knows whether they arrived: those that timed out and those that
    /// stayed unconfirmed.
    LAYER_STAT_SENDS_UNKNOWN = 4,
    /// Counts sends that were accepted and certainly not handed over.
    LAYER_STAT_SENDS_UNSENT = 5,
    /// Counts messages that arrived from the broker.
    LAYER_STAT_DELIVERIES = 6,
    /// Counts messages that were given to a receiver; one to a group counts once per member.
    LAYER_STAT_RECEIVED = 7,
    /// Counts messages dropped because nobody received them within `local_expiry`.
    LAYER_STAT_DROPPED_EXPIRED = 8,
    /// Counts messages dropped because their channel held `channel_capacity` of them, while channels
    /// were isolated.
    LAYER_STAT_DROPPED_CHANNEL_FULL = 9,
    /// Counts messages dropped because the broker flagged them as perhaps delivered before.
    LAYER_STAT_DROPPED_REDELIVERED = 10,
    /// Counts messages dropped because they are not one map with one recipient.
    LAYER_STAT_DROPPED_MALFORMED = 11,
    /// Counts messages dropped because their group had no local member any more.
    LAYER_STAT_DROPPED_NO_MEMBER = 12,
    /// Counts messages dropped because they name a channel of another queue.
    LAYER_STAT_DROPPED_FOREIGN = 13,
    /// Counts messages dropped because their channel was discarded or the layer closed.
    LAYER_STAT_DROPPED_DISCARDED = 14,
    /// Counts log records and events that were dropped because too many were waiting.
    LAYER_STAT_EVENTS_DROPPED = 15,
    /// The number of consuming connections so far.
    LAYER_STAT_GENERATION = 16,
    /// The number of messages that wait in memory for a receiver.
    LAYER_STAT_BACKLOG = 17,
    /// The number of sends whose outcome is not delivered yet.
    LAYER_STAT_IN_FLIGHT = 18,
    /// The number of channels that hold a message or a receiver.
    LAYER_STAT_CHANNELS = 19,
    /// The number of receivers.
    LAYER_STAT_RECEIVERS = 20,
    /// The number of groups with local members.
    LAYER_STAT_GROUPS = 21,
    /// The number of memberships.
    LAYER_STAT_MEMBERSHIPS = 22,
    /// The number of groups that the broker routes here.
    LAYER_STAT_GROUPS_BOUND = 23,
    /// 1 while the broker blocks publishers, else 0.
    LAYER_STAT_PUBLISHERS_BLOCKED = 24,
    /// The number of deliveries that are held, so that the broker sends no more.
    LAYER_STAT_DELIVERIES_HELD = 25,
    /// Counts sends that were accepted; each has one outcome, or is still under way.
    LAYER_STAT_SENDS_ACCEPTED = 26,
    /// Counts sends that were handed over and not confirmed within option `timeout`.
    LAYER_STAT_SENDS_TIMED_OUT = 27,
    /// Counts sends that were handed over before the connection was lost or the layer closed.
    LAYER_STAT_SENDS_UNCONFIRMED = 28,
    /// Counts consuming connections after the first.
    LAYER_STAT_RECONNECTS = 29,
    /// Counts callbacks that have run: of receivers, of async calls, of log and state. Told when a
    /// thread has run what was due, and on the way after at most 64 of them.
    LAYER_STAT_CALLBACKS = 30,
    /// Counts the nanoseconds that threads have spent on callbacks, together with what the library
    /// does between two of them. Told when the callbacks are.
    LAYER_STAT_CALLBACK_NANOSECONDS = 31,
    /// 1 while both connections stand and every group is bound, else 0.
    LAYER_STAT_READY = 32,
    /// 1 while channels are isolated: none holds back deliveries to the others, and each is bounded
    /// by `channel_capacity`; else 0.
    LAYER_STAT_ISOLATING = 33,
    /// Counts how often isolation has begun.
    LAYER_STAT_ISOLATIONS = 34,
    /// Counts messages dropped because all channels held `total_capacity` and theirs was the fullest,
    /// while channels were isolated.
    LAYER_STAT_DROPPED_TOTAL_FULL = 35,
    /// Counts memberships that ended because their channel was not used for `group_expiry`.
    LAYER_STAT_MEMBERSHIPS_EXPIRED = 36,
    /// Counts sends that the broker refused for what they are: too large for it, or not allowed to
    /// the user.
    LAYER_STAT_SENDS_REFUSED = 37,
    /// Counts how often the queue got another name, since an earlier one stayed taken.
    LAYER_STAT_QUEUE_RENAMES = 38,
}

// cbindgen reads no macro, so the list stands twice; this keeps the two the same.
const _: () = {
    use layer_stat_t as C;
    const PAIRS: [(C, Stat); Stat::ALL.len()] = [
        (C::LAYER_STAT_SENDS_CONFIRMED, Stat::SendsConfirmed),
        (C::LAYER_STAT_SENDS_FULL, Stat::SendsFull),
        (C::LAYER_STAT_SENDS_NO_CHANNEL, Stat::SendsNoChannel),
        (C::LAYER_STAT_SENDS_UNKNOWN, Stat::SendsUnknown),
        (C::LAYER_STAT_SENDS_UNSENT, Stat::SendsUnsent),
        (C::LAYER_STAT_DELIVERIES, Stat::Deliveries),
        (C::LAYER_STAT_RECEIVED, Stat::Received),
        (C::LAYER_STAT_DROPPED_EXPIRED, Stat::DroppedExpired),
        (C::LAYER_STAT_DROPPED_CHANNEL_FULL, Stat::DroppedChannelFull),
        (C::LAYER_STAT_DROPPED_REDELIVERED, Stat::DroppedRedelivered),
        (C::LAYER_STAT_DROPPED_MALFORMED, Stat::DroppedMalformed),
        (C::LAYER_STAT_DROPPED_NO_MEMBER, Stat::DroppedNoMember),
        (C::LAYER_STAT_DROPPED_FOREIGN, Stat::DroppedForeign),
        (C::LAYER_STAT_DROPPED_DISCARDED, Stat::DroppedDiscarded),
        (C::LAYER_STAT_EVENTS_DROPPED, Stat::EventsDropped),
        (C::LAYER_STAT_GENERATION, Stat::Generation),
        (C::LAYER_STAT_BACKLOG, Stat::Backlog),
        (C::LAYER_STAT_IN_FLIGHT, Stat::InFlight),
        (C::LAYER_STAT_CHANNELS, Stat::Channels),
        (C::LAYER_STAT_RECEIVERS, Stat::Receivers),
        (C::LAYER_STAT_GROUPS, Stat::Groups),
        (C::LAYER_STAT_MEMBERSHIPS, Stat::Memberships),
        (C::LAYER_STAT_GROUPS_BOUND, Stat::GroupsBound),
        (C::LAYER_STAT_PUBLISHERS_BLOCKED, Stat::PublishersBlocked),
        (C::LAYER_STAT_DELIVERIES_HELD, Stat::DeliveriesHeld),
        (C::LAYER_STAT_SENDS_ACCEPTED, Stat::SendsAccepted),
        (C::LAYER_STAT_SENDS_TIMED_OUT, Stat::SendsTimedOut),
        (C::LAYER_STAT_SENDS_UNCONFIRMED, Stat::SendsUnconfirmed),
        (C::LAYER_STAT_RECONNECTS, Stat::Reconnects),
        (C::LAYER_STAT_CALLBACKS, Stat::Callbacks),
        (
            C::LAYER_STAT_CALLBACK_NANOSECONDS,
            Stat::CallbackNanoseconds,
        ),
        (C::LAYER_STAT_READY, Stat::Ready),
        (C::LAYER_STAT_ISOLATING, Stat::Isolating),
        (C::LAYER_STAT_ISOLATIONS, Stat::Isolations),
        (C::LAYER_STAT_DROPPED_TOTAL_FULL, Stat::DroppedTotalFull),
        (C::LAYER_STAT_MEMBERSHIPS_EXPIRED, Stat::MembershipsExpired),
        (C::LAYER_STAT_SENDS_REFUSED, Stat::SendsRefused),
        (C::LAYER_STAT_QUEUE_RENAMES, Stat::QueueRenames),
    ];
    let mut index = 0;
    while index < PAIRS.len() {
        assert!(PAIRS[index].0 as u32 == PAIRS[index].1 as u32);
        index += 1;
    }
};
