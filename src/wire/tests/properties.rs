//! What holds for any message, and for any bytes.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rmp::encode as put;

use super::*;
use crate::wire::msgpack::{Head, Reader, Token};

/// Any value that may go out.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float32(f32),
    Float64(f64),
    Str(String),
    Bin(Vec<u8>),
    Array(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// Encodes by the crate rmp, so that the two are held against each other.
    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Nil => put::write_nil(to).unwrap(),
            Self::Bool(value) => put::write_bool(to, *value).unwrap(),
            Self::Int(value) => drop(put::write_sint(to, *value).unwrap()),
            Self::Uint(value) => drop(put::write_uint(to, *value).unwrap()),
            Self::Float32(value) => put::write_f32(to, *value).unwrap(),
            Self::Float64(value) => put::write_f64(to, *value).unwrap(),
            Self::Str(value) => put::write_str(to, value).unwrap(),
            Self::Bin(value) => put::write_bin(to, value).unwrap(),
            Self::Array(items) => {
                put::write_array_len(to, items.len() as u32).unwrap();
                items.iter().for_each(|item| item.write(to));
            }
            Self::Map(entries) => {
                put::write_map_len(to, entries.len() as u32).unwrap();
                write_entries(entries, to);
            }
        }
    }

    /// Whether the JSON view of it can be read back as the same.
    fn fits_json(&self) -> bool {
        match self {
            Self::Float32(_) => false,
            Self::Float64(value) => value.is_finite(),
            Self::Str(text) => !text.starts_with(BYTES_MARK),
            Self::Array(items) => items.iter().all(Self::fits_json),
            Self::Map(entries) => entries.values().all(Self::fits_json),
            _ => true,
        }
    }
}

fn write_entries(entries: &BTreeMap<String, Value>, to: &mut Vec<u8>) {
    for (key, value) in entries {
        put::write_str(to, key).unwrap();
        value.write(to);
    }
}

fn bytes_of(entries: &BTreeMap<String, Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Value::Map(entries.clone()).write(&mut bytes);
    bytes
}

fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-70_000..70_000_i64).prop_map(Value::Int),
        any::<u64>().prop_map(Value::Uint),
        any::<f32>().prop_map(Value::Float32),
        proptest::num::f64::ANY.prop_map(Value::Float64),
        any::<f64>().prop_map(Value::Float64),
        "\\PC{0,8}|[\u{0}-\u{7f}]{0,8}".prop_map(Value::Str),
        (0..300_usize).prop_map(|len| Value::Str("x".repeat(len))),
        vec(any::<u8>(), 0..8).prop_map(Value::Bin),
        (0..300_usize).prop_map(|len| Value::Bin(vec![7; len])),
    ];
    scalar.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map("\\PC{0,4}", inner, 0..4).prop_map(Value::Map),
        ]
    })
}

fn any_message() -> impl Strategy<Value = BTreeMap<String, Value>> {
    btree_map("[a-z\u{e9}]{0,4}|[a-z]{32,40}", any_value(), 0..18)
}

/// How many entries a map has, and their bytes, whatever the width of its head.
fn split_map(bytes: &[u8]) -> (u32, &[u8]) {
    let mut reader = Reader::new(bytes);
    match reader.token().unwrap() {
        Token::Map(count) => (count, reader.rest()),
        token => panic!("{token:?}"),
    }
}

/// The head of a map of `count` entries in a chosen width, if it fits.
fn wide_head(width: usize, count: u32) -> Vec<u8> {
    match width {
        1 if count < 16 => vec![0x80 | count as u8],
        1 | 3 => [&b"\xde"[..], &(count as u16).to_be_bytes()].concat(),
        _ => [&b"\xdf"[..], &count.to_be_bytes()].concat(),
    }
}

/// Runs all that reads a delivery; none of it may panic or loop.
fn read_all(bytes: &[u8]) {
    let _ = encode(bytes, TO_GROUP, NO_LIMIT);
    let _ = encode_json(bytes, TO_GROUP, NO_LIMIT);
    let raw = Body::new(bytes.to_vec(), 0..bytes.len(), None);
    let _ = (json(&raw).is_ok(), message_type(&raw));
    if let Ok(decoded) = decode(bytes.to_vec()) {
        let (before, _) = split_map(bytes);
        let data = decoded.body.data();
        let (after, _) = split_map(data);
        assert_eq!(after, before - 1);
        let mut reader = Reader::new(data);
        reader.skip().unwrap();
        assert!(reader.rest().is_empty());
        let _ = (json(&decoded.body).is_ok(), message_type(&decoded.body));
    }
}

/// Pieces of JSON in no order.
fn any_jsonish() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[\\[\\]{},:]",
        2 => "\"[a-c]\"",
        2 => "\"[a-c]\":",
        1 => "\"(\\\\[\"\\\\/bfnrtux]|\\\\u[0-9a-fA-F]{3,4}|\\PC|[\u{0}-\u{20}]){0,4}\"",
        2 => "-?[0-9]{1,20}",
        1 => "-?[0-9]{0,3}(\\.[0-9]{0,20})?([eE][+-]?[0-9]{0,3})?",
        1 => "true|false|null|tru|nan",
        1 => "[ \n\t\r\u{b}]",
        1 => "\\PC",
    ];
    vec(piece, 0..12).prop_map(|pieces| format!("{{\"v\":{}}}", pieces.concat()))
}

/// JSON, half of it with one character put in or left out.
fn nearly_json() -> impl Strategy<Value = String> {
    const STRING: &str = "\"(\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-cA-C][0-9a-fA-F]{3}|\
                          \\\\ud[89ab][0-9a-f]{2}\\\\ud[c-f][0-9]{2}|[a-z\u{e9}\u{20ac}]){0,4}\"";
    let scalar = prop_oneof![
        2 => "null|true|false",
        3 => "-?(0|[1-9][0-9]{0,19})",
        1 => "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?",
        3 => STRING,
    ];
    let value = scalar.prop_recursive(4, 16, 4, |inner| {
        let spaced =
            ("[ \n\t\r]{0,2}", inner).prop_map(|(space, value)| format!("{space}{value}{space}"));
        prop_oneof![
            vec(spaced.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            vec((STRING, spaced), 0..4).prop_map(|entries| {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| format!("{key}:{value}"))
                    .collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    });
    let change = proptest::option::of((
        any::<prop::sample::Index>(),
        "[\\[\\]{}:,\"\\\\0-9 .eEun\u{1}+-]?",
    ));
    (value, change).prop_map(|(value, change)| {
        let mut text: Vec<char> = format!("{{\"v\":{value}}}").chars().collect();
        if let Some((at, new)) = change {
            let at = at.index(text.len());
            let left_out = at + usize::from(new.is_empty());
            text.splice(at..left_out, new.chars());
        }
        text.into_iter().collect()
    })
}

/// The text with its large numbers made small.
fn tamed(text: &str) -> String {
    let mut tamed = String::new();
    for digits_or_not in text.split_inclusive(|character: char| !character.is_ascii_digit()) {
        let digits = digits_or_not.trim_end_matches(|character: char| !character.is_ascii_digit());
        let rest = &digits_or_not[digits.len()..];
        tamed.push_str(if digits.len() > 18 { "1" } else { digits });
        tamed.push_str(rest);
    }
    tamed
}

/// Whether JSON text that serde_json takes is beyond what a message may hold, or is read otherwise.
fn beyond_a_message(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => number.is_f64(),
        serde_json::Value::String(text) => text.starts_with(BYTES_MARK),
        serde_json::Value::Array(items) => items.iter().any(beyond_a_message),
        serde_json::Value::Object(entries) => entries.values().any(beyond_a_message),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_went(message in any_message(), name in "[a-zA-Z0-9_.-]{1,99}") {
        let bytes = bytes_of(&message);
        let body = encode(&bytes, Recipient::Group(&name), NO_LIMIT).unwrap();
        prop_assert_eq!(body.capacity(), body.len());
        rmp_serde::from_slice::<serde::de::IgnoredAny>(&body).unwrap();
        let decoded = decode(body).unwrap();
        prop_assert_eq!(split_map(decoded.body.data()), split_map(&bytes));
        prop_assert_eq!(decoded.body.group().unwrap().to_bytes(), name.as_bytes());
        prop_assert_eq!(decoded.recipient, OwnedRecipient::Group(name));
    }

    #[test]
    fn a_message_of_json_comes_back_as_it_went(message in any_message()) {
        let bytes = bytes_of(&message);
        let raw = Body::new(bytes.clone(), 0..bytes.len(), None);
        if message.values().all(Value::fits_json) {
            let text = json(&raw).unwrap();
            let body = encode_json(text.to_bytes(), TO_CHANNEL, NO_LIMIT).unwrap();
            prop_assert_eq!(&body, &encode(&bytes, TO_CHANNEL, NO_LIMIT).unwrap());
            prop_assert_eq!(body.capacity(), body.len());
            let again = decode(body).unwrap();
            prop_assert_eq!(json(&again.body).unwrap(), text);
            serde_json::from_slice::<serde::de::IgnoredAny>(text.to_bytes()).unwrap();
        }
    }

    #[test]
    fn the_recipient_is_found_at_any_place(
        message in any_message(),
        at in any::<prop::sample::Index>(),
        width in prop::sample::select(vec![1_usize, 3, 5]),
    ) {
        let mut entries: Vec<Vec<u8>> = message
            .iter()
            .map(|(key, value)| {
                let mut entry = Vec::new();
                put::write_str(&mut entry, key).unwrap();
                value.write(&mut entry);
                entry
            })
            .collect();
        let rest = entries.concat();
        entries.insert(at.index(entries.len() + 1), GROUP_ENTRY.to_vec());
        let mut delivery = wide_head(width, entries.len() as u32);
        delivery.extend_from_slice(&entries.concat());
        let decoded = decode(delivery).unwrap();
        prop_assert_eq!(split_map(decoded.body.data()), (message.len() as u32, &rest[..]));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
        let in_map = [b"\x82", GROUP_ENTRY, b"\xa1v", &bytes].concat();
        read_all(&in_map);
    }

    #[test]
    fn a_damaged_delivery_is_read_or_refused(
        message in any_message(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut body = encode(&bytes_of(&message), TO_CHANNEL, NO_LIMIT).unwrap();
        prop_assert!(decode(body[..end.index(body.len())].to_vec()).is_err());
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        read_all(&body);
    }

    #[test]
    fn what_is_well_formed_is_agreed_with_rmp_serde(bytes in vec(any::<u8>(), 1..40)) {
        let ours = {
            let mut reader = Reader::new(&bytes);
            reader.skip().is_ok().then(|| reader.rest().len())
        };
        let mut rest = &bytes[..];
        let theirs = {
            let mut reader = rmp_serde::Deserializer::new(&mut rest);
            let read: Result<serde::de::IgnoredAny, _> = serde::Deserialize::deserialize(&mut reader);
            read.is_ok()
        };
        prop_assert_eq!(ours, theirs.then_some(rest.len()));
    }

    #[test]
    fn heads_are_those_of_rmp(
        value in any::<i64>(),
        unsigned in any::<u64>(),
        shift in 0..64_u32,
        len in 0..200_000_usize,
    ) {
        let (value, unsigned) = (value >> shift, unsigned >> shift);
        let mut theirs = Vec::new();
        put::write_sint(&mut theirs, value).unwrap();
        put::write_uint(&mut theirs, unsigned).unwrap();
        let ours = [Head::int(value), Head::uint(unsigned)].map(|head| head.as_slice().to_vec());
        prop_assert_eq!(ours.concat(), theirs);
        for len in [len, len % 300, len % 40] {
            let mut theirs = Vec::new();
            put::write_str_len(&mut theirs, len as u32).unwrap();
            put::write_bin_len(&mut theirs, len as u32).unwrap();
            put::write_array_len(&mut theirs, len as u32).unwrap();
            put::write_map_len(&mut theirs, len as u32).unwrap();
            let ours = [Head::str(len), Head::bin(len), Head::array(len), Head::map(len)]
                .map(|head| head.unwrap().as_slice().to_vec())
                .concat();
            prop_assert_eq!(ours, theirs);
        }
    }
}

#[test]
fn a_number_that_is_too_large_under_a_key_that_stands_twice_is_refused_for_either() {
    let text = r#"{"v":{"":{"":20000000000000000000,"":null}}}"#;
    let refused = |text: &str| encode_json(text.as_bytes(), TO_GROUP, NO_LIMIT).unwrap_err();
    assert!(refused(text).message().contains("is outside"));
    assert!(refused(&tamed(text)).message().contains("twice"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn json_text_is_read_as_serde_json_reads_it(text in prop_oneof![any_jsonish(), nearly_json()]) {
        let ours = encode_json(text.as_bytes(), TO_GROUP, NO_LIMIT);
        match (serde_json::from_str::<serde_json::Value>(&text), ours) {
            // Beyond a message: too large a number, or bytes. A float is compared elsewhere.
            (Ok(value), _) if beyond_a_message(&value) => {}
            (Ok(value), Ok(body)) => {
                let decoded = decode(body).unwrap();
                let read: serde_json::Value = rmp_serde::from_slice(decoded.body.data()).unwrap();
                prop_assert_eq!(read, value);
            }
            (Ok(_), Err(error)) => {
                // Where a key stands twice, serde_json forgets the first value, which may be too large.
                let error = match encode_json(tamed(&text).as_bytes(), TO_GROUP, NO_LIMIT) {
                    Err(tamed) if error.message().contains("is outside") => tamed,
                    _ => error,
                };
                prop_assert!(
                    error.message().contains("twice"), "{} was refused: {}", text, error
                );
            }
            (Err(error), Ok(_)) => prop_assert!(false, "{} was taken: {}", text, error),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn floats_of_json_text_are_exact(value in any::<f64>()) {
        let text = format!("{{\"v\":{value:e}}}");
        let body = encode_json(text.as_bytes(), TO_GROUP, NO_LIMIT).unwrap();
        let expected = [&b"\x82\xa1v\xcb"[..], &value.to_be_bytes(), GROUP_ENTRY].concat();
        prop_assert_eq!(body, expected);
    }
}
