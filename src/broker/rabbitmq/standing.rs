//! How the two links stand, and what the layer is told of both together.
//!
//! Each link lives by itself. The layer is ready while both stand and a probe has shown that its queue
//! hears what is published.

use std::sync::Weak;

use crate::broker::{BrokerState, Generation, Host};
use crate::log::RecordId;
use crate::sync::Mutex;

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
            unheard: Some(UNPROVEN.to_owned()),
        }
    }

    fn set(&mut self, side: Side, state: LinkState) {
        match side {
            Side::Consuming => {
                self.consuming = state;
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
    pub(super) fn publishes(&self) {
        self.change(|links| links.set(Side::Publishing, LinkState::Up));
    }

    /// A link is lost, or an attempt to make it has failed.
    pub(super) fn failed(&self, side: Side, state: LinkState) {
        self.change(|links| links.set(side, state));
    }

    /// A probe has arrived, sent by the publishing link to the queue of `generation`.
    pub(super) fn hears(&self, generation: Generation) {
        self.change(|links| {
            if links
                .consumed
                .as_ref()
                .is_some_and(|c| c.generation == generation)
            {
                links.unheard = None;
            }
        });
    }

    /// Whether a probe to the queue of `generation` has arrived.
    pub(super) fn is_heard(&self, generation: Generation) -> bool {
        let (links, _) = &*self.inner.lock();
        let consumed = links.consumed.as_ref();
        links.unheard.is_none() && consumed.is_some_and(|c| c.generation == generation)
    }

    /// The queue is being bound again: what was shown before is void.
    pub(super) fn is_bound_again(&self, why: &str) {
        self.change(|links| links.unheard = Some(format!("{UNPROVEN}: {why}")));
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

    fn consumed(generation: Generation) -> Consumed {
        Consumed {
            generation,
            endpoint: "amqp://broker".to_owned(),
            queue: "q".to_owned(),
        }
    }

    fn up(generation: Generation) -> Links {
        let mut links = Links::new();
        links.set(Side::Consuming, LinkState::Up);
        links.consumed = Some(consumed(generation));
        links.set(Side::Publishing, LinkState::Up);
        links.unheard = None;
        links
    }

    fn down(reason: &str) -> LinkState {
        LinkState::Down(reason.to_owned())
    }

    #[test]
    fn it_is_ready_once_both_links_stand_and_a_probe_has_arrived() {
        let mut links = Links::new();
        let is_ready = |links: &Links| matches!(links.state(), BrokerState::Ready(_));
        assert!(!is_ready(&links));
        links.set(Side::Consuming, LinkState::Up);
        links.consumed = Some(consumed(1));
        assert!(!is_ready(&links));
        links.set(Side::Publishing, LinkState::Up);
        assert!(!is_ready(&links), "no probe has arrived");
        links.unheard = None;
        assert_eq!(links.state(), BrokerState::Ready(1));
    }

    #[test]
    fn a_lost_publishing_link_keeps_the_generation_and_a_lost_consuming_link_needs_a_new_probe() {
        let mut links = up(3);
        links.set(Side::Publishing, down("cut"));
        assert_eq!(links.state(), BrokerState::Disconnected("cut".to_owned()));
        links.set(Side::Publishing, LinkState::Up);
        assert_eq!(links.state(), BrokerState::Ready(3));
        links.set(Side::Consuming, down("cut"));
        links.set(Side::Consuming, LinkState::Up);
        links.consumed = Some(consumed(4));
        assert_eq!(
            links.state(),
            BrokerState::Disconnected(UNPROVEN.to_owned())
        );
        links.unheard = None;
        assert_eq!(links.state(), BrokerState::Ready(4));
    }

    #[test]
    fn one_link_that_is_refused_is_a_refusal_with_its_reason() {
        let mut links = up(1);
        links.set(Side::Publishing, LinkState::Refused("limit".to_owned()));
        assert_eq!(links.state(), BrokerState::Refused("limit".to_owned()));
        links.set(Side::Consuming, down("cut"));
        assert_eq!(links.state(), BrokerState::Refused("limit".to_owned()));
    }

    #[test]
    fn a_link_that_waits_for_the_other_has_no_reason_of_its_own() {
        let mut links = Links::new();
        links.set(Side::Consuming, down("connection refused"));
        let reason = "connection refused".to_owned();
        assert_eq!(links.state(), BrokerState::Disconnected(reason));
    }
}
