//! Sends: how many may be in flight, by when each must have an outcome, and who is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{BrokerState, Outcome, Publication, Route, Token};
use crate::error::{Error, ErrorKind};
use crate::settling::{Released, SettlingQueue};
use crate::stats::{Counters, Stat};
use crate::sync::{Condvar, Mutex};

use super::calls::{Calls, Completion, Waiter};

struct Send {
    completion: Completion,
    handed_over: bool,
}

/// A send that was accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted {
    pub(super) deadline: Instant,
    /// When it must be looked at: at its deadline, or before that, where it is held.
    pub(super) due: Instant,
}

/// What there is to do after the broker took publications.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// When it is to be told that it may take more.
    pub(super) next_release: Option<Instant>,
    pub(super) released: Option<Released>,
}

/// A send that has ended.
pub(super) struct Ended {
    pub(super) completion: Completion,
    pub(super) result: Result<(), Error>,
}

struct Inner {
    sends: Calls<Send>,
    /// What the broker has not taken yet, oldest first. Some of it may have ended.
    queue: SettlingQueue<Publication>,
    /// Places taken: sends, and callbacks of ended sends that have not run.
    places: usize,
    /// Sends that were ever accepted.
    accepted: u64,
    link: BrokerState,
    /// The connection that publishes stands, whatever the state of the layer is.
    publishing_is_up: bool,
    blocked: bool,
    closed: bool,
}

/// The sends of a layer.
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    place_freed: Condvar,
    emptied: Condvar,
    max_in_flight: usize,
    timeout: Duration,
}

impl Outbox {
    pub(super) fn new(max_in_flight: usize, timeout: Duration, settle: Option<Duration>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                sends: Calls::new(),
                queue: SettlingQueue::new(settle, timeout),
                places: 0,
                accepted: 0,
                link: BrokerState::Disconnected("no connection has been made yet".to_owned()),
                publishing_is_up: false,
                blocked: false,
                closed: false,
            }),
            place_freed: Condvar::new(),
            emptied: Condvar::new(),
            max_in_flight,
            timeout,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.inner.lock().places
    }

    pub(super) fn accepted(&self) -> u64 {
        self.inner.lock().accepted
    }

    pub(super) fn blocked(&self) -> bool {
        self.inner.lock().blocked
    }

    /// Accepts a send that does not wait; gives `callback` back if it does not.
    pub(super) fn submit<C>(
        &self,
        route: Route,
        body: Vec<u8>,
        callback: C,
        completion: impl FnOnce(C) -> Completion,
    ) -> Result<Accepted, (Error, C)> {
        let mut inner = self.inner.lock();
        let refused = if let Some(error) = inner.refusal() {
            Some(error)
        } else if inner.blocked {
            Some(blocked())
        } else if inner.places >= self.max_in_flight {
            Some(self.no_place())
        } else {
            None
        };
        if let Some(error) = refused {
            return Err((error, callback));
        }
        let deadline = Instant::now() + self.timeout;
        Ok(inner.accept(route, body, completion(callback), deadline))
    }

    /// Accepts a send of a thread that waits, within its time for a place too.
    pub(super) fn submit_waiting(
        &self,
        route: Route,
        body: Vec<u8>,
    ) -> Result<(Arc<Waiter>, Accepted), Error> {
        let deadline = Instant::now() + self.timeout;
        let waiter = Arc::new(Waiter::default());
        let mut inner = self.inner.lock();
        loop {
            if let Some(error) = inner.refusal() {
                // Perhaps it was woken for a place, which it leaves to the next.
                self.place_freed.notify_one();
                return Err(error);
            }
            if inner.places < self.max_in_flight {
                break;
            }
            if self
                .place_freed
                .wait_until(&mut inner, deadline)
                .timed_out()
                && inner.places >= self.max_in_flight
            {
                return Err(self.no_place());
            }
        }
        let completion = Completion::Wake(Arc::clone(&waiter));
        let accepted = inner.accept(route, body, completion, deadline);
        Ok((waiter, accepted))
    }

    fn no_place(&self) -> Error {
        Error::new(
            ErrorKind::Busy,
            format!(
                "{} sends are in flight, as many as option 'max_in_flight' allows: wait for \
                 outcomes, or raise it",
                self.max_in_flight
            ),
        )
    }

    /// The callback of an ended send has run: its place is free.
    pub(super) fn free_place(&self) {
        self.inner.lock().places -= 1;
        self.place_freed.notify_one();
    }

    /// Hands publications over to the broker, as far as they are not held.
    pub(super) fn take(&self, limit: usize, batch: &mut Vec<Publication>) -> Taken {
        let mut inner = self.inner.lock();
        let Inner { sends, queue, .. } = &mut *inner;
        let held_at = (!queue.is_open()).then(Instant::now);
        let permitted = held_at.map_or(limit, |now| queue.permitted(now, limit));
        let mut hand_over = |publication: &Publication| match sends.get_mut(publication.token) {
            Some(send) => {
                send.handed_over = true;
                true
            }
            None => false,
        };
        while batch.len() < permitted
            && let Some(publication) = queue.pop(&mut hand_over)
        {
            batch.push(publication);
        }
        let Some(now) = held_at else {
            return Taken::default();
        };
        Taken {
            released: queue.opened_when_empty(now),
            next_release: queue.next_release(),
        }
    }

    /// Whether the broker is to be told that it may take more of what is held; and what has been
    /// released, if that was all.
    pub(super) fn release_due(&self, now: Instant) -> (bool, Option<Released>) {
        let queue = &mut self.inner.lock().queue;
        if queue.is_open() {
            return (false, None);
        }
        (queue.is_due(now), queue.opened_when_empty(now))
    }

    /// The broker tells what became of publications.
    pub(super) fn outcomes(
        &self,
        batch: &mut Vec<(Token, Outcome)>,
        counters: &Counters,
    ) -> Vec<Ended> {
        let mut ended = Vec::with_capacity(batch.len());
        let mut inner = self.inner.lock();
        for (token, outcome) in batch.drain(..) {
            // A send that has timed out is gone already.
            if let Some(send) = inner.sends.remove(token) {
                if outcome == Outcome::Full && !inner.queue.is_open() {
                    inner.queue.refused(Instant::now());
                }
                let (stat, result) = explain(outcome);
                counters.add(stat, 1);
                ended.push(Ended {
                    completion: send.completion,
                    result,
                });
            }
        }
        self.after_end(&mut inner, &ended);
        ended
    }

    /// The sends whose time is up.
    pub(super) fn expire(&self, now: Instant, counters: &Counters) -> Vec<Ended> {
        let mut inner = self.inner.lock();
        let expired = inner.sends.take_expired(now);
        let ended: Vec<Ended> = expired
            .into_iter()
            .map(|(_, send)| {
                let error = if send.handed_over {
                    counters.add(Stat::SendsTimedOut, 1);
                    Error::new(
                        ErrorKind::Timeout,
                        format!(
                            "the broker did not confirm the message within {:?} (option \
                             'timeout'): nobody knows whether it arrived",
                            self.timeout
                        ),
                    )
                } else {
                    counters.add(Stat::SendsUnsent, 1);
                    inner.why_unsent()
                };
                Ended {
                    completion: send.completion,
                    result: Err(error),
                }
            })
            .collect();
        self.after_end(&mut inner, &ended);
        ended
    }

    /// When a send ends for its deadline, or is released.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        let due = [inner.sends.next_deadline(), inner.queue.next_release()];
        due.into_iter().flatten().min()
    }

    /// Whether there is something that the broker has not taken.
    pub(super) fn is_waiting(&self) -> bool {
        !self.inner.lock().queue.is_empty()
    }

    /// The connections changed. Where each host refuses us, sends fail at once; where they are lost,
    /// sends wait, and are held for a moment when they are back. The second is what was released after
    /// the last time, where that is over.
    pub(super) fn link_changed(
        &self,
        link: &BrokerState,
        now: Instant,
        counters: &Counters,
    ) -> (Vec<Ended>, Option<Released>) {
        let mut inner = self.inner.lock();
        inner.link = link.clone();
        let released = inner.link_of_queue(now);
        let ended = match inner.refusal() {
            Some(error) => {
                // Those who wait for a place hear it too.
                self.place_freed.notify_all();
                self.end_unsent(&mut inner, &error, counters)
            }
            None => Vec::new(),
        };
        (ended, released)
    }

    /// The connection that publishes stands, or is lost. Returns what was released since the loss before.
    pub(super) fn publishing_changed(&self, is_up: bool, now: Instant) -> Option<Released> {
        let mut inner = self.inner.lock();
        inner.publishing_is_up = is_up;
        // What was blocked is gone; a new connection says so anew.
        inner.blocked &= is_up;
        if is_up { None } else { inner.queue.lost(now) }
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.inner.lock().blocked = blocked;
    }

    /// Refuses new sends. Those that the broker can still take stay, and are held no longer; the others
    /// end.
    pub(super) fn close(
        &self,
        now: Instant,
        counters: &Counters,
    ) -> (Vec<Ended>, Option<Released>) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        self.place_freed.notify_all();
        let released = inner.queue.open(now);
        let is_up = inner.publishing_is_up || matches!(inner.link, BrokerState::Ready(_));
        if is_up && !inner.blocked {
            return (Vec::new(), released);
        }
        let ended = self.end_unsent(&mut inner, &Error::closed(), counters);
        (ended, released)
    }

    /// Waits until no send is under way, at most until `deadline`.
    pub(super) fn wait_empty(&self, deadline: Instant) {
        let mut inner = self.inner.lock();
        while inner.sends.len() > 0 {
            if self.emptied.wait_until(&mut inner, deadline).timed_out() {
                return;
            }
        }
    }

    /// Ends all that is left, once the broker is gone.
    pub(super) fn end_all(&self, counters: &Counters) -> Vec<Ended> {
        let mut inner = self.inner.lock();
        let mut ended = self.end_unsent(&mut inner, &Error::closed(), counters);
        let handed_over: Vec<Ended> = inner
            .sends
            .take_if(|_| true)
            .into_iter()
            .map(|(_, send)| Ended {
                completion: send.completion,
                result: Err(Error::new(
                    ErrorKind::Unconfirmed,
                    "the layer closed before the broker confirmed the message: nobody knows \
                     whether it arrived",
                )),
            })
            .collect();
        counters.add(Stat::SendsUnconfirmed, handed_over.len());
        self.after_end(&mut inner, &handed_over);
        ended.extend(handed_over);
        ended
    }

    fn end_unsent(&self, inner: &mut Inner, error: &Error, counters: &Counters) -> Vec<Ended> {
        let unsent = inner.sends.take_if(|send| !send.handed_over);
        counters.add(Stat::SendsUnsent, unsent.len());
        let ended: Vec<Ended> = unsent
            .into_iter()
            .map(|(_, send)| Ended {
                completion: send.completion,
                result: Err(error.clone()),
            })
            .collect();
        self.after_end(inner, &ended);
        ended
    }

    /// What follows whenever sends have ended.
    fn after_end(&self, inner: &mut Inner, ended: &[Ended]) {
        inner.drop_ended();
        if inner.sends.len() == 0 {
            self.emptied.notify_all();
        }
        // A thread that waits needs its place no longer; a callback holds it until it has run.
        let freed = ended
            .iter()
            .filter(|ended| matches!(ended.completion, Completion::Wake(_)))
            .count();
        inner.places -= freed;
        for _ in 0..freed {
            self.place_freed.notify_one();
        }
    }
}

impl Inner {
    fn accept(
        &mut self,
        route: Route,
        body: Vec<u8>,
        completion: Completion,
        deadline: Instant,
    ) -> Accepted {
        let token = self.sends.insert(
            deadline,
            Send {
                completion,
                handed_over: false,
            },
        );
        let publication = Publication { token, route, body };
        let due = self.queue.push(publication, deadline);
        self.places += 1;
        self.accepted += 1;
        Accepted { deadline, due }
    }

    fn link_of_queue(&mut self, now: Instant) -> Option<Released> {
        if !matches!(self.link, BrokerState::Ready(_)) {
            // While only the other connection is lost, sends go on.
            if self.publishing_is_up {
                return None;
            }
            return self.queue.lost(now);
        }
        if self.closed {
            return self.queue.open(now);
        }
        let sends = &self.sends;
        self.queue
            .ready(now, |publication| sends.contains(publication.token));
        None
    }

    /// Why no send is accepted now.
    fn refusal(&self) -> Option<Error> {
        if self.closed {
            return Some(Error::closed());
        }
        match &self.link {
            // While the connection that publishes stands, only the other one is refused.
            BrokerState::Refused(reason) if !self.publishing_is_up => {
                Some(Error::new(ErrorKind::Refused, reason.clone()))
            }
            _ => None,
        }
    }

    fn why_unsent(&self) -> Error {
        if self.blocked {
            return blocked();
        }
        let reason = match &self.link {
            BrokerState::Ready(_) => "the connection had no room for it".to_owned(),
            BrokerState::Disconnected(reason) | BrokerState::Refused(reason) => reason.clone(),
        };
        Error::new(
            ErrorKind::Disconnected,
            format!("the message was not sent within its time: {reason}"),
        )
    }

    /// Publications of sends that have ended stand first in the queue, for sends nearly always end in
    /// order; the others are passed over when the broker takes them.
    fn drop_ended(&mut self) {
        let sends = &self.sends;
        self.queue
            .drop_ended(|publication| sends.contains(publication.token));
    }
}

fn blocked() -> Error {
    Error::new(
        ErrorKind::Busy,
        "the broker blocks publishers, for want of memory or disk: the message was not sent",
    )
}

/// An error for a message that the broker does not take.
pub(super) fn too_large_for_broker(size: usize, limit: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!(
            "the encoded message has {size} bytes, and the broker takes {limit} at most (its setting \
             'max_message_size'): send less, or raise it there"
        ),
    )
}

fn explain(outcome: Outcome) -> (Stat, Result<(), Error>) {
    match outcome {
        Outcome::Confirmed => (Stat::SendsConfirmed, Ok(())),
        Outcome::Full => (
            Stat::SendsFull,
            Err(Error::new(
                ErrorKind::Full,
                "a queue refused the message: it holds as many messages as its option \
                 'remote_capacity' allows, as after a burst or an outage, or it is failing, being \
                 deleted or on a lost node",
            )),
        ),
        Outcome::NoChannel(channel) => (
            Stat::SendsNoChannel,
            Err(Error::new(
                ErrorKind::NoChannel,
                format!(
                    "no process has channel '{channel}' now: its owner is gone or reconnecting"
                ),
            )),
        ),
        Outcome::Unsent(reason) => (
            Stat::SendsUnsent,
            Err(Error::new(
                ErrorKind::Disconnected,
                format!("the connection ended before the message was sent: {reason}"),
            )),
        ),
        Outcome::TooLarge { size, limit } => {
            (Stat::SendsRefused, Err(too_large_for_broker(size, limit)))
        }
        Outcome::Refused(reason) => (
            Stat::SendsRefused,
            Err(Error::new(
                ErrorKind::Refused,
                format!("the broker refused the message, which was not sent: {reason}"),
            )),
        ),
        Outcome::Unconfirmed(reason) => (
            Stat::SendsUnconfirmed,
            Err(Error::new(
                ErrorKind::Unconfirmed,
                format!(
                    "the connection or AMQP channel ended before the broker confirmed the message, \
                     and nobody knows whether it arrived: {reason}"
                ),
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_timed_out_is_counted_apart_from_what_a_lost_connection_left_unconfirmed() {
        let outbox = Outbox::new(10, Duration::from_secs(5), None);
        let counters = Counters::new();
        let begin = Instant::now();
        outbox.link_changed(&BrokerState::Ready(1), begin, &counters);
        for body in 0..4 {
            let route = Route::Queue("queue".to_owned());
            outbox.submit_waiting(route, vec![body]).unwrap();
        }
        let mut batch = Vec::new();
        outbox.take(3, &mut batch);
        let lost = batch.first().unwrap().token;
        let mut outcomes = vec![(lost, Outcome::Unconfirmed("cut".to_owned()))];
        let ended = outbox.outcomes(&mut outcomes, &counters);
        assert_eq!(ended.len(), 1);
        let expired = outbox.expire(begin + Duration::from_secs(60), &counters);
        assert_eq!(expired.len(), 3);

        assert_eq!(outbox.accepted(), 4);
        assert_eq!(counters.get(Stat::SendsUnconfirmed), 1);
        assert_eq!(counters.get(Stat::SendsTimedOut), 2);
        assert_eq!(counters.get(Stat::SendsUnsent), 1);
    }

    #[test]
    fn sends_that_end_while_they_wait_leave_nothing_for_the_broker_to_ask_for() {
        let counters = Counters::new();
        let outbox = Outbox::new(10, Duration::from_secs(5), None);
        let begin = Instant::now();
        let lost = BrokerState::Disconnected("cut".to_owned());
        outbox.link_changed(&lost, begin, &counters);
        for body in 0..3 {
            let route = Route::Queue("queue".to_owned());
            outbox.submit_waiting(route, vec![body]).unwrap();
        }
        assert!(outbox.is_waiting());
        let expired = outbox.expire(begin + Duration::from_secs(60), &counters);
        assert_eq!(expired.len(), 3);
        assert!(!outbox.is_waiting());
    }

    #[test]
    fn sends_go_on_while_only_the_consuming_connection_is_lost() {
        let counters = Counters::new();
        let outbox = Outbox::new(10, Duration::from_secs(60), Some(SETTLE));
        let now = Instant::now();
        outbox.publishing_changed(true, now);
        outbox.link_changed(&BrokerState::Ready(1), now, &counters);
        let lost = BrokerState::Disconnected("cut".to_owned());
        outbox.link_changed(&lost, now, &counters);
        let send = |body| {
            let route = Route::Queue("queue".to_owned());
            outbox.submit_waiting(route, vec![body]).unwrap();
        };
        send(1);
        assert_eq!(bodies(&outbox), [1]);
        // Now the other is lost too, and comes back first.
        outbox.publishing_changed(false, now);
        send(2);
        assert!(bodies(&outbox).is_empty());
        outbox.publishing_changed(true, now);
        outbox.link_changed(&lost, now, &counters);
        assert!(bodies(&outbox).is_empty(), "the layer is not ready");
        outbox.link_changed(&BrokerState::Ready(2), now, &counters);
        assert!(bodies(&outbox).is_empty(), "it settles");
        assert!(outbox.is_waiting());
        outbox.close(now, &counters);
        assert_eq!(bodies(&outbox), [2]);
        assert!(!outbox.is_waiting());
    }

    const SETTLE: Duration = Duration::from_millis(500);

    /// An outbox whose connection was lost before `sends` were accepted, and is back at the moment that is
    /// returned.
    fn back_after_an_outage(sends: u8, counters: &Counters) -> (Outbox, Instant) {
        back_with(SETTLE, sends, counters)
    }

    fn back_with(settle: Duration, sends: u8, counters: &Counters) -> (Outbox, Instant) {
        let outbox = Outbox::new(1000, Duration::from_secs(60), Some(settle));
        let now = Instant::now();
        outbox.link_changed(&BrokerState::Ready(1), now, counters);
        let lost = BrokerState::Disconnected("cut".to_owned());
        outbox.link_changed(&lost, now, counters);
        for body in 0..sends {
            let route = if body % 2 == 0 {
                Route::Queue("queue".to_owned())
            } else {
                Route::Group("group".to_owned())
            };
            outbox.submit_waiting(route, vec![body]).unwrap();
        }
        assert!(bodies(&outbox).is_empty());
        outbox.link_changed(&BrokerState::Ready(2), now, counters);
        (outbox, now)
    }

    /// What the broker is given now.
    fn bodies(outbox: &Outbox) -> Vec<u8> {
        let mut batch = Vec::new();
        outbox.take(256, &mut batch);
        let body = |publication: &Publication| publication.body[0];
        batch.iter().map(body).collect()
    }

    #[test]
    fn sends_that_waited_for_a_connection_are_released_when_it_has_settled() {
        let counters = Counters::new();
        let (outbox, ready) = back_after_an_outage(3, &counters);
        assert!(bodies(&outbox).is_empty());
        assert_eq!(outbox.next_due(), Some(ready + SETTLE));
        let just_before = ready + SETTLE - Duration::from_millis(1);
        assert_eq!(outbox.release_due(just_before), (false, None));
        assert_eq!(outbox.release_due(ready + SETTLE), (true, None));
        // It was told, and is not told again until it has asked.
        assert_eq!(outbox.release_due(ready + 2 * SETTLE), (false, None));
    }

    #[test]
    fn a_queue_that_is_full_slows_the_release_down_and_other_outcomes_do_not() {
        let counters = Counters::new();
        let (outbox, ready) = back_with(Duration::from_millis(1), 100, &counters);
        let mut batch = Vec::new();
        while batch.is_empty() {
            outbox.take(256, &mut batch);
            assert!(
                ready.elapsed() < Duration::from_secs(20),
                "nothing is released"
            );
        }
        let grows_at = || outbox.inner.lock().queue.grows_at().unwrap();
        let before = grows_at();
        let mut end = |outcome: Outcome| {
            let token = batch.pop().unwrap().token;
            outbox.outcomes(&mut vec![(token, outcome)], &counters);
        };
        end(Outcome::Confirmed);
        end(Outcome::NoChannel("queue!gone".to_owned()));
        assert_eq!(grows_at(), before);
        end(Outcome::Full);
        assert!(grows_at() > before);
    }

    #[test]
    fn closing_releases_at_once_what_is_held() {
        let counters = Counters::new();
        let (outbox, _) = back_after_an_outage(200, &counters);
        let (ended, _) = outbox.close(Instant::now(), &counters);
        assert!(ended.is_empty());
        assert_eq!(bodies(&outbox), (0..200).collect::<Vec<u8>>());
    }

    #[test]
    fn what_is_held_when_the_layer_closes_without_a_connection_was_not_sent() {
        let counters = Counters::new();
        let (outbox, now) = back_after_an_outage(5, &counters);
        let lost = BrokerState::Disconnected("cut again".to_owned());
        outbox.link_changed(&lost, now, &counters);
        let (ended, _) = outbox.close(now, &counters);
        assert_eq!(ended.len(), 5);
        let is_closed = |ended: &Ended| matches!(&ended.result, Err(error) if error.kind() == ErrorKind::Closed);
        assert!(ended.iter().all(is_closed));
        assert_eq!(counters.get(Stat::SendsUnsent), 5);
    }

    /// Whatever a send comes to, one more is accepted afterwards.
    #[test]
    fn a_blocking_send_frees_its_permit_however_it_ends() {
        let counters = Counters::new();
        let begin = Instant::now();
        let late = begin + Duration::from_secs(60);
        let outbox = Outbox::new(1, Duration::from_secs(5), None);
        outbox.publishing_changed(true, begin);
        outbox.link_changed(&BrokerState::Ready(1), begin, &counters);
        let send = || {
            let route = Route::Queue("queue".to_owned());
            outbox.submit_waiting(route, vec![1]).unwrap();
            assert_eq!(outbox.in_flight(), 1);
        };
        let hand_over = || {
            let mut batch = Vec::new();
            outbox.take(1, &mut batch);
            batch.pop().unwrap().token
        };
        let ended = |ended: Vec<Ended>, expected: Result<(), ErrorKind>| {
            let results: Vec<_> = ended
                .into_iter()
                .map(|ended| ended.result.map_err(|error| error.kind()))
                .collect();
            assert_eq!(results, [expected]);
            assert_eq!(outbox.in_flight(), 0, "after {expected:?}");
        };
        let outcomes = [
            (Outcome::Confirmed, Ok(())),
            (Outcome::Full, Err(ErrorKind::Full)),
            (
                Outcome::NoChannel("queue!gone".to_owned()),
                Err(ErrorKind::NoChannel),
            ),
            (
                Outcome::Unconfirmed("cut".to_owned()),
                Err(ErrorKind::Unconfirmed),
            ),
            (
                Outcome::Unsent("cut".to_owned()),
                Err(ErrorKind::Disconnected),
            ),
        ];
        for (outcome, expected) in outcomes {
            send();
            let mut batch = vec![(hand_over(), outcome)];
            ended(outbox.outcomes(&mut batch, &counters), expected);
        }

        send();
        hand_over();
        ended(outbox.expire(late, &counters), Err(ErrorKind::Timeout));
        send();
        ended(outbox.expire(late, &counters), Err(ErrorKind::Disconnected));
        send();
        outbox.set_blocked(true);
        ended(outbox.expire(late, &counters), Err(ErrorKind::Busy));
        outbox.set_blocked(false);

        send();
        outbox.publishing_changed(false, begin);
        let refused = BrokerState::Refused("wrong password".to_owned());
        let (unsent, _) = outbox.link_changed(&refused, begin, &counters);
        ended(unsent, Err(ErrorKind::Refused));
        outbox.publishing_changed(true, begin);
        outbox.link_changed(&BrokerState::Ready(2), begin, &counters);

        send();
        hand_over();
        let (unsent, _) = outbox.close(begin, &counters);
        assert!(unsent.is_empty());
        ended(outbox.end_all(&counters), Err(ErrorKind::Unconfirmed));
    }

    #[test]
    fn a_send_that_the_broker_blocks_ends_as_busy_at_its_deadline() {
        let counters = Counters::new();
        let begin = Instant::now();
        let timeout = Duration::from_secs(5);
        let outbox = Outbox::new(10, timeout, None);
        outbox.publishing_changed(true, begin);
        outbox.link_changed(&BrokerState::Ready(1), begin, &counters);
        assert!(!outbox.blocked());
        outbox.set_blocked(true);
        assert!(outbox.blocked());
        let route = Route::Queue("queue".to_owned());
        let (_, accepted) = outbox.submit_waiting(route, vec![1]).unwrap();
        let deadline = accepted.deadline;
        assert!(deadline >= begin + timeout && deadline <= Instant::now() + timeout);
        assert_eq!(accepted.due, deadline);
        assert_eq!(outbox.next_due(), Some(deadline));
        let just_before = deadline - Duration::from_millis(1);
        assert!(outbox.expire(just_before, &counters).is_empty());
        let ended = outbox.expire(deadline, &counters);
        let kinds: Vec<_> = ended
            .into_iter()
            .map(|ended| ended.result.unwrap_err().kind())
            .collect();
        assert_eq!(kinds, [ErrorKind::Busy]);
        assert_eq!(bodies(&outbox), [0_u8; 0], "it is never sent");
    }
}
