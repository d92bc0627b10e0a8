//! What we write, read by `amq-protocol`, and what that writes, read by us.

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{
    AMQPClass, BasicProperties, basic, channel, confirm, connection, exchange, queue,
};
use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

const FRAME_MAX: usize = 131_072;
const CHANNEL: u16 = 40_000;

/// The frames that `write` writes, as the other reads them.
fn read_by_other(write: impl FnOnce(&mut Writer<'_>)) -> Vec<AMQPFrame> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out, CHANNEL));
    let mut rest = out.as_slice();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (left, frame) = parse_frame(rest).unwrap();
        frames.push(frame);
        rest = left;
    }
    frames
}

fn written_by_other(frame: &AMQPFrame) -> Vec<u8> {
    let (bytes, _) = gen_frame(frame)(WriteContext::from(Vec::new()))
        .unwrap()
        .into_inner();
    bytes
}

/// The payload of the one frame that `bytes` are.
fn payload(bytes: &[u8]) -> (Head, &[u8]) {
    let (frame, len) = Frame::split(bytes, FRAME_MAX).unwrap().unwrap();
    assert_eq!(len, bytes.len());
    (frame.head, frame.payload)
}

fn read_method(class: AMQPClass, check: impl FnOnce(Incoming<'_>)) {
    let bytes = written_by_other(&AMQPFrame::Method(CHANNEL, class));
    let (head, payload) = payload(&bytes);
    assert_eq!((head.kind, head.channel), (Kind::Method, CHANNEL));
    check(Incoming::parse(payload).unwrap());
    // Nothing shorter or longer is one.
    for len in 0..payload.len() {
        assert_eq!(
            Incoming::parse(&payload[..len]).err(),
            Some(Malformed::Truncated),
            "{len}"
        );
    }
    let longer = [payload, &[0]].concat();
    assert_eq!(Incoming::parse(&longer).err(), Some(Malformed::Surplus));
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text.to_owned()).unwrap()
}

fn name(text: &str) -> Name<'_> {
    Name::new(text).unwrap()
}

#[test]
fn what_a_broker_answers_is_read_as_it_was_written() {
    let expect = |class: AMQPClass, wanted: Incoming<'static>| {
        read_method(class, |read| assert_eq!(read, wanted));
    };
    use {basic::AMQPMethod as B, channel::AMQPMethod as C, exchange::AMQPMethod as E};
    expect(
        AMQPClass::Channel(C::OpenOk(channel::OpenOk {})),
        Incoming::ChannelOpenOk,
    );
    for active in [false, true] {
        expect(
            AMQPClass::Channel(C::Flow(channel::Flow { active })),
            Incoming::ChannelFlow { active },
        );
    }
    expect(
        AMQPClass::Channel(C::Close(channel::Close {
            reply_code: 406,
            reply_text: short("PRECONDITION_FAILED - message size 2 is larger"),
            class_id: 60,
            method_id: 40,
        })),
        Incoming::ChannelClose(Close {
            reply_code: 406,
            reply_text: b"PRECONDITION_FAILED - message size 2 is larger",
            class: 60,
            method: 40,
        }),
    );
    expect(
        AMQPClass::Channel(C::CloseOk(channel::CloseOk {})),
        Incoming::ChannelCloseOk,
    );
    expect(
        AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})),
        Incoming::ConfirmSelectOk,
    );
    expect(
        AMQPClass::Queue(queue::AMQPMethod::BindOk(queue::BindOk {})),
        Incoming::QueueBindOk,
    );
    expect(
        AMQPClass::Queue(queue::AMQPMethod::UnbindOk(queue::UnbindOk {})),
        Incoming::QueueUnbindOk,
    );
    expect(
        AMQPClass::Exchange(E::BindOk(exchange::BindOk {})),
        Incoming::ExchangeBindOk,
    );
    expect(
        AMQPClass::Exchange(E::UnbindOk(exchange::UnbindOk {})),
        Incoming::ExchangeUnbindOk,
    );
    expect(AMQPClass::Basic(B::QosOk(basic::QosOk {})), Incoming::QosOk);
    expect(
        AMQPClass::Basic(B::ConsumeOk(basic::ConsumeOk {
            consumer_tag: short("tag"),
        })),
        Incoming::ConsumeOk {
            consumer_tag: b"tag",
        },
    );
    expect(
        AMQPClass::Basic(B::Cancel(basic::Cancel {
            consumer_tag: short("tag"),
            nowait: true,
        })),
        Incoming::Cancel {
            consumer_tag: b"tag",
        },
    );
    expect(
        AMQPClass::Basic(B::CancelOk(basic::CancelOk {
            consumer_tag: short("tag"),
        })),
        Incoming::CancelOk,
    );
    expect(
        AMQPClass::Basic(B::Return(basic::Return {
            reply_code: 312,
            reply_text: short("NO_ROUTE"),
            exchange: short("e"),
            routing_key: short("k"),
        })),
        Incoming::Return {
            reply_code: 312,
            reply_text: b"NO_ROUTE",
        },
    );
    for (delivery_tag, multiple) in [(1, false), (u64::MAX, true)] {
        let confirm = Confirm {
            delivery_tag,
            multiple,
        };
        expect(
            AMQPClass::Basic(B::Ack(basic::Ack {
                delivery_tag,
                multiple,
            })),
            Incoming::Ack(confirm),
        );
        for requeue in [false, true] {
            expect(
                AMQPClass::Basic(B::Nack(basic::Nack {
                    delivery_tag,
                    multiple,
                    requeue,
                })),
                Incoming::Nack(confirm),
            );
        }
    }
    let (class, method) = (50_u16, 11_u16);
    let declared = [class.to_be_bytes(), method.to_be_bytes()].concat();
    let other = Incoming::Other { class, method };
    assert_eq!(Incoming::parse(&declared).unwrap(), other);
}

proptest! {
    #[test]
    fn a_delivery_is_read_as_it_was_written(
        tag in "[a-z.0-9-]{0,255}",
        delivery_tag: u64,
        redelivered: bool,
        exchange in "\\PC{0,40}",
        routing_key in "\\PC{0,40}",
    ) {
        let deliver = basic::Deliver {
            consumer_tag: short(&tag),
            delivery_tag,
            redelivered,
            exchange: short(&exchange),
            routing_key: short(&routing_key),
        };
        read_method(AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)), |read| {
            assert_eq!(read, Incoming::Deliver {
                consumer_tag: tag.as_bytes(),
                delivery_tag,
                redelivered,
            });
        });
    }

    #[test]
    fn of_a_header_what_is_needed_is_read_whatever_else_there_is(
        body_size: u64,
        (content_type, content_encoding, correlation_id, reply_to, expiration) in (
            option::of("\\PC{0,20}"), option::of("\\PC{0,20}"), option::of("\\PC{0,20}"),
            option::of("\\PC{0,20}"), option::of("[0-9]{0,9}"),
        ),
        (message_id, kind, user_id, app_id, cluster_id) in (
            option::of("\\PC{0,60}"), option::of("\\PC{0,60}"), option::of("\\PC{0,20}"),
            option::of("\\PC{0,20}"), option::of("\\PC{0,20}"),
        ),
        (headers, delivery_mode, priority, timestamp) in (
            option::of(vec(("[a-z]{1,9}", "\\PC{0,30}"), 0..4)),
            option::of(1..=2_u8), option::of(0..=9_u8), option::of(any::<u64>()),
        ),
    ) {
        let mut properties = BasicProperties::default();
        macro_rules! with {
            ($($value:ident => $method:ident;)*) => {
                $(if let Some(text) = &$value { properties = properties.$method(short(text)); })*
            };
        }
        with! {
            content_type => with_content_type;
            content_encoding => with_content_encoding;
            correlation_id => with_correlation_id;
            reply_to => with_reply_to;
            expiration => with_expiration;
            message_id => with_message_id;
            kind => with_type;
            user_id => with_user_id;
            app_id => with_app_id;
            cluster_id => with_cluster_id;
        }
        if let Some(headers) = headers {
            let mut table = FieldTable::default();
            for (key, value) in headers {
                table.insert(short(&key), AMQPValue::LongString(value.into()));
            }
            properties = properties.with_headers(table);
        }
        if let Some(mode) = delivery_mode {
            properties = properties.with_delivery_mode(mode);
        }
        if let Some(priority) = priority {
            properties = properties.with_priority(priority);
        }
        if let Some(timestamp) = timestamp {
            properties = properties.with_timestamp(timestamp);
        }
        let header = AMQPContentHeader { class_id: 60, body_size, properties };
        let bytes = written_by_other(&AMQPFrame::Header(CHANNEL, header));
        let (head, payload) = payload(&bytes);
        prop_assert_eq!((head.kind, head.channel), (Kind::Header, CHANNEL));
        prop_assert_eq!(Header::parse(payload), Ok(Header {
            body_size,
            message_id: message_id.as_deref().map(str::as_bytes),
            kind: kind.as_deref().map(str::as_bytes),
        }));
        for len in 0..payload.len() {
            prop_assert!(Header::parse(&payload[..len]).is_err());
        }
    }

    #[test]
    fn a_message_is_written_as_it_is_meant(
        exchange in "\\PC{0,40}",
        routing_key in "\\PC{0,40}",
        mandatory: bool,
        delivery_mode in option::of(1..=2_u8),
        expiration in option::of("[0-9]{1,10}"),
        message_id in option::of("[0-9]{1,20}"),
        kind in option::of("[a-z]{1,20}"),
        body in vec(any::<u8>(), 0..400),
        frame_max in 9..500_usize,
    ) {
        let publish = Publish {
            exchange: name(&exchange),
            routing_key: name(&routing_key),
            mandatory,
            properties: Properties {
                delivery_mode,
                expiration: expiration.as_deref().map(name),
                message_id: message_id.as_deref().map(name),
                kind: kind.as_deref().map(name),
            },
        };
        let frames = read_by_other(|writer| {
            writer.publish(&publish, body.len());
            writer.body(&body, frame_max);
        });
        let mut frames = frames.into_iter();
        prop_assert_eq!(frames.next(), Some(AMQPFrame::Method(
            CHANNEL,
            AMQPClass::Basic(basic::AMQPMethod::Publish(basic::Publish {
                exchange: short(&exchange),
                routing_key: short(&routing_key),
                mandatory,
                immediate: false,
            })),
        )));
        let Some(AMQPFrame::Header(CHANNEL, header)) = frames.next() else {
            panic!("no header");
        };
        prop_assert_eq!((header.class_id, header.body_size), (60, body.len() as u64));
        let has = header.properties;
        prop_assert_eq!(*has.delivery_mode(), delivery_mode);
        prop_assert_eq!(has.expiration(), &expiration.as_deref().map(short));
        prop_assert_eq!(has.message_id(), &message_id.as_deref().map(short));
        prop_assert_eq!(has.kind(), &kind.as_deref().map(short));
        let mut parts = Vec::new();
        for frame in frames {
            let AMQPFrame::Body(CHANNEL, part) = frame else {
                panic!("no body: {frame:?}");
            };
            prop_assert!(part.len() + OVERHEAD <= frame_max);
            parts.extend(part);
        }
        prop_assert_eq!(parts, body);
    }

    #[test]
    fn a_stream_is_split_alike_wherever_it_is_cut(
        sizes in vec(0..300_usize, 1..6),
        cut_at in 0..2000_usize,
    ) {
        let mut stream = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            Writer::new(&mut stream, u16::try_from(number).unwrap()).body(&vec![7; *size], 100);
        }
        let heads = |mut bytes: &[u8]| {
            let mut heads = Vec::new();
            while let Some((frame, len)) = Frame::split(bytes, 100).unwrap() {
                assert!(frame.payload.iter().all(|byte| *byte == 7));
                heads.push(frame.head);
                bytes = &bytes[len..];
            }
            (heads, bytes.len())
        };
        let (all, left) = heads(&stream);
        prop_assert_eq!(left, 0);
        // What was not whole at the cut is split once the rest is there.
        let cut = cut_at.min(stream.len());
        let (mut first, left) = heads(&stream[..cut]);
        let (second, none) = heads(&stream[cut - left..]);
        first.extend(second);
        prop_assert_eq!((first, none), (all, 0));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Frame::split(&bytes, FRAME_MAX);
        let _ = Incoming::parse(&bytes);
        let _ = Header::parse(&bytes);
    }
}

#[test]
fn a_frame_is_refused_by_its_head_where_it_is_too_long_or_unknown() {
    let head = |kind: u8, size: u32| {
        let mut bytes = vec![kind, 0, 1];
        bytes.extend(size.to_be_bytes());
        Head::parse(&bytes, 4096)
    };
    assert_eq!(head(3, 4088).unwrap().unwrap().frame_len(), 4096);
    assert_eq!(head(3, 4089), Err(Malformed::TooLong));
    assert_eq!(head(3, u32::MAX), Err(Malformed::TooLong));
    for kind in [0, 4, 5, 7, 9, b'A'] {
        assert_eq!(head(kind, 0), Err(Malformed::Frame));
    }
    let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xce];
    let (frame, len) = Frame::split(&heartbeat, 4096).unwrap().unwrap();
    assert_eq!((frame.head.kind, len), (Kind::Heartbeat, 8));
    let without_end = [8, 0, 0, 0, 0, 0, 0, 0xcd];
    assert_eq!(Frame::split(&without_end, 4096), Err(Malformed::Frame));
}

#[test]
fn a_header_of_another_class_or_with_unknown_properties_is_refused() {
    let header = |class: u16, flags: u16| {
        let mut payload = class.to_be_bytes().to_vec();
        payload.extend([0; 10]);
        payload.extend(flags.to_be_bytes());
        Header::parse(&payload).err()
    };
    assert_eq!(header(60, 0), None);
    assert_eq!(header(50, 0), Some(Malformed::Class));
    assert_eq!(header(60, 1), Some(Malformed::Property));
    assert_eq!(header(60, 2), Some(Malformed::Property));
    assert_eq!(header(60, 1 << 7), Some(Malformed::Truncated));
}

#[test]
fn methods_are_written_as_they_are_meant() {
    fn written(write: impl FnOnce(&mut Writer<'_>), class: AMQPClass) {
        assert_eq!(read_by_other(write), [AMQPFrame::Method(CHANNEL, class)]);
    }
    use {basic::AMQPMethod as B, channel::AMQPMethod as C};
    written(
        |writer| writer.channel_open(),
        AMQPClass::Channel(C::Open(channel::Open {})),
    );
    written(
        |writer| writer.channel_close(200),
        AMQPClass::Channel(C::Close(channel::Close {
            reply_code: 200,
            reply_text: short(""),
            class_id: 0,
            method_id: 0,
        })),
    );
    written(
        |writer| writer.channel_close_ok(),
        AMQPClass::Channel(C::CloseOk(channel::CloseOk {})),
    );
    written(
        |writer| writer.channel_flow_ok(true),
        AMQPClass::Channel(C::FlowOk(channel::FlowOk { active: true })),
    );
    written(
        |writer| writer.confirm_select(),
        AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select {
            nowait: false,
        })),
    );
    written(
        |writer| writer.qos(1000),
        AMQPClass::Basic(B::Qos(basic::Qos {
            prefetch_count: 1000,
            global: false,
        })),
    );
    written(
        |writer| writer.consume(name("queue"), name("tag")),
        AMQPClass::Basic(B::Consume(basic::Consume {
            queue: short("queue"),
            consumer_tag: short("tag"),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        })),
    );
    written(
        |writer| writer.ack(77, true),
        AMQPClass::Basic(B::Ack(basic::Ack {
            delivery_tag: 77,
            multiple: true,
        })),
    );
}

#[test]
fn bindings_are_written_with_their_argument_or_without() {
    for value in [None, Some(7), Some(i64::MAX)] {
        let binding = Binding {
            destination: name("destination"),
            source: name("source"),
            routing_key: name("key"),
            argument: value.map(|value| Argument {
                name: name("mark"),
                value,
            }),
        };
        let mut arguments = FieldTable::default();
        if let Some(value) = value {
            arguments.insert(short("mark"), AMQPValue::LongLongInt(value));
        }
        let (destination, source) = (short("destination"), short("source"));
        let routing_key = short("key");
        let frames = read_by_other(|writer| {
            writer.queue_bind(&binding, true);
            writer.queue_unbind(&binding);
            writer.exchange_bind(&binding, false);
            writer.exchange_unbind(&binding, true);
        });
        let wanted = [
            AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
                queue: destination.clone(),
                exchange: source.clone(),
                routing_key: routing_key.clone(),
                nowait: true,
                arguments: arguments.clone(),
            })),
            AMQPClass::Queue(queue::AMQPMethod::Unbind(queue::Unbind {
                queue: destination.clone(),
                exchange: source.clone(),
                routing_key: routing_key.clone(),
                arguments: arguments.clone(),
            })),
            AMQPClass::Exchange(exchange::AMQPMethod::Bind(exchange::Bind {
                destination: destination.clone(),
                source: source.clone(),
                routing_key: routing_key.clone(),
                nowait: false,
                arguments: arguments.clone(),
            })),
            AMQPClass::Exchange(exchange::AMQPMethod::Unbind(exchange::Unbind {
                destination,
                source,
                routing_key,
                nowait: true,
                arguments,
            })),
        ];
        assert_eq!(
            frames,
            wanted.map(|class| AMQPFrame::Method(CHANNEL, class))
        );
    }
}

#[test]
fn exchanges_are_declared_with_their_flags() {
    for flags in 0..8 {
        let [passive, auto_delete, nowait] = [1, 2, 4].map(|flag| flags & flag != 0);
        let exchange = Exchange {
            name: name("exchange"),
            kind: name("fanout"),
            passive,
            auto_delete,
        };
        let frames = read_by_other(|writer| writer.exchange_declare(&exchange, nowait));
        let wanted = exchange::Declare {
            exchange: short("exchange"),
            kind: short("fanout"),
            passive,
            durable: false,
            auto_delete,
            internal: false,
            nowait,
            arguments: FieldTable::default(),
        };
        let wanted = AMQPClass::Exchange(exchange::AMQPMethod::Declare(wanted));
        assert_eq!(frames, [AMQPFrame::Method(CHANNEL, wanted)]);
    }
}

#[test]
fn a_name_has_at_most_255_bytes() {
    assert!(Name::new(&"x".repeat(255)).is_some());
    assert!(Name::new(&"x".repeat(256)).is_none());
    assert!(Name::new(&"\u{e4}".repeat(128)).is_none());
}

fn of_connection(method: connection::AMQPMethod) -> Vec<u8> {
    written_by_other(&AMQPFrame::Method(0, AMQPClass::Connection(method)))
}

/// What a broker that grants `channel_max` and `frame_max` tells lapin, and how they were shared out.
fn tuned(channel_max: u16, frame_max: u32) -> (Inbound, Tune) {
    let mut inbound = Inbound::new();
    let tune = of_connection(connection::AMQPMethod::Tune(connection::Tune {
        channel_max,
        frame_max,
        heartbeat: 60,
    }));
    let (received, len) = inbound.next(&tune).unwrap().unwrap();
    assert_eq!(len, tune.len());
    let Received::Tune(told) = received else {
        panic!("{received:?}");
    };
    (inbound, told)
}

#[test]
fn lapin_is_told_of_fewer_channels_and_shorter_frames_than_the_broker_grants() {
    for (channel_max, frame_max, of_lapin, shorter, first_own, last_own) in [
        (2047, 131_072, 1983, 8192, 1984, 2047),
        (0, 0, u16::MAX - 64, 8192, u16::MAX - 63, u16::MAX),
        (100, 4096, 50, 4096, 51, 100),
        (8, 4096, 4, 4096, 5, 8),
        (3, 4096, 1, 4096, 2, 3),
        (1, 4096, 1, 4096, 2, 1),
    ] {
        let (inbound, told) = tuned(channel_max, frame_max);
        assert_eq!((told.channel_max, told.frame_max), (of_lapin, shorter));
        assert_eq!(told.heartbeat, 60);
        let shares = inbound.shares().unwrap();
        assert_eq!((shares.first_own, shares.last_own), (first_own, last_own));

        // The other way it is the whole that was agreed upon, with lapin's heartbeat.
        let tune_ok = of_connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
            channel_max: of_lapin,
            frame_max: shorter,
            heartbeat: 30,
        }));
        let (sent, len) = next_of_lapin(&tune_ok, inbound.shares()).unwrap().unwrap();
        assert_eq!(len, tune_ok.len());
        let agreed = Tune {
            channel_max,
            frame_max,
            heartbeat: 30,
        };
        assert_eq!(sent, Sent::TuneOk(agreed));
        let mut out = Vec::new();
        write_tune_ok(agreed, &mut out);
        let (_, frame) = parse_frame(out.as_slice()).unwrap();
        let wanted = connection::TuneOk {
            channel_max,
            frame_max,
            heartbeat: 30,
        };
        let wanted = AMQPClass::Connection(connection::AMQPMethod::TuneOk(wanted));
        assert_eq!(frame, AMQPFrame::Method(0, wanted));
    }
}

#[test]
fn each_frame_goes_to_whom_its_channel_belongs() {
    let (mut inbound, _) = tuned(2047, 131_072);
    for channel in [0, 1, 1983, 1984, 2047] {
        let header = AMQPContentHeader {
            class_id: 60,
            body_size: 3,
            properties: BasicProperties::default(),
        };
        let bytes = written_by_other(&AMQPFrame::Header(channel, header));
        for cut in 0..bytes.len() {
            assert_eq!(inbound.next(&bytes[..cut]), Ok(None));
        }
        let (received, len) = inbound.next(&bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        match received {
            Received::Own(frame) => assert!(frame.head.channel == channel && channel >= 1984),
            received => {
                assert!(channel < 1984);
                assert_eq!(received, Received::ForLapin(&bytes));
            }
        }
    }
    // Before the two sides have agreed all is lapin's.
    let start = written_by_other(&AMQPFrame::Body(65, vec![1]));
    let mut inbound = Inbound::new();
    let (received, _) = inbound.next(&start).unwrap().unwrap();
    assert_eq!(received, Received::ForLapin(&start));
    let header = b"AMQP\0\x01\0\x0a";
    let (received, len) = inbound.next(header).unwrap().unwrap();
    assert_eq!((received, len), (Received::ForLapin(header), 8));
    assert_eq!(inbound.next(&header[..5]), Ok(None));
}

proptest! {
    #[test]
    fn a_body_of_ours_is_read_as_it_comes(
        body in vec(any::<u8>(), 0..600),
        reads in vec(1..50_usize, 1..40),
    ) {
        let (mut inbound, _) = tuned(2047, 131_072);
        let mut stream = Vec::new();
        Writer::new(&mut stream, 2000).body(&body, 200);
        Writer::new(&mut stream, 2000).ack(1, false);
        let (mut unread, mut parts) = (Vec::new(), Vec::new());
        let mut acks = 0;
        let mut rest = stream.as_slice();
        for size in reads.iter().cycle() {
            let (read, more) = rest.split_at(rest.len().min(*size));
            unread.extend_from_slice(read);
            rest = more;
            while let Some((received, len)) = inbound.next(&unread).unwrap() {
                prop_assert!(len > 0);
                match received {
                    Received::OwnBody { channel: 2000, part } => parts.extend_from_slice(part),
                    Received::Own(_) => acks += 1,
                    other => panic!("{other:?}"),
                }
                unread.drain(..len);
            }
            // Of a body nothing is held back but the beginning of a head.
            prop_assert!(acks > 0 || unread.len() < 21);
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!((parts, acks, unread.len()), (body, 1, 0));
    }
}

#[test]
fn a_body_without_its_end_is_refused() {
    let (mut inbound, _) = tuned(2047, 131_072);
    let mut stream = Vec::new();
    Writer::new(&mut stream, 2000).body(b"abc", 200);
    *stream.last_mut().unwrap() = 0;
    assert_eq!(inbound.next(&stream), Err(Malformed::Frame));
}

#[test]
fn what_happens_to_the_connection_is_noticed_and_passed_on() {
    let (mut inbound, _) = tuned(2047, 131_072);
    use connection::AMQPMethod as C;
    for (method, notice) in [
        (
            C::Blocked(connection::Blocked {
                reason: short("low on memory"),
            }),
            Notice::Blocked(true),
        ),
        (
            C::Unblocked(connection::Unblocked {}),
            Notice::Blocked(false),
        ),
        (
            C::Close(connection::Close {
                reply_code: 320,
                reply_text: short("CONNECTION_FORCED"),
                class_id: 0,
                method_id: 0,
            }),
            Notice::Closing(Close {
                reply_code: 320,
                reply_text: b"CONNECTION_FORCED",
                class: 0,
                method: 0,
            }),
        ),
    ] {
        let bytes = of_connection(method);
        let (received, _) = inbound.next(&bytes).unwrap().unwrap();
        assert_eq!(received, Received::Notice(notice, &bytes));
    }
    let other = of_connection(C::CloseOk(connection::CloseOk {}));
    let (received, _) = inbound.next(&other).unwrap().unwrap();
    assert_eq!(received, Received::ForLapin(&other));
}

#[test]
fn of_lapin_only_whole_frames_are_passed_on() {
    let mut stream = b"AMQP\0\0\x09\x01".to_vec();
    write_heartbeat(&mut stream);
    Writer::new(&mut stream, 1).ack(1, false);
    let mut passed = Vec::new();
    let mut held = Vec::new();
    for byte in &stream {
        held.push(*byte);
        while let Some((sent, len)) = next_of_lapin(&held, None).unwrap() {
            let Sent::AsIs(bytes) = sent else {
                panic!("{sent:?}");
            };
            passed.push(bytes.to_vec());
            held.drain(..len);
        }
    }
    let lens: Vec<_> = passed.iter().map(Vec::len).collect();
    assert_eq!(lens, [8, 8, 21]);
    assert_eq!(passed.concat(), stream);
    let (_, heartbeat) = parse_frame(passed[1].as_slice()).unwrap();
    assert_eq!(heartbeat, AMQPFrame::Heartbeat);
}

#[test]
fn lapin_gets_a_long_part_of_a_body_in_several_frames_and_all_else_as_it_is() {
    let for_lapin = |frame: &AMQPFrame| {
        let mut out = Vec::new();
        write_for_lapin(&written_by_other(frame), &mut out);
        let (mut rest, mut frames) = (out.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (left, frame) = parse_frame(rest).unwrap();
            assert!(rest.len() - left.len() <= 8192);
            frames.push(frame);
            rest = left;
        }
        frames
    };
    let body: Vec<u8> = (0..20_000_u32).map(|number| number as u8).collect();
    let parts = for_lapin(&AMQPFrame::Body(3, body.clone()));
    let mut joined = Vec::new();
    assert_eq!(parts.len(), 3);
    for part in parts {
        let AMQPFrame::Body(3, part) = part else {
            panic!("{part:?}");
        };
        joined.extend(part);
    }
    assert_eq!(joined, body);
    for frame in [AMQPFrame::Body(3, vec![1; 8184]), AMQPFrame::Heartbeat] {
        assert_eq!(for_lapin(&frame), [frame]);
    }
}

#[test]
fn the_two_sides_agree_once() {
    let (mut inbound, _) = tuned(2047, 131_072);
    let again = of_connection(connection::AMQPMethod::Tune(connection::Tune {
        channel_max: 10,
        frame_max: 4096,
        heartbeat: 0,
    }));
    assert_eq!(inbound.next(&again), Err(Malformed::Frame));
}
