//! Why a connection could not be made or has ended, in words for people, and whether the broker
//! refused it.

use std::io;
use std::time::Duration;

use lapin::ErrorKind;

use super::io::AnswersInTls;
use super::login::Reached;
use crate::amqp::Close;
use crate::endpoint::Endpoint;

pub(super) const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
pub(super) const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// What a layer takes of what the limits of users, vhosts and brokers count.
const NEEDS: &str = "a layer needs 2 connections, one of them with 4 to 36 AMQP channels and the \
                     other with 2, and a queue or two";

/// The first frame that we send holds the credentials, and some hundred bytes that tell who we are.
const LONG_CREDENTIALS: usize = 3500;

/// Why an AMQP channel could not be opened.
pub(super) const TOO_FEW_CHANNELS: &str =
    "the broker allows too few AMQP channels (its setting 'channel_max')";

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

/// Why a connection has ended, or what used an AMQP channel of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) why: String,
    /// What the broker has said, if it has closed the connection or the channel.
    pub(super) code: Option<u16>,
}

impl End {
    /// The broker has closed an AMQP channel or the connection.
    pub(super) fn said(close: &Close<'_>) -> Self {
        Self {
            why: describe_close(close),
            code: Some(close.reply_code),
        }
    }

    /// Whether the broker has ended the connection for what its user may not have, as one more AMQP channel.
    pub(super) fn is_not_allowed(&self) -> bool {
        self.code == Some(NOT_ALLOWED)
    }

    /// Whether the broker has closed the AMQP channel of a consumer for its `consumer_timeout`:
    /// `delivery acknowledgement on channel 1 timed out`.
    pub(super) fn is_ack_timeout(&self) -> bool {
        self.code == Some(PRECONDITION_FAILED) && self.why.contains("timed out")
    }
}

impl From<&str> for End {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl From<String> for End {
    fn from(why: String) -> Self {
        Self { why, code: None }
    }
}

/// One attempt that failed. The text does not name the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) why: String,
    /// The queue belongs to another connection.
    pub(super) is_locked: bool,
    /// What was asked for is not there.
    pub(super) is_not_found: bool,
    /// The broker has not answered in time.
    pub(super) is_silence: bool,
    /// The connection has ended for what its user may not have, as one more AMQP channel.
    pub(super) is_over_limit: bool,
}

impl Failure {
    fn new(kind: Kind, why: impl Into<String>) -> Self {
        Self {
            kind,
            why: why.into(),
            is_locked: false,
            is_not_found: false,
            is_silence: false,
            is_over_limit: false,
        }
    }

    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self::new(Kind::Passing, why)
    }

    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::new(Kind::Refused, why)
    }

    pub(super) fn hung_up(why: impl Into<String>) -> Self {
        Self::new(Kind::HungUp, why)
    }

    /// What was asked for on a standing connection was not answered in this time.
    pub(super) fn silence(waited: Duration) -> Self {
        Self {
            is_silence: true,
            ..Self::passing(format!(
                "no answer from the broker in {waited:?} (option connect_timeout, which grows with \
                 each such attempt)"
            ))
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

    /// An AMQP handshake that failed, and not for TLS, when it had come so far.
    pub(super) fn of_login(endpoint: &Endpoint, reached: Reached, error: &lapin::Error) -> Self {
        let user = &endpoint.user;
        let vhost = &endpoint.vhost;
        match error.kind() {
            ErrorKind::ProtocolError(said) => match said.get_id() {
                ACCESS_REFUSED => Self::refused(format!(
                    "{}; check user '{user}' and its password",
                    describe(error)
                )),
                // Connections that are gone count too, until the broker has noticed.
                NOT_ALLOWED if said.get_message().as_str().contains("limit") => {
                    Self::refused(format!("{}; {NEEDS}", describe(error)))
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
            ErrorKind::IOError(error) if is_hang_up(error.kind()) => {
                Self::of_hang_up(endpoint, reached)
            }
            _ => Self::passing(describe(error)),
        }
    }

    /// The broker closed the TCP connection during the login.
    fn of_hang_up(endpoint: &Endpoint, reached: Reached) -> Self {
        let Endpoint {
            user,
            password,
            vhost,
            ..
        } = endpoint;
        match reached {
            Reached::Nothing => Self::passing(
                "the other side closed the connection before it sent any AMQP; is this the port of \
                 a RabbitMQ, and one without TLS?",
            ),
            Reached::Login if user.len() + password.len() > LONG_CREDENTIALS => {
                Self::refused(format!(
                    "the broker closed the connection during the login: user and password take {} \
                     bytes, and before the login it takes no frame above 4096 bytes (8192 since \
                     RabbitMQ 4.1, its setting 'initial_frame_max'); use a shorter password",
                    user.len() + password.len()
                ))
            }
            Reached::Login => Self::hung_up(format!(
                "the broker closed the connection during the login; check user '{user}' and its \
                 password, and see the broker's log"
            )),
            Reached::Tune => Self::hung_up(format!(
                "the broker accepted user '{user}' and then closed the connection; check vhost \
                 '{vhost}', and see the broker's log"
            )),
        }
    }

    /// A queue, exchange, binding or consumer that could not be had on a standing connection.
    pub(super) fn of_setup(queue: &str, exchange: &str, error: &lapin::Error) -> Self {
        let what = describe(error);
        match error.kind() {
            ErrorKind::ProtocolError(said) => Self::of_said(queue, exchange, said.get_id(), what),
            ErrorKind::ChannelsLimitReached => Self::too_few_channels(),
            _ => Self::passing(what),
        }
    }

    /// The same, of what ended one of our handlers.
    pub(super) fn of_end(queue: &str, exchange: &str, end: &End) -> Self {
        match end.code {
            Some(code) => Self::of_said(queue, exchange, code, end.why.clone()),
            None if end.why == TOO_FEW_CHANNELS => Self::too_few_channels(),
            None => Self::passing(end.why.clone()),
        }
    }

    fn too_few_channels() -> Self {
        Self::refused(format!("{TOO_FEW_CHANNELS}; {NEEDS}"))
    }

    /// The broker has closed an AMQP channel, or the connection; `what` has its words.
    fn of_said(queue: &str, exchange: &str, code: u16, what: String) -> Self {
        match code {
            NOT_ALLOWED => Self {
                is_over_limit: true,
                ..Self::refused(format!("{what}; {NEEDS}"))
            },
            ACCESS_REFUSED => Self::refused(format!(
                "{what}; the user needs the permissions configure, write and read on queue \
                 '{queue}' and exchange '{exchange}'"
            )),
            RESOURCE_LOCKED => Self {
                is_locked: true,
                ..Self::passing(format!(
                    "{what}; queue '{queue}' belongs to another connection, perhaps to the one \
                     before this, until the broker notices that that is gone"
                ))
            },
            PRECONDITION_FAILED if what.contains("limit") => {
                Self::refused(format!("{what}; raise it, or use another vhost"))
            }
            PRECONDITION_FAILED => Self::refused(format!(
                "{what}; if exchange '{exchange}' exists with other flags (it must be direct, not \
                 durable, not auto-delete), delete it or set option groups_exchange"
            )),
            NOT_FOUND => Self {
                is_not_found: true,
                ..Self::passing(format!("{what}; it is being made again"))
            },
            _ => Self::passing(what),
        }
    }
}

/// Whether the broker has given this reply code.
fn has_code(error: &lapin::Error, code: u16) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said) if said.get_id() == code)
}

/// Whether the user lacks a right.
pub(super) fn is_access_refused(error: &lapin::Error) -> bool {
    has_code(error, ACCESS_REFUSED)
}

/// Whether what was asked for is not there.
pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    has_code(error, NOT_FOUND)
}

/// Whether the queue belongs to another connection.
pub(super) fn is_resource_locked(error: &lapin::Error) -> bool {
    has_code(error, RESOURCE_LOCKED)
}

/// Why a connection ended that the broker did not close.
pub(super) const CUT: &str = "the connection was cut by the broker or on the way to it";
pub(super) const SILENT: &str = "the broker was silent for more than two heartbeats";
/// The reason is elsewhere.
pub(super) const ENDED: &str = "the connection has ended";

/// Why the broker closed a connection or an AMQP channel.
pub(super) fn describe_close(close: &Close<'_>) -> String {
    let text = String::from_utf8_lossy(close.reply_text);
    format!("the broker says {} {text}", close.reply_code)
}

/// What went wrong with a socket.
pub(super) fn describe_io(error: &io::Error) -> String {
    if is_hang_up(error.kind()) {
        CUT.to_owned()
    } else {
        format!("the connection broke: {error}")
    }
}

/// What ended a connection or an AMQP channel.
pub(super) fn describe(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(said) => {
            format!("the broker says {} {}", said.get_id(), said.get_message())
        }
        ErrorKind::IOError(error) => describe_io(error),
        ErrorKind::MissingHeartbeatError => SILENT.to_owned(),
        // This is what a call hears that comes after the end.
        ErrorKind::InvalidChannel(_)
        | ErrorKind::InvalidChannelState(..)
        | ErrorKind::InvalidConnectionState(_) => ENDED.to_owned(),
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
        let (login, nothing) = (Reached::Login, Reached::Nothing);
        for (reached, error, kind) in [
            (login, said(403, "ACCESS_REFUSED - no"), Kind::Refused),
            (
                login,
                said(530, "NOT_ALLOWED - vhost there not found"),
                Kind::Refused,
            ),
            (Reached::Tune, said(530, limit), Kind::Refused),
            (
                login,
                said(541, "INTERNAL_ERROR - vhost is down"),
                Kind::Passing,
            ),
            (login, reset.clone(), Kind::HungUp),
            (Reached::Tune, reset.clone(), Kind::HungUp),
            (nothing, reset, Kind::Passing),
            (nothing, tls, Kind::Refused),
        ] {
            let failure = Failure::of_login(&endpoint, reached, &error);
            assert_eq!(failure.kind, kind, "{}", failure.why);
            assert!(!failure.why.contains("secret"), "{}", failure.why);
        }
    }

    #[test]
    fn ends_during_the_login_are_told_apart() {
        let reset = lapin::Error::from(io::Error::from(io::ErrorKind::ConnectionReset));
        let short = endpoint("amqp://me:secret@broker/there");
        let long = endpoint(&format!("amqp://me:{}@broker/there", "s3cr3t".repeat(700)));
        for (endpoint, reached, words) in [
            (&short, Reached::Nothing, "port"),
            (&short, Reached::Login, "its password"),
            (&long, Reached::Login, "4202 bytes"),
            (&long, Reached::Tune, "vhost 'there'"),
            (&short, Reached::Tune, "vhost 'there'"),
        ] {
            let failure = Failure::of_login(endpoint, reached, &reset);
            assert!(failure.why.contains(words), "{reached:?}: {}", failure.why);
            assert!(!failure.why.contains("s3cr3t"), "{}", failure.why);
        }
    }

    #[test]
    fn what_will_not_pass_by_itself_is_refused() {
        for (id, text, kind) in [
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'groups'",
                Kind::Refused,
            ),
            (
                406,
                "PRECONDITION_FAILED - cannot declare queue 'q': queue limit in vhost 'b' (1) is \
                 reached",
                Kind::Refused,
            ),
            (
                530,
                "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum \
                 allowed limit of (6)",
                Kind::Refused,
            ),
            (405, "RESOURCE_LOCKED - no", Kind::Passing),
            (404, "NOT_FOUND - no exchange", Kind::Passing),
            (541, "INTERNAL_ERROR - no", Kind::Passing),
        ] {
            let failure = Failure::of_setup("q", "groups", &said(id, text));
            assert_eq!(failure.kind, kind, "{}", failure.why);
        }
        let few = Failure::of_setup("q", "groups", &ErrorKind::ChannelsLimitReached.into());
        assert_eq!(few.kind, Kind::Refused);
        assert!(few.why.contains("channel_max"), "{}", few.why);
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
