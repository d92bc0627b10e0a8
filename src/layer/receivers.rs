//! Receivers: callbacks that take messages, threads that wait for one, and how both end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dispatch::{self, Turn};
use crate::error::{Error, ErrorKind, panic_text};
use crate::log::RecordId;
use crate::mailbox::{
    Call, Cancel, CheckedIn, CheckedOut, Discarded, Ended, Flow, MailboxKey, ReceiverId,
};
use crate::message::Message;
use crate::stats::Stat;
use crate::sync::MutexGuard;

use super::callback_time::CallbackTime;
use super::callbacks::{Receive, Rejected};
use super::local::{After, Local, Pull, Woken};
use super::shared::{Job, Shared, far};

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

    /// Runs callbacks of a mailbox, at most so many, and of the mailboxes that come next in `turn`.
    /// Returns the first job that is no mailbox.
    pub(super) fn run_mailboxes(
        &self,
        first: (MailboxKey, usize),
        turn: &mut Turn<Job>,
        time: &mut CallbackTime,
    ) -> Option<(Job, usize)> {
        let (mut key, mut most) = first;
        let mut ran = 0;
        let mut local = self.inbox.local.lock();
        loop {
            let now = local.clock.now();
            let checked_out = local.mailboxes.check_out(key, now);
            let mut due = false;
            if let Some(mut checked_out) = checked_out {
                self.let_go(local);
                let flow = self.run_callback(&mut checked_out);
                ran += 1;
                // The end of one call and the beginning of the next have one lock.
                local = self.inbox.local.lock();
                let receiver = checked_out.receiver;
                let now = local.clock.now();
                let checked_in = local.mailboxes.check_in(key, checked_out, flow, now);
                due = checked_in.due;
                if !checked_in.is_routine() {
                    local = self.follow_check_in(local, receiver, checked_in);
                }
            }
            if due && ran < most {
                continue;
            }
            turn.ran(ran, due.then_some(Job::Mailbox(key)));
            time.after(turn.callbacks(), &self.counters);
            match turn.next() {
                Some((Job::Mailbox(next), its_most)) => (key, most, ran) = (next, its_most, 0),
                other => {
                    self.let_go(local);
                    return other;
                }
            }
        }
    }

    /// Ends the hold of the lock after messages were taken out.
    fn let_go(&self, mut local: MutexGuard<'_, Local>) {
        let now = local.clock.now();
        let released = local.release(now, self);
        let expired = local.mailboxes.take_expired();
        drop(local);
        self.counters.add(Stat::DroppedExpired, expired);
        self.resume(released);
    }

    /// Runs one callback.
    fn run_callback(&self, checked_out: &mut CheckedOut<Box<dyn Receive>>) -> Flow {
        catch_unwind(AssertUnwindSafe(|| match &checked_out.call {
            Call::Message(message) => checked_out.callback.receive(message),
            Call::Ended(why) => {
                checked_out.callback.ended(*why);
                Flow::Stop
            }
        }))
        .unwrap_or_else(|panic| {
            self.log(
                RecordId::ReceiverPanicked,
                format!("a receiver panicked and was ended: {}", panic_text(&*panic)),
            );
            Flow::Stop
        })
    }

    /// Does what the end of a callback has brought about, with the lock open in between.
    fn follow_check_in<'a>(
        &'a self,
        mut local: MutexGuard<'a, Local>,
        receiver: ReceiverId,
        mut checked_in: CheckedIn<Box<dyn Receive>, Arc<Pull>>,
    ) -> MutexGuard<'a, Local> {
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
        // The callback of an ended receiver goes here, outside the lock.
        drop(checked_in.retired);
        self.inbox.local.lock()
    }

    pub(super) fn cancel_receiver(&self, id: ReceiverId) -> Result<(), Error> {
        let deadline = Instant::now() + self.settings.timeout;
        let mut local = self.inbox.local.lock();
        match local.mailboxes.cancel(id, Instant::now()) {
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
            let message = {
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
                self.let_go(local);
                message
            };
            if let Some(message) = message {
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
        let now = Instant::now();
        let (discarded, changes, released) = {
            let mut local = self.inbox.local.lock();
            if local.closed {
                return Err(Error::closed());
            }
            let discarded = local.mailboxes.discard(channel, Ended::Discarded);
            let key = local.mailboxes.key(channel);
            let left = key.map(|key| local.groups.discard_channel(key, now));
            let changes = local.unpin(left.unwrap_or_default());
            let released = local.release(now, self);
            (discarded, (local.binding_epoch, changes), released)
        };
        self.discarded(discarded, Ended::Discarded);
        self.resume(released);
        self.change_bindings(changes);
        self.members_left(now);
        Ok(())
    }

    /// Ends all receivers, and refuses new ones and new waits for good.
    pub(super) fn end_receivers(&self) {
        let discarded = {
            let mut local = self.inbox.local.lock();
            local.closed = true;
            local.stop_isolating(Instant::now(), self);
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
