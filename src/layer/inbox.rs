//! From a delivery to its receivers: delivery -> groups -> mailbox -> credit.

use std::sync::Arc;
use std::time::Instant;

use crate::broker::{Delivery, Generation};
use crate::error::Error;
use crate::log::RecordId;
use crate::mailbox::{Bound, Delivered, Lost};
use crate::stats::Stat;
use crate::wire::{self, Decoded, OwnedRecipient};

use super::isolation::in_words;
use super::local::{After, Local, Pull, Woken};
use super::shared::{Job, Shared};

/// A message expires at most this part of its time too late: it spares looking at each arrival.
const EXPIRY_GRAIN: u32 = 64;

impl Local {
    fn deliver(&mut self, decoded: Decoded, now: Instant, shared: &Shared, after: &mut After) {
        let body = Arc::new(decoded.body);
        let losses = &mut self.losses;
        let mut note = |delivered: Delivered<Arc<Pull>>| {
            after.due.extend(delivered.due);
            after.wake.extend(delivered.wake);
            if let Some(Lost { channel, bound }) = delivered.lost {
                let stat = match bound {
                    Bound::Channel => Stat::DroppedChannelFull,
                    Bound::Total => Stat::DroppedTotalFull,
                };
                shared.counters.add(stat, 1);
                losses.add(channel);
            }
        };
        match &decoded.recipient {
            OwnedRecipient::Channel(channel) => {
                let ours = channel
                    .split_once('!')
                    .is_some_and(|(queue, _)| shared.own_queues.contain(queue));
                if ours {
                    note(self.mailboxes.deliver(channel, body, now));
                } else {
                    shared.counters.add(Stat::DroppedForeign, 1);
                }
            }
            OwnedRecipient::Group(group) => {
                let members = self.groups.members(group);
                if members.is_empty() {
                    shared.counters.add(Stat::DroppedNoMember, 1);
                }
                self.mailboxes.deliver_to_all(members, body, now, note);
            }
        }
    }

    fn warn_of(&mut self, what: Dropped, now: Instant, shared: &Shared) {
        let (limit, id, text) = match &what {
            Dropped::Malformed(error) => (
                &mut self.warnings.malformed,
                RecordId::MalformedDropped,
                format!("dropped a message that no channel layer has sent: {error}"),
            ),
            Dropped::Redelivered => (
                &mut self.warnings.redelivered,
                RecordId::RedeliveredDropped,
                "dropped a message that may have been delivered before".to_owned(),
            ),
        };
        if let Some(others) = limit.permit(now) {
            shared.log(id, format!("{text} ({others} earlier warnings held back)"));
        }
    }
}

enum Dropped {
    Malformed(Error),
    Redelivered,
}

impl Shared {
    /// Does what was put off until the lock was released.
    pub(super) fn follow_up(&self, after: After) {
        self.dispatcher
            .push_all(after.due.into_iter().map(Job::Mailbox));
        for pull in after.wake {
            pull.wake(Woken::Message);
        }
    }

    /// Tells the broker to send more, if it may.
    pub(super) fn resume(&self, (generation, count): (Generation, usize)) {
        if count > 0 {
            self.broker().resume(generation, count);
        }
    }

    /// Takes deliveries; says how many of those that are held may be let go.
    pub(super) fn take_deliveries(
        &self,
        generation: Generation,
        batch: &mut Vec<Delivery>,
    ) -> usize {
        let now = Instant::now();
        let count = batch.len();
        self.counters.add(Stat::Deliveries, count);
        // Decoding needs no lock.
        let mut decoded = Vec::with_capacity(count);
        let mut dropped = Vec::new();
        for delivery in batch.drain(..) {
            if delivery.redelivered {
                self.counters.add(Stat::DroppedRedelivered, 1);
                dropped.push(Dropped::Redelivered);
                continue;
            }
            match wire::decode(delivery.body) {
                Ok(message) => decoded.push(message),
                Err(error) => {
                    self.counters.add(Stat::DroppedMalformed, 1);
                    dropped.push(Dropped::Malformed(error));
                }
            }
        }

        let mut after = After::default();
        let (released, expired) = {
            let mut local = self.inbox.local.lock();
            if generation != local.generation {
                return 0;
            }
            // Again, for the lock may have been waited for.
            let now = Instant::now();
            local.back_pressure.arrived(count, now);
            if local.closed {
                self.counters.add(Stat::DroppedDiscarded, decoded.len());
                return 0;
            }
            for what in dropped {
                local.warn_of(what, now, self);
            }
            for message in decoded {
                local.deliver(message, now, self, &mut after);
            }
            local.tell_losses(now, self);
            let (_, released) = local.release(now, self);
            (released, local.mailboxes.take_expired())
        };
        self.counters.add(Stat::DroppedExpired, expired);
        self.follow_up(after);
        if let Some(at) = now.checked_add(self.settings.local_expiry) {
            self.timekeeper.arm(at);
        }
        released
    }

    /// Drops what nobody has received in time.
    pub(super) fn expire_messages(&self, now: Instant) {
        let (released, dropped, warning) = {
            let mut local = self.inbox.local.lock();
            if local.next_sweep.is_some_and(|sweep| now < sweep) {
                return;
            }
            let expired = local.mailboxes.expire(now);
            local.next_sweep = now.checked_add(self.settings.local_expiry / EXPIRY_GRAIN);
            let warning = (expired.dropped > 0)
                .then(|| local.warnings.expired.permit(now))
                .flatten()
                .map(|others| (expired.biggest, others));
            (local.release(now, self), expired.dropped, warning)
        };
        self.counters.add(Stat::DroppedExpired, dropped);
        self.resume(released);
        if let Some((biggest, others)) = warning {
            self.log(
                RecordId::ExpiredDropped,
                format!(
                    "{dropped} messages that nobody received within option 'local_expiry' were \
                     dropped; biggest queues: {} ({others} earlier warnings held back)",
                    in_words(&biggest)
                ),
            );
        }
    }

    /// When messages are to be looked at again.
    pub(super) fn next_message_expiry(&self) -> Option<Instant> {
        let local = self.inbox.local.lock();
        let expiry = local.mailboxes.next_expiry()?;
        Some(local.next_sweep.map_or(expiry, |sweep| expiry.max(sweep)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::layer::Layer;
    use crate::layer::testing::Log;

    #[test]
    fn a_message_that_nobody_takes_is_dropped_at_its_time_or_at_the_next_sweep() {
        let mut config = Config::new();
        config.set("host", "memory://expires").unwrap();
        config.set("local_expiry", "60").unwrap();
        let layer = Layer::new(&config).unwrap();
        layer.wait_ready(Duration::from_secs(20)).unwrap();
        let channel = layer.new_channel(None).unwrap();
        assert_eq!(layer.shared.next_message_expiry(), None);
        let body = wire::encode(b"\x80", wire::Recipient::Channel(&channel), usize::MAX).unwrap();
        let before = Instant::now();
        let mut batch = vec![Delivery {
            body,
            redelivered: false,
        }];
        layer.shared.take_deliveries(1, &mut batch);
        let due = layer.shared.next_message_expiry().unwrap();
        let expiry = Duration::from_secs(60);
        assert!(due >= before + expiry && due <= Instant::now() + expiry);

        layer.shared.inbox.local.lock().next_sweep = Some(due + expiry);
        assert_eq!(layer.shared.next_message_expiry(), Some(due + expiry));
        layer.shared.expire_messages(due);
        assert_eq!(layer.stat(Stat::DroppedExpired), 0);
        layer.shared.expire_messages(due + expiry);
        assert_eq!(layer.stat(Stat::DroppedExpired), 1);
        assert_eq!(layer.shared.next_message_expiry(), None);
        layer.close(Duration::from_secs(20)).unwrap();
    }

    /// No client can bring about a redelivery: the queue is exclusive, and dies with the connection.
    #[test]
    fn what_may_have_been_delivered_before_is_dropped_counted_and_logged_now_and_then() {
        let log = Log::default();
        let mut config = Config::new();
        config.set("host", "memory://redelivered").unwrap();
        let layer = Layer::with_hooks(&config, log.hooks()).unwrap();
        layer.wait_ready(Duration::from_secs(20)).unwrap();
        let channel = layer.new_channel(None).unwrap();
        let delivery = |redelivered| Delivery {
            body: wire::encode(b"\x80", wire::Recipient::Channel(&channel), usize::MAX).unwrap(),
            redelivered,
        };
        let mut batch: Vec<Delivery> = (0..50).map(|_| delivery(true)).collect();
        batch.push(delivery(false));
        layer.shared.take_deliveries(1, &mut batch);

        assert_eq!(layer.stat(Stat::DroppedRedelivered), 50);
        layer
            .receive_next(&channel, Duration::from_secs(20))
            .unwrap();
        let none = layer.receive_next(&channel, Duration::ZERO);
        assert!(none.is_err());
        assert_eq!(layer.stat(Stat::DeliveriesHeld), 0);
        layer.close(Duration::from_secs(20)).unwrap();
        assert_eq!(log.count(RecordId::RedeliveredDropped), 1);
    }
}
