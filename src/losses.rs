//! Which channels have lost how much since isolation began, and what of it was told.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// How often losses are told: the first at once, then what came since.
const INTERVAL: Duration = Duration::from_secs(1);

/// So many channels are told apart in one report; those that lost least are told as one.
const REPORTED: usize = 100;

/// So many channels are told apart in all: whoever makes names up must not fill the memory.
const CHANNELS: usize = 10_000;

/// What one channel has lost, or, without a name, several that are not told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) channel: Option<Arc<CStr>>,
    pub(crate) count: u64,
}

/// What was lost since isolation began.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) messages: u64,
    /// Channels that are told apart.
    pub(crate) channels: usize,
    /// Those that lost most, with their numbers.
    pub(crate) biggest: Vec<(Arc<CStr>, u64)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    total: u64,
    untold: u64,
}

impl Count {
    fn add(&mut self) {
        self.total += 1;
        self.untold += 1;
    }
}

/// Counts what channels lose.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    by_channel: HashMap<Arc<CStr>, Count>,
    /// Of channels that are not told apart.
    others: Count,
    untold: u64,
    last_report: Option<Instant>,
}

impl Losses {
    /// A channel has lost a message.
    pub(crate) fn add(&mut self, channel: Arc<CStr>) {
        self.untold += 1;
        if let Some(count) = self.by_channel.get_mut(&channel) {
            count.add();
        } else if self.by_channel.len() < CHANNELS {
            self.by_channel.entry(channel).or_default().add();
        } else {
            self.others.add();
        }
    }

    /// When the next report is due.
    pub(crate) fn next_report(&self) -> Option<Instant> {
        let last = self.last_report.filter(|_| self.untold > 0)?;
        last.checked_add(INTERVAL)
    }

    /// Whether a report is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let since = |last: Instant| now.saturating_duration_since(last);
        self.untold > 0 && self.last_report.is_none_or(|last| since(last) >= INTERVAL)
    }

    /// What was lost since the last report, if one is due: those that lost most first.
    pub(crate) fn report(&mut self, now: Instant) -> Vec<Loss> {
        if !self.is_due(now) {
            return Vec::new();
        }
        self.last_report = Some(now);
        self.take_untold()
    }

    /// Puts the report that is due off for as long as there is between two.
    pub(crate) fn put_off(&mut self, now: Instant) {
        self.last_report = Some(now);
    }

    fn take_untold(&mut self) -> Vec<Loss> {
        self.untold = 0;
        let mut others = std::mem::take(&mut self.others.untold);
        let untold = self
            .by_channel
            .iter_mut()
            .filter(|(_, count)| count.untold > 0);
        let mut losses: Vec<_> = untold
            .map(|(channel, count)| {
                let count = std::mem::take(&mut count.untold);
                (Arc::clone(channel), count)
            })
            .collect();
        by_number(&mut losses);
        others += losses
            .drain(REPORTED.min(losses.len())..)
            .map(|(_, count)| count)
            .sum::<u64>();
        let named = losses.into_iter().map(|(channel, count)| Loss {
            channel: Some(channel),
            count,
        });
        let others = (others > 0).then_some(Loss {
            channel: None,
            count: others,
        });
        named.chain(others).collect()
    }

    /// What was lost in all so far, with the `named` channels that lost most.
    pub(crate) fn totals(&self, named: usize) -> Totals {
        let counts = self.by_channel.iter();
        let mut losses: Vec<_> = counts
            .map(|(channel, count)| (Arc::clone(channel), count.total))
            .collect();
        by_number(&mut losses);
        Totals {
            messages: losses.iter().map(|(_, count)| count).sum::<u64>() + self.others.total,
            channels: losses.len(),
            biggest: losses.into_iter().take(named).collect(),
        }
    }

    /// Isolation has ended: what was not told yet. From now on there is a new count.
    pub(crate) fn end(&mut self) -> Vec<Loss> {
        let untold = self.take_untold();
        // The next isolation may begin at once.
        *self = Self {
            last_report: self.last_report,
            ..Self::default()
        };
        untold
    }
}

fn by_number(losses: &mut [(Arc<CStr>, u64)]) {
    losses.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn name(text: &str) -> Arc<CStr> {
        CString::new(text).unwrap().into()
    }

    fn loss(channel: &str, count: u64) -> Loss {
        Loss {
            channel: Some(name(channel)),
            count,
        }
    }

    #[test]
    fn the_first_loss_is_told_at_once_and_the_others_each_second() {
        let start = Instant::now();
        let mut losses = Losses::default();
        assert_eq!(losses.report(start), []);
        assert_eq!(losses.next_report(), None);
        losses.add(name("a"));
        assert_eq!(losses.report(start), [loss("a", 1)]);
        assert_eq!(losses.next_report(), None, "nothing is left to tell");
        losses.add(name("b"));
        losses.add(name("a"));
        losses.add(name("b"));
        let due = start + INTERVAL;
        assert_eq!(losses.report(due - Duration::from_millis(1)), []);
        assert_eq!(losses.next_report(), Some(due));
        assert_eq!(losses.report(due), [loss("b", 2), loss("a", 1)]);
        assert_eq!(losses.report(due + INTERVAL), []);
    }

    #[test]
    fn a_report_that_is_put_off_is_due_once_more_after_the_interval_and_has_all() {
        let mut losses = Losses::default();
        let start = Instant::now();
        losses.add(name("a"));
        assert!(losses.is_due(start));
        losses.put_off(start);
        losses.add(name("a"));
        assert!(!losses.is_due(start));
        let due = start + INTERVAL;
        assert_eq!(losses.next_report(), Some(due));
        assert_eq!(losses.report(due), [loss("a", 2)]);
    }

    #[test]
    fn totals_count_what_was_told_and_what_was_not_and_end_with_isolation() {
        let mut losses = Losses::default();
        for channel in ["a", "b", "b", "c", "c", "c"] {
            losses.add(name(channel));
        }
        losses.report(Instant::now());
        losses.add(name("a"));
        let totals = losses.totals(2);
        assert_eq!((totals.messages, totals.channels), (7, 3));
        assert_eq!(totals.biggest, [(name("c"), 3), (name("a"), 2)]);
        assert_eq!(losses.end(), [loss("a", 1)]);
        assert_eq!(losses.totals(2), Totals::default());
        assert_eq!(losses.next_report(), None);
    }

    #[test]
    fn what_is_not_told_apart_is_told_as_one_and_nothing_is_left_out() {
        let mut losses = Losses::default();
        for number in 0..CHANNELS + 5 {
            losses.add(name(&number.to_string()));
            losses.add(name(&number.to_string()));
        }
        assert_eq!(losses.by_channel.len(), CHANNELS);
        let report = losses.report(Instant::now());
        assert_eq!(report.len(), REPORTED + 1);
        let sum: u64 = report.iter().map(|loss| loss.count).sum();
        assert_eq!(sum, 2 * (CHANNELS as u64 + 5));
        assert_eq!(report.last().unwrap().channel, None);
        assert_eq!(losses.totals(1).messages, sum);
    }
}
