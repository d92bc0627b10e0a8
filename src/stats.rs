//! Counters of a layer: their table, what is made of it, and the numbers by which the C API names
//! counters and gauges.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether a number only grows or says how it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatKind {
    /// Only grows.
    Counter,
    /// Says how it is now.
    Gauge,
}

/// What a statistic is for Prometheus: one series of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Series {
    /// The metric, without the prefix that all have.
    pub(crate) metric: &'static str,
    /// What the metric says, where that is not the meaning of the statistic.
    pub(crate) help: Option<&'static str>,
    /// What tells this series of the metric from its others, which together count each event once.
    pub(crate) label: Option<(&'static str, &'static str)>,
    /// The metric is in seconds, the statistic in nanoseconds.
    pub(crate) in_seconds: bool,
}

const fn alone(metric: &'static str) -> Series {
    Series {
        metric,
        help: None,
        label: None,
        in_seconds: false,
    }
}

const fn seconds(metric: &'static str, help: &'static str) -> Series {
    Series {
        help: Some(help),
        in_seconds: true,
        ..alone(metric)
    }
}

const fn outcome(value: &'static str) -> Series {
    Series {
        help: Some("Counts sends that have ended, by their outcome."),
        label: Some(("outcome", value)),
        ..alone("send_outcomes_total")
    }
}

const fn dropped(reason: &'static str) -> Series {
    Series {
        help: Some("Counts messages that were dropped, by the reason."),
        label: Some(("reason", reason)),
        ..alone("dropped_total")
    }
}

macro_rules! stats {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $kind:ident, $series:expr;)*) => {
        /// A counter or gauge of a layer. The numbers are those of the C API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Stat {
            $($(#[doc = $doc])* $name = $number,)*
        }

        impl Stat {
            /// Every counter and gauge, in the order of their numbers.
            pub const ALL: &[Stat] = &[$(Stat::$name,)*];

            /// Whether it only grows.
            pub const fn kind(self) -> StatKind {
                match self {
                    $(Stat::$name => StatKind::$kind,)*
                }
            }

            /// What it counts or says, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Stat::$name => concat!($($doc),*),)*
                }
                .trim_start()
            }

            pub(crate) const fn series(self) -> Series {
                match self {
                    $(Stat::$name => $series,)*
                }
            }

            const fn variant(self) -> &'static str {
                match self {
                    $(Stat::$name => stringify!($name),)*
                }
            }
        }
    };
}

stats! {
    /// Counts sends that the broker confirmed.
    SendsConfirmed = 1, Counter, outcome("confirmed");
    /// Counts sends that the broker refused because a queue was full.
    SendsFull = 2, Counter, outcome("full");
    /// Counts sends to a channel whose queue does not exist.
    SendsNoChannel = 3, Counter, outcome("no_channel");
    /// Counts sends of which nobody knows whether they arrived: those that timed out and those that
    /// stayed unconfirmed.
    SendsUnknown = 4, Counter, alone("sends_unknown_total");
    /// Counts sends that were accepted and certainly not handed over.
    SendsUnsent = 5, Counter, outcome("unsent");
    /// Counts messages that arrived from the broker.
    Deliveries = 6, Counter, alone("deliveries_total");
    /// Counts messages that were given to a receiver; one to a group counts once per member.
    Received = 7, Counter, alone("received_total");
    /// Counts messages dropped because nobody received them within `local_expiry`.
    DroppedExpired = 8, Counter, dropped("expired");
    /// Counts messages dropped because their channel held `channel_capacity` of them, while channels
    /// were isolated.
    DroppedChannelFull = 9, Counter, dropped("channel_full");
    /// Counts messages dropped because the broker flagged them as perhaps delivered before.
    DroppedRedelivered = 10, Counter, dropped("redelivered");
    /// Counts messages dropped because they are not one map with one recipient.
    DroppedMalformed = 11, Counter, dropped("malformed");
    /// Counts messages dropped because their group had no local member any more.
    DroppedNoMember = 12, Counter, dropped("no_member");
    /// Counts messages dropped because they name a channel of another queue.
    DroppedForeign = 13, Counter, dropped("foreign");
    /// Counts messages dropped because their channel was discarded or the layer closed.
    DroppedDiscarded = 14, Counter, dropped("discarded");
    /// Counts log records and events that were dropped because too many were waiting.
    EventsDropped = 15, Counter, alone("events_dropped_total");
    /// The number of consuming connections so far.
    Generation = 16, Gauge, alone("generation");
    /// The number of messages that wait in memory for a receiver.
    Backlog = 17, Gauge, alone("backlog");
    /// The number of sends whose outcome is not delivered yet.
    InFlight = 18, Gauge, alone("in_flight");
    /// The number of channels that hold a message or a receiver.
    Channels = 19, Gauge, alone("channels");
    /// The number of receivers.
    Receivers = 20, Gauge, alone("receivers");
    /// The number of groups with local members.
    Groups = 21, Gauge, alone("groups");
    /// The number of memberships.
    Memberships = 22, Gauge, alone("memberships");
    /// The number of groups that the broker routes here.
    GroupsBound = 23, Gauge, alone("groups_bound");
    /// 1 while the broker blocks publishers, else 0.
    PublishersBlocked = 24, Gauge, alone("publishers_blocked");
    /// The number of deliveries that are held, so that the broker sends no more.
    DeliveriesHeld = 25, Gauge, alone("deliveries_held");
    /// Counts sends that were accepted; each has one outcome, or is still under way.
    SendsAccepted = 26, Counter, alone("sends_total");
    /// Counts sends that were handed over and not confirmed within option `timeout`.
    SendsTimedOut = 27, Counter, outcome("timed_out");
    /// Counts sends that were handed over before the connection was lost or the layer closed.
    SendsUnconfirmed = 28, Counter, outcome("unconfirmed");
    /// Counts consuming connections after the first.
    Reconnects = 29, Counter, alone("reconnects_total");
    /// Counts callbacks that have run: of receivers, of async calls, of log and state. Told when a
    /// thread has run what was due, and on the way after at most 64 of them.
    Callbacks = 30, Counter, alone("callbacks_total");
    /// Counts the nanoseconds that threads have spent on callbacks, together with what the library
    /// does between two of them. Told when the callbacks are.
    CallbackNanoseconds = 31, Counter, seconds(
        "callback_seconds_total",
        "Counts the seconds that threads have spent on callbacks.",
    );
    /// 1 while both connections stand and every group is bound, else 0.
    Ready = 32, Gauge, alone("ready");
    /// 1 while channels are isolated: none holds back deliveries to the others, and each is bounded
    /// by `channel_capacity`; else 0.
    Isolating = 33, Gauge, alone("isolating");
    /// Counts how often isolation has begun.
    Isolations = 34, Counter, alone("isolations_total");
    /// Counts messages dropped because all channels held `total_capacity` and theirs was the fullest,
    /// while channels were isolated.
    DroppedTotalFull = 35, Counter, dropped("total_full");
    /// Counts memberships that ended because their channel was not used for `group_expiry`.
    MembershipsExpired = 36, Counter, alone("memberships_expired_total");
    /// Counts sends that the broker refused for what they are: too large for it, or not allowed to
    /// the user.
    SendsRefused = 37, Counter, outcome("refused");
    /// Counts how often the queue got another name, since an earlier one stayed taken.
    QueueRenames = 38, Counter, alone("queue_renames_total");
}

impl Stat {
    /// The one of this number.
    pub fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Its name in the header.
    fn header_name(self) -> String {
        let mut name = String::from("LAYER_STAT");
        for character in self.variant().chars() {
            if character.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(character.to_ascii_uppercase());
        }
        name
    }
}

/// What stands before the name of each metric.
pub(crate) const METRIC_PREFIX: &str = "channel_layer_";

/// The table of statistics for people.
pub fn stats_as_markdown() -> String {
    let mut table = String::from("| Statistic | Metric | Kind | Meaning |\n|---|---|---|---|\n");
    for stat in Stat::ALL {
        let Series { metric, label, .. } = stat.series();
        let label = label.map_or(String::new(), |(name, value)| {
            format!("{{{name}=\"{value}\"}}")
        });
        let kind = match stat.kind() {
            StatKind::Counter => "counter",
            StatKind::Gauge => "gauge",
        };
        table += &format!(
            "| `{}` | `{METRIC_PREFIX}{metric}{label}` | {kind} | {} |\n",
            stat.header_name(),
            stat.meaning()
        );
    }
    table
}

/// The counters of one layer.
#[derive(Debug)]
pub(crate) struct Counters([AtomicU64; Stat::ALL.len()]);

impl Counters {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(crate) fn add(&self, stat: Stat, count: usize) {
        self.add_many(stat, count as u64);
    }

    pub(crate) fn add_many(&self, stat: Stat, count: u64) {
        if count > 0
            && let Some(counter) = self.0.get(stat as usize - 1)
        {
            counter.fetch_add(count, Ordering::Relaxed);
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
