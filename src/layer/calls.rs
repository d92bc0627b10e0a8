//! Calls that are under way: who is told of the outcome, and by when there must be one.

use std::collections::VecDeque;
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

/// Room for more calls than this is given back when none is left.
const KEPT: usize = 1024;

/// The calls of one kind. Nearly all wait equally long, so that their deadlines come in order; one
/// that waited before it got here is put where it belongs.
pub(super) struct Calls<E> {
    /// In the order they began, from the first that has not ended; `None` for those that have.
    entries: VecDeque<Option<E>>,
    /// The token of the first of them: the others follow.
    first: Token,
    under_way: usize,
    deadlines: VecDeque<(Instant, Token)>,
}

impl<E> Calls<E> {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            first: 1,
            under_way: 0,
            deadlines: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.under_way
    }

    pub(super) fn insert(&mut self, deadline: Instant, entry: E) -> Token {
        let token = self.first + self.entries.len() as Token;
        self.entries.push_back(Some(entry));
        self.under_way += 1;
        let later = self.deadlines.iter().rev();
        let later = later.take_while(|(other, _)| *other > deadline).count();
        let place = self.deadlines.len() - later;
        self.deadlines.insert(place, (deadline, token));
        token
    }

    fn place(&self, token: Token) -> Option<usize> {
        usize::try_from(token.checked_sub(self.first)?).ok()
    }

    pub(super) fn contains(&self, token: Token) -> bool {
        let place = self.place(token);
        place.is_some_and(|place| matches!(self.entries.get(place), Some(Some(_))))
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut E> {
        let place = self.place(token)?;
        self.entries.get_mut(place)?.as_mut()
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<E> {
        let entry = self.take(token);
        self.forget_ended();
        entry
    }

    fn take(&mut self, token: Token) -> Option<E> {
        let place = self.place(token)?;
        let entry = self.entries.get_mut(place)?.take()?;
        self.under_way -= 1;
        Some(entry)
    }

    /// What is left of calls that have ended is of no use, and would pile up.
    fn forget_ended(&mut self) {
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first += 1;
        }
        while let Some((_, token)) = self.deadlines.front()
            && !self.contains(*token)
        {
            self.deadlines.pop_front();
        }
        if self.under_way == 0 && self.entries.capacity().max(self.deadlines.capacity()) > KEPT {
            self.entries = VecDeque::new();
            self.deadlines = VecDeque::new();
        }
    }

    /// Removes the calls whose time is up.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<(Token, E)> {
        let mut expired = Vec::new();
        while let Some((deadline, token)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            expired.extend(self.take(token).map(|entry| (token, entry)));
        }
        self.forget_ended();
        expired
    }

    /// Removes all calls for which `which` holds, in the order they began.
    pub(super) fn take_if(&mut self, which: impl Fn(&E) -> bool) -> Vec<(Token, E)> {
        let mut taken = Vec::new();
        for (token, entry) in (self.first..).zip(&mut self.entries) {
            let entry = entry.take_if(|entry| which(entry));
            taken.extend(entry.map(|entry| (token, entry)));
        }
        self.under_way -= taken.len();
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
    fn calls_that_end_in_any_order_keep_their_tokens_and_leave_nothing() {
        let now = Instant::now();
        let mut calls = Calls::new();
        let tokens: Vec<Token> = (0..KEPT * 2).map(|n| calls.insert(now, n)).collect();
        // The first one ends last but one.
        for (number, token) in tokens.iter().enumerate().skip(1).step_by(2) {
            assert_eq!(calls.remove(*token), Some(number));
        }
        assert_eq!(calls.len(), KEPT);
        assert_eq!(calls.get_mut(tokens[2]), Some(&mut 2));
        assert_eq!(calls.get_mut(tokens[3]), None);
        let odd_quarters = calls.take_if(|number| number % 4 == 2);
        assert_eq!(odd_quarters.len(), KEPT / 2);
        assert!(odd_quarters.is_sorted());
        let late = calls.insert(now, 7);
        for (number, token) in tokens.iter().enumerate().step_by(4).rev() {
            assert_eq!(calls.remove(*token), Some(number));
        }
        assert_eq!((calls.len(), calls.entries.len()), (1, 1));
        assert!(!calls.contains(tokens[0]) && calls.contains(late));
        assert_eq!(calls.remove(late), Some(7));
        assert_eq!(calls.entries.capacity() + calls.deadlines.capacity(), 0);
        assert_eq!(calls.insert(now, 8), late + 1);
    }

    #[test]
    fn a_waiter_gets_the_outcome_or_the_deadline() {
        let waiter = Waiter::default();
        assert!(waiter.wait(Instant::now()).is_none());
        waiter.wake(Ok(()));
        assert!(matches!(waiter.wait(Instant::now()), Some(Ok(()))));
    }
}
