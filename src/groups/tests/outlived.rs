//! Bindings that outlive their link, against a model of a broker that loses links, bindings and answers at
//! any step.

use std::collections::{BTreeSet, VecDeque};

use super::*;

const AFTER: Duration = Duration::from_secs(2);

fn marked(group: &str, mark: Mark) -> BindingChange {
    BindingChange {
        mark,
        ..bind(group)
    }
}

fn unmarked(group: &str, mark: Mark) -> BindingChange {
    BindingChange {
        mark,
        ..unbind(group)
    }
}

fn kept(mark: Mark) -> Earlier {
    Earlier::All(mark)
}

/// Groups of a layer that is connected, with one that is bound.
fn with_a_bound_group(now: Instant) -> Groups<u64> {
    let mut groups = Groups::new(None, AFTER);
    groups.connected(Earlier::Nothing, now);
    groups.add("g", A, now, None);
    groups.changed(&bind("g"), now);
    groups
}

#[test]
fn a_link_that_finds_the_bindings_of_the_last_one_binds_nothing_again() {
    let now = Instant::now();
    let mut groups = with_a_bound_group(now);
    groups.disconnected();
    assert!(!groups.is_bound("g"), "as long as there is no queue");
    assert_eq!(groups.bound(), 0);
    groups.add("g", B, now, None);
    assert_eq!(groups.connected(kept(1), now), (vec![], vec![]));
    assert_eq!(groups.bound(), 1);
    assert!(!groups.is_bound("g"), "nothing has shown it");
    groups.proven();
    assert!(groups.is_bound("g"));
    assert_eq!(groups.add("g", C, now, Some(1)), changed(&[C], &[]));
    groups.disconnected();
    groups.connected(kept(2), now);
    assert!(!groups.is_bound("g"), "it is another link");
}

#[test]
fn who_waits_for_a_group_that_is_presumed_to_be_bound_has_it_bound_once_more() {
    let now = Instant::now();
    let mut groups = with_a_bound_group(now);
    groups.disconnected();
    groups.add("g", B, now, Some(1));
    assert_eq!(groups.connected(kept(1), now), (vec![bind("g")], vec![]));
    groups.add("g", C, now, Some(2));
    let (mut told, next) = groups.changed(&bind("g"), now);
    told.sort_unstable();
    assert_eq!((told, next), (vec![1, 2], None));
    assert!(groups.is_bound("g"), "before any proof");

    let mut groups = with_a_bound_group(now);
    groups.disconnected();
    groups.connected(kept(1), now);
    let added = groups.add("g", B, now, Some(1));
    assert_eq!(added, changed(&[B], &[bind("g")]));
    groups.disconnected();
    assert_eq!(groups.connected(kept(2), now), (vec![bind("g")], vec![]));
    assert_eq!(groups.changed(&bind("g"), now), (vec![1], None));
    assert_eq!(groups.bound(), 1);
}

#[test]
fn what_was_added_or_left_without_a_link_is_made_up_for() {
    let now = Instant::now();
    let mut groups = with_a_bound_group(now);
    groups.disconnected();
    groups.add("new", A, now, Some(1));
    groups.discard("g", A, now);
    let later = now + AFTER;
    assert_eq!(
        groups.connected(kept(1), later),
        (vec![unmarked("g", 0), marked("new", 1).at(1)], vec![])
    );
    assert_eq!(groups.changed(&marked("new", 1), later), (vec![1], None));
    assert_eq!(groups.changed(&unmarked("g", 0), later), (vec![], None));
    assert_eq!((groups.bound(), groups.len()), (1, 1));
}

#[test]
fn a_change_in_doubt_is_undone_under_its_own_mark_and_made_again_under_another() {
    let now = Instant::now();
    let mut groups = with_a_bound_group(now);
    groups.add("binding", A, now, Some(1));
    groups.discard("g", A, now);
    assert_eq!(groups.unbind_due(now + AFTER), [unbind("g")]);
    groups.disconnected();
    groups.add("g", A, now, Some(2));
    let (changes, waiters) = groups.connected(kept(1), now);
    assert!(waiters.is_empty());
    assert_eq!(
        changes,
        [
            unmarked("g", 0),
            marked("g", 1),
            unmarked("binding", 0).at(1),
            marked("binding", 1).at(1)
        ]
    );
    for change in &changes[..2] {
        let told = groups.changed(change, now).0;
        assert_eq!(!told.is_empty(), *change == marked("g", 1), "{change:?}");
    }
    assert!(groups.is_bound("g") && !groups.is_bound("binding"));
}

#[test]
fn a_group_is_unbound_a_while_after_its_last_member_left_and_not_if_one_comes_back() {
    let now = Instant::now();
    let mut groups = with_a_bound_group(now);
    for round in 0..10 {
        let at = now + AFTER * round;
        assert_eq!(groups.discard("g", A, at).changes, []);
        assert_eq!(groups.next_unbind(), Some(at + AFTER));
        let before = at + AFTER - Duration::from_nanos(1);
        assert_eq!(groups.unbind_due(before), []);
        assert!(groups.is_bound("g"));
        assert_eq!(groups.add("g", A, before, Some(1)), changed(&[A], &[]));
        assert_eq!(groups.unbind_due(at + AFTER), [], "it has a member");
        assert_eq!(groups.next_unbind(), None);
    }
    let last = now + AFTER * 20;
    groups.discard("g", A, last);
    assert_eq!(groups.unbind_due(last + AFTER), [unbind("g")]);
    assert_eq!(groups.changed(&unbind("g"), last), (vec![], None));
    assert_eq!(groups.groups.len(), 0);
}

#[test]
fn a_group_left_twice_is_unbound_a_while_after_the_second_time() {
    let now = Instant::now();
    let mut groups = with_a_bound_group(now);
    groups.discard("g", A, now);
    let second = now + AFTER / 2;
    groups.add("g", A, second, None);
    groups.discard("g", A, second);
    assert_eq!(groups.unbind_due(now + AFTER), []);
    assert_eq!(groups.unbind_due(second + AFTER), [unbind("g")]);
}

#[test]
fn a_group_that_is_left_before_it_is_bound_is_unbound_when_its_time_has_come() {
    let now = Instant::now();
    let mut groups: Groups<u64> = Groups::new(None, AFTER);
    groups.connected(Earlier::Nothing, now);
    groups.add("early", A, now, None);
    groups.discard("early", A, now);
    assert_eq!(groups.changed(&bind("early"), now), (vec![], None));
    assert_eq!(groups.unbind_due(now + AFTER), [unbind("early")]);
    groups.add("late", A, now, None);
    groups.discard("late", A, now);
    assert_eq!(groups.unbind_due(now + AFTER), []);
    assert_eq!(
        groups.changed(&bind("late"), now + AFTER),
        (vec![], Some(unbind("late").at(1)))
    );
}

#[test]
fn groups_that_were_taken_over_are_bound_once_more_little_by_little() {
    let now = Instant::now();
    let mut groups: Groups<u64> = Groups::new(None, AFTER);
    groups.connected(Earlier::Nothing, now);
    let names: Vec<_> = (0..25).map(|number| format!("g{number}")).collect();
    for name in &names {
        groups.add(name, A, now, None);
        groups.changed(&bind(name), now);
    }
    assert_eq!(groups.next_renewal(), None, "they are this link's own");
    groups.disconnected();
    groups.connected(kept(1), now);
    let mut renewed = Vec::new();
    let mut at = now;
    groups.proven();
    while let Some(next) = groups.next_renewal() {
        assert_eq!(groups.renew_due(next - Duration::from_nanos(1)), []);
        assert!(next > at);
        at = next;
        let batch = groups.renew_due(at);
        assert!(batch.len() <= 10);
        for change in &batch {
            assert_eq!(groups.changed(change, at), (vec![], None));
        }
        renewed.extend(batch);
    }
    assert_eq!(
        renewed,
        names
            .iter()
            .zip(0..)
            .map(|(name, place)| bind(name).at(place))
            .collect::<Vec<_>>()
    );
    assert_eq!(groups.bound(), 25);
}

#[test]
fn very_many_groups_are_all_bound_once_more_within_ten_minutes() {
    let now = Instant::now();
    let mut renewal = Renewal::new(999_999, 0, now);
    let mut seen = 0;
    while !renewal.is_over() {
        seen += renewal.due(renewal.next_due()).unwrap().count();
    }
    assert_eq!(seen, 1_000_000);
    assert!(renewal.next_due() <= now + Duration::from_secs(601));
}

#[test]
fn a_renewal_goes_on_where_the_one_of_a_lost_link_was() {
    let now = Instant::now();
    let mut renewal = Renewal::new(24, 0, now);
    renewal.due(renewal.next_due()).unwrap().for_each(drop);
    let mut next = Renewal::new(24, renewal.reached(), now);
    let mut seen = Vec::new();
    while !next.is_over() {
        seen.extend(next.due(next.next_due()).unwrap());
    }
    assert_eq!(seen, (10..25).chain(0..10).collect::<Vec<_>>());
}

#[test]
fn a_group_that_is_left_while_it_is_bound_once_more_is_unbound_behind_that() {
    let now = Instant::now();
    let mut groups = with_a_bound_group(now);
    groups.disconnected();
    groups.connected(kept(1), now);
    let at = groups.next_renewal().unwrap();
    assert_eq!(groups.renew_due(at), [bind("g")]);
    groups.discard("g", A, at);
    let late = at + AFTER;
    assert_eq!(groups.unbind_due(late), []);
    assert_eq!(
        groups.changed(&bind("g"), late),
        (vec![], Some(unbind("g")))
    );
    assert_eq!(groups.changed(&unbind("g"), late), (vec![], None));
    assert_eq!(groups.bound(), 0);

    // And one whose link is lost meanwhile counts as bound for the next.
    let mut groups = with_a_bound_group(now);
    groups.disconnected();
    groups.connected(kept(1), now);
    groups.renew_due(at);
    groups.disconnected();
    assert_eq!(groups.connected(kept(2), now), (vec![], vec![]));
    assert_eq!(groups.bound(), 1);
}

#[test]
fn each_group_has_a_place_and_free_places_are_taken_first() {
    let now = Instant::now();
    let mut groups: Groups<u64> = Groups::new(None, Duration::ZERO);
    groups.connected(Earlier::Nothing, now);
    let add = |groups: &mut Groups<u64>, name: &str| {
        let change = groups.add(name, A, now, None).changes.remove(0);
        groups.changed(&change, now);
        change.place
    };
    let places = ["a", "b", "c"].map(|name| add(&mut groups, name));
    assert_eq!(places, [0, 1, 2]);
    let left = groups.discard("b", A, now).changes;
    assert_eq!((left[0].verb, left[0].place), (Verb::Unbind, 1));
    groups.changed(&left[0], now);
    assert_eq!(["d", "e"].map(|name| add(&mut groups, name)), [1, 3]);
}

#[test]
fn a_group_keeps_its_place_over_a_lost_link() {
    let now = Instant::now();
    let mut groups = with_a_bound_group(now);
    groups.add("h", A, now, None);
    groups.changed(&bind("h").at(1), now);
    groups.discard("g", A, now);
    let unbind = groups.unbind_due(now + AFTER);
    groups.changed(&unbind[0], now);
    // The link is lost before "h" is unbound: that is in doubt, and made up for.
    groups.discard("h", A, now);
    assert_eq!(groups.unbind_due(now + 2 * AFTER)[0].place, 1);
    groups.disconnected();
    groups.add("h", A, now, None);
    let places = |changes: &[BindingChange]| -> Vec<_> {
        let changes = changes.iter();
        changes
            .map(|change| (change.verb, change.mark, change.place))
            .collect()
    };
    let changes = groups.connected(kept(1), now).0;
    assert_eq!(places(&changes), [(Verb::Unbind, 0, 1), (Verb::Bind, 1, 1)]);
    // Bound once more, too.
    groups.changed(&changes[1], now);
    groups.disconnected();
    groups.connected(kept(2), now);
    let mut renewed = Vec::new();
    while let Some(due) = groups.next_renewal() {
        renewed.extend(groups.renew_due(due));
    }
    assert_eq!(places(&renewed), [(Verb::Bind, 1, 1)]);
}

/// What tells a binding from others: its group, mark and place.
type Identity = (String, Mark, u32);

fn identity(change: &BindingChange) -> Identity {
    (change.group.to_string(), change.mark, change.place)
}

/// The broker: what is bound, and what each link has on its way.
#[derive(Default)]
struct Broker {
    bindings: BTreeSet<Identity>,
    /// Of the link that stands.
    under_way: VecDeque<BindingChange>,
    /// Of links that are lost: done late, in their order, or never.
    late: VecDeque<BindingChange>,
    /// What a lost link had under way may be left: where it was done behind what made up for it, or that
    /// was lost too. It costs messages that nobody takes.
    may_be_left: BTreeSet<Identity>,
}

impl Broker {
    fn apply(&mut self, change: &BindingChange) {
        let binding = identity(change);
        match change.verb {
            Verb::Bind => self.bindings.insert(binding),
            Verb::Unbind => self.bindings.remove(&binding),
        };
    }

    fn routes(&self, group: &str) -> bool {
        self.bindings.iter().any(|(name, ..)| name == group)
    }
}

proptest! {
    /// Whoever is told that a group is bound hears it, whatever is still on its way; and when nothing is,
    /// the broker routes what is wanted, and nothing that is not but what could not be known.
    #[test]
    fn what_counts_as_bound_is_bound_through_all_losses(
        steps in proptest::collection::vec((0_u8..12, 0_u8..4, 0_u64..3), 1..250),
    ) {
        let mut now = Instant::now();
        let mut groups: Groups<u64> = Groups::new(None, AFTER);
        let mut broker = Broker::default();
        let mut mark = 0;
        broker.under_way.extend(groups.connected(Earlier::Nothing, now).0);
        let mut is_connected = true;
        let mut waiter = 0;
        let mut steps = steps;
        // In the end a link stands, and all is done and due.
        steps.push((9, 0, 0));
        for (step, group, delay) in steps {
            now += Duration::from_secs(delay);
            let name = format!("g{group}");
            let changes = match step {
                0..=2 => {
                    waiter += 1;
                    groups.add(&name, A, now, Some(waiter)).changes
                }
                3 | 4 => groups.discard(&name, A, now).changes,
                5 | 6 => {
                    // The broker does the next change, and its answer comes.
                    match broker.under_way.pop_front() {
                        Some(change) => {
                            broker.apply(&change);
                            groups.changed(&change, now).1.into_iter().collect()
                        }
                        None => vec![],
                    }
                }
                7 => {
                    // The link is lost. Of what was under way the broker has done some, without an
                    // answer; and may do the rest later.
                    groups.disconnected();
                    is_connected = false;
                    for _ in 0..group {
                        if let Some(change) = broker.under_way.pop_front() {
                            broker.apply(&change);
                        }
                    }
                    let rest = std::mem::take(&mut broker.under_way);
                    broker.may_be_left.extend(rest.iter().map(identity));
                    broker.late.extend(rest);
                    vec![]
                }
                8 => {
                    // A lost link's change is done at last, or never.
                    if let Some(change) = broker.late.pop_front()
                        && group > 0
                    {
                        broker.apply(&change);
                    }
                    vec![]
                }
                9 | 10 if !is_connected => {
                    is_connected = true;
                    mark += 1;
                    groups.connected(kept(mark), now).0
                }
                11 if !is_connected => {
                    // All bindings are gone, and the exchange too: nothing late finds them.
                    broker = Broker::default();
                    mark = 0;
                    is_connected = true;
                    groups.connected(Earlier::Nothing, now).0
                }
                10 if group == 0 => {
                    // A probe has arrived, which is so only if nothing is lost.
                    groups.proven();
                    vec![]
                }
                10 => groups.renew_due(now),
                _ => groups.unbind_due(now),
            };
            if is_connected {
                broker.under_way.extend(changes);
            } else {
                prop_assert_eq!(changes, vec![]);
            }
            for group in 0..4 {
                let name = format!("g{group}");
                prop_assert!(!groups.is_bound(&name) || broker.routes(&name), "{}", name);
            }
        }
        now += AFTER;
        broker.under_way.extend(groups.unbind_due(now));
        while let Some(change) = broker.under_way.pop_front() {
            broker.apply(&change);
            broker.under_way.extend(groups.changed(&change, now).1);
        }
        groups.proven();
        let left = broker.may_be_left.clone();
        let known: Vec<_> = broker.bindings.iter().filter(|one| !left.contains(one)).collect();
        let mut wanted = 0;
        for group in 0..4 {
            let name = format!("g{group}");
            let has_members = !groups.members(&name).is_empty();
            prop_assert_eq!(groups.is_bound(&name), has_members);
            prop_assert!(!has_members || broker.routes(&name));
            wanted += usize::from(has_members);
        }
        prop_assert!(known.len() <= wanted, "{:?}", known);
        prop_assert_eq!(groups.bound(), wanted);
        prop_assert_eq!(groups.groups.len(), wanted);
    }
}
