//! The table of options, and what is made of it for people and for the bindings.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::settings::{Dispatch, Pem, Settings};
use crate::endpoint;
use crate::error::Error;
use crate::name::{self, Quoted};

/// RabbitMQ ends a consumer that holds an ack for 30 minutes; we let go in time.
pub(super) const MAX_LOCAL_EXPIRY: Duration = Duration::from_secs(25 * 60);

/// The largest number that RabbitMQ takes for a length, and more than memory holds.
const MAX_COUNT: u64 = i32::MAX as u64;

/// One option: all that is known of it.
pub struct OptionSpec {
    /// Its name, as [`super::Config::set`] takes it.
    pub name: &'static str,
    /// What its value is.
    pub kind: OptionKind,
    /// Its default, as [`super::Config::set`] takes it; empty if [`OptionSpec::unset`] says more.
    pub default: &'static str,
    /// In words what holds when the option is not set and `default` is empty.
    pub unset: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Reads a value and puts it into the settings.
    pub(super) apply: fn(&OptionSpec, &str, &mut Settings) -> Result<(), Error>,
}

/// What the value of an option is, and its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// A text; the words say which are allowed.
    Text(&'static str),
    /// The path of a file.
    Path,
    /// Decimal seconds, from 1 ms to this many.
    Seconds(u64),
    /// The same, or this word.
    SecondsOr(u64, &'static str),
    /// Whole seconds, from 0 to this many.
    WholeSeconds(u64),
    /// A whole number in this range, both ends in it.
    Count(u64, u64),
    /// A size in bytes in this range, both ends in it.
    Bytes(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl OptionKind {
    /// Its name in the JSON table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Path => "path",
            Self::Seconds(_) => "seconds",
            Self::SecondsOr(..) => "seconds_or_word",
            Self::WholeSeconds(_) => "whole_seconds",
            Self::Count(..) => "count",
            Self::Bytes(..) => "bytes",
            Self::Choice(_) => "choice",
        }
    }
}

impl OptionSpec {
    /// Which values are allowed, in words.
    pub fn allowed(&self) -> String {
        match self.kind {
            OptionKind::Text(words) => words.to_owned(),
            OptionKind::Path => "a path of a PEM file".to_owned(),
            OptionKind::Seconds(max) => format!("seconds from 0.001 to {max}, as 10 or 0.25"),
            OptionKind::SecondsOr(max, word) => {
                format!("seconds from 0.001 to {max}, as 10 or 0.25, or {word}")
            }
            OptionKind::WholeSeconds(max) => format!("whole seconds from 0 to {max}"),
            OptionKind::Count(min, max) => format!("a whole number from {min} to {max}"),
            OptionKind::Bytes(min, max) => format!("a whole number of bytes from {min} to {max}"),
            OptionKind::Choice(words) => words.join(" or "),
        }
    }

    /// Its default, as Markdown.
    fn default_as_markdown(&self) -> Cow<'static, str> {
        match self.default {
            "" => Cow::Borrowed(self.unset),
            value => Cow::Owned(format!("`{value}`")),
        }
    }

    /// Its section in docs/options.md, where more may follow.
    pub fn as_markdown(&self) -> String {
        format!(
            "### `{}`\n\n{}\n\n- Default: {}\n- Allowed: {}\n",
            self.name,
            self.doc,
            self.default_as_markdown(),
            self.allowed()
        )
    }

    /// An error for `value`, with what is allowed instead.
    fn refuse(&self, value: &str) -> Error {
        Error::invalid(format!(
            "option '{}': {} is not allowed; allowed is {}",
            self.name,
            Quoted(value),
            self.allowed()
        ))
    }

    fn seconds(&self, value: &str) -> Result<Duration, Error> {
        match (self.kind, parse_seconds(value)) {
            (OptionKind::Seconds(max) | OptionKind::SecondsOr(max, _), Some(parsed))
                if parsed >= Duration::from_millis(1) && parsed <= Duration::from_secs(max) =>
            {
                Ok(parsed)
            }
            (OptionKind::WholeSeconds(max), Some(parsed))
                if parsed.subsec_nanos() == 0 && parsed.as_secs() <= max =>
            {
                Ok(parsed)
            }
            _ => Err(self.refuse(value)),
        }
    }

    /// `None` for the word.
    fn seconds_or_word(&self, value: &str) -> Result<Option<Duration>, Error> {
        match self.kind {
            OptionKind::SecondsOr(_, word) if word == value => Ok(None),
            OptionKind::SecondsOr(_, "0") if parse_seconds(value) == Some(Duration::ZERO) => {
                Ok(None)
            }
            _ => self.seconds(value).map(Some),
        }
    }

    fn number<T: TryFrom<u64>>(&self, value: &str) -> Result<T, Error> {
        // `parse` alone would take a '+'.
        let parsed = if value.bytes().all(|byte| byte.is_ascii_digit()) {
            value.parse::<u64>().ok()
        } else {
            None
        };
        match (self.kind, parsed) {
            (OptionKind::Count(min, max) | OptionKind::Bytes(min, max), Some(parsed))
                if (min..=max).contains(&parsed) =>
            {
                T::try_from(parsed).map_err(|_| self.refuse(value))
            }
            _ => Err(self.refuse(value)),
        }
    }
}

impl fmt::Debug for OptionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OptionSpec")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

// The names that more than the table needs.
pub(super) const HOST: &str = "host";
pub(super) const TLS_CA_PEM: &str = "tls_ca_pem";
pub(super) const PREFETCH_COUNT: &str = "prefetch_count";
pub(super) const LOCAL_EXPIRY: &str = "local_expiry";
pub(super) const CHANNEL_CAPACITY: &str = "channel_capacity";
pub(super) const TOTAL_CAPACITY: &str = "total_capacity";

/// The table. The first six are those of `channels_rabbitmq` 0.0.2, with its defaults.
pub(super) static OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: HOST,
        kind: OptionKind::Text(
            "amqp://user:password@host:port/vhost or amqps://..., several by comma, \
             percent-encoded where needed; or memory://name alone",
        ),
        default: "amqp://guest:guest@127.0.0.1/asgi",
        unset: "",
        doc: "The RabbitMQ hosts, tried in turn; `memory://name` is a broker inside the process.",
        apply: |_, value, to| {
            // The value holds a password: no error shows it.
            to.hosts = endpoint::parse(value).map_err(|error| error.context("option 'host'"))?;
            Ok(())
        },
    },
    OptionSpec {
        name: "expiry",
        // RabbitMQ counts the life of a message in milliseconds of 32 bits.
        kind: OptionKind::Seconds(4_294_967),
        default: "60",
        unset: "",
        doc: "How long a message may wait on RabbitMQ before it is dropped.",
        apply: |spec, value, to| put(&mut to.expiry, spec.seconds(value)),
    },
    OptionSpec {
        name: "group_expiry",
        kind: OptionKind::SecondsOr(315_360_000, "never"),
        default: "86400",
        unset: "",
        doc: "How long a channel that nobody receives from stays in a group after its last use or add.",
        apply: |spec, value, to| put(&mut to.group_expiry, spec.seconds_or_word(value)),
    },
    OptionSpec {
        name: "unbind_after",
        kind: OptionKind::SecondsOr(3600, "0"),
        default: "2",
        unset: "",
        doc: "How long the broker still routes a group here whose last member has left: who comes back \
              meanwhile waits for nothing; 0: not at all.",
        apply: |spec, value, to| {
            let after = spec.seconds_or_word(value).map(Option::unwrap_or_default);
            put(&mut to.unbind_after, after)
        },
    },
    OptionSpec {
        name: "local_capacity",
        kind: OptionKind::Count(0, MAX_COUNT),
        default: "100",
        unset: "",
        doc: "How many messages may wait in memory before the broker is told to wait; a group message \
              counts once for each channel. 0: it is told so by each that waits, counted once.",
        apply: |spec, value, to| put(&mut to.local_capacity, spec.number(value)),
    },
    OptionSpec {
        name: "remote_capacity",
        kind: OptionKind::Count(1, MAX_COUNT),
        default: "100",
        unset: "",
        doc: "How many messages may wait on RabbitMQ before senders are told that it is full.",
        apply: |spec, value, to| put(&mut to.remote_capacity, spec.number(value)),
    },
    OptionSpec {
        name: PREFETCH_COUNT,
        kind: OptionKind::Count(1, u16::MAX as u64),
        default: "",
        unset: "10, or `local_capacity` where that is smaller and above 0",
        doc: "How many messages RabbitMQ may send ahead of our acks.",
        apply: |spec, value, to| put(&mut to.prefetch_count, spec.number(value)),
    },
    OptionSpec {
        name: LOCAL_EXPIRY,
        kind: OptionKind::Seconds(MAX_LOCAL_EXPIRY.as_secs()),
        default: "",
        unset: "`expiry`, at most 1500",
        doc: "How long a message may wait in memory before it is dropped.",
        apply: |spec, value, to| put(&mut to.local_expiry, spec.seconds(value)),
    },
    OptionSpec {
        name: "groups_exchange",
        kind: OptionKind::Text(
            "1 to 255 bytes without control characters, not beginning with 'amq.'",
        ),
        default: "groups",
        unset: "",
        doc: "The exchange that groups go through, the same for all peers.",
        apply: |spec, value, to| {
            // RabbitMQ reserves 'amq.', and none of its own exchanges has the flags we need.
            let good = (1..=255).contains(&value.len())
                && !value.starts_with("amq.")
                && !value.chars().any(char::is_control);
            let parsed = good.then(|| value.to_owned());
            put(
                &mut to.groups_exchange,
                parsed.ok_or_else(|| spec.refuse(value)),
            )
        },
    },
    OptionSpec {
        name: "stall_after",
        kind: OptionKind::SecondsOr(3600, "0"),
        default: "1",
        unset: "",
        doc: "How long channels may keep the broker from sending to the others before each channel is \
              bounded by `channel_capacity` instead; 0: for as long as it takes.",
        apply: |spec, value, to| put(&mut to.stall_after, spec.seconds_or_word(value)),
    },
    OptionSpec {
        name: CHANNEL_CAPACITY,
        kind: OptionKind::Count(1, MAX_COUNT),
        default: "",
        unset: "100, or `local_capacity` or `prefetch_count` where that is larger",
        doc: "How many messages one channel may hold, after `stall_after`, before it loses its newest.",
        apply: |spec, value, to| put(&mut to.channel_capacity, spec.number(value)),
    },
    OptionSpec {
        name: TOTAL_CAPACITY,
        kind: OptionKind::Count(1, MAX_COUNT),
        default: "",
        unset: "100000, or `local_capacity` where that is larger",
        doc: "How many messages all channels may hold, after `stall_after`, before the fullest of them \
              loses its newest.",
        apply: |spec, value, to| put(&mut to.total_capacity, spec.number(value)),
    },
    OptionSpec {
        name: "timeout",
        kind: OptionKind::Seconds(86_400),
        default: "10",
        unset: "",
        doc: "How long a send or a group change may take, from the call to the broker's answer.",
        apply: |spec, value, to| put(&mut to.timeout, spec.seconds(value)),
    },
    OptionSpec {
        name: "settle",
        kind: OptionKind::SecondsOr(3600, "0"),
        default: "0.5",
        unset: "",
        doc: "How long sends that waited for a lost connection are held once it is back, so that other \
              processes have bound their groups; never beyond their `timeout`; 0: not at all.",
        apply: |spec, value, to| put(&mut to.settle, spec.seconds_or_word(value)),
    },
    OptionSpec {
        name: "connect_timeout",
        kind: OptionKind::Seconds(3600),
        default: "5",
        unset: "",
        doc: "How long one attempt to connect may take, TLS and login included.",
        apply: |spec, value, to| put(&mut to.connect_timeout, spec.seconds(value)),
    },
    OptionSpec {
        name: "reconnect_max",
        kind: OptionKind::Seconds(3600),
        default: "30",
        unset: "",
        doc: "The longest pause between two attempts to connect, to which it grows while each host \
              refuses the layer; else it is 1 second at most.",
        apply: |spec, value, to| put(&mut to.reconnect_max, spec.seconds(value)),
    },
    OptionSpec {
        name: "heartbeat",
        kind: OptionKind::WholeSeconds(u16::MAX as u64),
        default: "10",
        unset: "",
        doc: "The AMQP heartbeat: a silent broker is given up after about two; 0: as the broker wishes, \
              20 at most.",
        apply: |spec, value, to| {
            let seconds = spec.seconds(value)?.as_secs();
            to.heartbeat = u16::try_from(seconds).map_err(|_| spec.refuse(value))?;
            Ok(())
        },
    },
    OptionSpec {
        name: "max_in_flight",
        kind: OptionKind::Count(1, 10_000_000),
        default: "10000",
        unset: "",
        doc: "How many sends may be under way at once.",
        apply: |spec, value, to| put(&mut to.max_in_flight, spec.number(value)),
    },
    OptionSpec {
        name: "max_message_size",
        // No RabbitMQ can be told to take more than 512 MiB.
        kind: OptionKind::Bytes(1, 512 << 20),
        default: "16777216",
        unset: "",
        doc: "How large an encoded message may be; RabbitMQ has a limit of its own.",
        apply: |spec, value, to| put(&mut to.max_message_size, spec.number(value)),
    },
    OptionSpec {
        name: "dispatch",
        kind: OptionKind::Choice(&["thread", "poll"]),
        default: "thread",
        unset: "",
        doc: "Who runs callbacks: threads of the layer, or the caller of `layer_poll`.",
        apply: |spec, value, to| {
            to.dispatch = match value {
                "thread" => Dispatch::Thread,
                "poll" => Dispatch::Poll,
                _ => return Err(spec.refuse(value)),
            };
            Ok(())
        },
    },
    OptionSpec {
        name: "dispatch_threads",
        kind: OptionKind::Count(1, 256),
        default: "1",
        unset: "",
        doc: "How many threads run callbacks where `dispatch` is `thread`.",
        apply: |spec, value, to| put(&mut to.dispatch_threads, spec.number(value)),
    },
    OptionSpec {
        name: "tls_ca_file",
        kind: OptionKind::Path,
        default: "",
        unset: "the system's certificate authorities",
        doc: "Certificates that `amqps://` trusts, of CAs or of brokers themselves, and no others.",
        apply: |_, value, to| {
            to.tls.ca_file = Some(PathBuf::from(value));
            Ok(())
        },
    },
    OptionSpec {
        name: TLS_CA_PEM,
        kind: OptionKind::Text("certificates in PEM"),
        default: "",
        unset: "those of `tls_ca_file`",
        doc: "The same as `tls_ca_file`, as text instead of a file; with both, the certificates of \
              both are trusted.",
        apply: |_, value, to| {
            // Whether it is PEM is seen where the files are read.
            to.tls.ca_pem = Some(Pem(value.to_owned()));
            Ok(())
        },
    },
    OptionSpec {
        name: "tls_cert_file",
        kind: OptionKind::Path,
        default: "",
        unset: "no client certificate",
        doc: "The client's certificate, then those between it and its authority; only together \
              with `tls_key_file`.",
        apply: |_, value, to| {
            to.tls.cert_file = Some(PathBuf::from(value));
            Ok(())
        },
    },
    OptionSpec {
        name: "tls_key_file",
        kind: OptionKind::Path,
        default: "",
        unset: "no client certificate",
        doc: "The private key of `tls_cert_file`: PKCS#8, PKCS#1 or SEC1, not encrypted.",
        apply: |_, value, to| {
            to.tls.key_file = Some(PathBuf::from(value));
            Ok(())
        },
    },
    OptionSpec {
        name: "queue_name",
        kind: OptionKind::Text(
            "1 to 86 ASCII letters, digits, '-', '_' and '.', not beginning with 'amq.'",
        ),
        default: "",
        unset: "`channels_` and 12 random letters",
        doc: "The name of the layer's own queue, for tests: no two layers may share it.",
        apply: |_, value, to| {
            name::validate_queue(value).map_err(|error| error.context("option 'queue_name'"))?;
            to.queue_name = Some(value.to_owned());
            Ok(())
        },
    },
];

/// All options, in the order of the documentation.
pub fn options() -> &'static [OptionSpec] {
    OPTIONS
}

/// The table of options for README.
pub fn options_as_markdown() -> String {
    let mut table = String::from("| Option | Default | Allowed | Meaning |\n|---|---|---|---|\n");
    for spec in OPTIONS {
        let row = format!(
            "| `{}` | {} | {} | {} |\n",
            spec.name,
            spec.default_as_markdown(),
            spec.allowed(),
            spec.doc
        );
        table.push_str(&row);
    }
    table
}

/// The table of options for the bindings: an array of objects.
pub fn options_as_json() -> String {
    let rows: Vec<serde_json::Value> = OPTIONS
        .iter()
        .map(|spec| {
            let mut row = json!({
                "name": spec.name,
                "kind": spec.kind.name(),
                "default": spec.default,
                "unset": spec.unset,
                "allowed": spec.allowed(),
                "doc": spec.doc,
            });
            match spec.kind {
                OptionKind::Text(_) | OptionKind::Path => {}
                OptionKind::Seconds(max) => {
                    row["min"] = json!(0.001);
                    row["max"] = json!(max);
                }
                OptionKind::SecondsOr(max, word) => {
                    row["min"] = json!(0.001);
                    row["max"] = json!(max);
                    row["word"] = json!(word);
                }
                OptionKind::WholeSeconds(max) => {
                    row["min"] = json!(0);
                    row["max"] = json!(max);
                }
                OptionKind::Count(min, max) | OptionKind::Bytes(min, max) => {
                    row["min"] = json!(min);
                    row["max"] = json!(max);
                }
                OptionKind::Choice(words) => row["choices"] = json!(words),
            }
            row
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(rows))
}

/// Puts what was read where it belongs.
fn put<T>(to: &mut T, parsed: Result<T, Error>) -> Result<(), Error> {
    *to = parsed?;
    Ok(())
}

/// Decimal seconds: digits, or digits with a point between them. No sign, no exponent.
pub(super) fn parse_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    // What is below a nanosecond is cut off.
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(Duration::new(whole.parse().ok()?, nanos))
}
