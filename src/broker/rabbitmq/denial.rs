//! What the user may not send: for a while after the broker has refused it, it is refused here.
//!
//! Each refusal by the broker costs an AMQP channel, whose number lapin does not use again; and a line
//! in the broker's log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::verdict::{ChannelError, ExchangeKind};

/// How long the first refusal holds. Each that follows soon holds twice as long as the one before.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Denial {
    error: ChannelError,
    holds: Duration,
    until: Instant,
}

/// What was refused of late, for each exchange.
#[derive(Debug, Default)]
pub(super) struct Denials(HashMap<ExchangeKind, Denial>);

impl Denials {
    /// The broker has closed the AMQP channel for `error`.
    pub(super) fn learn(&mut self, error: &ChannelError, now: Instant) {
        let ChannelError::NoRight { exchange, .. } = error else {
            return;
        };
        let holds = match self.0.get(exchange) {
            Some(last) if now < last.until + last.holds => (2 * last.holds).min(LONGEST),
            _ => FIRST,
        };
        let denial = Denial {
            error: error.clone(),
            holds,
            until: now + holds,
        };
        self.0.insert(*exchange, denial);
    }

    /// Why a message to `exchange` need not be sent at `now`.
    pub(super) fn of(&self, exchange: ExchangeKind, now: Instant) -> Option<&ChannelError> {
        let denial = self.0.get(&exchange)?;
        (now < denial.until).then_some(&denial.error)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_right(exchange: ExchangeKind) -> ChannelError {
        ChannelError::NoRight {
            exchange,
            said: "no".to_owned(),
        }
    }

    #[test]
    fn a_refusal_holds_for_its_exchange_and_longer_each_time() {
        let mut denials = Denials::default();
        let mut now = Instant::now();
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let error = no_right(ExchangeKind::Groups);
            denials.learn(&error, now);
            assert_eq!(denials.of(ExchangeKind::Default, now), None);
            let end = now + Duration::from_secs(seconds);
            let last = end.checked_sub(Duration::from_nanos(1)).unwrap();
            assert_eq!(denials.of(ExchangeKind::Groups, last), Some(&error));
            assert_eq!(denials.of(ExchangeKind::Groups, end), None);
            now = end;
        }
    }

    #[test]
    fn one_that_comes_long_after_the_last_holds_for_a_moment() {
        let mut denials = Denials::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            denials.learn(&no_right(ExchangeKind::Default), now);
            now += 2 * FIRST;
            assert_eq!(denials.of(ExchangeKind::Default, now), None);
        }
    }

    #[test]
    fn only_a_missing_right_holds() {
        let mut denials = Denials::default();
        denials.learn(&ChannelError::TooLarge(10), Instant::now());
        denials.learn(&ChannelError::Other("x".to_owned()), Instant::now());
        assert!(denials.is_empty());
    }
}
