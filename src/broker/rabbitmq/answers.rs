//! What the broker has answered to publications, and which message was returned.
//!
//! The broker returns an unroutable message before it acks it. lapin queues returned messages and
//! gives the oldest to whichever confirm it completes next, and a 'multiple' ack completes its
//! confirms in no order. So a returned message may arrive with the confirm of another, earlier or
//! later than its own. What holds is this:
//!
//! - Each completed confirm takes one queued message, if there is one. So there are never more
//!   queued messages than returned ones whose confirm is not completed.
//! - The broker acks returned messages in the order of their returns. So between two acks the
//!   completed ones among them are the first few, and those queued are among the last: the return
//!   of each completed one has been given to some completed confirm.

use std::collections::HashMap;
use std::sync::Arc;

use lapin::{Confirmation, ErrorKind};

use super::failure::describe;
use super::verdict::{ChannelError, ExchangeKind};
use crate::broker::{Outcome, Publication, Route, Token};

/// A body of more than this goes alone if it is larger than any that was confirmed. Smaller ones are
/// not refused for their size by any broker that is of use.
const LARGE: usize = 64 << 10;

/// A publication under way, which may have to be handed over again.
pub(super) type Sent = Arc<Publication>;

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
    pub(super) fn processed(&mut self, sent: &Sent) {
        *self.exchange(exchange_of(sent)) = true;
        self.largest = self.largest.max(sent.body.len());
    }

    /// Whether it may be refused for what it is.
    pub(super) fn is_doubtful(&mut self, publication: &Publication) -> bool {
        !*self.exchange(exchange_of(publication))
            || publication.body.len() > LARGE.max(self.largest)
    }
}

/// What the broker has answered.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Acked, but perhaps returned.
    pub(super) acked: Vec<Token>,
    /// With what it comes to, if it was acked.
    returned: HashMap<Token, Outcome>,
    pub(super) outcomes: Vec<(Token, Outcome)>,
    /// Refused by a queue, if that is there.
    pub(super) nacked: Vec<Sent>,
    pub(super) proven: Proven,
    /// What ended the connection.
    pub(super) failed: Option<String>,
    /// What ended the AMQP channel, while the connection stands.
    pub(super) channel_error: Option<ChannelError>,
    /// What the AMQP channel has left without an answer, in no order.
    pub(super) unanswered: Vec<Sent>,
    groups_exchange: String,
}

impl Answers {
    pub(super) fn new(groups_exchange: String) -> Self {
        Self {
            groups_exchange,
            ..Self::default()
        }
    }

    /// Takes in the answer to one publication, and what lapin has attached to it.
    pub(super) fn add(&mut self, sent: Sent, result: lapin::Result<Confirmation>) {
        let token = sent.token;
        if matches!(result, Ok(Confirmation::Ack(_) | Confirmation::Nack(_))) {
            self.proven.processed(&sent);
        }
        let attached = match result {
            Ok(Confirmation::Ack(attached)) => {
                if exchange_of(&sent) == ExchangeKind::Default {
                    self.acked.push(token);
                } else {
                    self.outcomes.push((token, Outcome::Confirmed));
                }
                attached
            }
            Ok(Confirmation::Nack(attached)) => {
                match exchange_of(&sent) {
                    ExchangeKind::Default => self.nacked.push(sent),
                    ExchangeKind::Groups => self.outcomes.push((token, Outcome::Full)),
                }
                attached
            }
            Ok(Confirmation::NotRequested) => {
                self.fail(token, "the AMQP channel is not in confirm mode".to_owned());
                None
            }
            Err(error) => {
                if self.note(&error) {
                    self.unanswered.push(sent);
                } else {
                    self.fail(token, describe(&error));
                }
                None
            }
        };
        let returned = attached.and_then(|message| {
            let delivery = message.delivery;
            let id = delivery.properties.message_id().as_ref()?;
            let token = id.as_str().parse::<Token>().ok()?;
            let queue = delivery.routing_key.as_str();
            Some((token, Outcome::no_channel(queue, delivery.data)))
        });
        self.returned.extend(returned);
    }

    /// Takes in what ended the AMQP channel; `false` if `error` ended the connection.
    fn note(&mut self, error: &lapin::Error) -> bool {
        if let Some(error) = ChannelError::of(error, &self.groups_exchange) {
            self.channel_error.get_or_insert(error);
            return true;
        }
        // What a publication hears that comes after that.
        self.channel_error.is_some()
            && matches!(
                error.kind(),
                ErrorKind::InvalidChannel(_) | ErrorKind::InvalidChannelState(..)
            )
    }

    fn fail(&mut self, token: Token, reason: String) {
        let outcome = Outcome::Unconfirmed(reason.clone());
        self.outcomes.push((token, outcome));
        self.failed.get_or_insert(reason);
    }

    /// Decides on the first `known` acked publications, the returns of all of which are here.
    pub(super) fn decide(&mut self, known: usize) {
        for token in self.acked.drain(..known) {
            let returned = if self.returned.is_empty() {
                None
            } else {
                self.returned.remove(&token)
            };
            let outcome = returned.unwrap_or(Outcome::Confirmed);
            self.outcomes.push((token, outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::message::{BasicReturnMessage, Delivery};

    use super::*;
    use crate::wire::{self, Recipient};

    fn returned(token: Token) -> Option<BasicReturnMessage> {
        let channel = format!("gone!{token}");
        let body = wire::encode(b"\x80", Recipient::Channel(&channel), usize::MAX).unwrap();
        let mut delivery = Delivery::mock(0, "".into(), "gone".into(), false, body);
        delivery.properties = BasicProperties::default().with_message_id(token.to_string().into());
        Some(BasicReturnMessage {
            delivery,
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
        })
    }

    fn sent(token: Token) -> Sent {
        Arc::new(Publication {
            token,
            route: Route::Queue("gone".to_owned()),
            body: vec![0; 10],
        })
    }

    #[test]
    fn a_return_counts_for_the_message_it_names_not_for_its_bearer() {
        let mut answers = Answers::default();
        // The return of 3 comes with 1, which was delivered; that of 5 with 4, which was refused.
        answers.add(sent(1), Ok(Confirmation::Ack(returned(3))));
        answers.add(sent(2), Ok(Confirmation::Ack(None)));
        answers.add(sent(3), Ok(Confirmation::Ack(None)));
        answers.add(sent(4), Ok(Confirmation::Nack(returned(5))));
        answers.decide(3);
        let mut outcomes = std::mem::take(&mut answers.outcomes);
        outcomes.sort_by_key(|(token, _)| *token);
        assert_eq!(
            outcomes,
            [
                (1, Outcome::Confirmed),
                (2, Outcome::Confirmed),
                (3, Outcome::NoChannel("gone!3".to_owned())),
            ]
        );
        assert_eq!(answers.nacked.len(), 1);
        answers.add(sent(5), Ok(Confirmation::Ack(None)));
        answers.decide(1);
        assert_eq!(
            answers.outcomes,
            [(5, Outcome::NoChannel("gone!5".to_owned()))]
        );
        assert!(answers.returned.is_empty());
    }

    #[test]
    fn an_error_leaves_it_open_and_says_why() {
        let mut answers = Answers::default();
        let error = lapin::ErrorKind::MissingHeartbeatError.into();
        answers.add(sent(1), Err(error));
        let reason = "the broker was silent for more than two heartbeats".to_owned();
        assert_eq!(
            answers.outcomes,
            [(1, Outcome::Unconfirmed(reason.clone()))]
        );
        assert_eq!(answers.failed, Some(reason));
    }
}
