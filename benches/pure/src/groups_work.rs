//! Memberships: in a small group and in a very large one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::groups::{Changed, ChannelKey, Earlier, Groups, Verb};
use crate::messages::GROUP;
use crate::work::{Case, Work, fed, steady};

/// The option `group_expiry` as it is by default.
const EXPIRY: Duration = Duration::from_secs(86400);

/// The option `unbind_after` as it is by default.
const UNBIND_AFTER: Duration = Duration::from_secs(2);

const FEW: u32 = 10;
const MANY: u32 = 100_000;

type Tokens = Groups<u64>;

/// Does what a broker would.
fn follow(groups: &mut Tokens, changed: Changed, now: Instant) {
    for change in changed.changes {
        let (_, next) = groups.changed(&change, now);
        assert_eq!(next, None);
    }
}

/// Groups that are unbound at once.
fn connected() -> Tokens {
    connected_with(Duration::ZERO)
}

fn connected_with(unbind_after: Duration) -> Tokens {
    let mut groups = Groups::new(Some(EXPIRY), unbind_after);
    groups.connected(Earlier::Nothing, Instant::now());
    groups
}

fn join(groups: &mut Tokens, group: &str, members: u32, now: Instant) {
    for channel in 0..members {
        let changed = groups.add(group, channel, now, None);
        follow(groups, changed, now);
    }
}

pub(crate) fn with_members(members: u32, now: Instant) -> Tokens {
    let mut groups = connected();
    join(&mut groups, GROUP, members, now);
    assert!(groups.is_bound(GROUP));
    groups
}

fn add_all(members: u32) -> Box<dyn Work> {
    let now = Instant::now();
    fed(connected, move |mut groups| {
        join(&mut groups, GROUP, members, now);
        groups
    })
}

fn renew(members: u32) -> Box<dyn Work> {
    let mut now = Instant::now();
    let mut groups = with_members(members, now);
    let mut next: ChannelKey = 0;
    steady(move || {
        now += Duration::from_millis(1);
        // A step that meets all, and not in the order of the list.
        next = (next + 7919) % members;
        groups.add(GROUP, next, now, None)
    })
}

fn add_and_discard(members: u32) -> Box<dyn Work> {
    let now = Instant::now();
    let mut groups = with_members(members, now);
    steady(move || {
        let added = groups.add(GROUP, members, now, None);
        assert_eq!(added.channels, [members]);
        groups.discard(GROUP, members, now)
    })
}

fn members(members: u32) -> Box<dyn Work> {
    let groups = with_members(members, Instant::now());
    steady(move || {
        let channels = groups.members(black_box(GROUP));
        channels.iter().map(|key| u64::from(*key)).sum::<u64>()
    })
}

fn expire(members: u32) -> Box<dyn Work> {
    let now = Instant::now();
    fed(
        move || with_members(members, now),
        move |mut groups| {
            let expired = groups.expire(now + EXPIRY, |_| None);
            assert_eq!(expired.changed.channels.len(), members as usize);
            (groups, expired)
        },
    )
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("groups/add_all/10", 10, || add_all(FEW)),
        Case::new("groups/add_all/100000", 1, || add_all(MANY)),
        Case::new("groups/renew/10", 100, || renew(FEW)),
        Case::new("groups/renew/100000", 1000, || renew(MANY)),
        Case::new("groups/add_and_discard/10", 100, || add_and_discard(FEW)),
        Case::new("groups/add_and_discard/100000", 100, || {
            add_and_discard(MANY)
        }),
        Case::new("groups/members/10", 100, || members(FEW)),
        Case::new("groups/members/100000", 3, || members(MANY)),
        Case::new("groups/expire/10", 10, || expire(FEW)),
        Case::new("groups/expire/100000", 1, || expire(MANY)),
        Case::new("groups/bind_and_unbind", 100, || {
            let now = Instant::now();
            let mut groups = connected();
            steady(move || {
                let added = groups.add(GROUP, 0, now, None);
                assert_eq!(added.changes[0].verb, Verb::Bind);
                follow(&mut groups, added, now);
                let left = groups.discard(GROUP, 0, now);
                assert_eq!(left.changes[0].verb, Verb::Unbind);
                follow(&mut groups, left, now);
            })
        }),
        Case::new("groups/leave_and_come_back", 100, || {
            let now = Instant::now();
            let mut groups = connected_with(UNBIND_AFTER);
            join(&mut groups, GROUP, 1, now);
            let mut now = now;
            steady(move || {
                now += UNBIND_AFTER;
                let left = groups.discard(GROUP, 0, now);
                let added = groups.add(GROUP, 0, now, None);
                assert!(left.changes.is_empty() && added.changes.is_empty());
                assert!(groups.unbind_due(now).is_empty());
            })
        }),
        Case::new("groups/take_over/10000", 1, || {
            let now = Instant::now();
            let mut groups = connected();
            for number in 0..10_000 {
                join(&mut groups, &format!("room.{number}"), 1, now);
            }
            let mut mark = 0;
            steady(move || {
                mark += 1;
                groups.disconnected();
                let (changes, _) = groups.connected(Earlier::All(mark), now);
                assert!(changes.is_empty());
            })
        }),
        Case::new("groups/discard_channel/10_groups", 100, || {
            let now = Instant::now();
            let mut groups = connected();
            let names: Vec<String> = (0..10).map(|number| format!("room.{number}")).collect();
            // Not as many as nearly fill a table of hashes, where a slot that was used is worth a lot.
            let others = 6;
            for name in &names {
                join(&mut groups, name, others, now);
            }
            steady(move || {
                for name in &names {
                    groups.add(name, others, now, None);
                }
                let left = groups.discard_channel(others, now);
                assert_eq!(left.channels.len(), names.len());
            })
        }),
    ]
}
