//! Why a connection could not be made or has ended, in words for people, and whether the broker
//! refused it.

use std::io;

use lapin::ErrorKind;

use super::socket::AnswersInTls;
use crate::endpoint::Endpoint;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It may be different next time.
    Passing,
    /// The broker hung up during the login without a word. So does one that is being shut down,
    /// and so does one that refuses us in its own way: only the second time in a row tells.
    HungUp,
    /// The broker said no to credentials, vhost or TLS.
    Refused,
}

/// One attempt that failed. The text does not name the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) why: String,
}

impl Failure {
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self {
            kind: Kind::Passing,
            why: why.into(),
        }
    }

    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self {
            kind: Kind::Refused,
            why: why.into(),
        }
    }

    pub(super) fn hung_up(why: impl Into<String>) -> Self {
        Self {
            kind: Kind::HungUp,
            why: why.into(),
        }
    }

    /// A TCP connection that could not be made.
    pub(super) fn of_tcp(error: &io::Error) -> Self {
        Self::passing(match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                "nobody listens there; is RabbitMQ running, and is the port right?".to_owned()
            }
            _ => format!("no connection: {error}"),
        })
    }

    /// An AMQP handshake that failed, and not for TLS. `asked`: the broker had asked for
    /// credentials before.
    pub(super) fn of_login(endpoint: &Endpoint, asked: bool, error: &lapin::Error) -> Self {
        let user = &endpoint.user;
        let vhost = &endpoint.vhost;
        match error.kind() {
            ErrorKind::ProtocolError(said) => match said.get_id() {
                ACCESS_REFUSED => Self::refused(format!(
                    "{}; check user '{user}' and its password",
                    describe(error)
                )),
                // Connections that are gone but not yet noticed count too, for a while.
                NOT_ALLOWED if said.get_message().as_str().contains("limit") => {
                    Self::passing(describe(error))
                }
                NOT_ALLOWED => Self::refused(format!(
                    "{}; check that vhost '{vhost}' exists and that user '{user}' may use it",
                    describe(error)
                )),
                _ => Self::passing(describe(error)),
            },
            ErrorKind::IOError(error)
                if error.get_ref().is_some_and(|why| why.is::<AnswersInTls>()) =>
            {
                Self::refused(format!(
                    "port {} is one for TLS: begin the URL with amqps:// (and see the options \
                     tls_...), or use RabbitMQ's plain port (usually 5672)",
                    endpoint.port
                ))
            }
            ErrorKind::IOError(error) if is_hang_up(error.kind()) && asked => {
                Self::hung_up(format!(
                    "the broker hung up during the login; check user '{user}', its password and \
                 vhost '{vhost}', and see the broker's log"
                ))
            }
            ErrorKind::IOError(error) if is_hang_up(error.kind()) => Self::passing(
                "the other side hung up before it said a word of AMQP; is this the port of a \
                 RabbitMQ, and one without TLS?",
            ),
            _ => Self::passing(describe(error)),
        }
    }

    /// A queue, exchange, binding or consumer that could not be had on a standing connection.
    pub(super) fn of_setup(queue: &str, exchange: &str, error: &lapin::Error) -> Self {
        let what = describe(error);
        let ErrorKind::ProtocolError(said) = error.kind() else {
            return Self::passing(what);
        };
        match said.get_id() {
            ACCESS_REFUSED => Self::refused(format!(
                "{what}; the user needs the permissions configure, write and read on queue \
                 '{queue}' and exchange '{exchange}'"
            )),
            RESOURCE_LOCKED => Self::passing(format!(
                "{what}; queue '{queue}' belongs to another connection, perhaps to the one before \
                 this, until the broker notices that that is gone"
            )),
            PRECONDITION_FAILED => Self::passing(format!(
                "{what}; if exchange '{exchange}' exists with other flags (it must be direct, not \
                 durable, not auto-delete), delete it or set option groups_exchange"
            )),
            NOT_FOUND => Self::passing(format!("{what}; it is being made again")),
            _ => Self::passing(what),
        }
    }
}

/// What ended a connection or an AMQP channel.
pub(super) fn describe(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(said) => {
            format!("the broker says {} {}", said.get_id(), said.get_message())
        }
        ErrorKind::IOError(error) if is_hang_up(error.kind()) => {
            "the connection was cut by the broker or on the way to it".to_owned()
        }
        ErrorKind::IOError(error) => format!("the connection broke: {error}"),
        ErrorKind::MissingHeartbeatError => {
            "the broker was silent for more than two heartbeats".to_owned()
        }
        // The reason is elsewhere: this is what a call hears that comes after the end.
        ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidConnectionState(_) => "the connection has ended".to_owned(),
        _ => error.to_string(),
    }
}

pub(super) fn is_hang_up(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind};

    use crate::endpoint::Hosts;

    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        match crate::endpoint::parse(url) {
            Ok(Hosts::Amqp(mut endpoints)) if endpoints.len() == 1 => endpoints.remove(0),
            other => panic!("not one endpoint: {other:?}"),
        }
    }

    fn said(id: u16, text: &str) -> lapin::Error {
        let kind = AMQPErrorKind::from_id(id).expect("a code of AMQP");
        ErrorKind::ProtocolError(AMQPError::new(kind, text.into())).into()
    }

    #[test]
    fn a_refusal_is_told_from_what_passes() {
        let endpoint = endpoint("amqp://me:secret@broker/there");
        let io = |error: io::Error| lapin::Error::from(error);
        let reset = io(io::ErrorKind::ConnectionReset.into());
        let tls = io(io::Error::new(io::ErrorKind::InvalidData, AnswersInTls));
        let limit = "access to vhost 'there' refused: connection limit (1) is reached";
        for (asked, error, kind) in [
            (true, said(403, "ACCESS_REFUSED - no"), Kind::Refused),
            (
                true,
                said(530, "NOT_ALLOWED - vhost there not found"),
                Kind::Refused,
            ),
            (true, said(530, limit), Kind::Passing),
            (
                true,
                said(541, "INTERNAL_ERROR - vhost is down"),
                Kind::Passing,
            ),
            (true, reset.clone(), Kind::HungUp),
            (false, reset, Kind::Passing),
            (false, tls, Kind::Refused),
        ] {
            let failure = Failure::of_login(&endpoint, asked, &error);
            assert_eq!(failure.kind, kind, "{}", failure.why);
            assert!(!failure.why.contains("secret"), "{}", failure.why);
        }
    }

    #[test]
    fn the_text_says_what_to_do() {
        let refused = Failure::of_setup("q", "groups", &said(403, "ACCESS_REFUSED - no"));
        assert_eq!(refused.kind, Kind::Refused);
        assert!(
            refused
                .why
                .contains("configure, write and read on queue 'q'")
        );
        let locked = Failure::of_setup("q", "groups", &said(405, "RESOURCE_LOCKED - no"));
        assert_eq!(locked.kind, Kind::Passing);
        assert!(
            locked
                .why
                .starts_with("the broker says 405 RESOURCE_LOCKED - no; queue 'q'")
        );
        let flags = Failure::of_setup("q", "groups", &said(406, "PRECONDITION_FAILED - no"));
        assert!(
            flags
                .why
                .contains("delete it or set option groups_exchange")
        );
    }
}
