//! What the broker has answered to publications.
//!
//! The broker returns a message that no queue takes before it acks it, and says by its message id
//! which one.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::io::SharedBody;
use super::verdict::ExchangeKind;
use crate::amqp::Confirm;
use crate::broker::{Outcome, Publication, Route, Token};

/// A body of more than this goes alone if it is larger than any that was confirmed. Smaller ones are
/// not refused for their size by any broker that is of use.
const LARGE: usize = 64 << 10;

pub(super) fn exchange_of(publication: &Publication) -> ExchangeKind {
    match publication.route {
        Route::Queue(_) => ExchangeKind::Default,
        Route::Group(_) => ExchangeKind::Groups,
    }
}

/// What the broker has shown to take on this AMQP channel.
#[derive(Debug, Default)]
pub(super) struct Proven {
    default: bool,
    groups: bool,
    /// The size of the largest body.
    largest: usize,
}

impl Proven {
    fn exchange(&mut self, exchange: ExchangeKind) -> &mut bool {
        match exchange {
            ExchangeKind::Default => &mut self.default,
            ExchangeKind::Groups => &mut self.groups,
        }
    }

    /// What was proven on one AMQP channel may be taken back before the next.
    pub(super) fn forget_exchanges(&mut self) {
        (self.default, self.groups) = (false, false);
    }

    /// The broker has processed it, whatever came of it; or is taken to.
    pub(super) fn processed(&mut self, publication: &Publication) {
        *self.exchange(exchange_of(publication)) = true;
        self.largest = self.largest.max(publication.body.len());
    }

    /// Whether it may be refused for what it is.
    pub(super) fn is_doubtful(&mut self, publication: &Publication) -> bool {
        !*self.exchange(exchange_of(publication))
            || publication.body.len() > LARGE.max(self.largest)
    }
}

/// A publication that was handed over.
#[derive(Debug)]
pub(super) struct Sent {
    publication: Publication,
    /// Its body, where that is sent from where it is.
    shared: Option<SharedBody>,
}

impl Sent {
    /// One whose body was copied.
    pub(super) const fn copied(publication: Publication) -> Self {
        Self {
            publication,
            shared: None,
        }
    }

    /// One whose body is sent from where it is: that.
    pub(super) fn shared(mut publication: Publication) -> (Self, SharedBody) {
        let body = Arc::new(std::mem::take(&mut publication.body));
        let sent = Self {
            publication,
            shared: Some(Arc::clone(&body)),
        };
        (sent, body)
    }

    fn into_publication(self) -> Publication {
        let mut publication = self.publication;
        if let Some(body) = self.shared {
            // It is copied where it waits still to be sent, which is rare for one that has an answer.
            publication.body = Arc::unwrap_or_clone(body);
        }
        publication
    }
}

/// What was published on one AMQP channel and has no answer, by delivery tags, which count from 1.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    /// The tag of the last one.
    last: u64,
    /// By their tags, which ascend. `None` where the answer came before that of an earlier one.
    slots: VecDeque<(u64, Option<Sent>)>,
    len: usize,
}

/// So many slots may be empty beside as many as are not: one that is never answered must not keep all
/// those behind it.
const EMPTY_SLOTS: usize = 1024;

impl Unconfirmed {
    /// One more was published.
    pub(super) fn push(&mut self, sent: Sent) {
        self.last += 1;
        self.slots.push_back((self.last, Some(sent)));
        self.len += 1;
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// What `confirm` is about, in the order in which it was published.
    pub(super) fn confirmed(&mut self, confirm: Confirm, mut take: impl FnMut(Publication)) {
        let Confirm {
            delivery_tag,
            multiple,
        } = confirm;
        if multiple {
            let count = self.slots.partition_point(|(tag, _)| *tag <= delivery_tag);
            for sent in self.slots.drain(..count).filter_map(|(_, sent)| sent) {
                self.len -= 1;
                take(sent.into_publication());
            }
            return;
        }
        let place = self
            .slots
            .binary_search_by_key(&delivery_tag, |(tag, _)| *tag);
        let slot = place.ok().and_then(|place| self.slots.get_mut(place));
        let Some(sent) = slot.and_then(|(_, sent)| sent.take()) else {
            return;
        };
        self.len -= 1;
        take(sent.into_publication());
        while let Some((_, None)) = self.slots.front() {
            self.slots.pop_front();
        }
        if self.slots.len() > 2 * self.len + EMPTY_SLOTS {
            self.slots.retain(|(_, sent)| sent.is_some());
        }
    }

    /// All that has no answer, in the order in which it was published; the tags begin anew.
    pub(super) fn abandon(&mut self) -> Vec<Publication> {
        let slots = std::mem::take(self).slots.into_iter();
        let sent = slots.filter_map(|(_, sent)| sent);
        sent.map(Sent::into_publication).collect()
    }
}

/// What the broker has answered.
#[derive(Debug, Default)]
pub(super) struct Answers {
    returned: HashSet<Token>,
    pub(super) outcomes: Vec<(Token, Outcome)>,
    /// Refused by a queue, if that is there.
    pub(super) nacked: Vec<Publication>,
    pub(super) proven: Proven,
}

impl Answers {
    /// The message with this id has come back, of `in_flight` that may.
    pub(super) fn returned(&mut self, message_id: &[u8], in_flight: usize) {
        if self.returned.len() >= in_flight {
            return;
        }
        let id = std::str::from_utf8(message_id).ok();
        self.returned
            .extend(id.and_then(|id| id.parse::<Token>().ok()));
    }

    /// The broker has taken a publication over, or has returned it before.
    pub(super) fn acked(&mut self, publication: Publication) {
        self.proven.processed(&publication);
        let Publication { token, route, body } = publication;
        let outcome = match route {
            Route::Queue(queue) if !self.returned.is_empty() && self.returned.remove(&token) => {
                Outcome::no_channel(&queue, body)
            }
            _ => Outcome::Confirmed,
        };
        self.outcomes.push((token, outcome));
    }

    /// Ends one that will have no answer, if it has come back; else it is the caller's again.
    pub(super) fn end_if_returned(&mut self, publication: Publication) -> Option<Publication> {
        if self.returned.contains(&publication.token) {
            self.acked(publication);
            return None;
        }
        Some(publication)
    }

    /// A queue has refused it.
    pub(super) fn nacked(&mut self, publication: Publication) {
        self.proven.processed(&publication);
        self.returned.remove(&publication.token);
        match publication.route {
            Route::Queue(_) => self.nacked.push(publication),
            Route::Group(_) => self.outcomes.push((publication.token, Outcome::Full)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publication(token: Token) -> Publication {
        Publication {
            token,
            route: Route::Queue("q".to_owned()),
            body: b"x".to_vec(),
        }
    }

    const fn confirm(delivery_tag: u64, multiple: bool) -> Confirm {
        Confirm {
            delivery_tag,
            multiple,
        }
    }

    fn taken(unconfirmed: &mut Unconfirmed, confirm: Confirm) -> Vec<Token> {
        let mut tokens = Vec::new();
        unconfirmed.confirmed(confirm, |publication| tokens.push(publication.token));
        tokens
    }

    #[test]
    fn confirms_are_matched_by_their_tags_in_any_order() {
        let mut unconfirmed = Unconfirmed::default();
        (11..=16).for_each(|token| unconfirmed.push(Sent::copied(publication(token))));
        assert_eq!(taken(&mut unconfirmed, confirm(3, false)), [13]);
        assert_eq!(taken(&mut unconfirmed, confirm(1, false)), [11]);
        assert_eq!(taken(&mut unconfirmed, confirm(3, false)), [0; 0], "twice");
        assert_eq!(unconfirmed.len(), 4);
        assert_eq!(taken(&mut unconfirmed, confirm(4, true)), [12, 14]);
        assert_eq!(taken(&mut unconfirmed, confirm(2, true)), [0; 0]);
        unconfirmed.push(Sent::copied(publication(17)));
        assert_eq!(taken(&mut unconfirmed, confirm(7, false)), [17]);
        assert_eq!(taken(&mut unconfirmed, confirm(99, false)), [0; 0]);
        let left: Vec<_> = unconfirmed
            .abandon()
            .into_iter()
            .map(|it| it.token)
            .collect();
        assert_eq!(left, [15, 16]);
        unconfirmed.push(Sent::copied(publication(18)));
        assert_eq!(
            taken(&mut unconfirmed, confirm(1, false)),
            [18],
            "tags begin anew"
        );
        assert_eq!(unconfirmed.len(), 0);
    }

    #[test]
    fn one_that_is_never_answered_does_not_keep_those_behind_it() {
        let mut unconfirmed = Unconfirmed::default();
        for tag in 1..=10_000 {
            unconfirmed.push(Sent::copied(publication(tag)));
            if tag > 1 {
                assert_eq!(taken(&mut unconfirmed, confirm(tag, false)), [tag]);
            }
        }
        assert!(unconfirmed.slots.len() <= EMPTY_SLOTS + 3);
        assert_eq!(taken(&mut unconfirmed, confirm(10_000, true)), [1]);
    }

    #[test]
    fn more_cannot_come_back_than_is_in_flight() {
        let mut answers = Answers::default();
        for id in 1..100 {
            answers.returned(id.to_string().as_bytes(), 2);
        }
        assert_eq!(answers.returned.len(), 2);
    }

    #[test]
    fn a_body_that_is_shared_comes_back_whether_it_was_sent_or_not() {
        let mut unconfirmed = Unconfirmed::default();
        let (sent, unsent) = Sent::shared(publication(1));
        unconfirmed.push(sent);
        let (sent, body) = Sent::shared(publication(2));
        unconfirmed.push(sent);
        drop(body);
        let left = unconfirmed.abandon();
        assert!(left.iter().all(|publication| publication.body == b"x"));
        assert_eq!((left.len(), unsent.as_slice()), (2, &b"x"[..]));
    }

    #[test]
    fn a_message_that_was_returned_has_no_channel() {
        let mut answers = Answers::default();
        answers.returned(b"2", 3);
        answers.returned(b"not a number", 3);
        answers.returned(b"\xff", 3);
        for token in 1..=3 {
            answers.acked(publication(token));
        }
        let no_channel = Outcome::NoChannel("q".to_owned());
        assert_eq!(
            answers.outcomes,
            [
                (1, Outcome::Confirmed),
                (2, no_channel),
                (3, Outcome::Confirmed)
            ]
        );
    }

    #[test]
    fn of_what_was_refused_only_a_message_to_one_queue_is_judged() {
        let mut answers = Answers::default();
        answers.nacked(publication(1));
        answers.nacked(Publication {
            route: Route::Group("g".to_owned()),
            ..publication(2)
        });
        assert_eq!(answers.outcomes, [(2, Outcome::Full)]);
        assert_eq!(answers.nacked.first().map(|it| it.token), Some(1));
    }

    proptest! {
        /// Whatever the order, each has one answer, and none is lost.
        #[test]
        fn each_publication_is_taken_once(
            count in 1_u64..40,
            confirms in prop::collection::vec((0_u64..45, any::<bool>()), 0..60),
        ) {
            let mut unconfirmed = Unconfirmed::default();
            (1..=count).for_each(|token| unconfirmed.push(Sent::copied(publication(token))));
            let mut open: Vec<_> = (1..=count).collect();
            for (tag, multiple) in confirms {
                let is_meant = |token: &Token| *token == tag || (multiple && *token < tag);
                let expected: Vec<_> = open.iter().copied().filter(is_meant).collect();
                open.retain(|token| !is_meant(token));
                prop_assert_eq!(taken(&mut unconfirmed, confirm(tag, multiple)), expected);
                prop_assert_eq!(unconfirmed.len(), open.len());
            }
            let left: Vec<_> = unconfirmed.abandon().into_iter().map(|it| it.token).collect();
            prop_assert_eq!(left, open);
        }
    }
}
