//! RabbitMQ by way of lapin: two links, each made again whenever it is lost.
//!
//! The *consuming link* ([`consuming`]) owns the queue, its bindings, its consumer and the generation; the
//! *publishing link* ([`publishing`]) owns confirms. Each is a connection with tasks of its own, which
//! connects, is lost and connects again without regard to the other; [`standing`] says what both come to.
//! The layer is ready once a probe that the one sends has arrived at the other ([`probe`]). lapin's
//! recovery takes no part.
//!
//! An error costs what it is about: a message, an AMQP channel ([`verdict`]), or its link.

mod answers;
mod arrivals;
mod backoff;
mod binder;
mod binding_queue;
mod connect;
mod connector;
mod consumer;
mod consuming;
mod credit;
mod denial;
mod destination;
mod doorbell;
mod failure;
mod gathering;
mod hearing;
mod inquiry;
mod io;
mod kit;
mod lanes;
mod link_life;
mod login;
mod own_queue;
mod parts;
mod private_exchange;
mod probe;
mod publisher;
mod publishing;
mod queue_check;
mod race;
mod shared;
mod standing;
mod tls;
mod topology;
mod verdict;
mod workers;

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::connector::Connector;
use self::consuming::Consuming;
use self::publishing::Publishing;
use self::shared::Shared;
pub(crate) use self::tls::Tls;
use self::topology::Topology;
use crate::broker::{BindingChange, BindingEpoch, Broker, BrokerFuture, Generation, Host};
use crate::config::Settings;
use crate::endpoint::Endpoint;

/// How long threads and tasks may take to end once no peer is waited for.
const REMAINS: Duration = Duration::from_secs(5);

/// The broker of a layer. Dropping it closes at once.
pub(crate) struct RabbitMq {
    shared: Arc<Shared>,
    /// Closes when nothing of this broker runs any more.
    running: watch::Receiver<()>,
}

impl RabbitMq {
    /// Starts to connect to one of `endpoints`, in the background. `tls` is of the same settings.
    pub(crate) fn open(
        endpoints: Vec<Endpoint>,
        queue: String,
        settings: &Settings,
        tls: Option<Tls>,
        host: Weak<dyn Host>,
        runtime: Handle,
    ) -> Arc<dyn Broker> {
        let (complaints, complained) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(host, complaints));
        let (runs, running) = watch::channel(());
        let (alive, mut remains) = mpsc::channel(1);
        let options = connect::Options {
            timeout: settings.connect_timeout,
            heartbeat: settings.heartbeat,
            tls,
            handle: runtime.clone(),
            alive,
        };
        let topology = Topology::new(queue, settings);
        let endpoints: Arc<[Endpoint]> = endpoints.into();
        let connector = || Connector::new(Arc::clone(&endpoints), options.clone());
        let consuming = Consuming::new(
            Arc::clone(&shared),
            connector(),
            topology.clone(),
            complained,
        );
        let publishing = Publishing::new(Arc::clone(&shared), connector(), topology);
        drop(options);
        let (links, reconnect_max) = (Arc::clone(&shared), settings.reconnect_max);
        runtime.spawn(async move {
            let consuming = link_life::run(consuming, &links, reconnect_max);
            let publishing = link_life::run(publishing, &links, reconnect_max);
            join(consuming, publishing).await;
            // All connections are dropped and so cut: what is left ends by itself.
            let _ = timeout(REMAINS, remains.recv()).await;
            drop(runs);
        });
        Arc::new(Self { shared, running })
    }
}

impl Broker for RabbitMq {
    fn publications_waiting(&self) {
        self.shared.publications_wait();
    }

    fn resume(&self, generation: Generation, count: usize) {
        self.shared.credit.add(generation, count);
    }

    fn change_bindings(&self, epoch: BindingEpoch, changes: Vec<BindingChange>) {
        self.shared.bindings.push(epoch, changes);
    }

    fn close(&self, timeout: Duration) -> BrokerFuture {
        self.shared.closing.begin(timeout);
        let mut running = self.running.clone();
        Box::pin(async move { while running.changed().await.is_ok() {} })
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.shared.closing.begin(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests;
