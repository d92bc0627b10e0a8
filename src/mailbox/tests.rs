use super::*;

const EXPIRY: Duration = Duration::from_secs(60);

type Boxes = Mailboxes<&'static str, u32>;

mod bounded;

fn name(channel: &str) -> Arc<CStr> {
    CString::new(channel).unwrap().into()
}

fn boxes() -> Boxes {
    Mailboxes::new(EXPIRY)
}

fn body(text: &str) -> Arc<Body> {
    Arc::new(Body::new(text.as_bytes().to_vec(), 0..text.len(), None))
}

fn put(boxes: &mut Boxes, channel: &str, text: &str, now: Instant) -> Delivered<u32> {
    boxes.deliver(channel, body(text), now)
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.body().data()).into_owned()
}

/// Checks out, and says who is called with what.
fn out(
    boxes: &mut Boxes,
    key: MailboxKey,
    now: Instant,
) -> Option<(String, CheckedOut<&'static str>)> {
    let checked_out = boxes.check_out(key, now)?;
    let said = match &checked_out.call {
        Call::Message(message) => format!("{} {}", checked_out.callback, text(message)),
        Call::Ended(why) => format!("{} {why:?}", checked_out.callback),
    };
    Some((said, checked_out))
}

/// Runs everything that is due in `key`, and says who was called with what.
fn run(boxes: &mut Boxes, key: MailboxKey, now: Instant) -> Vec<String> {
    let mut said = Vec::new();
    while let Some((what, checked_out)) = out(boxes, key, now) {
        said.push(what);
        boxes.check_in(key, checked_out, Flow::Continue, now);
    }
    said
}

#[test]
fn messages_wait_in_order_for_a_receiver() {
    let now = Instant::now();
    let mut boxes = boxes();
    assert!(put(&mut boxes, "q!a", "1", now).due.is_none());
    put(&mut boxes, "q!a", "2", now);
    put(&mut boxes, "q!b", "3", now);
    assert_eq!((boxes.backlog(), boxes.len()), (3, 2));

    let (id, due) = boxes.add_receiver("q!a", "A", |_| ());
    assert_eq!(id, 1);
    let key = due.unwrap();
    assert!(
        put(&mut boxes, "q!a", "4", now).due.is_none(),
        "due already"
    );
    assert_eq!(run(&mut boxes, key, now), ["A 1", "A 2", "A 4"]);
    assert_eq!(boxes.backlog(), 1);
    assert!(put(&mut boxes, "q!a", "5", now).due.is_some());
}

#[test]
fn a_message_leaves_the_backlog_when_its_callback_is_about_to_run() {
    let now = Instant::now();
    let mut boxes = boxes();
    let (_, _) = boxes.add_receiver("q!a", "A", |_| ());
    let key = put(&mut boxes, "q!a", "1", now).due.unwrap();
    put(&mut boxes, "q!a", "2", now);
    assert_eq!(boxes.backlog(), 2);
    let (_, first) = out(&mut boxes, key, now).unwrap();
    assert_eq!(boxes.backlog(), 1);
    assert!(
        boxes.check_out(key, now).is_none(),
        "a busy mailbox is checked out by one thread only"
    );
    assert!(put(&mut boxes, "q!a", "3", now).due.is_none(), "it is busy");
    assert!(boxes.check_in(key, first, Flow::Continue, now).due);
}

#[test]
fn receivers_of_a_channel_take_turns() {
    let now = Instant::now();
    let mut boxes = boxes();
    boxes.add_receiver("q!a", "A", |_| ());
    boxes.add_receiver("q!a", "B", |_| ());
    let key = put(&mut boxes, "q!a", "1", now).due.unwrap();
    put(&mut boxes, "q!a", "2", now);
    put(&mut boxes, "q!a", "3", now);
    assert_eq!(run(&mut boxes, key, now), ["A 1", "B 2", "A 3"]);
}

#[test]
fn a_declined_message_stays_first_and_its_receiver_ends() {
    let now = Instant::now();
    let mut boxes = boxes();
    boxes.add_receiver("q!a", "A", |_| ());
    let key = put(&mut boxes, "q!a", "1", now).due.unwrap();
    put(&mut boxes, "q!a", "2", now);
    let (_, first) = out(&mut boxes, key, now).unwrap();
    let checked_in = boxes.check_in(key, first, Flow::Decline, now);
    assert_eq!(checked_in.retired, Some("A"));
    assert!(!checked_in.due, "nobody is left to call");
    assert_eq!(boxes.backlog(), 2);
    let (_, due) = boxes.add_receiver("q!a", "B", |_| ());
    assert_eq!(run(&mut boxes, due.unwrap(), now), ["B 1", "B 2"]);
}

#[test]
fn a_message_declined_after_its_channel_was_discarded_is_dropped() {
    let now = Instant::now();
    let mut boxes = boxes();
    boxes.add_receiver("q!a", "A", |_| ());
    let key = put(&mut boxes, "q!a", "1", now).due.unwrap();
    let (_, first) = out(&mut boxes, key, now).unwrap();
    boxes.discard("q!a", Ended::Discarded);
    let checked_in = boxes.check_in(key, first, Flow::Decline, now);
    assert!(checked_in.dropped);
    assert_eq!(
        checked_in.retired,
        Some("A"),
        "ended by its user: no further call"
    );
    assert_eq!((boxes.backlog(), boxes.len()), (0, 0));
}

#[test]
fn cancelling_an_idle_receiver_gives_its_callback_and_loses_no_message() {
    let now = Instant::now();
    let mut boxes = boxes();
    let (id, _) = boxes.add_receiver("q!a", "A", |_| ());
    let key = put(&mut boxes, "q!a", "1", now).due.unwrap();
    assert!(matches!(boxes.cancel(id, now), Cancel::Idle("A")));
    assert!(matches!(boxes.cancel(id, now), Cancel::Unknown));
    assert!(
        boxes.check_out(key, now).is_none(),
        "it was due, and is not any more"
    );
    assert_eq!(text(&boxes.pull("q!a", now).unwrap()), "1");
    assert_eq!(boxes.len(), 0);
}

#[test]
fn cancelling_a_running_receiver_retires_it_when_it_returns() {
    let now = Instant::now();
    let mut boxes = boxes();
    let (id, _) = boxes.add_receiver("q!a", "A", |_| ());
    let key = put(&mut boxes, "q!a", "1", now).due.unwrap();
    put(&mut boxes, "q!a", "2", now);
    let (_, first) = out(&mut boxes, key, now).unwrap();
    assert!(matches!(boxes.cancel(id, now), Cancel::Running));
    assert!(boxes.has_receiver(id));
    let checked_in = boxes.check_in(key, first, Flow::Continue, now);
    assert_eq!(checked_in.retired, Some("A"));
    assert!(checked_in.cancelled && !checked_in.due && !boxes.has_receiver(id));
    assert_eq!(boxes.backlog(), 1);
}

#[test]
fn discarding_a_channel_drops_its_messages_and_ends_its_receivers_once() {
    let now = Instant::now();
    let mut boxes = boxes();
    boxes.add_receiver("q!a", "A", |_| ());
    boxes.add_receiver("q!a", "B", |_| ());
    boxes.add_pull("q!a", 7);
    put(&mut boxes, "q!b", "kept", now);
    let key = put(&mut boxes, "q!a", "1", now).due.unwrap();
    boxes.add_pull("q!a", 8);
    let discarded = boxes.discard("q!a", Ended::Discarded);
    assert_eq!(discarded.dropped, 1);
    assert_eq!(discarded.wake, [8], "7 was woken by the message");
    assert!(discarded.due.is_empty(), "it was due already");
    boxes.discard("q!a", Ended::Closed);
    assert_eq!(run(&mut boxes, key, now), ["A Discarded", "B Discarded"]);
    assert_eq!((boxes.backlog(), boxes.len(), boxes.receivers()), (1, 1, 0));
}

#[test]
fn a_receiver_that_runs_while_its_channel_is_discarded_gets_its_last_call_after() {
    let now = Instant::now();
    let mut boxes = boxes();
    boxes.add_receiver("q!a", "A", |_| ());
    let key = put(&mut boxes, "q!a", "1", now).due.unwrap();
    let (_, first) = out(&mut boxes, key, now).unwrap();
    assert!(boxes.discard("q!a", Ended::Discarded).due.is_empty());
    assert!(boxes.check_in(key, first, Flow::Continue, now).due);
    assert_eq!(run(&mut boxes, key, now), ["A Discarded"]);
    assert_eq!(boxes.len(), 0);
}

#[test]
fn the_last_call_of_an_ended_receiver_can_still_be_cancelled() {
    let now = Instant::now();
    let mut boxes = boxes();
    let (id, _) = boxes.add_receiver("q!a", "A", |_| ());
    let key = boxes.discard("q!a", Ended::Discarded).due[0];
    assert!(matches!(boxes.cancel(id, now), Cancel::Idle("A")));
    assert!(boxes.check_out(key, now).is_none());
    assert_eq!(boxes.len(), 0);
}

#[test]
fn a_discarded_name_can_be_used_again_and_old_endings_come_first() {
    let now = Instant::now();
    let mut boxes = boxes();
    boxes.add_receiver("q!a", "old", |_| ());
    let key = boxes.discard("q!a", Ended::Discarded).due[0];
    boxes.add_receiver("q!a", "new", |_| ());
    put(&mut boxes, "q!a", "1", now);
    assert_eq!(run(&mut boxes, key, now), ["old Discarded", "new 1"]);
}

#[test]
fn a_delivery_wakes_one_pull_and_giving_up_leaves_nothing() {
    let now = Instant::now();
    let mut boxes = boxes();
    boxes.add_pull("q!a", 1);
    boxes.add_pull("q!a", 2);
    assert_eq!(put(&mut boxes, "q!a", "x", now).wake, Some(1));
    assert_eq!(text(&boxes.pull("q!a", now).unwrap()), "x");
    assert!(boxes.pull("q!a", now).is_none());
    boxes.remove_pull("q!a", &2);
    assert_eq!(boxes.len(), 0);
}

#[test]
fn expired_messages_are_dropped_and_their_mailbox_vanishes() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut boxes = boxes();
    for number in 0..3 {
        put(&mut boxes, "q!slow", &number.to_string(), at(0));
    }
    put(&mut boxes, "q!other", "x", at(0));
    put(&mut boxes, "q!late", "y", at(30));
    assert_eq!(boxes.next_expiry(), Some(at(60)));
    assert_eq!(
        boxes.expire(at(59)),
        Expired {
            dropped: 0,
            biggest: Vec::new()
        }
    );
    assert_eq!(
        boxes.expire(at(60)),
        Expired {
            dropped: 4,
            biggest: vec![(name("q!slow"), 3), (name("q!other"), 1)],
        }
    );
    assert_eq!((boxes.backlog(), boxes.len()), (1, 1));
    assert_eq!(boxes.next_expiry(), Some(at(90)));
}

#[test]
fn an_expired_message_is_never_delivered_even_before_a_sweep() {
    let start = Instant::now();
    let late = start + EXPIRY;
    let mut boxes = boxes();
    put(&mut boxes, "q!a", "old", start);
    assert!(boxes.pull("q!a", late).is_none());
    put(&mut boxes, "q!b", "old", start);
    let (_, due) = boxes.add_receiver("q!b", "B", |_| ());
    assert!(boxes.check_out(due.unwrap(), late).is_none());
    assert_eq!(boxes.take_expired(), 2);
    assert_eq!(boxes.take_expired(), 0);
    assert_eq!(boxes.backlog(), 0);
}

#[test]
fn a_declined_message_expires_by_its_arrival() {
    let start = Instant::now();
    let mut boxes = boxes();
    boxes.add_receiver("q!a", "A", |_| ());
    let key = put(&mut boxes, "q!a", "x", start).due.unwrap();
    let (_, x) = out(&mut boxes, key, start).unwrap();
    assert_eq!(boxes.next_expiry(), None);
    // Another may have come meanwhile, or none.
    put(&mut boxes, "q!b", "y", start + EXPIRY / 2);
    boxes.check_in(key, x, Flow::Decline, start);
    assert_eq!(boxes.next_expiry(), Some(start + EXPIRY));
    assert!(boxes.pull("q!b", start + EXPIRY).is_some());
    assert_eq!(boxes.expire(start + EXPIRY).dropped, 1);

    boxes.add_receiver("q!a", "A", |_| ());
    let key = put(&mut boxes, "q!a", "z", start).due.unwrap();
    let (_, z) = out(&mut boxes, key, start).unwrap();
    boxes.check_in(key, z, Flow::Decline, start);
    assert_eq!(boxes.next_expiry(), Some(start + EXPIRY));
}

#[test]
fn the_number_of_a_receiver_is_told_before_its_mailbox_is_due() {
    let mut boxes = boxes();
    let mut announced = 0;
    let (id, _) = boxes.add_receiver("q!a", "A", |id| announced = id);
    assert_eq!(announced, id);
    assert_ne!(boxes.add_receiver("q!a", "A", |_| ()).0, id);
}

#[test]
fn many_mailboxes_come_and_go_and_leave_nothing() {
    let now = Instant::now();
    let mut boxes = boxes();
    for round in 0..3 {
        for number in 0..100 {
            put(&mut boxes, &format!("q!{number}"), "x", now);
        }
        assert_eq!((boxes.backlog(), boxes.len()), (100, 100));
        // Not in the order in which they came.
        for number in (0..100).map(|n| (n * 37 + round) % 100) {
            assert!(boxes.pull(&format!("q!{number}"), now).is_some());
        }
        assert_eq!((boxes.backlog(), boxes.len()), (0, 0));
        assert_eq!(boxes.next_expiry(), None);
    }
}
