//! What a broker must do, and what it may ask of the layer that uses it.
//!
//! Batches go both ways. A publication is known by its token, a delivery by its place in the order
//! of arrival: a broker knows of credit only 'hold' and 'resume'.

pub(crate) mod memory;
pub(crate) mod rabbitmq;
#[cfg(test)]
pub(crate) mod testing;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub(crate) use crate::groups::{BindingChange, Earlier, Mark, Verb};
use crate::log::RecordId;
use crate::wire::{self, Decoded, OwnedRecipient};

/// Names one send from its hand-over to its outcome. Never reused by a layer.
pub(crate) type Token = u64;

/// Counts the consuming connections of a layer, from 1.
pub(crate) type Generation = u64;

/// Counts how often all groups of a layer were bound, from 1.
pub(crate) type BindingEpoch = u64;

/// Where a publication goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// The queue of a process, by way of the default exchange and `mandatory`.
    Queue(String),
    /// All queues bound to a group, perhaps none.
    Group(String),
}

/// One message on its way to the broker.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) token: Token,
    pub(crate) route: Route,
    pub(crate) body: Vec<u8>,
}

/// What became of a publication that was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The broker has it.
    Confirmed,
    /// At least one queue that it goes to is full.
    Full,
    /// There is no such queue; the text is the channel that was sent to.
    NoChannel(String),
    /// The connection ended first, or the AMQP channel and it is not known whether for this one; the
    /// text says how.
    Unconfirmed(String),
    /// The connection ended before it was sent; the text says how. Certainly not sent.
    Unsent(String),
    /// The broker takes no body of this size; certainly not sent.
    TooLarge { size: usize, limit: usize },
    /// The broker refused it for what it is; the text says why. Certainly not sent.
    Refused(String),
}

impl Outcome {
    /// Of a publication that came back, since there is no `queue`. The body knows the whole channel.
    fn no_channel(queue: &str, body: Vec<u8>) -> Self {
        Self::NoChannel(match wire::decode(body) {
            Ok(Decoded {
                recipient: OwnedRecipient::Channel(channel),
                ..
            }) => channel,
            _ => queue.to_owned(),
        })
    }
}

/// One message from the broker, undecoded.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) body: Vec<u8>,
    pub(crate) redelivered: bool,
}

/// What a broker says of its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BrokerState {
    /// Both connections stand, and what is published reaches the queue, which has all its bindings.
    Ready(Generation),
    /// At least one connection is lost or was never made; the text says why. Attempts go on.
    Disconnected(String),
    /// Each host refused its last attempt for credentials, vhost or TLS. Attempts go on.
    Refused(String),
}

/// The layer, as its broker sees it. No call waits and none runs user code.
pub(crate) trait Host: Send + Sync + 'static {
    /// Appends at most `limit` publications to `batch`, oldest first. They are handed over by
    /// this: each has exactly one outcome from now on.
    fn take_publications(&self, limit: usize, batch: &mut Vec<Publication>);

    /// Reports outcomes and empties `batch`.
    fn publications_ended(&self, batch: &mut Vec<(Token, Outcome)>);

    /// The connection that publishes stands, before it takes anything; or it is lost. What the broker had
    /// said of it before is void.
    fn publishing_changed(&self, is_up: bool);

    /// Whether the broker blocks publishers; while it does, publications are not taken.
    fn publishers_blocked(&self, blocked: bool);

    /// The broker has said that it takes no larger body than this.
    fn size_limit_learned(&self, bytes: usize);

    /// Starts the consuming connection `generation`, before its first delivery. `queue` is a new one, of
    /// this name, which may be another than before.
    fn begin_generation(&self, generation: Generation, queue: &str);

    /// Groups are about to be routed to the queue again, where the broker has what `earlier` says: this
    /// returns all that is to be changed. Changes of earlier epochs are void.
    fn bind_all(&self, epoch: BindingEpoch, earlier: Earlier) -> Vec<BindingChange>;

    /// A probe has shown that nothing is lost of the [`Earlier`] bindings.
    fn bindings_proven(&self, epoch: BindingEpoch);

    /// No group is routed to the queue any more, or it is not known which; until [`Host::bind_all`].
    fn bindings_lost(&self);

    /// The broker has put back into the queue what is held: it counts as released. None of it is
    /// delivered again.
    fn deliveries_requeued(&self, generation: Generation);

    /// Takes deliveries in their order and empties `batch`. Returns how many of the oldest
    /// deliveries of this generation that are held so far, these included, may be let go now;
    /// the others are held until [`Broker::resume`].
    fn deliver(&self, generation: Generation, batch: &mut Vec<Delivery>) -> usize;

    /// These changes are done, or were part of [`Host::bind_all`].
    fn bindings_changed(&self, epoch: BindingEpoch, done: Vec<BindingChange>);

    /// The connections changed. The same state may be said twice, with another reason.
    fn state_changed(&self, state: BrokerState);

    /// Something that a person may want to know.
    fn log(&self, id: RecordId, message: String);
}

/// A future that a broker gives away.
pub(crate) type BrokerFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A broker, with its connections made and remade in the background. No call waits.
pub(crate) trait Broker: Send + Sync {
    /// [`Host::take_publications`] has something.
    fn publications_waiting(&self);

    /// Lets go of the `count` oldest deliveries that are held: the broker may send as many more.
    /// Void if `generation` is over.
    fn resume(&self, generation: Generation, count: usize);

    /// Changes bindings, of each at most one at a time. Void if `epoch` is over: the next one asks by
    /// [`Host::bind_all`].
    fn change_bindings(&self, epoch: BindingEpoch, changes: Vec<BindingChange>);

    /// Closes for good within `timeout`, politely if the broker answers; what is unconfirmed ends
    /// as [`Outcome::Unconfirmed`]. After the future is done the host is not called any more.
    fn close(&self, timeout: Duration) -> BrokerFuture;
}
