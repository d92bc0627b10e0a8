//! Which channels of this process are in which group, until when, and whether the broker routes
//! the group here.
//!
//! A group is bound when it gets its first member, and unbound a while after it has lost its last: who
//! comes back meanwhile costs the broker nothing. At most one change of a group is under way, so that
//! changes cannot overtake each other ([`route`]).

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use self::expiry::{List, Ticks};
use self::renewal::Renewal;
use self::route::Route;
pub(crate) use self::route::{Mark, Verb};
use crate::index::Index;

mod expiry;
mod renewal;
mod route;
#[cfg(test)]
mod tests;

/// Names a channel; small numbers, as of [`crate::mailbox::MailboxKey`].
pub(crate) type ChannelKey = u32;

type GroupId = u32;
type MembershipId = u32;

/// In place of an id.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Group<T> {
    name: Arc<str>,
    /// In no order, but mostly that of their adding: so fan-out walks through memory forwards.
    members: Vec<ChannelKey>,
    route: Route,
    /// When it is to be unbound, if it has no member until then.
    unbind_at: Option<Instant>,
    /// It stands in `emptied`.
    is_queued: bool,
    /// Those who wait until it is bound.
    #[expect(
        clippy::box_collection,
        reason = "nearly always there is none, in very many groups"
    )]
    waiting: Option<Box<HashSet<T>>>,
}

impl<T: Eq + Hash> Group<T> {
    fn take_waiting(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.waiting
            .take()
            .map(|waiting| *waiting)
            .unwrap_or_default()
            .into_iter()
    }
}

/// One channel in one group. There may be millions.
#[derive(Debug)]
struct Membership {
    group: GroupId,
    channel: ChannelKey,
    /// Its place in the members of the group.
    place: u32,
    /// The neighbours in the list of its tick.
    before: MembershipId,
    after: MembershipId,
    /// The neighbours in the list of its channel.
    previous: MembershipId,
    next: MembershipId,
    /// When it expires, if its channel is not used until then; `None` for never.
    expires: Option<Instant>,
    list: List,
}

/// What the broker is to do for a group, or has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindingChange {
    pub(crate) group: Arc<str>,
    pub(crate) verb: Verb,
    pub(crate) mark: Mark,
    /// The place of the group among those of the layer, from 0, which stays as long as the layer knows of a
    /// binding. Places that are free are taken first.
    pub(crate) place: u32,
}

impl BindingChange {
    fn new(group: &Arc<str>, id: GroupId, (verb, mark): (Verb, Mark)) -> Self {
        Self {
            group: Arc::clone(group),
            verb,
            mark,
            place: id,
        }
    }
}

#[cfg(test)]
impl BindingChange {
    /// Of the first link, in the first place.
    pub(crate) fn bind(group: &str) -> Self {
        Self::new(&group.into(), 0, (Verb::Bind, 0))
    }

    pub(crate) fn unbind(group: &str) -> Self {
        Self::new(&group.into(), 0, (Verb::Unbind, 0))
    }

    pub(crate) fn at(self, place: u32) -> Self {
        Self { place, ..self }
    }
}

/// What the broker still has of the bindings of an earlier link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earlier {
    Nothing,
    /// All that was done; and what the new link makes carries this mark.
    All(Mark),
}

/// What adding a member, or removing some, has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// For each membership that began or ended: its channel.
    pub(crate) channels: Vec<ChannelKey>,
    /// What the broker is to do.
    pub(crate) changes: Vec<BindingChange>,
}

/// The memberships that have expired.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) changed: Changed,
    /// The groups of the first of them, in the order of `changed.channels`; at most [`NAMED`].
    pub(crate) groups: Vec<Arc<str>>,
}

/// How many groups a log record names.
const NAMED: usize = 3;

/// The memberships of a layer. `T` names a caller that waits for a group to be bound.
#[derive(Debug)]
pub(crate) struct Groups<T> {
    groups: Slab<Group<T>>,
    /// The ids of all groups, by their names.
    group_ids: Index,
    memberships: Slab<Membership>,
    /// The ids of all memberships, by group and channel.
    membership_ids: Index,
    /// The first membership of each channel, by its key.
    of_channel: Vec<MembershipId>,
    /// `None` for never.
    expiry: Option<Duration>,
    /// From the first membership on, if they expire at all.
    ticks: Option<Ticks<MembershipId>>,
    /// How long after its last member a group is unbound.
    unbind_after: Duration,
    /// Groups that have lost their last member, each once, and when they are to be looked at for it, nearly
    /// in this order. Some have a member again.
    emptied: VecDeque<(Instant, GroupId)>,
    /// Of what was taken over from an earlier link.
    renewal: Option<Renewal>,
    connected: bool,
    /// A probe has shown that nothing of what an earlier link has bound is lost.
    proven: bool,
    /// Of the link.
    mark: Mark,
    bound: usize,
    /// Groups that have a member.
    populated: usize,
}

impl<T: Copy + Eq + Hash> Groups<T> {
    /// A membership expires `expiry` after it was last added or its channel was last used; `None`:
    /// never. A group is unbound `unbind_after` after its last member has left.
    pub(crate) fn new(expiry: Option<Duration>, unbind_after: Duration) -> Self {
        Self {
            groups: Slab::new(),
            group_ids: Index::default(),
            memberships: Slab::new(),
            membership_ids: Index::default(),
            of_channel: Vec::new(),
            expiry,
            ticks: None,
            unbind_after,
            emptied: VecDeque::new(),
            renewal: None,
            connected: false,
            proven: false,
            mark: 0,
            bound: 0,
            populated: 0,
        }
    }

    /// Groups that have a local member.
    pub(crate) fn len(&self) -> usize {
        self.populated
    }

    /// Memberships.
    pub(crate) fn memberships(&self) -> usize {
        self.memberships.len()
    }

    /// Groups that the broker routes here, or may still.
    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    /// Whether the broker routes `group` here.
    pub(crate) fn is_bound(&self, group: &str) -> bool {
        let id = self.group_id(group);
        self.connected
            && id
                .and_then(|id| self.group(id))
                .is_some_and(|group| group.route.is_bound(self.proven))
    }

    /// The channels in `group`.
    pub(crate) fn members(&self, group: &str) -> &[ChannelKey] {
        let id = self.group_id(group);
        id.and_then(|id| self.group(id))
            .map_or(&[], |group| &group.members)
    }

    fn group(&self, id: GroupId) -> Option<&Group<T>> {
        self.groups.get(id as usize)
    }

    fn group_mut(&mut self, id: GroupId) -> Option<&mut Group<T>> {
        self.groups.get_mut(id as usize)
    }

    fn membership_mut(&mut self, id: MembershipId) -> Option<&mut Membership> {
        self.memberships.get_mut(id as usize)
    }

    fn group_id(&self, name: &str) -> Option<GroupId> {
        let is = |id| self.group(id).is_some_and(|group| &*group.name == name);
        self.group_ids.find(name, is)
    }

    fn open_group(&mut self, name: &str) -> GroupId {
        if let Some(id) = self.group_id(name) {
            return id;
        }
        // Four billion groups do not fit into any memory.
        let id = self.groups.insert(Group {
            name: name.into(),
            members: Vec::new(),
            route: Route::NONE,
            unbind_at: None,
            is_queued: false,
            waiting: None,
        }) as GroupId;
        let name_of = |id| self.groups.get(id as usize).map(|group| &*group.name);
        self.group_ids.insert(id, name_of);
        id
    }

    fn membership_id(&self, group: GroupId, channel: ChannelKey) -> Option<MembershipId> {
        let is = |id| {
            let membership = self.memberships.get(id as usize);
            membership.is_some_and(|m| (m.group, m.channel) == (group, channel))
        };
        self.membership_ids.find((group, channel), is)
    }

    /// Adds `channel` to `group`, or renews its membership. `waiter` is handed out by
    /// [`Groups::changed`] once the group is bound, unless it is now. The result names the channel
    /// if its membership is new.
    pub(crate) fn add(
        &mut self,
        group: &str,
        channel: ChannelKey,
        now: Instant,
        waiter: Option<T>,
    ) -> Changed {
        let id = self.open_group(group);
        let mut changed = Changed::default();
        let membership = match self.membership_id(id, channel) {
            Some(membership) => {
                self.leave_ticks(membership);
                membership
            }
            None => {
                changed.channels.push(channel);
                self.join(id, channel)
            }
        };
        if let Some(expiry) = self.expiry {
            self.ticks.get_or_insert_with(|| Ticks::new(now, expiry));
            self.enter_ticks(membership, now.checked_add(expiry));
        }
        let (connected, proven) = (self.connected, self.proven);
        if let Some(group) = self.group_mut(id)
            && !(connected && group.route.is_bound(proven))
            && let Some(waiter) = waiter
        {
            group.waiting.get_or_insert_default().insert(waiter);
            changed.changes.extend(self.confirmation(id));
        }
        changed.changes.extend(self.next_change(id, now));
        changed
    }

    /// Makes a membership that does not expire yet.
    fn join(&mut self, group: GroupId, channel: ChannelKey) -> MembershipId {
        if self.of_channel.len() <= channel as usize {
            self.of_channel.resize(channel as usize + 1, NONE);
        }
        let first = self.of_channel.get(channel as usize).copied();
        let next = first.unwrap_or(NONE);
        let mut place = 0;
        if let Some(group) = self.groups.get_mut(group as usize) {
            place = group.members.len() as u32;
            group.members.push(channel);
            group.unbind_at = None;
        }
        self.populated += usize::from(place == 0);
        let id = self.memberships.insert(Membership {
            group,
            channel,
            place,
            before: NONE,
            after: NONE,
            previous: NONE,
            next,
            expires: None,
            list: 0,
        }) as MembershipId;
        if let Some(next) = self.membership_mut(next) {
            next.previous = id;
        }
        if let Some(first) = self.of_channel.get_mut(channel as usize) {
            *first = id;
        }
        let name_of = |id| {
            let membership = self.memberships.get(id as usize);
            membership.map(|m| (m.group, m.channel))
        };
        self.membership_ids.insert(id, name_of);
        id
    }

    fn enter_ticks(&mut self, id: MembershipId, expires: Option<Instant>) {
        let (Some(ticks), Some(at)) = (&mut self.ticks, expires) else {
            return;
        };
        let list = ticks.list_of(at);
        let after = ticks.first_mut(list).replace(id).unwrap_or(NONE);
        if let Some(membership) = self.membership_mut(id) {
            membership.expires = expires;
            membership.list = list;
            membership.before = NONE;
            membership.after = after;
        }
        if let Some(after) = self.membership_mut(after) {
            after.before = id;
        }
    }

    fn leave_ticks(&mut self, id: MembershipId) {
        let Some(membership) = self.memberships.get(id as usize) else {
            return;
        };
        if membership.expires.is_none() {
            return;
        }
        let (before, after, list) = (membership.before, membership.after, membership.list);
        if let Some(after) = self.membership_mut(after) {
            after.before = before;
        }
        if let Some(before) = self.membership_mut(before) {
            before.after = after;
        } else if let Some(ticks) = &mut self.ticks {
            *ticks.first_mut(list) = Some(after).filter(|after| *after != NONE);
        }
    }

    /// Forgets a waiter that has given up.
    pub(crate) fn forget_waiter(&mut self, group: &str, waiter: T) {
        let Some(id) = self.group_id(group) else {
            return;
        };
        if let Some(group) = self.group_mut(id)
            && let Some(waiting) = &mut group.waiting
        {
            waiting.remove(&waiter);
            if waiting.is_empty() {
                group.waiting = None;
            }
        }
        self.tidy_group(id);
    }

    /// Removes `channel` from `group`.
    pub(crate) fn discard(&mut self, group: &str, channel: ChannelKey, now: Instant) -> Changed {
        let mut changed = Changed::default();
        if let Some(group) = self.group_id(group)
            && let Some(membership) = self.membership_id(group, channel)
        {
            self.remove(membership, now, &mut changed);
        }
        changed
    }

    /// Removes `channel` from all its groups.
    pub(crate) fn discard_channel(&mut self, channel: ChannelKey, now: Instant) -> Changed {
        let mut changed = Changed::default();
        while let Some(first) = self.of_channel.get(channel as usize).copied()
            && self.memberships.contains(first as usize)
        {
            self.remove(first, now, &mut changed);
        }
        changed
    }

    /// Ends the memberships that have expired. `last_used` says when a channel was.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        last_used: impl Fn(ChannelKey) -> Option<Instant>,
    ) -> Expired {
        let mut expired = Expired::default();
        let Some(expiry) = self.expiry else {
            return expired;
        };
        while let Some(first) = self.ticks.as_mut().and_then(|ticks| ticks.take_due(now)) {
            let mut next = first;
            while let Some(membership) = self.memberships.get_mut(next as usize) {
                let (id, group) = (next, membership.group);
                next = membership.after;
                // It is in no list any more.
                let added = membership.expires.take();
                let used = last_used(membership.channel).and_then(|at| at.checked_add(expiry));
                let expires = added.max(used);
                if expires.is_some_and(|at| at > now) {
                    self.enter_ticks(id, expires);
                    continue;
                }
                if expired.groups.len() < NAMED
                    && let Some(group) = self.group(group)
                {
                    expired.groups.push(Arc::clone(&group.name));
                }
                self.remove(id, now, &mut expired.changed);
            }
        }
        expired
    }

    /// When memberships are to be looked at next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.ticks.as_ref()?.next_due()
    }

    fn remove(&mut self, id: MembershipId, now: Instant, changed: &mut Changed) {
        self.leave_ticks(id);
        let Some(membership) = self.memberships.try_remove(id as usize) else {
            return;
        };
        let (group, channel) = (membership.group, membership.channel);
        self.membership_ids.remove((group, channel), id);
        match self.membership_mut(membership.previous) {
            Some(previous) => previous.next = membership.next,
            None => {
                if let Some(first) = self.of_channel.get_mut(channel as usize) {
                    *first = membership.next;
                }
            }
        }
        if let Some(next) = self.membership_mut(membership.next) {
            next.previous = membership.previous;
        }
        let is_empty = self.leave_members(group, membership.place, now);
        changed.channels.push(channel);
        if is_empty {
            changed.changes.extend(self.next_change(group, now));
            self.tidy_group(group);
        }
    }

    /// Whether nobody is left.
    fn leave_members(&mut self, id: GroupId, place: u32, now: Instant) -> bool {
        let unbind_after = self.unbind_after;
        let Some(group) = self.group_mut(id) else {
            return true;
        };
        group.members.swap_remove(place as usize);
        let moved = group.members.get(place as usize).copied();
        let is_empty = group.members.is_empty();
        if is_empty {
            let unbind_at = now.checked_add(unbind_after).filter(|at| *at > now);
            group.unbind_at = unbind_at;
            let is_queued = std::mem::replace(&mut group.is_queued, unbind_at.is_some());
            self.populated -= 1;
            if !is_queued {
                self.emptied.extend(unbind_at.map(|at| (at, id)));
            }
        }
        if let Some(moved) = moved
            && let Some(membership) = self.membership_id(id, moved)
            && let Some(membership) = self.membership_mut(membership)
        {
            membership.place = place;
        }
        is_empty
    }

    /// The change that brings the route of a group to what its members want, if none is under way.
    fn next_change(&mut self, id: GroupId, now: Instant) -> Option<BindingChange> {
        if !self.connected {
            return None;
        }
        let mark = self.mark;
        let group = self.group_mut(id)?;
        let is_wanted = !group.members.is_empty();
        if !is_wanted && group.route.is_settled() && group.unbind_at.is_some_and(|at| at > now) {
            return None;
        }
        let change = group.route.follow(is_wanted, mark)?;
        Some(BindingChange::new(&group.name, id, change))
    }

    /// Binds a group once more that somebody waits for, if it is only presumed to be bound.
    fn confirmation(&mut self, id: GroupId) -> Option<BindingChange> {
        if !self.connected || self.proven {
            return None;
        }
        let group = self.group_mut(id)?;
        group.waiting.as_ref()?;
        let change = group.route.confirm()?;
        Some(BindingChange::new(&group.name, id, change))
    }

    /// A probe has shown that nothing is lost of what an earlier link has bound.
    pub(crate) fn proven(&mut self) {
        self.proven = true;
    }

    /// The changes of the groups that have had no member for long enough.
    pub(crate) fn unbind_due(&mut self, now: Instant) -> Vec<BindingChange> {
        let mut changes = Vec::new();
        while self.next_unbind().is_some_and(|at| at <= now)
            && let Some((_, id)) = self.emptied.pop_front()
        {
            let Some(group) = self.group_mut(id) else {
                continue;
            };
            // It had a member meanwhile, and has lost it.
            let later = group.unbind_at.filter(|at| *at > now);
            group.is_queued = later.is_some();
            if let Some(at) = later {
                self.emptied.push_back((at, id));
                continue;
            }
            changes.extend(self.next_change(id, now));
            self.tidy_group(id);
        }
        changes
    }

    /// When groups are to be unbound next.
    pub(crate) fn next_unbind(&self) -> Option<Instant> {
        self.emptied.front().map(|(at, _)| *at)
    }

    /// Binds some of the groups once more that were taken over from an earlier link.
    pub(crate) fn renew_due(&mut self, now: Instant) -> Vec<BindingChange> {
        let mut changes = Vec::new();
        if !self.connected {
            return changes;
        }
        let ids = self.renewal.as_mut().and_then(|renewal| renewal.due(now));
        for id in ids.into_iter().flatten() {
            if let Some(group) = self.group_mut(id)
                && let Some(change) = group.route.renew()
            {
                changes.push(BindingChange::new(&group.name, id, change));
            }
        }
        if self.renewal.as_ref().is_some_and(Renewal::is_over) {
            self.renewal = None;
        }
        changes
    }

    /// When groups are to be bound once more next.
    pub(crate) fn next_renewal(&self) -> Option<Instant> {
        let renewal = self.renewal.as_ref().filter(|_| self.connected);
        renewal.map(Renewal::next_due)
    }

    fn tidy_group(&mut self, id: GroupId) {
        let unused = |group: &Group<T>| {
            group.members.is_empty() && group.route.is_none() && group.waiting.is_none()
        };
        if self.group(id).is_some_and(unused) {
            let group = self.groups.remove(id as usize);
            self.group_ids.remove(&*group.name, id);
        }
    }

    /// The broker has done `change`. Returns those who waited for it, and the next change of the
    /// group if its members came or went meanwhile.
    pub(crate) fn changed(
        &mut self,
        change: &BindingChange,
        now: Instant,
    ) -> (Vec<T>, Option<BindingChange>) {
        let (verb, mark) = (change.verb, change.mark);
        let Some(id) = self.group_id(&change.group) else {
            return (Vec::new(), None);
        };
        let Some(group) = self.groups.get_mut(id as usize) else {
            return (Vec::new(), None);
        };
        let counted = group.route.counts();
        if !self.connected || !group.route.done(verb, mark) {
            return (Vec::new(), None);
        }
        let mut waiters = Vec::new();
        match verb {
            Verb::Bind => {
                self.bound += usize::from(!counted);
                waiters.extend(group.take_waiting());
            }
            Verb::Unbind => {
                self.bound -= 1;
                if group.members.is_empty() {
                    // Their memberships were discarded after they were added: nothing is owed.
                    waiters.extend(group.take_waiting());
                }
            }
        }
        let next = self.next_change(id, now);
        self.tidy_group(id);
        (waiters, next)
    }

    /// A new link stands: returns what it is to change, for each of which [`Groups::changed`] follows;
    /// and those who waited for a group whose members have gone since, to whom nothing is owed.
    pub(crate) fn connected(
        &mut self,
        earlier: Earlier,
        now: Instant,
    ) -> (Vec<BindingChange>, Vec<T>) {
        self.disconnected();
        self.connected = true;
        self.mark = match earlier {
            Earlier::Nothing => 0,
            Earlier::All(mark) => mark,
        };
        self.proven = false;
        let ids = self.ids();
        self.renewal = match (earlier, ids.last()) {
            (Earlier::All(_), Some(last)) => {
                let from = self.renewal.as_ref().map_or(0, Renewal::reached);
                Some(Renewal::new(*last, from, now))
            }
            _ => None,
        };
        let (mut changes, mut waiters) = (Vec::new(), Vec::new());
        for id in ids {
            if let Some(group) = self.group_mut(id) {
                match earlier {
                    Earlier::Nothing => group.route.clear(),
                    Earlier::All(_) => {
                        let in_doubt = group.route.taken_over();
                        let unbind = in_doubt.map(|mark| (Verb::Unbind, mark));
                        changes.extend(
                            unbind.map(|unbind| BindingChange::new(&group.name, id, unbind)),
                        );
                    }
                }
                let counts = group.route.counts();
                if group.members.is_empty() {
                    waiters.extend(group.take_waiting());
                }
                self.bound += usize::from(counts);
            }
            changes.extend(self.confirmation(id));
            changes.extend(self.next_change(id, now));
            self.tidy_group(id);
        }
        (changes, waiters)
    }

    /// Whether there is a queue to bind.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// The link is gone, and the queue with it; of the bindings the next one will tell. Memberships and
    /// waiters stay.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.bound = 0;
        for (_, group) in &mut self.groups {
            group.route.link_lost();
        }
    }

    fn ids(&self) -> Vec<GroupId> {
        self.groups.iter().map(|(id, _)| id as GroupId).collect()
    }
}
