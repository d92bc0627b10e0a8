//! Receivers: callbacks that take messages, threads that wait for one, and how both end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dispatch;
use crate::error::{Error, ErrorKind, panic_text};
use crate::log::Level;
use crate::mailbox::{Call, Cancel, CheckedOut, Discarded, Ended, Flow, MailboxKey, ReceiverId};
use crate::message::Message;
use crate::stats::Stat;

use super::callbacks::{Receive, Rejected};
use super::local::{After, Pull, Woken};
use super::shared::{Shared, far};

const TARGET: &str = "channel_layer::receivers";

impl Shared {
    pub(super) fn add_receiver<R: Receive>(
        &self,
        channel: &str,
        callback: R,
        announce: impl FnOnce(ReceiverId),
    ) -> Result<ReceiverId, Rejected<R>> {
        if let Err(error) = self.own_channel(channel) {
            return Err(Rejected { error, callback });
        }
        let mut local = self.inbox.local.lock();
        if local.closed {
            let error = Error::closed();
            return Err(Rejected { error, callback });
        }
        let (id, due) = local
            .mailboxes
            .add_receiver(channel, Box::new(callback), announce);
        drop(local);
        self.follow_up(After {
            due: due.into_iter().collect(),
            wake: Vec::new(),
        });
        Ok(id)
    }

    /// Runs callbacks of a mailbox; says how many, and whether more of it is due.
    pub(super) fn run_mailbox(&self, key: MailboxKey, budget: usize) -> (usize, bool) {
        let mut ran = 0;
        loop {
            let (checked_out, released, expired) = {
                let mut local = self.inbox.local.lock();
                let checked_out = local.mailboxes.check_out(key, self.clock.now());
                let released = local.release();
                (checked_out, released, local.mailboxes.take_expired())
            };
            self.counters.add(Stat::DroppedExpired, expired);
            self.resume(released);
            let Some(checked_out) = checked_out else {
                return (ran, false);
            };
            ran += 1;
            let due = self.run_callback(key, checked_out);
            if !due || ran >= budget {
                return (ran, due);
            }
        }
    }

    /// Runs one callback; says whether more of its mailbox is due.
    fn run_callback(&self, key: MailboxKey, mut checked_out: CheckedOut<Box<dyn Receive>>) -> bool {
        let _inside = dispatch::enter_callback();
        let flow = catch_unwind(AssertUnwindSafe(|| match &checked_out.call {
            Call::Message(message) => checked_out.callback.receive(message),
            Call::Ended(why) => {
                checked_out.callback.ended(*why);
                Flow::Stop
            }
        }))
        .unwrap_or_else(|panic| {
            self.log(
                Level::Error,
                TARGET,
                format!("a receiver panicked and was ended: {}", panic_text(&*panic)),
            );
            Flow::Stop
        });
        if matches!(checked_out.call, Call::Message(_)) && flow != Flow::Decline {
            self.counters.add(Stat::Received, 1);
        }

        let mut local = self.inbox.local.lock();
        let receiver = checked_out.receiver;
        let mut checked_in = local.mailboxes.check_in(key, checked_out, flow);
        let released = local.release();
        if checked_in.cancelled
            && let Some(handback) = local.handbacks.get_mut(&receiver)
        {
            *handback = checked_in.retired.take();
            self.inbox.handed_back.notify_all();
        }
        drop(local);
        if let Some(pull) = checked_in.wake {
            pull.wake(Woken::Message);
        }
        self.counters
            .add(Stat::DroppedDiscarded, usize::from(checked_in.dropped));
        self.resume(released);
        // The callback of an ended receiver goes here, outside the lock.
        drop(checked_in.retired);
        checked_in.due
    }

    pub(super) fn cancel_receiver(&self, id: ReceiverId) -> Result<(), Error> {
        let deadline = Instant::now() + self.settings.timeout;
        let mut local = self.inbox.local.lock();
        match local.mailboxes.cancel(id) {
            Cancel::Unknown => Ok(()),
            Cancel::Idle(callback) => {
                drop(local);
                let _inside = dispatch::enter_callback();
                drop(callback);
                Ok(())
            }
            // The thread that runs it drops it.
            Cancel::Running if dispatch::in_callback() => Ok(()),
            Cancel::Running => {
                let first = !local.handbacks.contains_key(&id);
                if first {
                    local.handbacks.insert(id, None);
                }
                while local.mailboxes.has_receiver(id) {
                    if self
                        .inbox
                        .handed_back
                        .wait_until(&mut local, deadline)
                        .timed_out()
                    {
                        break;
                    }
                }
                let ended = !local.mailboxes.has_receiver(id);
                let callback = if first {
                    local.handbacks.remove(&id).flatten()
                } else {
                    None
                };
                drop(local);
                let _inside = dispatch::enter_callback();
                drop(callback);
                if ended {
                    Ok(())
                } else {
                    Err(Error::new(
                        ErrorKind::Timeout,
                        format!(
                            "the callback of receiver {id} is still running after {:?} (option \
                             'timeout'): no call begins any more, and 'destroy' follows this one",
                            self.settings.timeout
                        ),
                    ))
                }
            }
        }
    }

    pub(super) fn pull(&self, channel: &str, timeout: Duration) -> Result<Message, Error> {
        self.own_channel(channel)?;
        if !timeout.is_zero() && dispatch::in_callback() {
            return Err(Error::would_deadlock());
        }
        let deadline = far(Instant::now(), timeout);
        let waiter = Arc::new(Pull::default());
        let mut last_look = timeout.is_zero();
        loop {
            let (message, released, expired) = {
                let mut local = self.inbox.local.lock();
                if local.closed {
                    return Err(Error::closed());
                }
                // All under one lock, so that no delivery falls in between.
                local.mailboxes.remove_pull(channel, &waiter);
                let message = local.mailboxes.pull(channel, Instant::now());
                if message.is_none() && !last_look {
                    local.mailboxes.add_pull(channel, Arc::clone(&waiter));
                }
                let released = local.release();
                (message, released, local.mailboxes.take_expired())
            };
            self.counters.add(Stat::DroppedExpired, expired);
            self.resume(released);
            if let Some(message) = message {
                self.counters.add(Stat::Received, 1);
                return Ok(message);
            }
            if last_look {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("no message came for channel '{channel}' within {timeout:?}"),
                ));
            }
            match waiter.wait(deadline) {
                Some(Woken::Message) => {}
                Some(Woken::Ended(Ended::Discarded)) => {
                    return Err(Error::new(
                        ErrorKind::Cancelled,
                        format!("channel '{channel}' was discarded"),
                    ));
                }
                Some(Woken::Ended(Ended::Closed)) => return Err(Error::closed()),
                None => last_look = true,
            }
        }
    }

    pub(super) fn discard_channel(&self, channel: &str) -> Result<(), Error> {
        self.own_channel(channel)?;
        let (discarded, changes, released) = {
            let mut local = self.inbox.local.lock();
            if local.closed {
                return Err(Error::closed());
            }
            let discarded = local.mailboxes.discard(channel, Ended::Discarded);
            let key = local.mailboxes.key(channel);
            let left = key.map(|key| local.groups.discard_channel(key));
            let changes = local.unpin(left.unwrap_or_default());
            (discarded, (local.generation, changes), local.release())
        };
        self.discarded(discarded, Ended::Discarded);
        self.resume(released);
        self.change_bindings(changes);
        Ok(())
    }

    /// Ends all receivers, and refuses new ones and new waits for good.
    pub(super) fn end_receivers(&self) {
        let discarded = {
            let mut local = self.inbox.local.lock();
            local.closed = true;
            local.mailboxes.discard_all(Ended::Closed)
        };
        self.discarded(discarded, Ended::Closed);
    }

    fn discarded(&self, discarded: Discarded<Arc<Pull>>, why: Ended) {
        self.counters.add(Stat::DroppedDiscarded, discarded.dropped);
        for pull in discarded.wake {
            pull.wake(Woken::Ended(why));
        }
        self.follow_up(After {
            due: discarded.due,
            wake: Vec::new(),
        });
    }
}
