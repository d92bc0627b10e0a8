use super::*;

const EXPIRY: Duration = Duration::from_secs(86_400);

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

fn members(groups: &Groups<u64>, group: &str) -> Vec<String> {
    let mut members: Vec<String> = groups.members(group).map(str::to_owned).collect();
    members.sort();
    members
}

#[test]
fn the_first_member_binds_and_the_last_unbinds() {
    let now = Instant::now();
    let mut groups = groups();
    assert_eq!(groups.add("g", "q!a", now, None), Some(bind("g")));
    assert_eq!(groups.add("g", "q!b", now, None), None, "under way");
    assert_eq!(groups.changed(&bind("g")), (vec![], None));
    assert_eq!(members(&groups, "g"), ["q!a", "q!b"]);
    assert_eq!(
        (groups.len(), groups.bound(), groups.memberships()),
        (1, 1, 2)
    );
    assert_eq!(groups.discard("g", "q!a"), None);
    assert_eq!(groups.discard("g", "q!b"), Some(unbind("g")));
    assert_eq!(groups.bound(), 1, "until the broker has followed");
    assert_eq!(groups.changed(&unbind("g")), (vec![], None));
    assert_eq!((groups.len(), groups.bound()), (0, 0));
    assert_eq!(
        groups.discard("g", "q!b"),
        None,
        "discarding a non-member is fine"
    );
}

#[test]
fn every_caller_of_add_waits_until_the_group_is_bound_not_only_the_first() {
    let now = Instant::now();
    let mut groups = groups();
    groups.add("g", "q!a", now, Some(1));
    groups.add("g", "q!a", now, Some(2));
    groups.add("g", "q!b", now, Some(3));
    let (mut waiters, change) = groups.changed(&bind("g"));
    waiters.sort_unstable();
    assert_eq!((waiters, change), (vec![1, 2, 3], None));
    assert!(groups.is_bound("g"));
    groups.add("g", "q!c", now, Some(4));
    assert!(
        groups.changed(&bind("g")).0.is_empty(),
        "4 was told by is_bound"
    );
}

#[test]
fn one_change_of_a_group_is_under_way_at_a_time() {
    let now = Instant::now();
    let mut groups = groups();
    assert_eq!(groups.add("g", "q!a", now, Some(1)), Some(bind("g")));
    assert_eq!(groups.discard("g", "q!a"), None, "the bind is under way");
    assert_eq!(groups.changed(&bind("g")), (vec![1], Some(unbind("g"))));
    assert_eq!(
        groups.add("g", "q!a", now, Some(2)),
        None,
        "the unbind is under way"
    );
    assert_eq!(groups.changed(&unbind("g")), (vec![], Some(bind("g"))));
    assert_eq!(groups.changed(&bind("g")), (vec![2], None));
}

#[test]
fn a_member_added_and_discarded_while_unbinding_leaves_no_waiter() {
    let now = Instant::now();
    let mut groups = groups();
    groups.add("g", "q!a", now, None);
    groups.changed(&bind("g"));
    groups.discard("g", "q!a");
    groups.add("g", "q!a", now, Some(1));
    groups.discard("g", "q!a");
    assert_eq!(groups.changed(&unbind("g")), (vec![1], None));
    assert_eq!(groups.groups.len(), 0);
}

#[test]
fn a_new_connection_binds_every_group_that_has_members() {
    let now = Instant::now();
    let mut groups = Groups::new(EXPIRY);
    assert_eq!(groups.add("g", "q!a", now, Some(1)), None, "not connected");
    assert_eq!(groups.add("h", "q!a", now, None), None);
    let (mut wanted, waiters) = groups.connected();
    assert!(waiters.is_empty());
    wanted.sort();
    assert_eq!(wanted, ["g".into(), "h".into()] as [Arc<str>; 2]);
    assert_eq!(groups.changed(&bind("g")), (vec![1], None));
    assert_eq!(groups.changed(&bind("h")), (vec![], None));
    assert_eq!(groups.bound(), 2);

    groups.discard("h", "q!a");
    groups.disconnected();
    assert_eq!((groups.bound(), groups.is_bound("g")), (0, false));
    assert_eq!(groups.add("g", "q!b", now, Some(2)), None);
    assert_eq!(groups.connected(), (vec!["g".into()], vec![]));
    assert_eq!(groups.changed(&bind("g")), (vec![2], None));
}

#[test]
fn news_of_an_older_wish_change_nothing() {
    let now = Instant::now();
    let mut groups = groups();
    groups.add("g", "q!a", now, None);
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
        groups.add(group, "q!a", now, None);
        groups.changed(&bind(group));
    }
    groups.add("h", "q!b", now, None);
    assert_eq!(groups.discard_channel("q!a"), [unbind("g")]);
    assert_eq!(members(&groups, "h"), ["q!b"]);
    assert_eq!(groups.memberships(), 1);
    assert_eq!(groups.discard_channel("q!a"), []);
}

#[test]
fn a_membership_lapses_after_its_last_add() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut groups = groups();
    groups.add("g", "q!a", at(0), None);
    groups.add("g", "q!b", at(10), None);
    groups.changed(&bind("g"));
    groups.add("g", "q!a", at(20), None);
    assert_eq!(groups.next_expiry(), Some(at(10) + EXPIRY));
    assert_eq!(groups.expire(at(9) + EXPIRY), (0, vec![]));
    assert_eq!(groups.expire(at(10) + EXPIRY), (1, vec![]));
    assert!(groups.contains("g", "q!a") && !groups.contains("g", "q!b"));
    assert_eq!(groups.expire(at(20) + EXPIRY), (1, vec![unbind("g")]));
    assert_eq!(groups.next_expiry(), None);
}

#[test]
fn a_waiter_that_gave_up_is_forgotten_and_its_membership_stays() {
    let now = Instant::now();
    let mut groups = Groups::new(EXPIRY);
    groups.add("g", "q!a", now, Some(1));
    groups.forget_waiter("g", 1);
    assert!(groups.contains("g", "q!a"));
    groups.connected();
    assert_eq!(groups.changed(&bind("g")), (vec![], None));
}

#[test]
fn what_comes_and_goes_leaves_nothing() {
    let now = Instant::now();
    let mut groups = groups();
    for number in 0..100 {
        let (group, channel) = (format!("g{}", number % 7), format!("q!{number}"));
        groups.add(&group, &channel, now, None);
        groups.changed(&bind(&group));
    }
    for number in 0..100 {
        for change in groups.discard_channel(&format!("q!{number}")) {
            groups.changed(&change);
        }
    }
    assert_eq!(groups.groups.len(), 0);
    assert_eq!(groups.channels.len(), 0);
    assert_eq!(groups.group_ids.len(), 0);
    assert_eq!(groups.channel_ids.len(), 0);
    assert_eq!(groups.memberships(), 0);
}

#[test]
fn who_waits_for_a_group_that_lost_its_members_meanwhile_is_not_left_waiting() {
    let now = Instant::now();
    let mut groups = Groups::new(EXPIRY);
    groups.add("g", "q!a", now, Some(1));
    groups.discard("g", "q!a");
    assert_eq!(groups.connected(), (vec![], vec![1]));
    assert_eq!(groups.groups.len(), 0);
}
