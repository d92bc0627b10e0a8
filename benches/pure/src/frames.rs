//! AMQP as bytes: what is published and what is delivered, on AMQP channels of our own.

use std::hint::black_box;

use crate::amqp::{
    Header, Inbound, Incoming, Kind, Name, Properties, Publish, Received, Tune, Writer,
    next_of_lapin, write_heartbeat, write_tune,
};
use crate::messages::{CHANNEL, LARGE, small};
use crate::work::{Case, Work, steady};

/// As RabbitMQ grants it.
const GRANTED: Tune = Tune {
    channel_max: 2047,
    frame_max: 131_072,
    heartbeat: 60,
};

/// The first AMQP channel that is ours then.
const OURS: u16 = 1984;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("amqp/publish/200", 100, || publish(small())),
        Case::new("amqp/publish/64k", 100, || publish(vec![7; LARGE])),
        Case::new("amqp/read/confirm", 100, || read(&confirm())),
        Case::new("amqp/read/delivery_200", 100, || read(&delivery(&small()))),
        Case::new("amqp/read/delivery_64k", 100, || {
            read(&delivery(&vec![7; LARGE]))
        }),
        Case::new("amqp/read/for_lapin", 100, for_lapin),
    ]
}

fn name(text: &str) -> Name<'_> {
    Name::new(text).expect("a short name")
}

/// All frames of a message, into a buffer that was used before.
fn publish(body: Vec<u8>) -> Box<dyn Work> {
    let mut out = Vec::with_capacity(2 * body.len());
    steady(move || {
        out.clear();
        let publish = Publish {
            exchange: name(""),
            routing_key: name("channels_kQzWmVbTrXpA"),
            mandatory: true,
            properties: Properties {
                expiration: Some(name("60000")),
                message_id: Some(name("4711")),
                ..Properties::default()
            },
        };
        let mut writer = Writer::new(&mut out, OURS);
        writer.publish(&publish, body.len());
        writer.body(&body, GRANTED.frame_max as usize);
        out.len()
    })
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short frame");
    let head = [&[kind], &OURS.to_be_bytes()[..], &len.to_be_bytes()].concat();
    [&head, payload, &[0xce]].concat()
}

fn short(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).expect("a short string");
    [&[len], text.as_bytes()].concat()
}

fn confirm() -> Vec<u8> {
    let tag = 4711_u64.to_be_bytes();
    frame(1, &[&[0, 60, 0, 80], &tag[..], &[1]].concat())
}

/// What a broker sends for a message to a channel.
fn delivery(body: &[u8]) -> Vec<u8> {
    let (tag, key) = (short("1"), short(CHANNEL));
    let number = 4711_u64.to_be_bytes();
    let method = [&[0, 60, 0, 60], &tag[..], &number, &[0], &short(""), &key].concat();
    let size = (body.len() as u64).to_be_bytes();
    // Its expiration and its message id.
    let flags = (1_u16 << 8 | 1 << 7).to_be_bytes();
    let properties = [short("60000"), short("4711")].concat();
    let header = [&[0, 60, 0, 0], &size[..], &flags, &properties].concat();
    [frame(1, &method), frame(2, &header), frame(3, body)].concat()
}

/// Reads all frames of `stream`, which is whole.
fn read(stream: &[u8]) -> Box<dyn Work> {
    let stream = stream.to_vec();
    let mut inbound = agreed();
    steady(move || {
        let mut rest = stream.as_slice();
        while let Ok(Some((received, len))) = inbound.next(rest) {
            match received {
                Received::Own(frame) if frame.head.kind == Kind::Method => {
                    let _ = black_box(Incoming::parse(frame.payload));
                }
                Received::Own(frame) => {
                    let _ = black_box(Header::parse(frame.payload));
                }
                received => {
                    black_box(received);
                }
            }
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
    })
}

fn agreed() -> Inbound {
    let mut inbound = Inbound::new();
    let mut tune = Vec::new();
    write_tune(GRANTED, &mut tune);
    inbound.next(&tune).expect("it is whole");
    inbound
}

/// A frame of the broker's for lapin, and one of lapin's.
fn for_lapin() -> Box<dyn Work> {
    let mut heartbeat = Vec::new();
    write_heartbeat(&mut heartbeat);
    let mut inbound = agreed();
    steady(move || {
        let received = inbound
            .next(&heartbeat)
            .map(|next| next.map(|(_, len)| len));
        let sent = next_of_lapin(&heartbeat, inbound.shares()).map(|next| next.map(|(_, len)| len));
        (received, sent)
    })
}
