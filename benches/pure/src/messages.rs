//! The wire: messages of a chat, as Django Channels would send them.

use std::hint::black_box;
use std::ops::Range;

use crate::message::Body;
use crate::wire::{self, Recipient};
use crate::work::{Case, Work, fed, steady};

/// A channel and a group as they are named in practice.
pub(crate) const CHANNEL: &str = "channels_kQzWmVbTrXpA!specific.hYtGfRdEsWaQ";
pub(crate) const GROUP: &str = "chat.room-4711";

const TO_CHANNEL: Recipient<'static> = Recipient::Channel(CHANNEL);
const TO_GROUP: Recipient<'static> = Recipient::Group(GROUP);

/// The option `max_message_size` as it is by default.
const MAX_SIZE: usize = 16 << 20;

const SMALL: usize = 200;
pub(crate) const LARGE: usize = 64 << 10;

/// One message of a chat.
pub(crate) fn small() -> Vec<u8> {
    to_message(&small_json())
}

fn small_json() -> String {
    padded(SMALL, |text| chat(text, 4711))
}

/// Nearly all of it one string.
fn text() -> Vec<u8> {
    to_message(&padded(LARGE, |text| chat(text, 4711)))
}

/// Many messages in one: many small values.
fn history() -> Vec<u8> {
    to_message(&history_json())
}

fn history_json() -> String {
    padded(LARGE, |text| {
        let messages: Vec<String> = (0..400)
            .map(|number| chat("Did you see the notes of today?", number))
            .collect();
        let messages = messages.join(", ");
        format!(
            r#"{{"type": "chat.history", "room": "lobby", "title": "{text}", "messages": [{messages}]}}"#
        )
    })
}

fn chat(text: &str, id: u32) -> String {
    format!(
        r#"{{"type": "chat.message", "text": "{text}", "user": {{"id": {id}, "name": "Ada Lovelace", "staff": false}}, "at": 1767225600.25, "tags": ["math", "engines"], "reply": null}}"#
    )
}

/// The JSON text for which `json` is given a text of the length that makes it a message of `size`
/// bytes.
fn padded(size: usize, json: impl Fn(&str) -> String) -> String {
    let words = "The engine weaves algebraical patterns just as the loom weaves flowers. ";
    let mut length = 0;
    // Twice, since a longer text may have a longer head.
    for _ in 0..2 {
        let without = to_message(&json(&words.repeat(size / words.len() + 1)[..length])).len();
        length = (length + size)
            .checked_sub(without)
            .expect("the message is too long already");
    }
    let json = json(&words.repeat(size / words.len() + 1)[..length]);
    assert_eq!(to_message(&json).len(), size);
    json
}

fn to_message(json: &str) -> Vec<u8> {
    let bytes = wire::encode_json(json.as_bytes(), TO_GROUP, MAX_SIZE).expect("good JSON");
    wire::decode(bytes).expect("our own").body.data().to_vec()
}

/// `message` as it arrives.
pub(crate) fn delivery(message: &[u8], to: Recipient<'_>) -> Vec<u8> {
    wire::encode(message, to, MAX_SIZE).expect("a good message")
}

/// Where the value of a key of the small message is.
fn value_of(message: &[u8], key: &str) -> Range<usize> {
    let at = message
        .windows(key.len())
        .position(|window| window == key.as_bytes())
        .expect("the key is there");
    at + key.len()..message.len()
}

fn encoding(message: Vec<u8>, to: Recipient<'static>) -> Box<dyn Work> {
    wire::encode(&message, to, MAX_SIZE).expect("a good message");
    steady(move || wire::encode(black_box(&message), black_box(to), MAX_SIZE))
}

fn refusing(message: Vec<u8>) -> Box<dyn Work> {
    wire::encode(&message, TO_GROUP, MAX_SIZE).expect_err("a bad message");
    steady(move || wire::encode(black_box(&message), TO_GROUP, MAX_SIZE))
}

fn encoding_json(json: String) -> Box<dyn Work> {
    wire::encode_json(json.as_bytes(), TO_GROUP, MAX_SIZE).expect("good JSON");
    steady(move || wire::encode_json(black_box(json.as_bytes()), TO_GROUP, MAX_SIZE))
}

fn decoding(message: Vec<u8>, to: Recipient<'static>) -> Box<dyn Work> {
    let delivery = delivery(&message, to);
    wire::decode(delivery.clone()).expect("our own");
    fed(move || delivery.clone(), wire::decode)
}

/// A view of a body that has none yet.
fn viewing<R>(message: Vec<u8>, view: impl Fn(&Body) -> R + 'static) -> Box<dyn Work> {
    let length = message.len();
    fed(
        move || Body::new(message.clone(), 0..length, None),
        move |body| {
            black_box(view(&body));
            body
        },
    )
}

fn json_view(message: Vec<u8>) -> Box<dyn Work> {
    viewing(message, |body| {
        wire::json(body)
            .expect("it came from JSON")
            .to_bytes()
            .len()
    })
}

fn type_view(message: Vec<u8>) -> Box<dyn Work> {
    viewing(message, |body| {
        wire::message_type(body)
            .expect("it has one")
            .to_bytes()
            .len()
    })
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("wire/encode/channel_200", 100, || {
            encoding(small(), TO_CHANNEL)
        }),
        Case::new("wire/encode/group_200", 100, || encoding(small(), TO_GROUP)),
        Case::new("wire/encode/channel_64k_text", 10, || {
            encoding(text(), TO_CHANNEL)
        }),
        Case::new("wire/encode/group_64k_text", 10, || {
            encoding(text(), TO_GROUP)
        }),
        Case::new("wire/encode/channel_64k_values", 10, || {
            encoding(history(), TO_CHANNEL)
        }),
        Case::new("wire/encode/group_64k_values", 10, || {
            encoding(history(), TO_GROUP)
        }),
        Case::new("wire/refuse/bytes_in_a_string", 100, || {
            let mut message = small();
            let name = value_of(&message, "name");
            message[name.start + 1] = 0xff;
            refusing(message)
        }),
        Case::new("wire/refuse/end_missing", 100, || {
            let mut message = small();
            message.pop();
            refusing(message)
        }),
        Case::new("wire/decode/channel_200", 100, || {
            decoding(small(), TO_CHANNEL)
        }),
        Case::new("wire/decode/group_200", 100, || decoding(small(), TO_GROUP)),
        Case::new("wire/decode/channel_64k_text", 10, || {
            decoding(text(), TO_CHANNEL)
        }),
        Case::new("wire/decode/group_64k_values", 10, || {
            decoding(history(), TO_GROUP)
        }),
        Case::new("wire/type/200", 100, || type_view(small())),
        Case::new("wire/from_json/200", 100, || encoding_json(small_json())),
        Case::new("wire/from_json/64k_values", 3, || {
            encoding_json(history_json())
        }),
        Case::new("wire/to_json/200", 100, || json_view(small())),
        Case::new("wire/to_json/64k_values", 3, || json_view(history())),
    ]
}
