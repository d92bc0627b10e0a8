//! The parts over which the groups of a private exchange are spread: no I/O.
//!
//! RabbitMQ 4.3 deletes n bindings of one destination in a time that grows with n², and binds nothing for
//! anybody meanwhile: 50 µs for each of 1,000, 1.3 ms for each of 90,000. So there are 1,000 groups on the
//! private exchange, its first part, and as many on each of the others.
//!
//! Changes go over several AMQP channels, which the broker does in any order: those of a part wait until it
//! is known to be there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::sync::Mutex;

/// Counts parts. The first, 0, is the private exchange itself.
pub(super) type Part = u32;

const GROUPS_OF_A_PART: u32 = 1000;

/// The name of a part of `exchange`.
pub(super) fn part_name(exchange: &str, part: Part) -> String {
    match part {
        0 => exchange.to_owned(),
        part => format!("{exchange}.part.{part}"),
    }
}

/// Which parts of one exchange the links of a layer have made. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Made(Arc<Mutex<BTreeMap<Part, Progress>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The broker may have it.
    Asked,
    Confirmed,
}

impl Made {
    /// The parts that the broker may have, and may not delete with the exchange.
    pub(super) fn unconfirmed(&self) -> Vec<Part> {
        let parts = self.0.lock();
        let unconfirmed = parts.iter().filter(|(_, it)| **it == Progress::Asked);
        unconfirmed.map(|(part, _)| *part).collect()
    }

    fn ask(&self, part: Part) -> Errand {
        let mut parts = self.0.lock();
        match *parts.entry(part).or_insert(Progress::Asked) {
            Progress::Asked => Errand::Make(part),
            Progress::Confirmed => Errand::Find(part),
        }
    }

    fn confirm(&self, part: Part) {
        self.0.lock().insert(part, Progress::Confirmed);
    }
}

/// What is done for a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// It is declared, and all from it routed to the private exchange.
    Make(Part),
    /// It must be there: if it were declared again, its groups would not be bound to it.
    Find(Part),
}

impl Errand {
    fn part(self) -> Part {
        let (Self::Make(part) | Self::Find(part)) = self;
        part
    }
}

/// What becomes of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission<T> {
    /// It can be sent.
    Now(Part, T),
    /// It is the first that waits for a part; [`Parts::done`] follows.
    First(Errand),
    Waits,
}

/// The parts as one link knows them.
#[derive(Debug)]
pub(super) struct Parts<T> {
    /// `None` where all groups are bound to one destination.
    made: Option<Made>,
    there: BTreeSet<Part>,
    /// What waits for each part, oldest first.
    waiting: HashMap<Part, Vec<T>>,
}

impl<T> Parts<T> {
    pub(super) fn new(made: Option<Made>) -> Self {
        Self {
            made,
            there: BTreeSet::new(),
            waiting: HashMap::new(),
        }
    }

    /// `place` is that of the group.
    pub(super) fn admit(&mut self, place: u32, change: T) -> Admission<T> {
        let part = place / GROUPS_OF_A_PART;
        let made = match &self.made {
            Some(made) if part > 0 && !self.there.contains(&part) => made,
            Some(_) => return Admission::Now(part, change),
            None => return Admission::Now(0, change),
        };
        let waiting = self.waiting.entry(part).or_default();
        waiting.push(change);
        match waiting.len() {
            1 => Admission::First(made.ask(part)),
            _ => Admission::Waits,
        }
    }

    /// Returns the part, and what has waited for it, in its order.
    pub(super) fn done(&mut self, errand: Errand) -> (Part, Vec<T>) {
        let part = errand.part();
        if let Some(made) = &self.made {
            made.confirm(part);
        }
        self.there.insert(part);
        (part, self.waiting.remove(&part).unwrap_or_default())
    }

    /// What shows whether all parts are still there. The first has probes for that.
    pub(super) fn look(&self) -> impl Iterator<Item = Errand> {
        self.there.iter().copied().map(Errand::Find)
    }

    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: u32 = GROUPS_OF_A_PART;

    #[test]
    fn the_first_part_is_the_exchange_itself() {
        let mut parts = Parts::new(Some(Made::default()));
        assert_eq!(parts.admit(N - 1, 'a'), Admission::Now(0, 'a'));
        assert_eq!(part_name("x", 0), "x");
        assert_eq!(part_name("x", 2), "x.part.2");
        assert_eq!(parts.waiting(), 0);
        assert_eq!(parts.look().next(), None);
    }

    #[test]
    fn without_parts_all_goes_to_one_destination() {
        let mut parts = Parts::new(None);
        assert_eq!(parts.admit(7 * N, 'a'), Admission::Now(0, 'a'));
    }

    #[test]
    fn a_part_is_made_once_and_what_waited_for_it_keeps_its_order() {
        let mut parts = Parts::new(Some(Made::default()));
        let make = |part| Admission::First(Errand::Make(part));
        assert_eq!(parts.admit(3 * N, 'a'), make(3));
        assert_eq!(parts.admit(3 * N + 1, 'b'), Admission::Waits);
        assert_eq!(parts.admit(4 * N, 'c'), make(4));
        assert_eq!(parts.waiting(), 3);
        assert_eq!(parts.done(Errand::Make(3)), (3, vec!['a', 'b']));
        assert_eq!(parts.admit(4 * N - 1, 'd'), Admission::Now(3, 'd'));
        assert_eq!(parts.admit(4 * N, 'e'), Admission::Waits);
        assert_eq!(parts.done(Errand::Make(4)), (4, vec!['c', 'e']));
        assert_eq!(parts.waiting(), 0);
        let all: Vec<_> = parts.look().collect();
        assert_eq!(all, [Errand::Find(3), Errand::Find(4)]);
        assert_eq!(parts.done(Errand::Find(3)), (3, vec![]));
    }

    #[test]
    fn a_later_link_looks_for_what_was_confirmed_and_makes_what_was_not() {
        let made = Made::default();
        let mut parts = Parts::new(Some(made.clone()));
        parts.admit(N, 'a');
        parts.admit(2 * N, 'b');
        parts.done(Errand::Make(1));
        assert_eq!(made.unconfirmed(), [2]);
        let mut later = Parts::new(Some(made.clone()));
        let find = Admission::First(Errand::Find(1));
        assert_eq!(later.admit(N, 'c'), find);
        assert_eq!(later.look().next(), None, "before it is found");
        let make = Admission::First(Errand::Make(2));
        assert_eq!(later.admit(2 * N, 'd'), make);
        later.done(Errand::Make(2));
        assert!(made.unconfirmed().is_empty());
    }
}
