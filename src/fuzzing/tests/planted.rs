//! A library that breaks a rule is seen, by the corpora and the mutations that the replay uses.

use fastrand::Rng;

use super::replay::{corpus, mutated};
use crate::amqp::{Header, Inbound, Incoming, Malformed, Received, Sent, Shares};
use crate::config::Config;
use crate::endpoint::{self, Endpoint, Hosts};
use crate::error::{Error, ErrorKind};
use crate::fuzzing::amqp::{self, Amqp};
use crate::fuzzing::names::{self, Names};
use crate::fuzzing::options::{self, Options};
use crate::fuzzing::wire::{self, Wire};
use crate::fuzzing::{Verdict, json};
use crate::message::Body;
use crate::name::{self, ChannelName};
use crate::wire as library;
use crate::wire::{Decoded, OwnedRecipient, Recipient};

/// Runs inputs until one is found wrong, in words that hold `with`.
fn seen(target: &str, with: &str, check: impl Fn(&[u8]) -> Verdict) {
    let corpus = corpus(target);
    let mut rng = Rng::with_seed(5);
    let mutations = std::iter::repeat_with(|| mutated(&mut rng, &corpus, &[])).take(4000);
    let mut other = None;
    for input in corpus.iter().cloned().chain(mutations) {
        match check(&input) {
            Ok(()) => {}
            Err(wrong) if wrong.contains(with) => return,
            Err(wrong) => other = Some(wrong),
        }
    }
    panic!("{target}: nothing was found that says {with:?}; the last finding: {other:?}");
}

/// The wire with one function broken.
struct Broken<D, E, J, T> {
    decode: D,
    encode: E,
    json: J,
    message_type: T,
}

impl<D, E, J, T> Wire for Broken<D, E, J, T>
where
    D: Fn(Vec<u8>) -> Result<Decoded, Error>,
    E: Fn(&[u8], Recipient<'_>, usize) -> Result<Vec<u8>, Error>,
    J: Fn(&Body) -> Result<String, Error>,
    T: Fn(&Body) -> Option<Vec<u8>>,
{
    fn decode(&self, bytes: Vec<u8>) -> Result<Decoded, Error> {
        (self.decode)(bytes)
    }

    fn encode(&self, bytes: &[u8], to: Recipient<'_>, most: usize) -> Result<Vec<u8>, Error> {
        (self.encode)(bytes, to, most)
    }

    fn json(&self, body: &Body) -> Result<String, Error> {
        (self.json)(body)
    }

    fn message_type(&self, body: &Body) -> Option<Vec<u8>> {
        (self.message_type)(body)
    }
}

macro_rules! broken {
    (decode: $value:expr) => {
        Broken {
            decode: $value,
            encode: library::encode,
            json: view,
            message_type: kind,
        }
    };
    (encode: $value:expr) => {
        Broken {
            decode: library::decode,
            encode: $value,
            json: view,
            message_type: kind,
        }
    };
    (json: $value:expr) => {
        Broken {
            decode: library::decode,
            encode: library::encode,
            json: $value,
            message_type: kind,
        }
    };
    (message_type: $value:expr) => {
        Broken {
            decode: library::decode,
            encode: library::encode,
            json: view,
            message_type: $value,
        }
    };
}

fn view(body: &Body) -> Result<String, Error> {
    wire::Library.json(body)
}

fn kind(body: &Body) -> Option<Vec<u8>> {
    wire::Library.message_type(body)
}

#[test]
fn a_delivery_that_must_be_dropped_and_is_taken_is_seen() {
    let lax = |bytes: Vec<u8>| {
        // Bytes after the map are overlooked.
        (0..bytes.len().min(8))
            .find_map(|cut| library::decode(bytes[..bytes.len() - cut].to_vec()).ok())
            .map_or_else(|| library::decode(bytes), Ok)
    };
    let wire = broken!(decode: lax);
    seen("wire", "taken as a delivery", |input| {
        wire::check(&wire, input)
    });
}

#[test]
fn a_delivery_that_must_be_taken_and_is_dropped_is_seen() {
    let strict = |bytes: Vec<u8>| {
        let decoded = library::decode(bytes)?;
        if decoded.body.data().contains(&0xd4) {
            return Err(Error::invalid("delivery: ext is not for us"));
        }
        Ok(decoded)
    };
    let wire = broken!(decode: strict);
    seen("wire", "refused as a delivery", |input| {
        wire::check(&wire, input)
    });
}

#[test]
fn a_delivery_to_the_wrong_recipient_is_seen() {
    let swapped = |bytes: Vec<u8>| {
        let mut decoded = library::decode(bytes)?;
        if let OwnedRecipient::Channel(name) = decoded.recipient {
            decoded.recipient = OwnedRecipient::Group(name);
        }
        Ok(decoded)
    };
    let wire = broken!(decode: swapped);
    seen("wire", "instead of Channel", |input| {
        wire::check(&wire, input)
    });
}

#[test]
fn a_delivery_that_is_changed_is_seen() {
    let cut = |bytes: Vec<u8>| {
        let decoded = library::decode(bytes)?;
        let data = decoded.body.data().to_vec();
        let end = data.len() - usize::from(data.len() > 20);
        let group = decoded.body.group().map(ToOwned::to_owned);
        Ok(Decoded {
            recipient: decoded.recipient,
            body: Body::new(data, 0..end, group),
        })
    };
    let wire = broken!(decode: cut);
    seen("wire", "the message is", |input| wire::check(&wire, input));
}

#[test]
fn an_error_that_says_nothing_is_seen() {
    let mute = |bytes: Vec<u8>| library::decode(bytes).map_err(|_| Error::invalid("no"));
    let wire = broken!(decode: mute);
    seen("wire", "names no path", |input| wire::check(&wire, input));
    let lost = |bytes: Vec<u8>| {
        library::decode(bytes).map_err(|_| Error::new(ErrorKind::Internal, "delivery: oh: no"))
    };
    let wire = broken!(decode: lost);
    seen("wire", "instead of Invalid", |input| {
        wire::check(&wire, input)
    });
}

#[test]
fn a_message_that_must_not_go_out_and_does_is_seen() {
    let lax = |bytes: &[u8], to: Recipient<'_>, most: usize| {
        library::encode(bytes, to, most).or_else(|error| {
            if error.message().contains("ext type") {
                Ok(bytes.to_vec())
            } else {
                Err(error)
            }
        })
    };
    let wire = broken!(encode: lax);
    seen("wire", "went out", |input| wire::check(&wire, input));
}

#[test]
fn a_message_that_may_go_out_and_does_not_is_seen() {
    let strict = |bytes: &[u8], to: Recipient<'_>, most: usize| {
        if bytes.contains(&0xc4) {
            return Err(Error::invalid("message: bytes are not for us"));
        }
        library::encode(bytes, to, most)
    };
    let wire = broken!(encode: strict);
    seen("wire", "refused", |input| wire::check(&wire, input));
}

#[test]
fn integers_of_63_bits_alone_are_seen() {
    let above = |bytes: &[u8]| {
        let mut pairs = bytes.windows(2);
        pairs.any(|pair| matches!(pair, [0xcf, 0x80..=0xff]))
    };
    let refused = || Error::invalid("message.v: above 9223372036854775807");
    let strict = |bytes: &[u8], to: Recipient<'_>, most: usize| match above(bytes) {
        true => Err(refused()),
        false => library::encode(bytes, to, most),
    };
    let wire = broken!(encode: strict);
    seen("wire", "refused: message.v: above", |input| {
        wire::check(&wire, input)
    });
    let blind = |body: &Body| match above(body.data()) {
        true => Err(refused()),
        false => view(body),
    };
    let wire = broken!(json: blind);
    seen("wire", "no JSON for", |input| wire::check(&wire, input));
    seen("json", "has no view", |input| json::check(&wire, input));
}

#[test]
fn a_message_that_goes_out_changed_or_too_large_is_seen() {
    let swapped = |bytes: &[u8], _: Recipient<'_>, most: usize| {
        library::encode(bytes, Recipient::Group("room"), most)
    };
    let wire = broken!(encode: swapped);
    seen("wire", "instead of", |input| wire::check(&wire, input));
    let boundless =
        |bytes: &[u8], to: Recipient<'_>, _: usize| library::encode(bytes, to, usize::MAX);
    let wire = broken!(encode: boundless);
    seen("wire", "allowed:", |input| wire::check(&wire, input));
}

#[test]
fn a_wrong_view_is_seen() {
    let rounded = |body: &Body| Ok(view(body)?.replace("1.5", "1.6").replace(":1", ":2"));
    let wire = broken!(json: rounded);
    seen("wire", " for Map", |input| wire::check(&wire, input));
    seen("json", "became", |input| json::check(&wire, input));
    let lax = |body: &Body| Ok(view(body).unwrap_or_else(|_| "{}".to_owned()));
    let wire = broken!(json: lax);
    seen("wire", "what JSON cannot hold", |input| {
        wire::check(&wire, input)
    });
    let last = |body: &Body| kind(body).filter(|kind| kind.len() != 1);
    let wire = broken!(message_type: last);
    seen("wire", "type None instead of", |input| {
        wire::check(&wire, input)
    });
}

/// JSON text read by serde_json alone, as a simpler library would.
struct Simple;

impl Wire for Simple {
    fn encode_json(&self, text: &[u8], to: Recipient<'_>, most: usize) -> Result<Vec<u8>, Error> {
        let value: serde_json::Value = serde_json::from_slice(text)
            .map_err(|error| Error::invalid(format!("message: {error}")))?;
        let bytes = rmp_serde::to_vec(&value).map_err(|_| Error::invalid("message: no"))?;
        library::encode(&bytes, to, most)
    }
}

/// JSON text in which a comma too many is overlooked.
struct Lax;

impl Wire for Lax {
    fn encode_json(&self, text: &[u8], to: Recipient<'_>, most: usize) -> Result<Vec<u8>, Error> {
        let text = String::from_utf8_lossy(text).replace(",]", "]");
        library::encode_json(text.as_bytes(), to, most)
    }
}

/// JSON text of which an error does not say where it is wrong.
struct Lost;

impl Wire for Lost {
    fn encode_json(&self, text: &[u8], to: Recipient<'_>, most: usize) -> Result<Vec<u8>, Error> {
        library::encode_json(text, to, most).map_err(|error| {
            let (_, reason) = error.message().rsplit_once(": ").unwrap_or_default();
            Error::new(error.kind(), format!("message: {reason}"))
        })
    }
}

#[test]
fn json_that_is_read_wrongly_is_seen() {
    seen("json", "was taken in spite of", |input| {
        json::check(&Simple, input)
    });
    seen("json", "was taken; serde_json says", |input| {
        json::check(&Lax, input)
    });
    seen("json", "is wrong with", |input| json::check(&Lost, input));
}

/// Names by rules that are nearly right.
struct NearlyNames(&'static str);

impl Names for NearlyNames {
    fn parse_channel<'a>(&self, text: &'a str) -> Result<ChannelName<'a>, Error> {
        match (self.0, text.rsplit_once('!')) {
            ("split", Some((queue, local))) => name::parse_channel(text).map(|_| ChannelName {
                queue: local,
                local: queue,
            }),
            ("two marks", Some((queue, local))) => Ok(ChannelName { queue, local }),
            _ => name::parse_channel(text),
        }
    }

    fn validate_group(&self, text: &str) -> Result<(), Error> {
        match self.0 {
            "letters" if !text.is_empty() && text.chars().all(char::is_alphanumeric) => Ok(()),
            "long" if text.len() == 99 => Err(Error::invalid("allowed are 98")),
            "mute" => name::validate_group(text).map_err(|_| Error::invalid("no")),
            _ => name::validate_group(text),
        }
    }

    fn channel(&self, queue: &str, prefix: &str, random: &[u8; 12]) -> Result<String, Error> {
        let made = name::channel(queue, prefix, random)?;
        Ok(match self.0 {
            "short" => made[..made.len() - 1].to_owned(),
            _ => made,
        })
    }
}

#[test]
fn names_by_another_rule_are_seen() {
    for (rule, with) in [
        ("split", "was split to"),
        ("two marks", "was taken as a channel"),
        ("letters", "was taken as a group"),
        ("long", "was refused as a group"),
        ("mute", "does not say what is allowed"),
        ("short", "and 12 letters"),
    ] {
        seen("names", with, |input| {
            names::check(&NearlyNames(rule), input)
        });
    }
}

/// Options of a table that is nearly the right one.
struct NearlyOptions(&'static str);

impl Options for NearlyOptions {
    fn set(&self, config: &mut Config, name: &str, value: &str) -> Result<(), Error> {
        match (self.0, name) {
            ("tells", "host") => config
                .set(name, value)
                .map_err(|error| error.context(format!("option 'host' = {value}"))),
            ("range", "expiry") if value == "0.0009999" => Ok(()),
            ("leaves", "timeout") => {
                let result = config.set(name, value);
                if result.is_err() {
                    let _ = config.set("timeout", "7");
                }
                result
            }
            ("nameless", "heartbeat") => config
                .set(name, value)
                .map_err(|_| Error::invalid("a value that is not allowed")),
            _ => config.set(name, value),
        }
    }

    fn hosts(&self, text: &str) -> Result<Hosts, Error> {
        let mut hosts = endpoint::parse(text)?;
        if let ("port", Hosts::Amqp(list)) = (self.0, &mut hosts) {
            list.iter_mut().for_each(|endpoint| endpoint.port &= 0xff00);
        }
        Ok(hosts)
    }

    fn show(&self, endpoint: &Endpoint) -> String {
        match self.0 {
            "shows" => format!("{endpoint}?{}", endpoint.password),
            "unreadable" => endpoint.to_string().replace("%", ""),
            _ => endpoint.to_string(),
        }
    }
}

#[test]
fn options_by_another_table_are_seen() {
    for (rule, with) in [
        ("tells", "shows a password"),
        ("range", "allowed is seconds"),
        ("leaves", "changed the config"),
        ("nameless", "does not name option heartbeat"),
        ("port", "is not what"),
        ("shows", "a password is shown"),
        ("unreadable", "is read as"),
    ] {
        let options = NearlyOptions(rule);
        seen("options", with, |input| options::check(&options, input));
    }
}

/// AMQP by rules that are nearly right.
struct NearlyAmqp(&'static str);

impl Amqp for NearlyAmqp {
    fn next<'a>(
        &self,
        inbound: &mut Inbound,
        bytes: &'a [u8],
    ) -> Result<Option<(Received<'a>, usize)>, Malformed> {
        let next = match (self.0, inbound.next(bytes)) {
            // Waits for frames of any length.
            ("waits", Err(Malformed::TooLong)) => return Ok(None),
            (_, next) => next?,
        };
        Ok(match (self.0, next) {
            ("routes", Some((Received::Own(_), len))) => {
                Some((Received::ForLapin(&bytes[..len]), len))
            }
            // Passes on only what fills a body.
            ("cuts", Some((Received::OwnBody { channel, part }, len))) if part.len() < 3 => {
                let part = &part[..0];
                Some((Received::OwnBody { channel, part }, len))
            }
            ("stands", Some((received, _))) => Some((received, 0)),
            (_, next) => next,
        })
    }

    fn next_of_lapin<'a>(
        &self,
        bytes: &'a [u8],
        shares: Option<Shares>,
    ) -> Result<Option<(Sent<'a>, usize)>, Malformed> {
        let next = crate::amqp::next_of_lapin(bytes, shares)?;
        Ok(match (self.0, next) {
            // Passes on what there is.
            ("breaks", None) if bytes.len() > 20 => Some((Sent::AsIs(bytes), bytes.len())),
            ("loses", Some((Sent::AsIs(frame), len))) => {
                Some((Sent::AsIs(&frame[..frame.len() - 1]), len))
            }
            ("merges", Some((Sent::AsIs(frame), len))) if bytes.len() > 2 * len => {
                Some((Sent::AsIs(frame), 0))
            }
            (_, next) => next,
        })
    }

    fn method<'a>(&self, payload: &'a [u8]) -> Result<Incoming<'a>, Malformed> {
        match (self.0, Incoming::parse(payload)) {
            ("surplus", Err(Malformed::Surplus)) => Incoming::parse(&payload[..payload.len() - 1]),
            ("shorter", Err(Malformed::Truncated)) => Ok(Incoming::CancelOk),
            (_, method) => method,
        }
    }

    fn header<'a>(&self, payload: &'a [u8]) -> Result<Header<'a>, Malformed> {
        let mut header = Header::parse(payload)?;
        if self.0 == "sizes" {
            header.body_size &= 0xff_ffff;
            header.body_size |= u64::from(header.kind.is_some());
        }
        Ok(header)
    }
}

#[test]
fn streams_split_by_another_rule_are_seen() {
    for (rule, with) in [
        ("waits", "instead of"),
        ("routes", "the stream was read as"),
        ("cuts", "byte by byte the stream was read as"),
        ("stands", "0 bytes of"),
        ("breaks", "a part of a frame of lapin"),
        ("loses", "of lapin"),
        ("merges", "0 bytes of"),
        ("surplus", "a method with a byte behind it"),
        ("shorter", "of a method of"),
        ("sizes", "the body has"),
    ] {
        seen("amqp", with, |input| amqp::check(&NearlyAmqp(rule), input));
    }
}
