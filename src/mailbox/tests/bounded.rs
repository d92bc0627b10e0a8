//! Messages that are bounded by channel and in all, and what counts as one that waits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn bounded(channel: usize, total: usize) -> Boxes {
    let mut boxes = boxes();
    boxes.set_bounds(Some(Bounds { channel, total }));
    boxes
}

fn lost(channel: &str, bound: Bound) -> Option<Lost> {
    Some(Lost {
        channel: name(channel),
        bound,
    })
}

/// Delivers one message to several channels; what each delivery has lost.
fn put_all(boxes: &mut Boxes, channels: &[&str], text: &str, now: Instant) -> Vec<Option<Lost>> {
    let keys: Vec<_> = channels.iter().map(|channel| boxes.pin(channel)).collect();
    let mut lost = Vec::new();
    boxes.deliver_to_all(&keys, body(text), now, |delivered| {
        lost.push(delivered.lost);
    });
    for key in keys {
        boxes.unpin(key);
    }
    lost
}

fn pulled(boxes: &mut Boxes, channel: &str) -> Vec<String> {
    let now = Instant::now();
    std::iter::from_fn(|| boxes.pull(channel, now).map(|message| text(&message))).collect()
}

#[test]
fn a_full_channel_loses_its_own_newest_message() {
    let now = Instant::now();
    let mut boxes = bounded(2, 100);
    for number in 0..2 {
        assert_eq!(put(&mut boxes, "q!a", &number.to_string(), now).lost, None);
    }
    assert_eq!(
        put(&mut boxes, "q!a", "2", now).lost,
        lost("q!a", Bound::Channel)
    );
    assert_eq!(put(&mut boxes, "q!b", "x", now).lost, None);
    assert_eq!(pulled(&mut boxes, "q!a"), ["0", "1"]);
}

#[test]
fn without_bounds_nothing_is_lost_and_what_waits_stays_when_they_are_set() {
    let now = Instant::now();
    let mut boxes = boxes();
    for number in 0..5 {
        assert_eq!(put(&mut boxes, "q!a", &number.to_string(), now).lost, None);
    }
    let bounds = Bounds {
        channel: 2,
        total: 3,
    };
    boxes.set_bounds(Some(bounds));
    assert_eq!(boxes.backlog(), 5);
    assert_eq!(
        put(&mut boxes, "q!a", "5", now).lost,
        lost("q!a", Bound::Channel)
    );
    boxes.set_bounds(None);
    assert_eq!(put(&mut boxes, "q!a", "6", now).lost, None);
    assert_eq!(pulled(&mut boxes, "q!a"), ["0", "1", "2", "3", "4", "6"]);
}

#[test]
fn where_all_is_full_the_fullest_channel_loses_its_newest() {
    let now = Instant::now();
    let mut boxes = bounded(10, 5);
    for (channel, count) in [("q!a", 3), ("q!b", 2)] {
        for number in 0..count {
            put(&mut boxes, channel, &number.to_string(), now);
        }
    }
    assert_eq!(
        put(&mut boxes, "q!c", "x", now).lost,
        lost("q!a", Bound::Total)
    );
    assert_eq!(
        put(&mut boxes, "q!b", "2", now).lost,
        lost("q!b", Bound::Total),
        "none is fuller"
    );
    assert_eq!(
        put(&mut boxes, "q!c", "y", now).lost,
        lost("q!c", Bound::Total),
        "nor here"
    );
    assert_eq!(boxes.backlog(), 5);
    let held = ["q!a", "q!b", "q!c"].map(|channel| pulled(&mut boxes, channel).len());
    assert_eq!(held, [2, 2, 1]);
}

#[test]
fn the_first_message_of_a_channel_in_use_is_let_in_however_full_all_is() {
    let now = Instant::now();
    let mut boxes = bounded(10, 2);
    put(&mut boxes, "q!a", "1", now);
    put(&mut boxes, "q!b", "1", now);
    boxes.add_receiver("q!received", "R", |_| ());
    boxes.add_pull("q!pulled", 1);
    boxes.pin("q!member");
    for channel in ["q!received", "q!pulled", "q!member"] {
        assert_eq!(put(&mut boxes, channel, "1", now).lost, None, "{channel}");
    }
    assert_eq!(
        put(&mut boxes, "q!nobody", "1", now).lost,
        lost("q!nobody", Bound::Total)
    );
    assert_eq!(
        put(&mut boxes, "q!member", "2", now).lost,
        lost("q!member", Bound::Total)
    );
    assert_eq!(boxes.backlog(), 5);
}

#[test]
fn a_group_message_is_one_delivery_until_each_member_has_taken_its_copy() {
    let now = Instant::now();
    let mut boxes = boxes();
    put_all(&mut boxes, &["q!a", "q!b", "q!c"], "x", now);
    put(&mut boxes, "q!a", "y", now);
    assert_eq!((boxes.backlog(), boxes.deliveries()), (4, 2));
    boxes.pull("q!a", now);
    boxes.discard("q!b", Ended::Discarded);
    assert_eq!((boxes.backlog(), boxes.deliveries()), (2, 2));
    boxes.pull("q!c", now);
    assert_eq!((boxes.backlog(), boxes.deliveries()), (1, 1));
    boxes.pull("q!a", now);
    assert_eq!((boxes.backlog(), boxes.deliveries()), (0, 0));
}

#[test]
fn a_group_message_that_no_member_has_room_for_is_no_delivery_that_waits() {
    let now = Instant::now();
    let mut boxes = bounded(1, 100);
    put_all(&mut boxes, &["q!a", "q!b"], "x", now);
    let second = put_all(&mut boxes, &["q!a", "q!b"], "y", now);
    assert_eq!(
        second,
        [lost("q!a", Bound::Channel), lost("q!b", Bound::Channel)]
    );
    assert_eq!((boxes.backlog(), boxes.deliveries()), (2, 1));
}

#[test]
fn a_group_message_whose_first_copy_is_lost_before_the_last_is_delivered_arrives() {
    let now = Instant::now();
    let mut boxes = bounded(10, 3);
    put(&mut boxes, "q!full", "1", now);
    put(&mut boxes, "q!full", "2", now);
    // The first copy fills memory, and the channel that has it is the fullest. Another message is
    // to come to two channels that nobody uses, and none may be lost twice.
    let keys = ["q!full", "q!a"].map(|channel| boxes.open(channel));
    let mut lost = Vec::new();
    boxes.deliver_to_all(&keys, body("x"), now, |delivered| lost.push(delivered.lost));
    assert_eq!(lost, [None, self::lost("q!full", Bound::Total)]);
    assert_eq!((boxes.backlog(), boxes.deliveries()), (3, 3));
    assert_eq!(pulled(&mut boxes, "q!a"), ["x"]);
    assert_eq!(pulled(&mut boxes, "q!full"), ["1", "2"]);
}

#[test]
fn a_declined_copy_belongs_to_its_delivery_again_while_that_waits_elsewhere() {
    let now = Instant::now();
    let mut boxes = boxes();
    boxes.add_receiver("q!a", "A", |_| ());
    boxes.add_receiver("q!b", "B", |_| ());
    for others in [true, false] {
        put_all(&mut boxes, &["q!a", "q!b"], "x", now);
        let key = boxes.key("q!a").unwrap();
        let (_, ran) = out(&mut boxes, key, now).unwrap();
        if !others {
            boxes.pull("q!b", now);
        }
        // Another message may have taken its place in the meantime.
        put(&mut boxes, "q!c", "y", now);
        boxes.check_in(key, ran, Flow::Decline, now);
        let expected = if others { (3, 2) } else { (2, 2) };
        assert_eq!((boxes.backlog(), boxes.deliveries()), expected);
        assert_eq!(pulled(&mut boxes, "q!a"), ["x"]);
        pulled(&mut boxes, "q!b");
        pulled(&mut boxes, "q!c");
        assert_eq!((boxes.backlog(), boxes.deliveries()), (0, 0));
        boxes.add_receiver("q!a", "A", |_| ());
    }
}

#[test]
fn a_channel_is_used_while_it_is_received_from_and_when_a_message_is_taken() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut boxes = boxes();
    let key = boxes.pin("q!a");
    assert_eq!(boxes.last_used(key, at(1)), None);
    put(&mut boxes, "q!a", "1", at(1));
    assert_eq!(
        boxes.last_used(key, at(2)),
        None,
        "a message alone is no use"
    );
    boxes.pull("q!a", at(3));
    assert_eq!(boxes.last_used(key, at(9)), Some(at(3)));

    let (receiver, _) = boxes.add_receiver("q!a", "A", |_| ());
    assert_eq!(boxes.last_used(key, at(10)), Some(at(10)));
    assert!(matches!(boxes.cancel(receiver, at(11)), Cancel::Idle(_)));
    assert_eq!(boxes.last_used(key, at(20)), Some(at(11)));

    boxes.add_pull("q!a", 7);
    assert_eq!(boxes.last_used(key, at(21)), Some(at(21)));
    boxes.pull("q!a", at(22));
    boxes.remove_pull("q!a", &7);
    assert_eq!(boxes.last_used(key, at(30)), Some(at(22)));

    boxes.add_receiver("q!a", "A", |_| ());
    put(&mut boxes, "q!a", "2", at(31));
    let (_, ran) = out(&mut boxes, key, at(32)).unwrap();
    assert_eq!(
        boxes.last_used(key, at(33)),
        Some(at(33)),
        "its callback runs"
    );
    boxes.check_in(key, ran, Flow::Stop, at(34));
    assert_eq!(boxes.last_used(key, at(40)), Some(at(34)));
    assert_eq!(boxes.last_used(key + 1, at(40)), None);
}

#[test]
fn a_channel_is_kept_waiting_where_it_holds_nothing_and_is_received_from_or_was_lately() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut boxes = boxes();
    put(&mut boxes, "q!full", "x", at(0));
    boxes.add_receiver("q!full", "F", |_| ());
    boxes.pin("q!member");
    assert!(
        !boxes.is_one_kept_waiting(at(0)),
        "one has work, the other nobody reads"
    );

    boxes.add_pull("q!pulled", 1);
    assert!(boxes.is_one_kept_waiting(at(0)));
    boxes.remove_pull("q!pulled", &1);
    let (receiver, _) = boxes.add_receiver("q!received", "R", |_| ());
    assert!(boxes.is_one_kept_waiting(at(0)));
    boxes.cancel(receiver, at(1));
    assert!(!boxes.is_one_kept_waiting(at(0)));

    // By one that looks for messages now and then.
    boxes.pull("q!member", at(5));
    assert!(boxes.is_one_kept_waiting(at(5)));
    assert!(!boxes.is_one_kept_waiting(at(6)));
    put(&mut boxes, "q!member", "y", at(6));
    assert!(!boxes.is_one_kept_waiting(at(5)), "it has work");
}

#[test]
fn the_fullest_channel_is_found_however_channels_grow_and_shrink() {
    let now = Instant::now();
    let mut boxes = bounded(1000, 100);
    for round in 0..20_000_u32 {
        let channel = format!("q!{}", round * 7919 % 10);
        put(&mut boxes, &channel, "x", now);
        if round.is_multiple_of(3) {
            boxes.pull(&format!("q!{}", round * 31 % 10), now);
        }
    }
    assert!(boxes.backlog() <= 100);
    let entries = boxes.fullest.as_ref().map_or(0, Fullest::entries);
    assert!(entries <= 4 * 10 + FEW, "{entries} entries for 10 channels");
}

/// Mailboxes as plainly as they can be written down: for each channel the numbers of its messages.
#[derive(Default)]
struct Model {
    held: BTreeMap<usize, Vec<(usize, Instant)>>,
}

impl Model {
    fn total(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    fn most(&self) -> usize {
        self.held.values().map(Vec::len).max().unwrap_or(0)
    }

    fn deliveries(&self) -> usize {
        let mut numbers: Vec<_> = self
            .held
            .values()
            .flatten()
            .map(|(number, _)| *number)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<usize>),
    Pull(usize),
    Discard(usize),
    Bound(Option<(usize, usize)>),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::btree_set(0_usize..5, 1..5)
            .prop_map(|set| Step::Put(set.into_iter().collect())),
        4 => (0_usize..5).prop_map(Step::Pull),
        1 => (0_usize..5).prop_map(Step::Discard),
        1 => proptest::option::of((1_usize..5, 1_usize..10)).prop_map(Step::Bound),
        2 => (1_u64..30).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn what_waits_is_what_a_plain_list_holds(steps in proptest::collection::vec(step(), 0..200)) {
        let mut now = Instant::now();
        let mut boxes = boxes();
        let mut model = Model::default();
        let mut bounds = None;
        let channel = |number: usize| format!("q!{number}");
        for (number, step) in steps.into_iter().enumerate() {
            let expires = |held: &mut Vec<(usize, Instant)>, now: Instant| {
                held.retain(|(_, at)| now < *at + EXPIRY);
            };
            match step {
                Step::Put(to) => {
                    let channels: Vec<_> = to.iter().map(|to| channel(*to)).collect();
                    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
                    let lost = put_all(&mut boxes, &channels, &number.to_string(), now);
                    for (to, lost) in to.into_iter().zip(lost) {
                        let held = model.held.entry(to).or_default();
                        let (length, whole) = (held.len(), model.total());
                        let most = model.most();
                        let expected = match bounds {
                            Some((of_channel, _)) if length >= of_channel => Some(Bound::Channel),
                            // Its first message: each of these channels is pinned.
                            Some((_, total)) if whole >= total && length > 0 => Some(Bound::Total),
                            _ => None,
                        };
                        prop_assert_eq!(lost.as_ref().map(|lost| lost.bound), expected);
                        let lost_by = lost.map(|lost| lost.channel);
                        let own = lost_by.as_deref() == Some(&*name(&channel(to)));
                        if expected == Some(Bound::Total) && !own {
                            let other = (0..5).find(|n| {
                                lost_by.as_deref() == Some(&*name(&channel(*n)))
                            });
                            let other = model.held.entry(other.unwrap()).or_default();
                            prop_assert!(other.len() == most && most > length + 1, "not the fullest");
                            other.pop();
                        } else if expected == Some(Bound::Total) {
                            prop_assert!(most <= length + 1, "there is a fuller one");
                        }
                        if !own {
                            model.held.entry(to).or_default().push((number, now));
                        }
                    }
                }
                Step::Pull(from) => {
                    let held = model.held.entry(from).or_default();
                    let first = (!held.is_empty()).then(|| held.remove(0).0.to_string());
                    let pulled = boxes.pull(&channel(from), now).map(|message| text(&message));
                    prop_assert_eq!(pulled, first);
                }
                Step::Discard(which) => {
                    let held = model.held.remove(&which).unwrap_or_default();
                    let discarded = boxes.discard(&channel(which), Ended::Discarded);
                    prop_assert_eq!(discarded.dropped, held.len());
                }
                Step::Bound(new) => {
                    bounds = new;
                    boxes.set_bounds(bounds.map(|(channel, total)| Bounds { channel, total }));
                }
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    let before = model.total();
                    model.held.values_mut().for_each(|held| expires(held, now));
                    prop_assert_eq!(boxes.expire(now).dropped, before - model.total());
                }
            }
            prop_assert_eq!(boxes.backlog(), model.total());
            prop_assert_eq!(boxes.deliveries(), model.deliveries());
            let biggest = boxes.biggest(1).first().map_or(0, |(_, count)| *count);
            prop_assert_eq!(biggest, model.most());
        }
    }
}
