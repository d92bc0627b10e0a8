//! Which channels of this process are in which group, until when, and whether the broker routes
//! the group here.
//!
//! A group is bound when it gets its first member and unbound when it has lost its last. At most
//! one change of a group is under way, so that changes cannot overtake each other:
//! `Unbound -> Binding -> Bound -> Unbinding -> Unbound`.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashlink::LinkedHashMap;
use slab::Slab;

#[cfg(test)]
mod tests;

type GroupId = usize;
type ChannelId = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Unbound,
    Binding,
    Bound,
    Unbinding,
}

#[derive(Debug)]
struct Group<T> {
    name: Arc<str>,
    members: HashSet<ChannelId>,
    route: Route,
    /// Those who wait until it is bound.
    waiting: HashSet<T>,
}

#[derive(Debug)]
struct Member {
    name: Arc<str>,
    groups: HashSet<GroupId>,
}

/// What the broker is to do for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Bind(Arc<str>),
    Unbind(Arc<str>),
}

/// The memberships of a layer. `T` names a caller that waits for a group to be bound.
#[derive(Debug)]
pub(crate) struct Groups<T> {
    groups: Slab<Group<T>>,
    group_ids: HashMap<Arc<str>, GroupId>,
    channels: Slab<Member>,
    channel_ids: HashMap<Arc<str>, ChannelId>,
    /// When each membership lapses; in this order, since all last equally long.
    lapses: LinkedHashMap<(GroupId, ChannelId), Instant>,
    expiry: Duration,
    connected: bool,
    bound: usize,
}

impl<T: Copy + Eq + Hash> Groups<T> {
    /// A membership lapses `expiry` after it was last added.
    pub(crate) fn new(expiry: Duration) -> Self {
        Self {
            groups: Slab::new(),
            group_ids: HashMap::new(),
            channels: Slab::new(),
            channel_ids: HashMap::new(),
            lapses: LinkedHashMap::new(),
            expiry,
            connected: false,
            bound: 0,
        }
    }

    /// Groups that have a local member.
    pub(crate) fn len(&self) -> usize {
        self.groups
            .iter()
            .filter(|(_, group)| !group.members.is_empty())
            .count()
    }

    /// Memberships.
    pub(crate) fn memberships(&self) -> usize {
        self.lapses.len()
    }

    /// Groups that the broker routes here, or may still.
    pub(crate) fn bound(&self) -> usize {
        self.bound
    }

    /// Whether the broker routes `group` here.
    pub(crate) fn is_bound(&self, group: &str) -> bool {
        self.find(group).is_some_and(|g| g.route == Route::Bound)
    }

    /// Whether `channel` is in `group`.
    #[cfg(test)]
    fn contains(&self, group: &str, channel: &str) -> bool {
        self.channel_ids
            .get(channel)
            .is_some_and(|id| self.find(group).is_some_and(|g| g.members.contains(id)))
    }

    /// The channels in `group`.
    pub(crate) fn members(&self, group: &str) -> impl Iterator<Item = &str> {
        self.find(group)
            .into_iter()
            .flat_map(|group| &group.members)
            .filter_map(|id| self.channels.get(*id).map(|member| &*member.name))
    }

    fn find(&self, group: &str) -> Option<&Group<T>> {
        self.groups.get(*self.group_ids.get(group)?)
    }

    fn open_group(&mut self, name: &str) -> GroupId {
        if let Some(id) = self.group_ids.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        let id = self.groups.insert(Group {
            name: Arc::clone(&name),
            members: HashSet::new(),
            route: Route::Unbound,
            waiting: HashSet::new(),
        });
        self.group_ids.insert(name, id);
        id
    }

    fn open_channel(&mut self, name: &str) -> ChannelId {
        if let Some(id) = self.channel_ids.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        let id = self.channels.insert(Member {
            name: Arc::clone(&name),
            groups: HashSet::new(),
        });
        self.channel_ids.insert(name, id);
        id
    }

    /// Adds `channel` to `group`, or renews its membership. `waiter` is handed out by
    /// [`Groups::changed`] once the group is bound, unless it is now.
    pub(crate) fn add(
        &mut self,
        group: &str,
        channel: &str,
        now: Instant,
        waiter: Option<T>,
    ) -> Option<Change> {
        let (group, channel) = (self.open_group(group), self.open_channel(channel));
        if let Some(member) = self.channels.get_mut(channel) {
            member.groups.insert(group);
        }
        self.lapses.remove(&(group, channel));
        if let Some(lapse) = now.checked_add(self.expiry) {
            self.lapses.insert((group, channel), lapse);
        }
        let entry = self.groups.get_mut(group)?;
        entry.members.insert(channel);
        if entry.route != Route::Bound {
            entry.waiting.extend(waiter);
        }
        self.next_change(group)
    }

    /// Forgets a waiter that has given up.
    pub(crate) fn forget_waiter(&mut self, group: &str, waiter: T) {
        let Some(id) = self.group_ids.get(group).copied() else {
            return;
        };
        if let Some(group) = self.groups.get_mut(id) {
            group.waiting.remove(&waiter);
        }
        self.tidy_group(id);
    }

    /// Removes `channel` from `group`.
    pub(crate) fn discard(&mut self, group: &str, channel: &str) -> Option<Change> {
        let group = self.group_ids.get(group).copied()?;
        let channel = self.channel_ids.get(channel).copied()?;
        self.remove(group, channel)
    }

    /// Removes `channel` from all its groups.
    pub(crate) fn discard_channel(&mut self, channel: &str) -> Vec<Change> {
        let Some(id) = self.channel_ids.get(channel).copied() else {
            return Vec::new();
        };
        let groups: Vec<GroupId> = self
            .channels
            .get(id)
            .map(|member| member.groups.iter().copied().collect())
            .unwrap_or_default();
        groups
            .into_iter()
            .filter_map(|group| self.remove(group, id))
            .collect()
    }

    /// Ends the memberships that have lapsed; says how many.
    pub(crate) fn expire(&mut self, now: Instant) -> (usize, Vec<Change>) {
        let mut lapsed = 0;
        let mut changes = Vec::new();
        while let Some(((group, channel), lapse)) = self.lapses.front() {
            if *lapse > now {
                break;
            }
            let (group, channel) = (*group, *channel);
            lapsed += 1;
            changes.extend(self.remove(group, channel));
        }
        (lapsed, changes)
    }

    /// When the next membership lapses.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.lapses.front().map(|(_, lapse)| *lapse)
    }

    fn remove(&mut self, group: GroupId, channel: ChannelId) -> Option<Change> {
        self.lapses.remove(&(group, channel));
        if let Some(member) = self.channels.get_mut(channel) {
            member.groups.remove(&group);
            if member.groups.is_empty() {
                let member = self.channels.remove(channel);
                self.channel_ids.remove(&member.name);
            }
        }
        self.groups.get_mut(group)?.members.remove(&channel);
        let change = self.next_change(group);
        self.tidy_group(group);
        change
    }

    /// The change that brings the route of a group to what its members want, if none is under way.
    fn next_change(&mut self, id: GroupId) -> Option<Change> {
        let group = self.groups.get_mut(id)?;
        if !self.connected {
            return None;
        }
        match (group.route, group.members.is_empty()) {
            (Route::Unbound, false) => {
                group.route = Route::Binding;
                Some(Change::Bind(Arc::clone(&group.name)))
            }
            (Route::Bound, true) => {
                group.route = Route::Unbinding;
                Some(Change::Unbind(Arc::clone(&group.name)))
            }
            _ => None,
        }
    }

    fn tidy_group(&mut self, id: GroupId) {
        let unused = |group: &Group<T>| {
            group.members.is_empty() && group.route == Route::Unbound && group.waiting.is_empty()
        };
        if self.groups.get(id).is_some_and(unused) {
            let group = self.groups.remove(id);
            self.group_ids.remove(&group.name);
        }
    }

    /// The broker has done `change`. Returns those who waited for it, and the next change of the
    /// group if its members came or went meanwhile.
    pub(crate) fn changed(&mut self, change: &Change) -> (Vec<T>, Option<Change>) {
        let (Change::Bind(name) | Change::Unbind(name)) = change;
        let Some(id) = self.group_ids.get(name).copied() else {
            return (Vec::new(), None);
        };
        let Some(group) = self.groups.get_mut(id) else {
            return (Vec::new(), None);
        };
        let mut waiters = Vec::new();
        match (change, group.route) {
            (Change::Bind(_), Route::Binding) => {
                group.route = Route::Bound;
                self.bound += 1;
                waiters.extend(group.waiting.drain());
            }
            (Change::Unbind(_), Route::Unbinding) => {
                group.route = Route::Unbound;
                self.bound -= 1;
                if group.members.is_empty() {
                    // Their memberships were discarded after they were added: nothing is owed.
                    waiters.extend(group.waiting.drain());
                }
            }
            _ => {}
        }
        let next = self.next_change(id);
        self.tidy_group(id);
        (waiters, next)
    }

    /// A new connection with a new queue, which is bound to nothing: returns all that it is to be
    /// bound to, for each of which [`Groups::changed`] follows; and those who waited for a group
    /// whose members have gone since, to whom nothing is owed.
    pub(crate) fn connected(&mut self) -> (Vec<Arc<str>>, Vec<T>) {
        self.disconnected();
        self.connected = true;
        let ids: Vec<GroupId> = self.groups.iter().map(|(id, _)| id).collect();
        let (mut wanted, mut waiters) = (Vec::new(), Vec::new());
        for id in ids {
            if let Some(Change::Bind(name)) = self.next_change(id) {
                wanted.push(name);
            } else if let Some(group) = self.groups.get_mut(id) {
                waiters.extend(group.waiting.drain());
            }
            self.tidy_group(id);
        }
        (wanted, waiters)
    }

    /// The connection is gone, the queue and its bindings with it. Memberships and waiters stay.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.bound = 0;
        let ids: Vec<GroupId> = self.groups.iter().map(|(id, _)| id).collect();
        for id in ids {
            if let Some(group) = self.groups.get_mut(id) {
                group.route = Route::Unbound;
            }
            self.tidy_group(id);
        }
    }
}
