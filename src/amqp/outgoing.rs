//! Methods that we send on AMQP channels of our own, and contents.

use super::content::{Properties, ShortStr, write_header};
use super::frame::{END, Head, Kind, OVERHEAD, write_frame, write_len};

/// The name of a queue or an exchange, a routing key, a consumer tag.
pub(crate) type Name<'a> = ShortStr<'a>;

/// A binding of a queue or an exchange, to be made or undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding<'a> {
    pub(crate) destination: Name<'a>,
    pub(crate) source: Name<'a>,
    pub(crate) routing_key: Name<'a>,
    /// Bindings with other arguments are others.
    pub(crate) argument: Option<Argument<'a>>,
}

/// An argument that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Argument<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) value: i64,
}

/// An exchange, to be declared or looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exchange<'a> {
    pub(crate) name: Name<'a>,
    /// As `fanout`.
    pub(crate) kind: Name<'a>,
    /// It is only looked for.
    pub(crate) passive: bool,
    /// The broker deletes it with the last binding from it.
    pub(crate) auto_delete: bool,
}

/// Where a message is published to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) exchange: Name<'a>,
    pub(crate) routing_key: Name<'a>,
    /// It is to be returned where no queue takes it.
    pub(crate) mandatory: bool,
    pub(crate) properties: Properties<'a>,
}

/// Writes the frames of one AMQP channel, one behind the other.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    channel: u16,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut Vec<u8>, channel: u16) -> Self {
        Self { out, channel }
    }

    /// A frame whose payload `write` writes.
    fn frame(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
        write_frame(self.out, kind, self.channel, write);
    }

    fn method(&mut self, class: u16, method: u16, arguments: impl FnOnce(&mut Vec<u8>)) {
        self.frame(Kind::Method, |out| {
            out.extend_from_slice(&class.to_be_bytes());
            out.extend_from_slice(&method.to_be_bytes());
            arguments(out);
        });
    }

    pub(crate) fn channel_open(&mut self) {
        self.method(20, 10, |out| out.push(0));
    }

    pub(crate) fn channel_close(&mut self, reply_code: u16) {
        self.method(20, 40, |out| {
            out.extend_from_slice(&reply_code.to_be_bytes());
            Name::default().write(out);
            out.extend_from_slice(&[0; 4]);
        });
    }

    pub(crate) fn channel_close_ok(&mut self) {
        self.method(20, 41, |_| {});
    }

    pub(crate) fn channel_flow_ok(&mut self, active: bool) {
        self.method(20, 21, |out| out.push(active.into()));
    }

    pub(crate) fn confirm_select(&mut self) {
        self.method(85, 10, |out| out.push(0));
    }

    pub(crate) fn qos(&mut self, prefetch_count: u16) {
        self.method(60, 10, |out| {
            out.extend_from_slice(&0_u32.to_be_bytes());
            out.extend_from_slice(&prefetch_count.to_be_bytes());
            out.push(0);
        });
    }

    /// Consumes from a queue, with acks.
    pub(crate) fn consume(&mut self, queue: Name<'_>, consumer_tag: Name<'_>) {
        self.method(60, 20, |out| {
            out.extend_from_slice(&0_u16.to_be_bytes());
            queue.write(out);
            consumer_tag.write(out);
            out.push(0);
            out.extend_from_slice(&0_u32.to_be_bytes());
        });
    }

    /// Takes a delivery, and with `multiple` all before it.
    pub(crate) fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        self.method(60, 80, |out| {
            out.extend_from_slice(&delivery_tag.to_be_bytes());
            out.push(multiple.into());
        });
    }

    pub(crate) fn queue_bind(&mut self, binding: &Binding<'_>, nowait: bool) {
        self.method(50, 20, |out| {
            out.extend_from_slice(&0_u16.to_be_bytes());
            names(out, binding);
            out.push(nowait.into());
            arguments(out, binding.argument);
        });
    }

    /// AMQP has no `nowait` here.
    pub(crate) fn queue_unbind(&mut self, binding: &Binding<'_>) {
        self.method(50, 50, |out| {
            out.extend_from_slice(&0_u16.to_be_bytes());
            names(out, binding);
            arguments(out, binding.argument);
        });
    }

    pub(crate) fn exchange_declare(&mut self, exchange: &Exchange<'_>, nowait: bool) {
        let Exchange {
            name,
            kind,
            passive,
            auto_delete,
        } = exchange;
        // Between these: durable, and internal.
        let flags = u8::from(*passive) | u8::from(*auto_delete) << 2 | u8::from(nowait) << 4;
        self.method(40, 10, |out| {
            out.extend_from_slice(&0_u16.to_be_bytes());
            name.write(out);
            kind.write(out);
            out.push(flags);
            arguments(out, None);
        });
    }

    pub(crate) fn exchange_bind(&mut self, binding: &Binding<'_>, nowait: bool) {
        self.of_exchange(30, binding, nowait);
    }

    pub(crate) fn exchange_unbind(&mut self, binding: &Binding<'_>, nowait: bool) {
        self.of_exchange(40, binding, nowait);
    }

    fn of_exchange(&mut self, method: u16, binding: &Binding<'_>, nowait: bool) {
        self.method(40, method, |out| {
            out.extend_from_slice(&0_u16.to_be_bytes());
            names(out, binding);
            out.push(nowait.into());
            arguments(out, binding.argument);
        });
    }

    /// A message without its body: [`Self::body`] or the parts of [`body_parts`] must follow.
    pub(crate) fn publish(&mut self, publish: &Publish<'_>, body_len: usize) {
        self.method(60, 40, |out| {
            out.extend_from_slice(&0_u16.to_be_bytes());
            publish.exchange.write(out);
            publish.routing_key.write(out);
            out.push(publish.mandatory.into());
        });
        self.frame(Kind::Header, |out| {
            write_header(out, body_len as u64, &publish.properties);
        });
    }

    /// The body of a message, which is copied.
    pub(crate) fn body(&mut self, body: &[u8], frame_max: usize) {
        for part in body_parts(body, frame_max) {
            self.frame(Kind::Body, |out| out.extend_from_slice(part));
        }
    }

    /// The head of a frame with a part of a body, which follows from elsewhere, then [`BODY_END`].
    pub(crate) fn body_head(&mut self, part: &[u8]) {
        Head {
            kind: Kind::Body,
            channel: self.channel,
            size: part.len(),
        }
        .write(self.out);
    }
}

/// Ends a frame whose payload was not copied.
pub(crate) const BODY_END: &[u8] = &[END];

/// The parts of a body, each of which fits into a frame. An empty body has none.
pub(crate) fn body_parts(body: &[u8], frame_max: usize) -> impl Iterator<Item = &[u8]> {
    body.chunks(frame_max.saturating_sub(OVERHEAD).max(1))
}

fn names(out: &mut Vec<u8>, binding: &Binding<'_>) {
    binding.destination.write(out);
    binding.source.write(out);
    binding.routing_key.write(out);
}

/// A table with this argument, or an empty one.
fn arguments(out: &mut Vec<u8>, argument: Option<Argument<'_>>) {
    let start = out.len();
    out.extend_from_slice(&0_u32.to_be_bytes());
    let Some(Argument { name, value }) = argument else {
        return;
    };
    name.write(out);
    out.push(b'l');
    out.extend_from_slice(&value.to_be_bytes());
    write_len(out, start);
}
