//! The publishing link: one connection with the AMQP channel that publishes, made again whenever it is lost.
//! What goes wrong with consuming does not touch it.

use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use super::connect::{Link, Options};
use super::connector::Connector;
use super::failure::Failure;
use super::inquiry::{self, Inquiry};
use super::link_life::MakeLink;
use super::probe::Prober;
use super::publisher::Publisher;
use super::shared::Shared;
use super::standing::{LinkState, Place, Side};
use super::topology::Topology;
use super::workers::{Stop, Workers};
use futures_util::future::poll_fn;

/// Makes the link, again and again.
pub(super) struct Publishing {
    shared: Arc<Shared>,
    connector: Connector,
    topology: Topology,
    options: Options,
}

/// The tasks of the link, which need not be told apart.
type Task = ();

/// A link that stands.
pub(super) struct Session {
    /// Its name, without a password.
    endpoint: String,
    place: Place,
    link: Arc<Link>,
    workers: Workers<Task>,
}

/// What ends a link that stands.
enum Event {
    Closing,
    Ended(String),
    LinkEnded,
}

impl Publishing {
    pub(super) fn new(shared: Arc<Shared>, connector: Connector, topology: Topology) -> Self {
        let options = connector.options().clone();
        Self {
            shared,
            connector,
            topology,
            options,
        }
    }
}

impl MakeLink for Publishing {
    const SIDE: Side = Side::Publishing;

    type Session = Session;

    /// Waits until the consuming link is logged in somewhere, and tries that host first, then the
    /// others: a broker that is away is not asked by both.
    async fn attempt(&mut self) -> Result<Session, LinkState> {
        let mut reached = self.shared.reached.subscribe();
        if reached.borrow().is_none() {
            self.shared.standing.waits(Self::SIDE);
        }
        // An error would mean that the sender is gone, which is in `shared`.
        if let Ok(place) = reached.wait_for(Option::is_some).await
            && let Some(place) = *place
        {
            self.connector.prefer(place);
        }
        let queue = self
            .shared
            .consumed
            .borrow()
            .as_ref()
            .map(|queue| Arc::clone(&queue.name));
        let queue = queue.as_deref().unwrap_or(&self.topology.queue);
        let name = format!("channel-layer {queue} publish");
        let mut attempt = self.connector.attempt(name);
        while let Some((place, link)) = attempt.next().await {
            let endpoint = attempt.name_of(place);
            let made = set_up(&self.shared, &self.topology, &self.options, place, link);
            match made.await {
                Ok((link, workers)) => {
                    attempt.succeeded();
                    return Ok(Session {
                        endpoint,
                        place,
                        link,
                        workers,
                    });
                }
                Err(failure) => attempt.failed(failure),
            }
        }
        Err(attempt.outcome())
    }

    async fn serve(&mut self, session: Session) -> Option<String> {
        let endpoint = session.endpoint.clone();
        self.shared.standing.publishes(session.place);
        let reason = session.serve(&self.shared).await?;
        Some(format!("{endpoint}: {reason}"))
    }

    fn is_lost(&mut self) {
        if let Some(host) = self.shared.host.upgrade() {
            host.publishing_changed(false);
        }
    }
}

/// Opens what publishes on `link`, and starts its tasks.
async fn set_up(
    shared: &Arc<Shared>,
    topology: &Topology,
    options: &Options,
    place: Place,
    link: Link,
) -> Result<(Arc<Link>, Workers<Task>), Failure> {
    let link = Arc::new(link);
    link.io().serve(Weak::clone(&shared.host));
    let (refused, asked) = inquiry::channel();
    let publisher = Publisher::open(Arc::clone(shared), &link, topology, refused).await?;
    let prober = Prober::open(Arc::clone(shared), topology.clone(), &link, place).await?;
    let mut workers = Workers::new(options.clone());
    let stop = workers.stop_receiver();
    workers.spawn_to_the_end((), publisher.run(stop));
    let inquiry = Inquiry::new(
        Arc::clone(shared),
        topology.clone(),
        Arc::downgrade(&link),
        asked,
    );
    workers.spawn((), inquiry.run());
    workers.spawn((), prober.run());
    Ok((link, workers))
}

impl Session {
    /// Returns why the link is lost, or `None` when the broker is closed.
    async fn serve(mut self, shared: &Shared) -> Option<String> {
        let event = {
            let mut closing = pin!(shared.closing.begun());
            let mut ended = pin!(self.link.ended());
            let workers = &mut self.workers;
            poll_fn(|cx| {
                if closing.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Closing);
                }
                if let Poll::Ready((_, reason)) = workers.poll_ended(cx) {
                    return Poll::Ready(Event::Ended(reason));
                }
                ended.as_mut().poll(cx).map(|()| Event::LinkEnded)
            })
            .await
        };
        let reason = match event {
            Event::Closing => {
                self.workers.finish(&self.link, &shared.closing).await;
                return None;
            }
            Event::Ended(reason) => reason,
            Event::LinkEnded => self.workers.last_words().await,
        };
        self.link.cut();
        self.workers.stop(Stop::Now(reason.clone()));
        self.workers.join().await;
        Some(reason)
    }
}
