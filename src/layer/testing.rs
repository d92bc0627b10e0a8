//! What the tests of a layer share: a layer that is ready, a broker that never answers, a log to be read.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::broker::{
    BindingChange, BindingEpoch, Broker, BrokerFuture, BrokerState, Earlier, Generation, Host,
};
use crate::config::Config;
use crate::log::{Record, RecordId};
use crate::sync::Mutex;

use super::shared::Shared;
use super::{Hooks, Layer, OnLog, Owner};

/// The ids of the records that were logged.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<RecordId>>>);

impl Log {
    /// Hooks that write into it.
    pub(super) fn hooks(&self) -> Hooks {
        Hooks {
            on_log: Some(Arc::new(self.clone())),
            ..Hooks::default()
        }
    }

    /// How often something was logged.
    pub(super) fn count(&self, id: RecordId) -> usize {
        self.0.lock().iter().filter(|logged| **logged == id).count()
    }
}

impl OnLog for Log {
    fn log(&self, record: &Record) {
        self.0.lock().push(record.id);
    }
}

/// A layer on `memory://` that is ready. Each test has a `name` of its own.
pub(super) fn open_on_memory(name: &str) -> Layer {
    let mut config = Config::new();
    config.set("host", &format!("memory://{name}")).unwrap();
    let layer = Layer::new(&config).unwrap();
    layer.wait_ready(Duration::from_secs(20)).unwrap();
    layer
}

/// A broker that confirms nothing.
pub(super) struct Silent {
    layer: Weak<Shared>,
    /// Whether it takes publications.
    takes: bool,
    /// How long it was given to close.
    pub(super) closed_within: Mutex<Option<Duration>>,
}

impl Silent {
    /// A layer that is connected to it.
    pub(super) fn open(takes: bool, options: &[(&str, &str)]) -> (Layer, Arc<Self>) {
        let mut config = Config::new();
        for (name, value) in options {
            config.set(name, value).unwrap();
        }
        let mut broker = None;
        let shared = Shared::open_on(&config, Hooks::default(), |shared, _| {
            let silent = Arc::new(Self {
                layer: Arc::downgrade(shared),
                takes,
                closed_within: Mutex::default(),
            });
            broker = Some(Arc::clone(&silent));
            silent
        })
        .unwrap();
        shared.publishing_changed(true);
        shared.begin_generation(1, "queue");
        shared.bind_all(1, Earlier::Nothing);
        shared.state_changed(BrokerState::Ready(1));
        let layer = Layer {
            _owner: Arc::new(Owner(Arc::clone(&shared))),
            shared,
        };
        (layer, broker.unwrap())
    }
}

impl Broker for Silent {
    fn publications_waiting(&self) {
        if self.takes
            && let Some(layer) = self.layer.upgrade()
        {
            layer.take_publications(usize::MAX, &mut Vec::new());
        }
    }

    fn resume(&self, _: Generation, _: usize) {}

    fn change_bindings(&self, _: BindingEpoch, _: Vec<BindingChange>) {}

    fn close(&self, timeout: Duration) -> BrokerFuture {
        *self.closed_within.lock() = Some(timeout);
        Box::pin(async {})
    }
}
