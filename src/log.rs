//! Log records: their table, what is made of it, and how often one of a kind may be written.

use std::time::{Duration, Instant};

/// How grave a record is. The numbers are those of the C API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum Level {
    /// Something does not work and needs a person.
    Error = 1,
    /// Something was lost or is about to be.
    Warn = 2,
    /// Something changed, as it should.
    Info = 3,
    /// What a maintainer wants to see.
    Debug = 4,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

macro_rules! records {
    ($($name:ident = $id:literal, $level:ident, $target:literal, $meaning:literal, $advice:literal;)*) => {
        /// What a record is about. Its id, level and target never change their meaning; later
        /// versions add some.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RecordId {
            $(#[doc = $meaning] $name,)*
        }

        impl RecordId {
            /// Every one, in the order of the table.
            pub const ALL: &[RecordId] = &[$(RecordId::$name,)*];

            /// The id that users and programs see, as `connection_lost`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(RecordId::$name => $id,)*
                }
            }

            /// How grave such a record is.
            pub const fn level(self) -> Level {
                match self {
                    $(RecordId::$name => Level::$level,)*
                }
            }

            /// The part of the library that says it, as `channel_layer::broker`.
            pub const fn target(self) -> &'static str {
                match self {
                    $(RecordId::$name => $target,)*
                }
            }

            /// What it means, in a sentence or two.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(RecordId::$name => $meaning,)*
                }
            }

            /// What to do about it.
            pub const fn advice(self) -> &'static str {
                match self {
                    $(RecordId::$name => $advice,)*
                }
            }
        }

        /// Calls a macro with the name, level and target of each record, for what needs them as
        /// literals.
        #[cfg(feature = "tracing")]
        macro_rules! for_each_record {
            ($then:ident) => {
                $then!($($name, $level, $target;)*)
            };
        }
        #[cfg(feature = "tracing")]
        pub(crate) use for_each_record;
    };
}

records! {
    Connected = "connected", Info, "channel_layer::broker",
        "The layer is connected and its groups are bound; the text names the host and counts the \
         connections.",
        "Nothing. With a number above 1, messages may have been missed since the connection before.";
    ConnectionLost = "connection_lost", Warn, "channel_layer::broker",
        "A connection that stood is gone; the text says why. The layer connects again by itself, \
         at first after 0.1 s, later each second.",
        "If it happens often: look at the broker's log of that moment, at the network and at the \
         option `heartbeat`.";
    ConnectionFailed = "connection_failed", Warn, "channel_layer::broker",
        "No host could be connected to; the text says why for each. Attempts go on for ever, and \
         are written again only where the reason is a new one.",
        "See that a broker runs at the option `host`, that its name resolves and its port can be \
         reached, and that no other layer has the same `queue_name`.";
    Refused = "refused", Error, "channel_layer::broker",
        "Each host refused the last attempt for credentials, vhost or TLS: calls fail with \
         `LAYER_REFUSED`. Attempts go on.",
        "Mend what the text names: the user, its password and its permissions, the vhost, or the \
         options `tls_...`.";
    BoundDirectly = "bound_directly", Warn, "channel_layer::broker",
        "The broker does not let the layer make an exchange and a queue that keep its groups over a lost \
         connection; the text says why. All groups are bound again after each, which takes long for \
         many. Written once for a layer.",
        "With a few hundred groups: nothing. Else grant the rights that README lists, or raise the limit \
         that the text names.";
    BoundTogether = "bound_together", Warn, "channel_layer::broker",
        "The broker does not let the layer make an exchange more for each 1,000 of its groups; the text says \
         why. All are bound to one, and the layer has connected again for it. Written once for a layer.",
        "With some thousand groups: nothing. Else grant the rights that README lists, or raise the limit \
         that the text names: RabbitMQ 4 takes long to delete very many bindings of one exchange, and does \
         nothing else for others meanwhile.";
    BoundAgain = "bound_again", Warn, "channel_layer::broker",
        "The groups exchange did not route to the queue of this process any more, and the groups are \
         bound again; messages to groups were missed since. The text says how it was noticed.",
        "Find out who deletes the exchange or its bindings, if it happens often.";
    QueueRenamed = "queue_renamed", Warn, "channel_layer::broker",
        "The broker does not end an earlier connection of this layer, whose queue keeps its name: the \
         queue has another name from now on. Channels keep theirs, and receive from groups as before; \
         messages that are sent to them directly end as `LAYER_NO_CHANNEL` or `LAYER_FULL`.",
        "Let processes learn new channel names, or restart this process. RabbitMQ 4.3 keeps such a \
         queue for as long as its node is away.";
    ConsumerTimedOut = "consumer_timed_out", Warn, "channel_layer::broker",
        "Receivers of this process have not taken messages for longer than the broker's \
         `consumer_timeout`; what they hold does not hold back deliveries any more. No message is lost.",
        "Make the receivers faster or look whether one hangs; or raise `consumer_timeout` on the broker.";
    OtherCopy = "other_copy", Warn, "channel_layer::broker",
        "The process holds another copy of the library, in the file that the text names. A broker of \
         `memory://` is that of one copy: layers of the other do not reach it.",
        "Let all parts of the program load the same file, as by `CHANNEL_LAYER_LIBRARY`; or use a \
         broker.";
    ExchangeNotChecked = "exchange_not_checked", Warn, "channel_layer::broker",
        "The user may not write to the exchange that the text names: whether it routes to this process \
         is not checked, and sends by it are refused.",
        "Give the user the right to write to the exchange, unless this process is only to receive.";
    PublishersBlocked = "publishers_blocked", Warn, "channel_layer::layer",
        "The broker takes no messages, for want of memory or disk. Async sends return `LAYER_BUSY`, \
         blocking ones wait within `timeout`.",
        "Give the broker memory or disk, or remove what fills it: `rabbitmqctl list_queues` names \
         the biggest queues.";
    PublishersUnblocked = "publishers_unblocked", Info, "channel_layer::layer",
        "The broker takes messages again.",
        "Nothing.";
    SendsReleased = "sends_released", Info, "channel_layer::layer",
        "Sends that waited for a lost connection have been published, after `settle` and then in \
         batches; or the layer was closed or lost the connection again meanwhile. The text says how many \
         they were and how long it took.",
        "Nothing. Where receivers miss messages that were sent while the broker was away: raise \
         `settle`.";
    IsolationBegan = "isolation_began", Warn, "channel_layer::inbox",
        "Messages that channels of this process have not taken kept the broker from sending any to \
         the others for `stall_after`. Each channel is bounded by `channel_capacity` from now on; the \
         text names the channels that hold most.",
        "Look at those channels: make their receivers faster, or discard them when their client goes \
         away. A worker that is to hold senders back instead sets `stall_after` to 0.";
    IsolationEnded = "isolation_ended", Warn, "channel_layer::inbox",
        "What waits in memory is at most half of `local_capacity` and `prefetch_count` again, so that \
         it may hold the broker back again; or the layer was closed. The text says how long channels \
         were isolated, and which of them lost how many messages. Where the beginning was not logged, \
         at most one in 5 seconds being, and nothing was lost, this is not either.",
        "Where messages were lost and must not be: raise `channel_capacity`.";
    ChannelFullDropped = "channel_full_dropped", Warn, "channel_layer::inbox",
        "Channels that were isolated held `channel_capacity` messages, or all together \
         `total_capacity`, and lost their newest; the text names those that lost most. At most one \
         such record in 5 seconds.",
        "Make the receivers of those channels faster, or raise `channel_capacity`.";
    ExpiredDropped = "expired_dropped", Warn, "channel_layer::inbox",
        "Messages that nobody received within `local_expiry` were dropped; the text names the \
         biggest queues. At most one such record in 5 seconds.",
        "Receive from those channels, or give them up by `layer_channel_discard` when their client \
         goes away.";
    MalformedDropped = "malformed_dropped", Warn, "channel_layer::inbox",
        "Something was published to the queue that is not one MessagePack map with one recipient, \
         and was dropped. At most one such record in 5 seconds.",
        "Find the program that publishes to the queue or to the groups exchange and is no channel \
         layer, or one with another serializer.";
    RedeliveredDropped = "redelivered_dropped", Warn, "channel_layer::inbox",
        "The broker flagged a message as perhaps delivered before, and it was dropped: delivery is \
         at most once. At most one such record in 5 seconds.",
        "Nothing if it is rare; else look at what ends the consumer on the broker.";
    MembershipsExpired = "memberships_expired", Warn, "channel_layer::membership",
        "Memberships ended because nobody received from their channel, nor added it again, within \
         `group_expiry`; the text names the first of them.",
        "Discard a channel when its client goes away. If it still lives: receive from it, or set \
         `group_expiry` to never.";
    ReceiverPanicked = "receiver_panicked", Error, "channel_layer::receivers",
        "A receiver written in Rust panicked and was ended; the text says with what.",
        "Mend the receiver.";
    CallbackPanicked = "callback_panicked", Error, "channel_layer::layer",
        "A callback written in Rust, for an outcome, the log or the state, panicked; the text says \
         with what.",
        "Mend the callback.";
    DescriptorLost = "descriptor_lost", Error, "channel_layer::layer",
        "The program has closed the descriptor that `layer_fd` gave it, and which the layer owns: it \
         is found as the layer closes. The text names its number, which another file may have by now; \
         the layer does not touch that.",
        "Give event loops that close what they watch, as Boost.Asio does, a duplicate: `layer_fd_dup`.";
}

/// The table of records for people.
pub fn records_as_markdown() -> String {
    let mut table = String::from("| Id | Level | Meaning | What to do |\n|---|---|---|---|\n");
    for id in RecordId::ALL {
        table += &format!(
            "| `{}` | {} | {} | {} |\n",
            id.as_str(),
            id.level().name(),
            id.meaning(),
            id.advice()
        );
    }
    table
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub id: RecordId,
    /// What it says; never a password.
    pub message: String,
}

impl Record {
    /// How grave it is.
    pub fn level(&self) -> Level {
        self.id.level()
    }

    /// The part of the library that says it, as `channel_layer::broker`.
    pub fn target(&self) -> &'static str {
        self.id.target()
    }
}

/// Lets one record of a kind through per interval and counts those that it held back.
#[derive(Debug)]
pub(crate) struct RateLimit {
    interval: Duration,
    last: Option<Instant>,
    held_back: u64,
}

impl RateLimit {
    pub(crate) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: None,
            held_back: 0,
        }
    }

    /// `Some(n)` if a record may be written at `now`, `n` others having been held back before it.
    pub(crate) fn permit(&mut self, now: Instant) -> Option<u64> {
        if let Some(last) = self.last
            && now.saturating_duration_since(last) < self.interval
        {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words_for_programs_and_no_two_are_the_same() {
        for (index, id) in RecordId::ALL.iter().enumerate() {
            let text = id.as_str();
            assert!(
                text.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{text}"
            );
            assert!(
                RecordId::ALL
                    .iter()
                    .skip(index + 1)
                    .all(|other| other.as_str() != text)
            );
            assert!(id.target().starts_with("channel_layer::"), "{text}");
            for sentence in [id.meaning(), id.advice()] {
                assert!(sentence.ends_with('.'), "{text}: {sentence}");
                // It stands in a cell of a table.
                assert!(!sentence.contains(['|', '\n']), "{text}: {sentence}");
            }
        }
    }

    #[test]
    fn one_record_per_interval_and_the_others_are_counted() {
        let start = Instant::now();
        let mut limit = RateLimit::new(Duration::from_secs(5));
        assert_eq!(limit.permit(start), Some(0));
        assert_eq!(limit.permit(start + Duration::from_secs(1)), None);
        assert_eq!(limit.permit(start + Duration::from_millis(4999)), None);
        assert_eq!(limit.permit(start + Duration::from_secs(5)), Some(2));
        assert_eq!(limit.permit(start + Duration::from_secs(10)), Some(0));
    }
}
