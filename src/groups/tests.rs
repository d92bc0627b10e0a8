use proptest::prelude::*;

use super::*;

mod outlived;

/// A second a tick, so that nothing is rounded where all happens at full seconds.
const EXPIRY: Duration = Duration::from_secs(expiry::TICKS as u64);

/// Three channels.
const A: ChannelKey = 0;
const B: ChannelKey = 1;
const C: ChannelKey = 2;

fn bind(group: &str) -> BindingChange {
    BindingChange::bind(group)
}

fn unbind(group: &str) -> BindingChange {
    BindingChange::unbind(group)
}

/// Groups of a layer that is connected.
fn groups() -> Groups<u64> {
    let mut groups = Groups::new(Some(EXPIRY), Duration::ZERO);
    assert_eq!(
        groups.connected(Earlier::Nothing, Instant::now()),
        (vec![], vec![])
    );
    groups
}

fn members(groups: &Groups<u64>, group: &str) -> Vec<ChannelKey> {
    let mut members = groups.members(group).to_vec();
    members.sort_unstable();
    members
}

/// For memberships of these channels that began or ended, and what the broker is to do then.
fn changed(channels: &[ChannelKey], changes: &[BindingChange]) -> Changed {
    Changed {
        channels: channels.to_vec(),
        changes: changes.to_vec(),
    }
}

#[test]
fn the_first_member_binds_and_the_last_unbinds() {
    let now = Instant::now();
    let mut groups = groups();
    assert_eq!(groups.add("g", A, now, None), changed(&[A], &[bind("g")]));
    assert_eq!(
        groups.add("g", B, now, None),
        changed(&[B], &[]),
        "under way"
    );
    assert_eq!(groups.changed(&bind("g"), now), (vec![], None));
    assert_eq!(members(&groups, "g"), [A, B]);
    assert_eq!(groups.add("g", B, now, None), changed(&[], &[]), "again");
    assert_eq!(
        (groups.len(), groups.bound(), groups.memberships()),
        (1, 1, 2)
    );
    assert_eq!(groups.discard("g", A, now), changed(&[A], &[]));
    assert_eq!(groups.discard("g", B, now), changed(&[B], &[unbind("g")]));
    assert_eq!(groups.bound(), 1, "until the broker has followed");
    assert_eq!(groups.changed(&unbind("g"), now), (vec![], None));
    assert_eq!((groups.len(), groups.bound()), (0, 0));
    assert_eq!(
        groups.discard("g", B, now),
        changed(&[], &[]),
        "discarding a non-member is fine"
    );
}

#[test]
fn every_caller_of_add_waits_until_the_group_is_bound_not_only_the_first() {
    let now = Instant::now();
    let mut groups = groups();
    groups.add("g", A, now, Some(1));
    groups.add("g", A, now, Some(2));
    groups.add("g", B, now, Some(3));
    let (mut waiters, change) = groups.changed(&bind("g"), now);
    waiters.sort_unstable();
    assert_eq!((waiters, change), (vec![1, 2, 3], None));
    assert!(groups.is_bound("g"));
    groups.add("g", C, now, Some(4));
    assert!(
        groups.changed(&bind("g"), now).0.is_empty(),
        "4 was told by is_bound"
    );
}

#[test]
fn one_change_of_a_group_is_under_way_at_a_time() {
    let now = Instant::now();
    let mut groups = groups();
    assert_eq!(groups.add("g", A, now, Some(1)).changes, [bind("g")]);
    assert_eq!(
        groups.discard("g", A, now).changes,
        [],
        "the bind is under way"
    );
    assert_eq!(
        groups.changed(&bind("g"), now),
        (vec![1], Some(unbind("g")))
    );
    assert_eq!(
        groups.add("g", A, now, Some(2)).changes,
        [],
        "the unbind is under way"
    );
    assert_eq!(groups.changed(&unbind("g"), now), (vec![], Some(bind("g"))));
    assert_eq!(groups.changed(&bind("g"), now), (vec![2], None));
}

#[test]
fn a_member_added_and_discarded_while_unbinding_leaves_no_waiter() {
    let now = Instant::now();
    let mut groups = groups();
    groups.add("g", A, now, None);
    groups.changed(&bind("g"), now);
    groups.discard("g", A, now);
    groups.add("g", A, now, Some(1));
    groups.discard("g", A, now);
    assert_eq!(groups.changed(&unbind("g"), now), (vec![1], None));
    assert_eq!(groups.groups.len(), 0);
}

#[test]
fn a_new_connection_binds_every_group_that_has_members() {
    let now = Instant::now();
    let mut groups = Groups::new(Some(EXPIRY), Duration::ZERO);
    assert_eq!(
        groups.add("g", A, now, Some(1)).changes,
        [],
        "not connected"
    );
    assert_eq!(groups.add("h", A, now, None).changes, []);
    let (wanted, waiters) = groups.connected(Earlier::Nothing, now);
    assert!(waiters.is_empty());
    assert_eq!(wanted, [bind("g"), bind("h").at(1)]);
    assert_eq!(groups.changed(&bind("g"), now), (vec![1], None));
    assert_eq!(groups.changed(&bind("h"), now), (vec![], None));
    assert_eq!(groups.bound(), 2);

    groups.discard("h", A, now);
    groups.disconnected();
    assert_eq!((groups.bound(), groups.is_bound("g")), (0, false));
    assert_eq!(groups.add("g", B, now, Some(2)).changes, []);
    assert_eq!(
        groups.connected(Earlier::Nothing, Instant::now()),
        (vec![bind("g")], vec![])
    );
    assert_eq!(groups.changed(&bind("g"), now), (vec![2], None));
}

#[test]
fn news_of_an_older_wish_change_nothing() {
    let now = Instant::now();
    let mut groups = groups();
    groups.add("g", A, now, None);
    assert_eq!(groups.changed(&unbind("g"), now), (vec![], None));
    assert_eq!(groups.changed(&bind("other"), now), (vec![], None));
    groups.changed(&bind("g"), now);
    assert_eq!(groups.changed(&bind("g"), now), (vec![], None));
    assert_eq!(groups.bound(), 1);
}

#[test]
fn discarding_a_channel_ends_all_its_memberships() {
    let now = Instant::now();
    let mut groups = groups();
    for group in ["g", "h"] {
        groups.add(group, A, now, None);
        groups.changed(&bind(group), now);
    }
    groups.add("h", B, now, None);
    assert_eq!(
        groups.discard_channel(A, now),
        changed(&[A, A], &[unbind("g")])
    );
    assert_eq!(members(&groups, "h"), [B]);
    assert_eq!(groups.memberships(), 1);
    assert_eq!(groups.discard_channel(A, now), changed(&[], &[]));
}

fn never_used(_: ChannelKey) -> Option<Instant> {
    None
}

#[test]
fn a_membership_expires_after_its_last_add() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut groups = groups();
    groups.add("g", A, at(0), None);
    groups.add("g", B, at(10), None);
    groups.changed(&bind("g"), at(10));
    groups.add("g", A, at(20), None);
    assert_eq!(groups.next_expiry(), Some(at(10) + EXPIRY));
    assert_eq!(
        groups.expire(at(9) + EXPIRY, never_used),
        Expired::default()
    );
    let expired = groups.expire(at(10) + EXPIRY, never_used);
    assert_eq!(expired.changed, changed(&[B], &[]));
    assert_eq!(expired.groups, ["g".into()]);
    assert_eq!(members(&groups, "g"), [A]);
    let expired = groups.expire(at(20) + EXPIRY, never_used);
    assert_eq!(expired.changed, changed(&[A], &[unbind("g")]));
    assert_eq!(groups.next_expiry(), None);
}

#[test]
fn a_membership_of_a_channel_in_use_does_not_expire() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut groups = groups();
    groups.add("g", A, at(0), None);
    groups.add("h", A, at(0), None);
    groups.add("g", B, at(0), None);
    for round in 1..4 {
        let now = at(round * 64);
        let used = |channel| (channel == A).then_some(now);
        groups.expire(now, used);
        assert_eq!(
            (members(&groups, "g"), members(&groups, "h")),
            (vec![A], vec![A])
        );
    }
    // It is used no more.
    let last = at(3 * 64);
    assert_eq!(groups.next_expiry(), Some(last + EXPIRY));
    let late = last + EXPIRY - Duration::from_secs(1);
    assert_eq!(groups.expire(late, |_| Some(last)), Expired::default());
    let expired = groups.expire(last + EXPIRY, |_| Some(last));
    assert_eq!(expired.changed.channels, [A, A]);
    assert_eq!(groups.memberships(), 0);
}

#[test]
fn a_membership_expires_after_the_last_use_of_its_channel() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut groups = groups();
    groups.add("g", A, at(0), None);
    groups.add("g", B, at(30), None);
    let used = |channel| (channel == A).then(|| at(20));
    assert_eq!(groups.expire(at(0) + EXPIRY, used), Expired::default());
    // Before the one that was added later.
    assert_eq!(groups.next_expiry(), Some(at(20) + EXPIRY));
    assert_eq!(groups.expire(at(20) + EXPIRY, used).changed.channels, [A]);
    assert_eq!(groups.expire(at(30) + EXPIRY, used).changed.channels, [B]);
}

#[test]
fn memberships_that_never_expire_do_not_expire() {
    let now = Instant::now();
    let mut groups: Groups<u64> = Groups::new(None, Duration::ZERO);
    groups.connected(Earlier::Nothing, Instant::now());
    groups.add("g", A, now, None);
    groups.add("g", A, now, None);
    assert_eq!(groups.next_expiry(), None);
    let late = now + Duration::from_secs(1 << 30);
    assert_eq!(groups.expire(late, never_used), Expired::default());
    assert_eq!(groups.discard("g", A, now), changed(&[A], &[]));
    assert_eq!(groups.memberships(), 0);
}

#[test]
fn a_membership_expires_a_64th_of_group_expiry_late_at_most_and_never_early() {
    let start = Instant::now();
    let tick = Duration::from_millis(3);
    let expiry = tick * expiry::TICKS;
    let mut groups: Groups<u64> = Groups::new(Some(expiry), Duration::ZERO);
    groups.connected(Earlier::Nothing, Instant::now());
    let mut now = start;
    for round in 0..500 {
        now += Duration::from_micros(777 + round);
        groups.add("g", A, now, None);
        let early = now + expiry - Duration::from_nanos(1);
        assert_eq!(groups.expire(early, never_used), Expired::default());
        now += expiry + tick;
        assert_eq!(groups.expire(now, never_used).changed.channels, [A]);
    }
}

#[test]
fn memberships_that_nobody_has_looked_at_for_long_expire_at_the_next_look() {
    let start = Instant::now();
    let mut groups = groups();
    groups.add("g", A, start, None);
    let late = start + EXPIRY * 1000;
    // Added before anything was looked at: it is not taken for one of those.
    groups.add("g", B, late, None);
    assert_eq!(groups.expire(late, never_used).changed.channels, [A]);
    assert_eq!(groups.next_expiry(), Some(late + EXPIRY));
    assert_eq!(
        groups.expire(late + EXPIRY, never_used).changed.channels,
        [B]
    );
}

#[test]
fn a_waiter_that_gave_up_is_forgotten_and_its_membership_stays() {
    let now = Instant::now();
    let mut groups = Groups::new(Some(EXPIRY), Duration::ZERO);
    groups.add("g", A, now, Some(1));
    groups.forget_waiter("g", 1);
    assert_eq!(members(&groups, "g"), [A]);
    groups.connected(Earlier::Nothing, Instant::now());
    assert_eq!(groups.changed(&bind("g"), now), (vec![], None));
}

#[test]
fn what_comes_and_goes_leaves_nothing() {
    let now = Instant::now();
    let mut groups = groups();
    for number in 0..100 {
        let group = format!("g{}", number % 7);
        groups.add(&group, number, now, None);
        groups.changed(&bind(&group), now);
    }
    for number in 0..100 {
        for change in groups.discard_channel(number, now).changes {
            groups.changed(&change, now);
        }
    }
    assert_eq!(groups.groups.len(), 0);
    assert_eq!(groups.group_ids.len(), 0);
    assert_eq!(groups.membership_ids.len(), 0);
    assert_eq!((groups.len(), groups.memberships()), (0, 0));
    assert_eq!(groups.next_expiry(), None);
}

/// Memberships as plainly as they can be written down, with the time of the last add.
#[derive(Default)]
struct Model(Vec<(String, ChannelKey, Instant)>);

impl Model {
    fn remove(&mut self, which: impl Fn(&(String, ChannelKey, Instant)) -> bool) {
        self.0.retain(|membership| !which(membership));
    }
}

proptest! {
    #[test]
    fn memberships_are_those_of_a_plain_list(
        steps in proptest::collection::vec((0_u8..7, 0_u8..4, 0_u32..5), 0..300),
    ) {
        let start = Instant::now();
        let mut groups: Groups<u64> = Groups::new(Some(EXPIRY), Duration::ZERO);
        let mut model = Model::default();
        let mut used = [None; 5];
        groups.add("first", 9, start, None);
        groups.discard("first", 9, start);
        groups.connected(Earlier::Nothing, Instant::now());
        for (number, (step, group, channel)) in steps.into_iter().enumerate() {
            let now = start + Duration::from_secs(2 * number as u64);
            let group = format!("g{group}");
            let before = model.0.len();
            let changed = match step {
                0..=2 => {
                    model.remove(|m| (&m.0, m.1) == (&group, channel));
                    let renewed = model.0.len() < before;
                    model.0.push((group.clone(), channel, now));
                    let changed = groups.add(&group, channel, now, None);
                    prop_assert_eq!(changed.channels.is_empty(), renewed);
                    changed
                }
                3 => {
                    model.remove(|m| (&m.0, m.1) == (&group, channel));
                    groups.discard(&group, channel, now)
                }
                4 => {
                    model.remove(|m| m.1 == channel);
                    groups.discard_channel(channel, now)
                }
                5 => {
                    used[channel as usize] = Some(now);
                    Changed::default()
                }
                _ => {
                    model.remove(|m| m.2.max(used[m.1 as usize].unwrap_or(m.2)) + EXPIRY <= now);
                    groups.expire(now, |channel| used[channel as usize]).changed
                }
            };
            if step > 2 && step != 5 {
                prop_assert_eq!(changed.channels.len(), before - model.0.len());
            }
            for change in changed.changes {
                groups.changed(&change, now);
            }
            prop_assert_eq!(groups.memberships(), model.0.len());
            // They may be looked at too early, and are not looked at too late.
            let expires = |m: &(String, ChannelKey, Instant)| {
                m.2.max(used[m.1 as usize].unwrap_or(m.2)) + EXPIRY
            };
            let next = model.0.iter().map(expires).min();
            prop_assert!(next.is_none() || groups.next_expiry() <= next);
            prop_assert_eq!(groups.next_expiry().is_some(), next.is_some());
            for group in 0..4 {
                let group = format!("g{group}");
                let mut wanted: Vec<_> = model.0.iter().filter(|m| m.0 == group).map(|m| m.1).collect();
                wanted.sort_unstable();
                prop_assert_eq!(members(&groups, &group), wanted);
            }
        }
    }
}

#[test]
fn who_waits_for_a_group_that_lost_its_members_meanwhile_is_not_left_waiting() {
    let now = Instant::now();
    let mut groups = Groups::new(Some(EXPIRY), Duration::ZERO);
    groups.add("g", A, now, Some(1));
    groups.discard("g", A, now);
    assert_eq!(
        groups.connected(Earlier::Nothing, Instant::now()),
        (vec![], vec![1])
    );
    assert_eq!(groups.groups.len(), 0);
}
