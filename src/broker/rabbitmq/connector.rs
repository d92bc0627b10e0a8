//! Connects one link to one of several hosts, and says what to report where none of them takes it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::connect::{Link, Options, TcpNetwork};
use super::failure::{Failure, Kind};
use super::race::{Arrival, Race};
use super::standing::{LinkState, Place};
use crate::endpoint::Endpoint;

/// Connects to the hosts of a layer, again and again.
pub(super) struct Connector {
    endpoints: Arc<[Endpoint]>,
    options: Options,
    /// For each endpoint, how often in a row the broker hung up during the login.
    hung_up: Vec<u32>,
    /// Where the last attempt succeeded: it is tried first.
    last: Option<Place>,
}

impl Connector {
    pub(super) fn new(endpoints: Arc<[Endpoint]>, options: Options) -> Self {
        Self {
            hung_up: vec![0; endpoints.len()],
            endpoints,
            options,
            last: None,
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Tries `place` first, instead of where the last attempt succeeded.
    pub(super) fn prefer(&mut self, place: Place) {
        self.last = Some(place);
    }

    /// Begins to try each endpoint once. `name` is what the broker shows to its operator.
    pub(super) fn attempt(&mut self, name: String) -> Attempt<'_> {
        let count = self.endpoints.len();
        let first = self.last.map_or(0, |place| place.host);
        let order: Vec<usize> = (0..count).map(|offset| (first + offset) % count).collect();
        let address = self.last.map(|place| place.address);
        let network = TcpNetwork::new(&self.endpoints, address, &self.options);
        Attempt {
            race: Race::new(network, order.clone()),
            order,
            failures: vec![None; count],
            current: None,
            name,
            connector: self,
        }
    }
}

/// One attempt at each endpoint.
pub(super) struct Attempt<'a> {
    connector: &'a mut Connector,
    race: Race<SocketAddr, TcpStream, TcpNetwork>,
    order: Vec<usize>,
    /// Of several failures of a host the one that says most.
    failures: Vec<Option<Failure>>,
    /// Where the connection stands that was returned last.
    current: Option<Place>,
    name: String,
}

impl Attempt<'_> {
    /// The next connection that is logged in; `None` when every host has failed.
    pub(super) async fn next(&mut self) -> Option<(Place, Link)> {
        while let Some(Arrival { host, connected }) = self.race.next().await {
            let Some(endpoint) = self.connector.endpoints.get(host).cloned() else {
                continue;
            };
            let (address, stream) = match connected {
                Ok(connected) => connected,
                Err(failure) => {
                    self.note(host, failure);
                    continue;
                }
            };
            let (name, options) = (self.name.clone(), &self.connector.options);
            match Link::open(&endpoint, address, stream, name, options).await {
                Ok(link) => {
                    let place = Place { host, address };
                    self.current = Some(place);
                    return Some((place, link));
                }
                Err(failure) => self.note(host, failure),
            }
        }
        None
    }

    /// The connection that was returned last is all right.
    pub(super) fn succeeded(self) {
        self.connector.hung_up.fill(0);
        self.connector.last = self.current;
    }

    /// The endpoint of `place`, without a password.
    pub(super) fn name_of(&self, place: Place) -> String {
        let endpoint = self.connector.endpoints.get(place.host);
        endpoint.map(ToString::to_string).unwrap_or_default()
    }

    /// What was to be had on the connection that was returned last could not be had.
    pub(super) fn failed(&mut self, failure: Failure) {
        if let Some(place) = self.current {
            self.note(place.host, failure);
        }
    }

    fn note(&mut self, host: usize, failure: Failure) {
        if let Some(worst) = self.failures.get_mut(host)
            && worst.as_ref().is_none_or(|worst| worst.kind < failure.kind)
        {
            *worst = Some(failure);
        }
    }

    /// What to report when no host was left.
    pub(super) fn outcome(mut self) -> LinkState {
        let mut reasons = Vec::with_capacity(self.order.len());
        let mut all_refused = true;
        for host in std::mem::take(&mut self.order) {
            let failure = self.failures.get_mut(host).and_then(Option::take);
            let failure = failure.unwrap_or_else(|| Failure::passing("the host has no address"));
            all_refused &= self.connector.is_refusal(host, failure.kind);
            if let Some(endpoint) = self.connector.endpoints.get(host) {
                reasons.push(format!("{endpoint}: {}", failure.why));
            }
        }
        let reason = reasons.join("; ");
        if all_refused {
            LinkState::Refused(reason)
        } else {
            LinkState::Down(reason)
        }
    }
}

impl Connector {
    fn is_refusal(&mut self, host: usize, kind: Kind) -> bool {
        let Some(hung_up) = self.hung_up.get_mut(host) else {
            return false;
        };
        if kind != Kind::HungUp {
            *hung_up = 0;
            return kind == Kind::Refused;
        }
        *hung_up += 1;
        *hung_up > 1
    }
}
