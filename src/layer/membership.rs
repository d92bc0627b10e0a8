//! Membership: records it, has the broker follow, tells those who wait for it, ends what expires.

use std::sync::Arc;
use std::time::Instant;

use crate::broker::{BindingChange, BindingEpoch, Token};
use crate::dispatch;
use crate::error::Error;
use crate::groups::Expired;
use crate::log::RecordId;
use crate::stats::Stat;

use super::callbacks::{Done, Rejected};
use super::calls::{Calls, Completion, Waiter};
use super::local::Wait;
use super::shared::Shared;

impl Shared {
    /// Adds a member. The result is `Some` if the caller has its answer, `None` if it comes later.
    fn add_member(
        &self,
        group: &str,
        channel: &str,
        may_wait: bool,
        wait: impl FnOnce() -> Completion,
    ) -> Result<Option<Instant>, Error> {
        let now = Instant::now();
        let deadline = now + self.settings.timeout;
        let (changes, waits) = {
            let mut local = self.inbox.local.lock();
            let local = &mut *local;
            if local.closed {
                return Err(Error::closed());
            }
            let bound = local.groups.is_bound(group);
            if !bound && !may_wait {
                return Err(Error::would_deadlock());
            }
            let token = (!bound).then(|| {
                local.waits.insert(
                    deadline,
                    Wait {
                        group: group.to_owned(),
                        completion: wait(),
                    },
                )
            });
            let key = local.mailboxes.pin(channel);
            let added = local.groups.add(group, key, now, token);
            if added.channels.is_empty() {
                // It was a member already, which has its pin.
                local.mailboxes.unpin(key);
            }
            ((local.binding_epoch, added.changes), token.is_some())
        };
        self.change_bindings(changes);
        let expiry = self.settings.group_expiry;
        if let Some(expires) = expiry.and_then(|expiry| now.checked_add(expiry)) {
            self.timekeeper.arm(expires);
        }
        if !waits {
            return Ok(None);
        }
        self.timekeeper.arm(deadline);
        if self.link.refused() {
            self.end_waits_without_a_queue();
        }
        Ok(Some(deadline))
    }

    pub(super) fn group_add(&self, group: &str, channel: &str) -> Result<(), Error> {
        self.check_member(group, channel)?;
        let may_wait = !dispatch::in_callback();
        let waiter = Arc::new(Waiter::default());
        let wait = || Completion::Wake(Arc::clone(&waiter));
        match self.add_member(group, channel, may_wait, wait)? {
            None => Ok(()),
            Some(deadline) => self.wait_for(&waiter, deadline, Self::expire_waits),
        }
    }

    pub(super) fn group_add_async<D: Done>(
        &self,
        group: &str,
        channel: &str,
        done: D,
    ) -> Result<(), Rejected<D>> {
        let mut done = Some(done);
        let accepted = self.check_member(group, channel).and_then(|()| {
            let done = &mut done;
            self.add_member(group, channel, true, || match done.take() {
                Some(done) => Completion::Call(Box::new(done)),
                None => Completion::Wake(Arc::default()),
            })
        });
        match (accepted, done) {
            // Nothing to wait for: but `done` runs on the dispatcher, as always.
            (Ok(_), Some(done)) => {
                self.complete(Completion::Call(Box::new(done)), Ok(()));
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(error), Some(callback)) => Err(Rejected { error, callback }),
            // A call that fails does so before it takes its callback.
            (Err(error), None) => {
                debug_assert!(false, "a failed call has taken its callback: {error}");
                Ok(())
            }
        }
    }

    pub(super) fn group_discard(&self, group: &str, channel: &str) -> Result<(), Error> {
        self.check_member(group, channel)?;
        let now = Instant::now();
        let changes = {
            let mut local = self.inbox.local.lock();
            if local.closed {
                return Err(Error::closed());
            }
            let key = local.mailboxes.key(channel);
            let left = key.map(|key| local.groups.discard(group, key, now));
            (local.binding_epoch, local.unpin(left.unwrap_or_default()))
        };
        self.change_bindings(changes);
        self.members_left(now);
        Ok(())
    }

    fn check_member(&self, group: &str, channel: &str) -> Result<(), Error> {
        crate::name::validate_group(group)?;
        self.own_channel(channel)
    }

    /// Has the broker follow.
    pub(super) fn change_bindings(&self, (epoch, changes): (BindingEpoch, Vec<BindingChange>)) {
        if changes.is_empty() {
            return;
        }
        self.broker().change_bindings(epoch, changes);
    }

    /// The broker has followed.
    pub(super) fn bindings_done(&self, epoch: BindingEpoch, done: Vec<BindingChange>) {
        let mut ended = Vec::new();
        let now = Instant::now();
        let changes = {
            let mut local = self.inbox.local.lock();
            if local.binding_epoch != epoch {
                return;
            }
            let mut changes = Vec::new();
            for change in done {
                let (waiters, next) = local.groups.changed(&change, now);
                ended.extend(waiters.into_iter().filter_map(|w| local.waits.remove(w)));
                changes.extend(next);
            }
            changes
        };
        for wait in ended {
            self.complete(wait.completion, Ok(()));
        }
        self.change_bindings((epoch, changes));
    }

    /// Ends the calls whose group was not bound in time. Their memberships stay.
    pub(super) fn expire_waits(&self, now: Instant) {
        self.end(|waits| waits.take_expired(now));
    }

    /// Ends all calls that wait for a group. Their memberships stay.
    pub(super) fn end_waits(&self) {
        self.end(|waits| waits.take_if(|_| true));
    }

    /// The same, unless the queue is there: then only publishing is refused.
    pub(super) fn end_waits_without_a_queue(&self) {
        if !self.inbox.local.lock().groups.is_connected() {
            self.end_waits();
        }
    }

    fn end(&self, take: impl FnOnce(&mut Calls<Wait>) -> Vec<(Token, Wait)>) {
        let ended = {
            let mut local = self.inbox.local.lock();
            let ended = take(&mut local.waits);
            for (token, wait) in &ended {
                local.groups.forget_waiter(&wait.group, *token);
            }
            ended
        };
        for (_, wait) in ended {
            let error = if self.is_open() {
                self.link
                    .why_no_answer(&format!("bound group '{}'", wait.group))
            } else {
                Error::closed()
            };
            self.complete(wait.completion, Err(error));
        }
    }

    /// Groups may have lost their last member `at` that time, and are to be unbound in a while.
    pub(super) fn members_left(&self, at: Instant) {
        if let Some(at) = at.checked_add(self.settings.unbind_after) {
            self.timekeeper.arm(at);
        }
    }

    /// Unbinds the groups that have had no member for long enough.
    pub(super) fn unbind_due(&self, now: Instant) {
        let changes = {
            let mut local = self.inbox.local.lock();
            (local.binding_epoch, local.groups.unbind_due(now))
        };
        self.change_bindings(changes);
    }

    /// Binds groups once more that were bound by an earlier connection.
    pub(super) fn renew_due(&self, now: Instant) {
        let changes = {
            let mut local = self.inbox.local.lock();
            (local.binding_epoch, local.groups.renew_due(now))
        };
        self.change_bindings(changes);
    }

    /// Ends the memberships that have expired.
    pub(super) fn expire_memberships(&self, now: Instant) {
        let (count, first, changes) = {
            let mut local = self.inbox.local.lock();
            let local = &mut *local;
            let mailboxes = &local.mailboxes;
            let last_used = |channel| mailboxes.last_used(channel, now);
            let Expired { changed, groups } = local.groups.expire(now, last_used);
            let channels = changed.channels.iter();
            let first: Vec<_> = groups
                .into_iter()
                .zip(channels.map(|channel| mailboxes.name(*channel)))
                .collect();
            let count = changed.channels.len();
            (count, first, (local.binding_epoch, local.unpin(changed)))
        };
        if count > 0 {
            self.counters.add(Stat::MembershipsExpired, count);
            let first: Vec<_> = first
                .iter()
                .map(|(group, channel)| format!("'{group}' ({channel})"))
                .collect();
            let others = match count - first.len() {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            self.log(
                RecordId::MembershipsExpired,
                format!(
                    "{count} memberships expired: nobody received from their channel nor added it \
                     again within option 'group_expiry'; group (channel): {}{others}",
                    first.join(", ")
                ),
            );
        }
        self.change_bindings(changes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::error::ErrorKind;
    use crate::stats::Stat;

    use super::*;
    use crate::broker::{BrokerState, Earlier, Host};
    use crate::layer::testing::{Silent, open_on_memory};

    #[test]
    fn a_membership_that_was_renewed_leaves_no_mailbox_behind() {
        let layer = open_on_memory("membership-renewed");
        let channel = layer.new_channel(None).unwrap();
        let has_mailbox = || {
            layer
                .shared
                .inbox
                .local
                .lock()
                .mailboxes
                .key(&channel)
                .is_some()
        };
        for _ in 0..3 {
            layer.group_add("group", &channel).unwrap();
        }
        layer.group_add("other", &channel).unwrap();
        layer.group_discard("group", &channel).unwrap();
        assert!(has_mailbox(), "it is a member of one group still");
        layer.group_discard("other", &channel).unwrap();
        assert!(!has_mailbox());
        assert_eq!(layer.stat(Stat::Memberships), 0);
        layer.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn an_add_waits_for_a_group_whose_binding_was_lost_with_the_connection() {
        let layer = open_on_memory("membership-lost");
        let channel = || layer.new_channel(None).unwrap();
        layer.group_add("group", &channel()).unwrap();
        assert_eq!(layer.stat(Stat::GroupsBound), 1);
        let add_without_waiting = || {
            let _inside = dispatch::enter_callback();
            layer.group_add("group", &channel())
        };
        add_without_waiting().unwrap();

        layer.shared.bindings_lost();
        assert_eq!(layer.stat(Stat::GroupsBound), 0);
        let would_wait = add_without_waiting().unwrap_err();
        assert_eq!(would_wait.kind(), ErrorKind::WouldDeadlock);
        let (ended, outcome) = std::sync::mpsc::channel();
        let accepted = layer.group_add_async("group", &channel(), move |result| {
            ended.send(result).unwrap();
        });
        assert!(accepted.is_ok());
        assert_eq!(layer.shared.inbox.local.lock().waits.len(), 1);

        let bind = [BindingChange::bind("group")];
        assert_eq!(layer.shared.bind_all(2, Earlier::Nothing), bind);
        assert!(outcome.try_recv().is_err(), "it is not bound yet");
        let done = vec![BindingChange::bind("group")];
        layer.shared.bindings_changed(2, done);
        outcome
            .recv_timeout(Duration::from_secs(20))
            .unwrap()
            .unwrap();
        add_without_waiting().unwrap();
        layer.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn an_add_waits_for_proof_of_a_group_that_only_an_earlier_link_has_bound() {
        let layer = open_on_memory("membership-proven");
        let channel = || layer.new_channel(None).unwrap();
        layer.group_add("group", &channel()).unwrap();
        layer.shared.bindings_lost();
        assert!(layer.shared.bind_all(2, Earlier::All(1)).is_empty());
        let add_without_waiting = || {
            let _inside = dispatch::enter_callback();
            layer
                .group_add("group", &channel())
                .map_err(|error| error.kind())
        };
        assert_eq!(add_without_waiting(), Err(ErrorKind::WouldDeadlock));
        layer.shared.bindings_proven(1); // of the earlier link, and late
        assert_eq!(add_without_waiting(), Err(ErrorKind::WouldDeadlock));
        layer.shared.bindings_proven(2);
        assert_eq!(add_without_waiting(), Ok(()));
        layer.close(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_refusal_ends_the_waits_of_a_layer_without_a_queue_alone() {
        let (layer, _broker) = Silent::open(true, &[]);
        let (ended, outcomes) = std::sync::mpsc::channel();
        let channel = layer.new_channel(None).unwrap();
        let begin_add = || {
            let ended = ended.clone();
            let accepted = layer.group_add_async("group", &channel, move |result| {
                ended.send(result).unwrap();
            });
            assert!(accepted.is_ok());
            layer.shared.inbox.local.lock().waits.len()
        };
        assert_eq!(begin_add(), 1);
        let refused = || BrokerState::Refused("no more connections".to_owned());
        // Only the connection that publishes: the other one may still bind.
        layer.shared.state_changed(refused());
        assert_eq!(layer.shared.inbox.local.lock().waits.len(), 1);

        layer.shared.bindings_lost();
        layer.shared.state_changed(refused());
        assert_eq!(begin_add(), 0, "nor does one wait that begins now");
        for _ in 0..2 {
            let outcome = outcomes.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Refused);
        }
        layer.close(Duration::from_secs(20)).unwrap();
    }
}
