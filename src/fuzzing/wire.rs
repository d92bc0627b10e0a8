//! Bytes as a delivery, and as a message to be sent.

use crate::error::{Error, ErrorKind};
use crate::message::Body;
use crate::wire::{self, Decoded, OwnedRecipient, Recipient};

use super::json_reading::Json;
use super::reading::{self, Entry};
use super::{Verdict, ensure};

/// What is under test; a test puts a broken one in its place.
pub(super) trait Wire {
    fn decode(&self, bytes: Vec<u8>) -> Result<Decoded, Error> {
        wire::decode(bytes)
    }

    fn encode(&self, bytes: &[u8], to: Recipient<'_>, most: usize) -> Result<Vec<u8>, Error> {
        wire::encode(bytes, to, most)
    }

    fn encode_json(&self, text: &[u8], to: Recipient<'_>, most: usize) -> Result<Vec<u8>, Error> {
        wire::encode_json(text, to, most)
    }

    fn json(&self, body: &Body) -> Result<String, Error> {
        let text = wire::json(body)?;
        Ok(text.to_str().expect("JSON text is UTF-8").to_owned())
    }

    fn message_type(&self, body: &Body) -> Option<Vec<u8>> {
        wire::message_type(body).map(|text| text.to_bytes().to_vec())
    }
}

/// The library as it is.
pub(super) struct Library;

impl Wire for Library {}

const TO: [Recipient<'static>; 2] = [
    Recipient::Channel("channels_abcdefghijkl!xyz"),
    Recipient::Group("room"),
];

pub(super) fn check(wire: &dyn Wire, input: &[u8]) -> Verdict {
    incoming(wire, input)?;
    outgoing(wire, input)?;
    // As one value in a message that is right apart from it, which few bytes are by chance.
    let value = [b"\x81\xa1v", input].concat();
    outgoing(wire, &value)?;
    incoming(wire, &[b"\x82\xae__asgi_group__\xa1g\xa1v", input].concat())?;
    incoming(
        wire,
        &[b"\x82\xa1v", input, b"\xb0__asgi_channel__\xa3a!b"].concat(),
    )
}

/// An error that says what is wrong with what.
pub(super) fn good_error(error: &Error, root: &str) -> Verdict {
    ensure!(
        error.kind() == ErrorKind::Invalid,
        "{:?} instead of Invalid: {error}",
        error.kind()
    );
    let text = error.to_string();
    let path = text.strip_prefix(root).unwrap_or_default();
    ensure!(
        path.starts_with([':', '.', '[']) && path.contains(": "),
        "the error names no path from {root:?}: {text}"
    );
    ensure!(text.len() < 4096, "an error of {} bytes", text.len());
    Ok(())
}

fn incoming(wire: &dyn Wire, bytes: &[u8]) -> Verdict {
    match (wire.decode(bytes.to_vec()), reading::delivery(bytes)) {
        (Err(error), None) => good_error(&error, "delivery"),
        (Ok(_), None) => Err(format!("taken as a delivery: {bytes:02x?}")),
        (Err(error), Some(_)) => Err(format!("refused as a delivery: {error}: {bytes:02x?}")),
        (Ok(decoded), Some(expected)) => {
            let recipient = match expected.to_group {
                true => OwnedRecipient::Group(expected.name.clone()),
                false => OwnedRecipient::Channel(expected.name.clone()),
            };
            ensure!(
                decoded.recipient == recipient,
                "for {:?} instead of {recipient:?}",
                decoded.recipient
            );
            let group = decoded.body.group().map(|group| group.to_bytes().to_vec());
            ensure!(
                group == expected.to_group.then(|| expected.name.into_bytes()),
                "the body is of group {group:?}, for {recipient:?}"
            );
            let data = decoded.body.data();
            ensure!(
                data == expected.data,
                "the message is {data:02x?} instead of {:02x?}",
                expected.data
            );
            views(wire, &decoded.body)?;
            // What may go out goes out as it came in.
            outgoing(wire, data)
        }
    }
}

/// The views of a message that came in.
fn views(wire: &dyn Wire, body: &Body) -> Verdict {
    let data = body.data();
    let kind = reading::entries(data)
        .unwrap_or_default()
        .iter()
        .find(|entry| reading::text(entry.key).is_some_and(|key| key == b"type"))
        .and_then(|entry| reading::text(entry.value))
        .filter(|text| str::from_utf8(text).is_ok() && !text.contains(&0));
    let found = wire.message_type(body);
    ensure!(found == kind, "type {found:?} instead of {kind:?}");

    let value = reading::value(data);
    match (wire.json(body), value.filter(reading::Value::fits_json)) {
        (Err(error), None) => good_error(&error, "message"),
        (Ok(text), None) => Err(format!("what JSON cannot hold became {text}")),
        (Err(error), Some(value)) => Err(format!("no JSON for {value:?}: {error}")),
        (Ok(text), Some(value)) => {
            if let Some(json) = Json::read(text.as_bytes())? {
                ensure!(json.is(&value), "{text} for {value:?}");
            }
            json_back(wire, &text)
        }
    }
}

/// A JSON view is taken as JSON text, and is then the same.
fn json_back(wire: &dyn Wire, text: &str) -> Verdict {
    let body = match wire.encode_json(text.as_bytes(), TO[1], usize::MAX) {
        Ok(body) => body,
        // A foreign sender may have used our keys: both at once is no delivery, one is taken out.
        Err(error) if error.message().contains("is reserved") => return Ok(()),
        Err(error) => return Err(format!("our own JSON is refused: {error}: {text}")),
    };
    let decoded = wire
        .decode(body)
        .map_err(|error| format!("JSON became no delivery: {error}: {text}"))?;
    let again = wire
        .json(&decoded.body)
        .map_err(|error| format!("JSON is not JSON again: {error}: {text}"))?;
    ensure!(again == text, "{text} became {again}");
    Ok(())
}

fn outgoing(wire: &dyn Wire, bytes: &[u8]) -> Verdict {
    let expected = reading::may_go_out(bytes);
    for to in TO {
        match (wire.encode(bytes, to, usize::MAX), expected) {
            (Err(error), false) => good_error(&error, "message")?,
            (Ok(_), false) => return Err(format!("went out: {bytes:02x?}")),
            (Err(error), true) => return Err(format!("refused: {error}: {bytes:02x?}")),
            (Ok(body), true) => went_out(wire, bytes, to, &body)?,
        }
    }
    Ok(())
}

/// Holds a body that was made of `message` against the rules.
pub(super) fn went_out(wire: &dyn Wire, message: &[u8], to: Recipient<'_>, body: &[u8]) -> Verdict {
    let (key, name) = match to {
        Recipient::Channel(name) => (&b"\xb0__asgi_channel__"[..], name),
        Recipient::Group(name) => (&b"\xae__asgi_group__"[..], name),
    };
    let encoded_name = [&[0xa0 + name.len() as u8], name.as_bytes()].concat();
    let mut entries = reading::entries(message).ok_or("the reading refuses it after all")?;
    let own = reading::map_of(&entries);
    entries.push(Entry {
        key,
        value: &encoded_name,
    });
    let expected = reading::map_of(&entries);
    ensure!(
        body == expected,
        "sent {body:02x?} instead of {expected:02x?}"
    );
    // As a third reader sees it.
    let mut rest = body;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    let read: Result<serde::de::IgnoredAny, _> = serde::Deserialize::deserialize(&mut reader);
    ensure!(
        read.is_ok() && rest.is_empty(),
        "rmp_serde does not read {body:02x?}"
    );

    let decoded = wire
        .decode(body.to_vec())
        .map_err(|error| format!("what went out does not come in: {error}: {body:02x?}"))?;
    let came_to = match &decoded.recipient {
        OwnedRecipient::Channel(name) => Recipient::Channel(name),
        OwnedRecipient::Group(name) => Recipient::Group(name),
    };
    ensure!(came_to == to, "sent to {to:?}, came to {came_to:?}");
    ensure!(
        decoded.body.data() == own,
        "sent {own:02x?}, came as {:02x?}",
        decoded.body.data()
    );

    let exact = wire.encode(message, to, body.len());
    ensure!(exact.is_ok(), "refused at its very size: {exact:?}");
    let short = wire.encode(message, to, body.len() - 1);
    ensure!(
        short
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::TooLarge),
        "{} bytes with {} allowed: {short:?}",
        body.len(),
        body.len() - 1
    );
    Ok(())
}
