//! How long messages may gather before they are dealt with.

use std::time::Duration;

/// So many messages at once are a crowd, if at least so many more may follow before somebody waits
/// for us: who waits for one of a few has nothing else to do.
const IN_CROWD: usize = 4;
const MANY: u64 = 64;

/// How long the thread lets messages gather, for each that came and for each that may follow, the
/// shorter of the two. So it is a fraction of what all that is under way takes, and long only where
/// many come. Without it, the broker's segments of three to five messages cost twice the processor
/// time, for the thread and those that it wakes sleep and wake for each (measured with 1000 in
/// flight; 50 µs, whatever came, brought half of what this does).
///
/// Never longer than [`LONGEST_GATHER`]: a heartbeat, a return or an ack on the same connection waits
/// as long, and with a large `prefetch_count` or `max_in_flight` a fraction is no longer short.
const GATHER_FOR_EACH_THAT_CAME: Duration = Duration::from_micros(50);
const GATHER_FOR_EACH_THAT_MAY_FOLLOW: Duration = Duration::from_micros(2);
const LONGEST_GATHER: Duration = Duration::from_millis(2);

/// How long to let messages gather where `came` have come at once and `may_follow` more may come
/// before somebody waits for us.
pub(super) fn time_to_gather(came: usize, may_follow: u64) -> Duration {
    if came < IN_CROWD || may_follow < MANY {
        return Duration::ZERO;
    }
    let times =
        |each: Duration, count: u64| each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    times(GATHER_FOR_EACH_THAT_CAME, came as u64)
        .min(times(GATHER_FOR_EACH_THAT_MAY_FOLLOW, may_follow))
        .min(LONGEST_GATHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_burst_gathers_for_a_fraction_of_its_time_and_never_longer_than_2_ms() {
        let micros = |came, may_follow| time_to_gather(came, may_follow).as_micros();
        assert_eq!(micros(IN_CROWD - 1, 10_000), 0);
        assert_eq!(micros(1000, MANY - 1), 0);
        assert_eq!(micros(IN_CROWD, MANY), 128);
        assert_eq!(micros(5, 1000), 250);
        assert_eq!(micros(256, 1000), 2000);
        assert_eq!(micros(256, 10_000), 2000);
        assert_eq!(micros(10_000_000, u64::MAX), 2000);
    }
}
