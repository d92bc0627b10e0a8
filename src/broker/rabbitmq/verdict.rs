//! What follows where the broker has closed the publisher's AMQP channel: which publication was the
//! culprit, what was processed before it, and what was not processed at all.
//!
//! RabbitMQ handles the methods of an AMQP channel in their order. All before the culprit was
//! processed, though confirms of it may be lost; all behind it was discarded. The reply names no
//! delivery tag, but for 406 the size limit, and for 403 the exchange.

use lapin::ErrorKind;
use lapin::protocol::AMQPErrorKind;

use super::failure::{ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED};
use crate::amqp::Close;

/// Why the broker has closed the AMQP channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChannelError {
    /// A body is larger than this many bytes, the broker's `max_message_size`.
    TooLarge(usize),
    /// The user may not write to an exchange.
    NoRight {
        exchange: ExchangeKind,
        /// The broker's own words.
        said: String,
    },
    /// There is no such groups exchange; the broker's own words.
    NoExchange(String),
    /// Something else, in words.
    Other(String),
}

/// An exchange that we publish to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ExchangeKind {
    /// The default exchange, `amq.default` to the rights of a user.
    Default,
    Groups,
}

/// What is to be known of a publication that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswered {
    pub(super) exchange: ExchangeKind,
    pub(super) size: usize,
}

/// What became of such a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is the culprit, and was certainly not routed.
    Refused,
    /// It may have been processed.
    Unknown,
    /// It was certainly not processed.
    Discarded,
}

impl ChannelError {
    /// Of the broker's `channel.close`.
    pub(super) fn of(close: &Close<'_>, groups_exchange: &str) -> Self {
        let words = String::from_utf8_lossy(close.reply_text);
        Self::said(close.reply_code, &words, groups_exchange)
    }

    /// The same, of an AMQP channel of lapin's. `None` if `error` is none of an AMQP channel: then the
    /// connection has ended.
    pub(super) fn of_lapin(error: &lapin::Error, groups_exchange: &str) -> Option<Self> {
        let ErrorKind::ProtocolError(said) = error.kind() else {
            return None;
        };
        let AMQPErrorKind::Soft(_) = said.kind() else {
            return None;
        };
        let words = said.get_message().as_str();
        Some(Self::said(said.get_id(), words, groups_exchange))
    }

    fn said(code: u16, words: &str, groups_exchange: &str) -> Self {
        let text = format!("the broker says {code} {words}");
        match code {
            PRECONDITION_FAILED => match size_limit(words) {
                Some(limit) => Self::TooLarge(limit),
                None => Self::Other(text),
            },
            ACCESS_REFUSED => match exchange_of(words, groups_exchange) {
                Some(exchange) => Self::NoRight {
                    exchange,
                    said: text,
                },
                None => Self::Other(text),
            },
            NOT_FOUND => Self::NoExchange(text),
            _ => Self::Other(text),
        }
    }

    /// What became of all that has no answer, in the order in which it was handed over.
    pub(super) fn judge(&self, unanswered: &[Unanswered]) -> Vec<Fate> {
        let suspects = |exchange| {
            let is_suspect = |one: &Unanswered| one.exchange == exchange;
            let first = unanswered.iter().position(is_suspect);
            (first, unanswered.iter().rposition(is_suspect))
        };
        // The one that was refused for certain, and the first that was not processed.
        let (culprit, first_discarded) = match self {
            Self::TooLarge(limit) => {
                let culprit = unanswered.iter().position(|one| one.size > *limit);
                (culprit, culprit.map(|culprit| culprit + 1))
            }
            Self::NoRight { exchange, .. } => {
                let (first, last) = suspects(*exchange);
                (first.filter(|_| first == last), last.map(|last| last + 1))
            }
            // One that found no exchange was not processed either: there may be one next time.
            Self::NoExchange(_) => match suspects(ExchangeKind::Groups) {
                (Some(first), Some(last)) if first == last => (None, Some(first)),
                (_, last) => (None, last.map(|last| last + 1)),
            },
            Self::Other(_) => (None, None),
        };
        // Where nobody is suspect, all are.
        let first_discarded = first_discarded.unwrap_or(usize::MAX);
        (0..unanswered.len())
            .map(|place| {
                if Some(place) == culprit {
                    Fate::Refused
                } else if place < first_discarded {
                    Fate::Unknown
                } else {
                    Fate::Discarded
                }
            })
            .collect()
    }
}

/// The last number in `words`, if they are of a size: `message size 100000 is larger than configured
/// max size 65536`. The wording has changed between releases, the order of the numbers has not.
fn size_limit(words: &str) -> Option<usize> {
    if !words.contains("message size") {
        return None;
    }
    let mut numbers = words.split(|character: char| !character.is_ascii_digit());
    numbers.rfind(|number| !number.is_empty())?.parse().ok()
}

/// The exchange that `words` name: `write access to exchange 'groups' in vhost 'asgi' refused ...`.
fn exchange_of(words: &str, groups_exchange: &str) -> Option<ExchangeKind> {
    let (_, from_name) = words.split_once("exchange '")?;
    if from_name.starts_with("amq.default'") {
        Some(ExchangeKind::Default)
    } else if from_name.starts_with(&format!("{groups_exchange}'")) {
        Some(ExchangeKind::Groups)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;
    use proptest::prelude::*;

    use super::*;

    fn said(reply_code: u16, text: &str) -> ChannelError {
        let close = Close {
            reply_code,
            reply_text: text.as_bytes(),
            class: 60,
            method: 40,
        };
        ChannelError::of(&close, "groups")
    }

    fn to(exchange: ExchangeKind, size: usize) -> Unanswered {
        Unanswered { exchange, size }
    }

    #[test]
    fn errors_are_told_apart_by_what_the_broker_says() {
        let of = said;
        for text in [
            "PRECONDITION_FAILED - message size 100000 is larger than configured max size 65536",
            "PRECONDITION_FAILED - message size 100000 larger than max size 65536",
        ] {
            assert_eq!(of(406, text), ChannelError::TooLarge(65536), "{text}");
        }
        for text in [
            "ACCESS_REFUSED - access to exchange 'groups' in vhost 'asgi' refused for user 'u'",
            "ACCESS_REFUSED - write access to exchange 'groups' in vhost 'asgi' refused for user 'u'",
        ] {
            let ChannelError::NoRight { exchange, said } = of(403, text) else {
                panic!("{text}");
            };
            assert_eq!(exchange, ExchangeKind::Groups);
            assert!(said.contains("403") && said.contains("user 'u'"), "{said}");
        }
        let text = "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost 'v' refused";
        let default = of(403, text);
        assert!(matches!(
            default,
            ChannelError::NoRight {
                exchange: ExchangeKind::Default,
                ..
            }
        ));
        for (id, text) in [
            (
                403,
                "ACCESS_REFUSED - write access to exchange 'groups2' in vhost 'v' refused",
            ),
            (406, "PRECONDITION_FAILED - unknown delivery tag 7"),
            (405, "RESOURCE_LOCKED - no"),
        ] {
            assert!(matches!(of(id, text), ChannelError::Other(_)), "{text}");
        }
        let text = "NOT_FOUND - no exchange 'groups' in vhost 'v'";
        assert!(matches!(of(404, text), ChannelError::NoExchange(_)));
        let of_lapin = |code, text: &str| {
            let kind = AMQPErrorKind::from_id(code).expect("a code of AMQP");
            let error = ErrorKind::ProtocolError(AMQPError::new(kind, text.into())).into();
            ChannelError::of_lapin(&error, "groups")
        };
        assert_eq!(of_lapin(404, text), Some(of(404, text)));
        assert_eq!(of_lapin(320, "CONNECTION_FORCED - shutdown"), None);
        let lost = lapin::Error::from(ErrorKind::MissingHeartbeatError);
        assert_eq!(ChannelError::of_lapin(&lost, "groups"), None);
    }

    #[test]
    fn the_first_body_over_the_limit_is_the_culprit() {
        use ExchangeKind::Default;
        use Fate::{Discarded, Refused, Unknown};
        let all = [10, 100, 101, 5, 300].map(|size| to(Default, size));
        let fates = ChannelError::TooLarge(100).judge(&all);
        assert_eq!(fates, [Unknown, Unknown, Refused, Discarded, Discarded]);
        let fates = ChannelError::TooLarge(1000).judge(&all);
        assert_eq!(fates, [Unknown; 5], "none of them can be it");
    }

    #[test]
    fn one_publication_to_an_exchange_is_the_culprit_and_several_are_suspects() {
        use ExchangeKind::{Default, Groups};
        use Fate::{Discarded, Refused, Unknown};
        let judge = |all: &[ExchangeKind]| {
            let all: Vec<_> = all.iter().map(|exchange| to(*exchange, 1)).collect();
            let error = ChannelError::NoRight {
                exchange: Groups,
                said: String::new(),
            };
            error.judge(&all)
        };
        assert_eq!(
            judge(&[Default, Groups, Default]),
            [Unknown, Refused, Discarded]
        );
        let fates = judge(&[Groups, Default, Groups, Default]);
        assert_eq!(fates, [Unknown, Unknown, Unknown, Discarded]);
        assert_eq!(judge(&[Default, Default]), [Unknown; 2]);
        assert_eq!(judge(&[]), []);
    }

    #[test]
    fn one_publication_without_an_exchange_is_handed_over_again() {
        use ExchangeKind::{Default, Groups};
        use Fate::{Discarded, Unknown};
        let judge = |all: &[ExchangeKind]| {
            let all: Vec<_> = all.iter().map(|exchange| to(*exchange, 1)).collect();
            ChannelError::NoExchange(String::new()).judge(&all)
        };
        assert_eq!(
            judge(&[Default, Groups, Default]),
            [Unknown, Discarded, Discarded]
        );
        assert_eq!(judge(&[Groups]), [Discarded]);
        assert_eq!(
            judge(&[Groups, Groups, Default]),
            [Unknown, Unknown, Discarded]
        );
        assert_eq!(judge(&[Default]), [Unknown]);
    }

    proptest! {
        /// Played by a broker that processes one after the other until one is refused.
        #[test]
        fn no_verdict_is_a_lie(
            sizes in proptest::collection::vec((any::<bool>(), 0_usize..20), 0..12),
            limit in 0_usize..20,
            kind in 0..3,
            answered in 0_usize..6,
        ) {
            let all: Vec<_> = sizes.iter().map(|(groups, size)| {
                let exchange = if *groups { ExchangeKind::Groups } else { ExchangeKind::Default };
                to(exchange, *size)
            }).collect();
            let is_refused = |one: &Unanswered| {
                if kind > 0 { one.exchange == ExchangeKind::Groups } else { one.size > limit }
            };
            let Some(culprit) = all.iter().position(is_refused) else { return Ok(()); };
            let error = match kind {
                0 => ChannelError::TooLarge(limit),
                1 => ChannelError::NoRight { exchange: ExchangeKind::Groups, said: String::new() },
                _ => ChannelError::NoExchange(String::new()),
            };
            // Some of those before it have their confirms.
            let from = answered.min(culprit);
            let fates = error.judge(&all[from..]);
            for (place, fate) in (from..).zip(&fates) {
                match fate {
                    Fate::Refused => prop_assert_eq!(place, culprit),
                    Fate::Discarded => prop_assert!(place > culprit || (kind == 2 && place == culprit)),
                    Fate::Unknown => {}
                }
            }
            if kind == 0 {
                prop_assert_eq!(fates[culprit - from], Fate::Refused);
            }
        }
    }
}
