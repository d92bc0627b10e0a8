//! How the two links stand, and what the layer is told of both together.
//!
//! Each link lives by itself. The layer is ready while both stand and a probe has shown that its queue
//! hears what is published.

use std::net::SocketAddr;
use std::sync::Weak;

use crate::broker::{BindingEpoch, BrokerState, Generation, Host};
use crate::log::RecordId;
use crate::sync::Mutex;

/// A host that took a connection: its number among the endpoints, and its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: usize,
    pub(super) address: SocketAddr,
}

/// How one link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkState {
    /// Connected, and all is declared that it is for.
    Up,
    /// Not connected, for this reason; attempts go on.
    Down(String),
    /// The same, since every host refuses it.
    Refused(String),
}

impl LinkState {
    fn reason(&self) -> Option<&str> {
        match self {
            Self::Up => None,
            Self::Down(reason) | Self::Refused(reason) => Some(reason),
        }
    }
}

/// Which link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Consuming,
    Publishing,
}

/// A generation of the queue, in words too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Consumed {
    pub(super) generation: Generation,
    /// That of its bindings; `None` while they are made again.
    pub(super) epoch: Option<BindingEpoch>,
    /// The host, without a password.
    pub(super) endpoint: String,
    pub(super) queue: String,
}

/// The links together, without I/O.
#[derive(Debug)]
struct Links {
    consuming: LinkState,
    publishing: LinkState,
    consumed: Option<Consumed>,
    /// Where the publishing link is connected.
    publishes_at: Option<Place>,
    /// From where a probe has arrived.
    heard_from: Option<Place>,
    /// Why the queue is not known to hear; `None` once it is.
    unheard: Option<String>,
}

const NOT_YET: &str = "no connection has been made yet";
const UNPROVEN: &str = "connected; what is published has not reached the own queue yet";

impl Links {
    fn new() -> Self {
        Self {
            consuming: LinkState::Down(NOT_YET.to_owned()),
            publishing: LinkState::Down(NOT_YET.to_owned()),
            consumed: None,
            publishes_at: None,
            heard_from: None,
            unheard: Some(UNPROVEN.to_owned()),
        }
    }

    fn set(&mut self, side: Side, state: LinkState) {
        match side {
            Side::Consuming => {
                self.consuming = state;
                self.heard_from = None;
                self.unheard = Some(UNPROVEN.to_owned());
            }
            Side::Publishing => self.publishing = state,
        }
    }

    /// Whether an attempt at one of them has failed, or it is lost.
    fn have_failed(&self) -> bool {
        let links = [&self.consuming, &self.publishing];
        links
            .into_iter()
            .filter_map(LinkState::reason)
            .any(|reason| reason != NOT_YET)
    }

    /// The publishing link stands. At the place from where a probe has arrived before it needs no other.
    fn publishes(&mut self, place: Place) {
        self.publishing = LinkState::Up;
        self.publishes_at = Some(place);
        if self.heard_from != self.publishes_at {
            self.unheard.get_or_insert_with(|| UNPROVEN.to_owned());
        }
    }

    /// A probe has arrived, sent from `place` by the bindings of `epoch`.
    fn hears(&mut self, epoch: BindingEpoch, place: Place) {
        if self.consumed.as_ref().and_then(|consumed| consumed.epoch) == Some(epoch) {
            self.heard_from = Some(place);
            if self.publishes_at == Some(place) {
                self.unheard = None;
            }
        }
    }

    /// The queue is being bound again: no probe counts before that is done.
    fn is_bound_again(&mut self, why: &str) {
        self.heard_from = None;
        self.unheard = Some(format!("{UNPROVEN}: {why}"));
        if let Some(consumed) = &mut self.consumed {
            consumed.epoch = None;
        }
    }

    /// What both come to.
    fn state(&self) -> BrokerState {
        let links = [&self.consuming, &self.publishing];
        let refused = links
            .into_iter()
            .find(|link| matches!(link, LinkState::Refused(_)));
        if let Some(reason) = refused.and_then(LinkState::reason) {
            return BrokerState::Refused(reason.to_owned());
        }
        // Where the publishing link only waits for the other, that one's reason is the cause.
        let reason = links
            .into_iter()
            .filter_map(LinkState::reason)
            .reduce(|one, other| if one == NOT_YET { other } else { one })
            .or(self.unheard.as_deref());
        match (&self.consumed, reason) {
            (Some(consumed), None) => BrokerState::Ready(consumed.generation),
            (_, reason) => BrokerState::Disconnected(reason.unwrap_or(NOT_YET).to_owned()),
        }
    }
}

/// The links, and what was reported of them last.
pub(super) struct Standing {
    host: Weak<dyn Host>,
    inner: Mutex<(Links, Option<BrokerState>)>,
}

impl Standing {
    pub(super) fn new(host: Weak<dyn Host>) -> Self {
        Self {
            host,
            inner: Mutex::new((Links::new(), None)),
        }
    }

    /// The consuming link stands.
    pub(super) fn consumes(&self, consumed: Consumed) {
        self.change(|links| {
            links.set(Side::Consuming, LinkState::Up);
            links.consumed = Some(consumed);
        });
    }

    /// The publishing link stands.
    pub(super) fn publishes(&self, place: Place) {
        self.change(|links| links.publishes(place));
    }

    /// A link is lost, or an attempt to make it has failed.
    pub(super) fn failed(&self, side: Side, state: LinkState) {
        self.change(|links| links.set(side, state));
    }

    /// A probe has arrived, sent from `place` by the bindings of `epoch`.
    pub(super) fn hears(&self, epoch: BindingEpoch, place: Place) {
        self.change(|links| links.hears(epoch, place));
    }

    /// Whether a probe has arrived by the bindings of `epoch`, from where the publishing link is.
    pub(super) fn is_heard(&self, epoch: BindingEpoch) -> bool {
        let (links, _) = &*self.inner.lock();
        let consumed = links.consumed.as_ref();
        links.unheard.is_none() && consumed.is_some_and(|c| c.epoch == Some(epoch))
    }

    /// A link waits for the other one: it has no reason of its own.
    pub(super) fn waits(&self, side: Side) {
        self.failed(side, LinkState::Down(NOT_YET.to_owned()));
    }

    /// The queue is being bound again: what was shown before is void, and nothing counts before
    /// [`Standing::bound`].
    pub(super) fn is_bound_again(&self, why: &str) {
        self.change(|links| links.is_bound_again(why));
    }

    /// All bindings of `epoch` are there.
    pub(super) fn bound(&self, epoch: BindingEpoch) {
        self.change(|links| {
            if let Some(consumed) = &mut links.consumed {
                consumed.epoch = Some(epoch);
            }
        });
    }

    /// Why no probe has arrived yet.
    pub(super) fn is_unproven(&self, why: &str) {
        self.change(|links| {
            if let Some(unheard) = &mut links.unheard {
                *unheard = format!("{UNPROVEN}: {why}");
            }
        });
    }

    /// Reports what has changed, under the lock: so that states are reported in their order. The host
    /// runs no user code and does not wait.
    fn change(&self, change: impl FnOnce(&mut Links)) {
        let mut inner = self.inner.lock();
        let (links, reported) = &mut *inner;
        change(links);
        let state = links.state();
        let Some(host) = self.host.upgrade() else {
            return;
        };
        if reported.as_ref() != Some(&state) {
            if let Some((id, message)) = record(&state, reported.as_ref(), links) {
                host.log(id, message);
            }
            // On the way to the first connection nothing has failed, and nothing is new.
            let is_first = reported.is_none() && !matches!(&state, BrokerState::Ready(_));
            if is_first && !links.have_failed() {
                return;
            }
            host.state_changed(state.clone());
        }
        *reported = Some(state);
    }
}

/// What the log says of a new state.
fn record(
    state: &BrokerState,
    before: Option<&BrokerState>,
    links: &Links,
) -> Option<(RecordId, String)> {
    let was_ready = matches!(before, Some(BrokerState::Ready(_)));
    match state {
        BrokerState::Ready(generation) => {
            let (endpoint, queue) = match &links.consumed {
                Some(consumed) => (consumed.endpoint.as_str(), consumed.queue.as_str()),
                None => ("", ""),
            };
            Some((
                RecordId::Connected,
                format!("connected to {endpoint} (connection {generation} of queue '{queue}')"),
            ))
        }
        // On the way to READY; or the queue is bound again, of which there is a record.
        BrokerState::Disconnected(reason) if reason.starts_with(UNPROVEN) || reason == NOT_YET => {
            None
        }
        BrokerState::Disconnected(reason) => {
            let id = if was_ready {
                RecordId::ConnectionLost
            } else {
                RecordId::ConnectionFailed
            };
            Some((id, format!("not connected, retrying: {reason}")))
        }
        BrokerState::Refused(reason) => Some((
            RecordId::Refused,
            format!("refused by every host, retrying: {reason}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> Place {
        Place {
            host: 0,
            address: ([127, 0, 0, 1], port).into(),
        }
    }

    fn consumed(generation: Generation, epoch: BindingEpoch) -> Consumed {
        Consumed {
            generation,
            epoch: Some(epoch),
            endpoint: "amqp://broker".to_owned(),
            queue: "q".to_owned(),
        }
    }

    fn consuming(links: &mut Links, generation: Generation) {
        links.set(Side::Consuming, LinkState::Up);
        links.consumed = Some(consumed(generation, generation * 10));
    }

    fn ready(generation: Generation) -> Links {
        let mut links = Links::new();
        consuming(&mut links, generation);
        links.publishes(place(1));
        links.hears(generation * 10, place(1));
        assert_eq!(links.state(), BrokerState::Ready(generation));
        links
    }

    fn down(reason: &str) -> LinkState {
        LinkState::Down(reason.to_owned())
    }

    fn disconnected(reason: &str) -> BrokerState {
        BrokerState::Disconnected(reason.to_owned())
    }

    #[test]
    fn it_is_ready_once_both_links_stand_and_a_probe_has_arrived() {
        let mut links = Links::new();
        let is_ready = |links: &Links| matches!(links.state(), BrokerState::Ready(_));
        assert!(!is_ready(&links));
        consuming(&mut links, 1);
        assert!(!is_ready(&links));
        links.publishes(place(1));
        assert!(!is_ready(&links), "no probe has arrived");
        links.hears(9, place(1));
        assert!(!is_ready(&links), "by earlier bindings");
        links.hears(10, place(2));
        assert!(!is_ready(&links), "from an earlier connection");
        links.hears(10, place(1));
        assert!(is_ready(&links));
    }

    #[test]
    fn a_lost_publishing_link_keeps_the_generation_and_needs_a_probe_only_elsewhere() {
        let mut links = ready(3);
        links.set(Side::Publishing, down("cut"));
        assert_eq!(links.state(), disconnected("cut"));
        links.publishes(place(1));
        assert_eq!(links.state(), BrokerState::Ready(3));
        links.set(Side::Publishing, down("cut"));
        links.publishes(place(2));
        assert_eq!(links.state(), disconnected(UNPROVEN));
        links.hears(30, place(2));
        assert_eq!(links.state(), BrokerState::Ready(3));
    }

    #[test]
    fn a_lost_consuming_link_needs_a_new_probe() {
        let mut links = ready(3);
        links.set(Side::Consuming, down("cut"));
        consuming(&mut links, 4);
        assert_eq!(links.state(), disconnected(UNPROVEN));
        links.hears(40, place(1));
        assert_eq!(links.state(), BrokerState::Ready(4));
    }

    #[test]
    fn no_probe_counts_while_the_queue_is_bound_again() {
        let mut links = ready(1);
        links.is_bound_again("lost");
        links.hears(10, place(1));
        links.set(Side::Publishing, down("cut"));
        links.publishes(place(1));
        assert!(!matches!(links.state(), BrokerState::Ready(_)));
        links.consumed = Some(consumed(1, 11));
        links.hears(11, place(1));
        assert_eq!(links.state(), BrokerState::Ready(1));
    }

    #[test]
    fn one_link_that_is_refused_is_a_refusal_with_its_reason() {
        let mut links = ready(1);
        links.set(Side::Publishing, LinkState::Refused("limit".to_owned()));
        assert_eq!(links.state(), BrokerState::Refused("limit".to_owned()));
        links.set(Side::Consuming, down("cut"));
        assert_eq!(links.state(), BrokerState::Refused("limit".to_owned()));
    }

    #[test]
    fn a_link_that_waits_for_the_other_has_no_reason_of_its_own() {
        let mut links = Links::new();
        links.set(Side::Publishing, LinkState::Refused("limit".to_owned()));
        links.set(Side::Consuming, down("connection refused"));
        links.set(Side::Publishing, down(NOT_YET));
        assert_eq!(links.state(), disconnected("connection refused"));
    }
}
