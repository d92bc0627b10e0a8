//! Changes the bindings of the own queue, many at once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::Channel;
use lapin::options::QueueBindOptions;
use lapin::types::{FieldTable, ShortString};
use tokio::sync::mpsc::UnboundedReceiver;

use super::failure::describe;
use super::in_flight::InFlight;
use super::io_thread::{Turn, Work};
use crate::broker::{BindingChange, BindingEpoch, Host};

/// How many AMQP channels the bindings are spread over. lapin looks through all bindings of one at
/// each unbind, and through all AMQP channels of a connection at each frame: of eight and of a
/// hundred for 100,000 groups, the eight were measured to be the faster.
pub(super) const BINDING_CHANNELS: usize = 8;

/// One change of a binding, and its group.
pub(super) type Change = (Arc<str>, BindingChange);

/// Changes the bindings of the queue. All changes of a group go through one AMQP channel, in
/// order.
pub(super) struct Binder {
    channels: Vec<Channel>,
    queue: ShortString,
    exchange: ShortString,
    in_flight: InFlight<(u64, Change), BoxFuture<'static, lapin::Result<()>>>,
    submitted: u64,
    done: Vec<(u64, Change)>,
    failed: Option<lapin::Error>,
}

impl Binder {
    pub(super) fn new(channels: Vec<Channel>, queue: ShortString, exchange: ShortString) -> Self {
        Self {
            channels,
            queue,
            exchange,
            in_flight: InFlight::new(),
            submitted: 0,
            done: Vec::new(),
            failed: None,
        }
    }

    /// The AMQP channels that it uses.
    pub(super) fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// How many changes have no answer yet.
    pub(super) fn under_way(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends a change on its way.
    pub(super) fn submit(&mut self, (group, change): Change) {
        let mut hash = DefaultHasher::new();
        group.hash(&mut hash);
        let index = hash.finish() as usize % self.channels.len().max(1);
        let (Some(channel), Ok(key)) = (self.channels.get(index), ShortString::try_new(&*group))
        else {
            return;
        };
        let channel = channel.clone();
        let queue = self.queue.clone();
        let exchange = self.exchange.clone();
        let none = FieldTable::default();
        let request = async move {
            match change {
                BindingChange::Bind => {
                    let flags = QueueBindOptions::default();
                    channel.queue_bind(queue, exchange, key, flags, none).await
                }
                BindingChange::Unbind => channel.queue_unbind(queue, exchange, key, none).await,
            }
        };
        self.submitted += 1;
        let key = (self.submitted, (group, change));
        if let Some((key, result)) = self.in_flight.start(key, request.boxed()) {
            self.finish(key, result);
        }
    }

    fn finish(&mut self, key: (u64, Change), result: lapin::Result<()>) {
        match result {
            Ok(()) => self.done.push(key),
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
    }

    /// Appends what is done to `done`, in the order of submission: so the last change of a group is
    /// its last. Pending if nothing is, and something will be.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        done: &mut Vec<Change>,
    ) -> Poll<lapin::Result<()>> {
        self.in_flight.register(cx.waker());
        let mut finished = Vec::new();
        self.in_flight
            .drain(|key, result| finished.push((key, result)));
        for (key, result) in finished {
            self.finish(key, result);
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.done.is_empty() && self.under_way() > 0 {
            return Poll::Pending;
        }
        self.done.sort_unstable_by_key(|(order, _)| *order);
        done.extend(self.done.drain(..).map(|(_, change)| change));
        Poll::Ready(Ok(()))
    }
}

/// What the layer wishes, on its way to the broker and back.
pub(super) struct Binding {
    binder: Binder,
    epoch: BindingEpoch,
    changes: UnboundedReceiver<Vec<Change>>,
    host: Weak<dyn Host>,
}

impl Binding {
    pub(super) fn new(
        binder: Binder,
        epoch: BindingEpoch,
        changes: UnboundedReceiver<Vec<Change>>,
        host: Weak<dyn Host>,
    ) -> Self {
        Self {
            binder,
            epoch,
            changes,
            host,
        }
    }
}

impl Work for Binding {
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, String> {
        let mut turn = Turn::default();
        while let Poll::Ready(Some(changes)) = self.changes.poll_recv(cx) {
            turn.has_written |= !changes.is_empty();
            for change in changes {
                self.binder.submit(change);
            }
        }
        let mut done = Vec::new();
        if let Poll::Ready(Err(error)) = self.binder.poll(cx, &mut done) {
            return Err(format!(
                "a binding could not be changed: {}",
                describe(&error)
            ));
        }
        if !done.is_empty() {
            let Some(host) = self.host.upgrade() else {
                return Err("the layer is gone".to_owned());
            };
            host.bindings_changed(self.epoch, done);
        }
        Ok(turn)
    }
}
