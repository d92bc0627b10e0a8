//! Asks from time to time whether the queue answers and knows its consumer.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};

use super::failure::describe;
use super::shared::Shared;
use super::topology::{Topology, short};

/// How long a queue may have no consumer.
const NO_CONSUMER: Duration = Duration::from_secs(1);

/// The check of one queue, by the connection that owns it.
pub(super) struct QueueCheck {
    pub(super) shared: Arc<Shared>,
    pub(super) topology: Topology,
    pub(super) asking: Channel,
}

impl QueueCheck {
    /// Asks until something is amiss. Returns what.
    pub(super) async fn run(self) -> String {
        let queue = &self.topology.queue;
        let patience = self.topology.silence();
        let flags = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let mut has_no_consumer = false;
        loop {
            sleep(if has_no_consumer {
                NO_CONSUMER
            } else {
                self.topology.interval
            })
            .await;
            let progress = self.shared.arrivals.progress();
            let name = match short(queue) {
                Ok(name) => name,
                Err(failure) => return failure.why,
            };
            let question = self
                .asking
                .queue_declare(name, flags, FieldTable::default());
            match timeout(patience, question).await {
                Ok(Ok(answer)) if answer.consumer_count() == 0 => {
                    // Between two there is none for a moment, and no reason to give the queue up.
                    if std::mem::replace(&mut has_no_consumer, true) {
                        return format!("queue '{queue}' has lost its consumer");
                    }
                }
                Ok(Ok(_)) => has_no_consumer = false,
                Ok(Err(error)) => {
                    return format!("queue '{queue}' is not there: {}", describe(&error));
                }
                // The answer may be behind large messages on a slow line.
                Err(_) if self.shared.arrivals.progress() != progress => {}
                Err(_) => {
                    return format!("queue '{queue}' gave no sign of life in {patience:?}");
                }
            }
        }
    }
}
