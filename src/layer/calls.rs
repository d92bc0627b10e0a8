//! Calls that are under way: who is told of the outcome, and by when there must be one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::broker::Token;
use crate::error::Error;
use crate::sync::{Condvar, Mutex};

use super::callbacks::Done;

/// Who is told how a call ended.
pub(super) enum Completion {
    /// A thread that waits inside the call.
    Wake(Arc<Waiter>),
    /// A callback, to be run by the dispatcher.
    Call(Box<dyn Done>),
}

/// A thread that waits for the outcome of its call.
#[derive(Default)]
pub(super) struct Waiter {
    result: Mutex<Option<Result<(), Error>>>,
    set: Condvar,
}

impl Waiter {
    pub(super) fn wake(&self, result: Result<(), Error>) {
        *self.result.lock() = Some(result);
        self.set.notify_one();
    }

    /// The outcome, or `None` if there is none by `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Option<Result<(), Error>> {
        let mut result = self.result.lock();
        while result.is_none() {
            if self.set.wait_until(&mut result, deadline).timed_out() {
                break;
            }
        }
        result.take()
    }
}

/// The calls of one kind. Nearly all wait equally long, so that their deadlines come in order; one
/// that waited before it got here is put where it belongs.
pub(super) struct Calls<E> {
    entries: HashMap<Token, E>,
    deadlines: VecDeque<(Instant, Token)>,
    last: Token,
}

impl<E> Calls<E> {
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            deadlines: VecDeque::new(),
            last: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, deadline: Instant, entry: E) -> Token {
        self.last += 1;
        self.entries.insert(self.last, entry);
        let later = self.deadlines.iter().rev();
        let later = later.take_while(|(other, _)| *other > deadline).count();
        let place = self.deadlines.len() - later;
        self.deadlines.insert(place, (deadline, self.last));
        self.last
    }

    pub(super) fn contains(&self, token: Token) -> bool {
        self.entries.contains_key(&token)
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut E> {
        self.entries.get_mut(&token)
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<E> {
        let entry = self.entries.remove(&token);
        self.forget_ended();
        entry
    }

    /// Deadlines of calls that have ended are of no use, and would pile up.
    fn forget_ended(&mut self) {
        while let Some((_, token)) = self.deadlines.front()
            && !self.entries.contains_key(token)
        {
            self.deadlines.pop_front();
        }
    }

    /// Removes the calls whose time is up.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<(Token, E)> {
        let mut expired = Vec::new();
        while let Some((deadline, token)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            expired.extend(self.entries.remove(&token).map(|entry| (token, entry)));
        }
        self.forget_ended();
        expired
    }

    /// Removes all calls for which `which` holds, in the order they began.
    pub(super) fn take_if(&mut self, which: impl Fn(&E) -> bool) -> Vec<(Token, E)> {
        let mut taken: Vec<(Token, E)> = self.entries.extract_if(|_, entry| which(entry)).collect();
        taken.sort_by_key(|(token, _)| *token);
        self.forget_ended();
        taken
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn calls_expire_in_order_and_ended_ones_leave_nothing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut calls = Calls::new();
        let first = calls.insert(at(1), 'a');
        let second = calls.insert(at(2), 'b');
        let third = calls.insert(at(3), 'c');
        assert_eq!(calls.next_deadline(), Some(at(1)));
        assert_eq!(calls.remove(first), Some('a'));
        assert_eq!(calls.remove(first), None);
        assert_eq!(calls.next_deadline(), Some(at(2)));
        assert_eq!(calls.take_expired(at(2)), [(second, 'b')]);
        assert_eq!(calls.take_if(|_| true), [(third, 'c')]);
        assert_eq!(calls.next_deadline(), None);
        assert_eq!(calls.len(), 0);
    }

    #[test]
    fn a_call_with_an_earlier_deadline_expires_before_those_that_began_before_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut calls = Calls::new();
        let first = calls.insert(at(5), 'a');
        let second = calls.insert(at(3), 'b');
        let third = calls.insert(at(4), 'c');
        assert_eq!(calls.next_deadline(), Some(at(3)));
        assert_eq!(
            calls.take_expired(at(5)),
            [(second, 'b'), (third, 'c'), (first, 'a')]
        );
    }

    #[test]
    fn a_waiter_gets_the_outcome_or_the_deadline() {
        let waiter = Waiter::default();
        assert!(waiter.wait(Instant::now()).is_none());
        waiter.wake(Ok(()));
        assert!(matches!(waiter.wait(Instant::now()), Some(Ok(()))));
    }
}
