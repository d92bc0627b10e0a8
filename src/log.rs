//! Log records, and how often one of a kind may be written.

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

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// How grave it is.
    pub level: Level,
    /// The part of the library that says it, as `channel_layer::broker`.
    pub target: &'static str,
    /// What it says; never a password.
    pub message: String,
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
