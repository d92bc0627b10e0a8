//! Which parts of the private exchange are there, as far as this link knows: no I/O.
//!
//! Changes go over several AMQP channels, which the broker does in any order. So those of a part wait until it
//! is known to be there.

use std::collections::{HashMap, HashSet};

use crate::broker::Part;

/// What becomes of a change of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission<T> {
    /// It can be sent.
    Now(T),
    /// It waits, and the part is to be made; [`Parts::made`] follows.
    Make,
    /// It waits for a part that is being made.
    Later,
}

#[derive(Debug)]
pub(super) struct Parts<T> {
    there: HashSet<Part>,
    /// What waits for each part that is being made, oldest first.
    waiting: HashMap<Part, Vec<T>>,
}

impl<T> Parts<T> {
    /// The first is the private exchange itself.
    pub(super) fn new() -> Self {
        Self {
            there: HashSet::from([0]),
            waiting: HashMap::new(),
        }
    }

    pub(super) fn admit(&mut self, part: Part, change: T) -> Admission<T> {
        if self.there.contains(&part) {
            return Admission::Now(change);
        }
        let waiting = self.waiting.entry(part).or_default();
        waiting.push(change);
        match waiting.len() {
            1 => Admission::Make,
            _ => Admission::Later,
        }
    }

    /// The part is there: what has waited for it, in its order.
    pub(super) fn made(&mut self, part: Part) -> Vec<T> {
        self.there.insert(part);
        self.waiting.remove(&part).unwrap_or_default()
    }

    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_part_is_there_from_the_beginning() {
        let mut parts = Parts::new();
        assert_eq!(parts.admit(0, 'a'), Admission::Now('a'));
        assert_eq!(parts.waiting(), 0);
    }

    #[test]
    fn a_part_is_made_once_and_what_waited_for_it_keeps_its_order() {
        let mut parts = Parts::new();
        assert_eq!(parts.admit(3, 'a'), Admission::Make);
        assert_eq!(parts.admit(3, 'b'), Admission::Later);
        assert_eq!(parts.admit(4, 'c'), Admission::Make);
        assert_eq!(parts.waiting(), 3);
        assert_eq!(parts.made(3), ['a', 'b']);
        assert_eq!(parts.admit(3, 'd'), Admission::Now('d'));
        assert_eq!(parts.admit(4, 'e'), Admission::Later);
        assert_eq!(parts.made(4), ['c', 'e']);
        assert_eq!(parts.waiting(), 0);
    }
}
