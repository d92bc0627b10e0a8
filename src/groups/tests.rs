use proptest::prelude::*;

use super::*;

const EXPIRY: Duration = Duration::from_secs(86_400);

/// Three channels.
const A: ChannelKey = 0;
const B: ChannelKey = 1;
const C: ChannelKey = 2;

fn bind(group: &str) -> Change {
    Change::Bind(group.into())
}

fn unbind(group: &str) -> Change {
    Change::Unbind(group.into())
}

/// Groups of a layer that is connected.
fn groups() -> Groups<u64> {
    let mut groups = Groups::new(EXPIRY);
    assert_eq!(groups.connected(), (vec![], vec![]));
    groups
}

fn members(groups: &Groups<u64>, group: &str) -> Vec<ChannelKey> {
    let mut members = groups.members(group).to_vec();
    members.sort_unstable();
    members
}

/// For memberships of these channels that began or ended, and what the broker is to do then.
fn changed(channels: &[ChannelKey], changes: &[Change]) -> Changed {
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
    assert_eq!(groups.changed(&bind("g")), (vec![], None));
    assert_eq!(members(&groups, "g"), [A, B]);
    assert_eq!(groups.add("g", B, now, None), changed(&[], &[]), "again");
    assert_eq!(
        (groups.len(), groups.bound(), groups.memberships()),
        (1, 1, 2)
    );
    assert_eq!(groups.discard("g", A), changed(&[A], &[]));
    assert_eq!(groups.discard("g", B), changed(&[B], &[unbind("g")]));
    assert_eq!(groups.bound(), 1, "until the broker has followed");
    assert_eq!(groups.changed(&unbind("g")), (vec![], None));
    assert_eq!((groups.len(), groups.bound()), (0, 0));
    assert_eq!(
        groups.discard("g", B),
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
    let (mut waiters, change) = groups.changed(&bind("g"));
    waiters.sort_unstable();
    assert_eq!((waiters, change), (vec![1, 2, 3], None));
    assert!(groups.is_bound("g"));
    groups.add("g", C, now, Some(4));
    assert!(
        groups.changed(&bind("g")).0.is_empty(),
        "4 was told by is_bound"
    );
}

#[test]
fn one_change_of_a_group_is_under_way_at_a_time() {
    let now = Instant::now();
    let mut groups = groups();
    assert_eq!(groups.add("g", A, now, Some(1)).changes, [bind("g")]);
    assert_eq!(groups.discard("g", A).changes, [], "the bind is under way");
    assert_eq!(groups.changed(&bind("g")), (vec![1], Some(unbind("g"))));
    assert_eq!(
        groups.add("g", A, now, Some(2)).changes,
        [],
        "the unbind is under way"
    );
    assert_eq!(groups.changed(&unbind("g")), (vec![], Some(bind("g"))));
    assert_eq!(groups.changed(&bind("g")), (vec![2], None));
}

#[test]
fn a_member_added_and_discarded_while_unbinding_leaves_no_waiter() {
    let now = Instant::now();
    let mut groups = groups();
    groups.add("g", A, now, None);
    groups.changed(&bind("g"));
    groups.discard("g", A);
    groups.add("g", A, now, Some(1));
    groups.discard("g", A);
    assert_eq!(groups.changed(&unbind("g")), (vec![1], None));
    assert_eq!(groups.groups.len(), 0);
}

#[test]
fn a_new_connection_binds_every_group_that_has_members() {
    let now = Instant::now();
    let mut groups = Groups::new(EXPIRY);
    assert_eq!(
        groups.add("g", A, now, Some(1)).changes,
        [],
        "not connected"
    );
    assert_eq!(groups.add("h", A, now, None).changes, []);
    let (mut wanted, waiters) = groups.connected();
    assert!(waiters.is_empty());
    wanted.sort();
    assert_eq!(wanted, ["g".into(), "h".into()] as [Arc<str>; 2]);
    assert_eq!(groups.changed(&bind("g")), (vec![1], None));
    assert_eq!(groups.changed(&bind("h")), (vec![], None));
    assert_eq!(groups.bound(), 2);

    groups.discard("h", A);
    groups.disconnected();
    assert_eq!((groups.bound(), groups.is_bound("g")), (0, false));
    assert_eq!(groups.add("g", B, now, Some(2)).changes, []);
    assert_eq!(groups.connected(), (vec!["g".into()], vec![]));
    assert_eq!(groups.changed(&bind("g")), (vec![2], None));
}

#[test]
fn news_of_an_older_wish_change_nothing() {
    let now = Instant::now();
    let mut groups = groups();
    groups.add("g", A, now, None);
    assert_eq!(groups.changed(&unbind("g")), (vec![], None));
    assert_eq!(groups.changed(&bind("other")), (vec![], None));
    groups.changed(&bind("g"));
    assert_eq!(groups.changed(&bind("g")), (vec![], None));
    assert_eq!(groups.bound(), 1);
}

#[test]
fn discarding_a_channel_ends_all_its_memberships() {
    let now = Instant::now();
    let mut groups = groups();
    for group in ["g", "h"] {
        groups.add(group, A, now, None);
        groups.changed(&bind(group));
    }
    groups.add("h", B, now, None);
    assert_eq!(groups.discard_channel(A), changed(&[A, A], &[unbind("g")]));
    assert_eq!(members(&groups, "h"), [B]);
    assert_eq!(groups.memberships(), 1);
    assert_eq!(groups.discard_channel(A), changed(&[], &[]));
}

#[test]
fn a_membership_lapses_after_its_last_add() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut groups = groups();
    groups.add("g", A, at(0), None);
    groups.add("g", B, at(10), None);
    groups.changed(&bind("g"));
    groups.add("g", A, at(20), None);
    assert_eq!(groups.next_expiry(), Some(at(10) + EXPIRY));
    assert_eq!(groups.expire(at(9) + EXPIRY), changed(&[], &[]));
    assert_eq!(groups.expire(at(10) + EXPIRY), changed(&[B], &[]));
    assert_eq!(members(&groups, "g"), [A]);
    assert_eq!(
        groups.expire(at(20) + EXPIRY),
        changed(&[A], &[unbind("g")])
    );
    assert_eq!(groups.next_expiry(), None);
}

#[test]
fn a_waiter_that_gave_up_is_forgotten_and_its_membership_stays() {
    let now = Instant::now();
    let mut groups = Groups::new(EXPIRY);
    groups.add("g", A, now, Some(1));
    groups.forget_waiter("g", 1);
    assert_eq!(members(&groups, "g"), [A]);
    groups.connected();
    assert_eq!(groups.changed(&bind("g")), (vec![], None));
}

#[test]
fn what_comes_and_goes_leaves_nothing() {
    let now = Instant::now();
    let mut groups = groups();
    for number in 0..100 {
        let group = format!("g{}", number % 7);
        groups.add(&group, number, now, None);
        groups.changed(&bind(&group));
    }
    for number in 0..100 {
        for change in groups.discard_channel(number).changes {
            groups.changed(&change);
        }
    }
    assert_eq!(groups.groups.len(), 0);
    assert_eq!(groups.group_ids.len(), 0);
    assert_eq!(groups.membership_ids.len(), 0);
    assert_eq!((groups.len(), groups.memberships()), (0, 0));
    assert_eq!((groups.oldest, groups.newest), (NONE, NONE));
}

/// Memberships as plainly as they can be written down.
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
        steps in proptest::collection::vec((0_u8..6, 0_u8..4, 0_u32..5), 0..120),
    ) {
        let start = Instant::now();
        let mut groups: Groups<u64> = Groups::new(Duration::from_secs(20));
        let mut model = Model::default();
        groups.connected();
        for (number, (step, group, channel)) in steps.into_iter().enumerate() {
            let now = start + Duration::from_secs(number as u64);
            let group = format!("g{group}");
            let before = model.0.len();
            let changed = match step {
                0..=2 => {
                    model.remove(|m| (&m.0, m.1) == (&group, channel));
                    let renewed = model.0.len() < before;
                    model.0.push((group.clone(), channel, now + Duration::from_secs(20)));
                    let changed = groups.add(&group, channel, now, None);
                    prop_assert_eq!(changed.channels.is_empty(), renewed);
                    changed
                }
                3 => {
                    model.remove(|m| (&m.0, m.1) == (&group, channel));
                    groups.discard(&group, channel)
                }
                4 => {
                    model.remove(|m| m.1 == channel);
                    groups.discard_channel(channel)
                }
                _ => {
                    model.remove(|m| m.2 <= now);
                    groups.expire(now)
                }
            };
            if step > 2 {
                prop_assert_eq!(changed.channels.len(), before - model.0.len());
            }
            for change in changed.changes {
                groups.changed(&change);
            }
            prop_assert_eq!(groups.memberships(), model.0.len());
            prop_assert_eq!(groups.next_expiry(), model.0.first().map(|m| m.2));
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
    let mut groups = Groups::new(EXPIRY);
    groups.add("g", A, now, Some(1));
    groups.discard("g", A);
    assert_eq!(groups.connected(), (vec![], vec![1]));
    assert_eq!(groups.groups.len(), 0);
}
