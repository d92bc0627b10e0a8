//! What a [`Handler`](super::Handler) works with, without a thread or a socket.

use std::task::Waker;
use std::time::Instant;

use super::{Channels, Io, Outbound};

/// One handler's share of a connection that is not there.
#[derive(Debug)]
pub(in crate::broker::rabbitmq) struct TestIo {
    out: Outbound,
    channels: Channels,
    pub(in crate::broker::rabbitmq) now: Instant,
    pub(in crate::broker::rabbitmq) is_blocked: bool,
}

impl TestIo {
    /// The broker allows AMQP channels from 1 to `last`.
    pub(in crate::broker::rabbitmq) fn new(last: u16) -> Self {
        Self {
            out: Outbound::default(),
            channels: Channels::new(1, last),
            now: Instant::now(),
            is_blocked: false,
        }
    }

    pub(in crate::broker::rabbitmq) fn io(&mut self) -> Io<'_> {
        Io {
            handler: 0,
            out: &mut self.out,
            channels: &mut self.channels,
            frame_max: 131_072,
            is_blocked: self.is_blocked,
            now: self.now,
            waker: Waker::noop(),
        }
    }

    /// What was written since the last time.
    pub(in crate::broker::rabbitmq) fn written(&mut self) -> Vec<u8> {
        let mut written = Vec::new();
        let mut slices = Vec::new();
        self.out.first(&mut slices);
        for slice in slices {
            written.extend_from_slice(&slice);
        }
        self.out = Outbound::default();
        written
    }

    /// Whether nobody has an AMQP channel of this number.
    pub(in crate::broker::rabbitmq) fn is_free(&self, channel: u16) -> bool {
        self.channels.owner_of(channel).is_none()
    }
}
