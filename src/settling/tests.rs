//! The rules by themselves, and what they come to with a broker that is told and asks.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;

const SETTLE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(10);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A queue in which each item is its number, and what a broker has taken of it.
struct World {
    start: Instant,
    now: Instant,
    queue: SettlingQueue<usize>,
    timeout: Duration,
    /// Of each item, when it came and when it ends.
    items: Vec<(Instant, Instant)>,
    /// Items in the order in which they were taken, and when.
    taken: Vec<(usize, Instant)>,
    /// The broker has been told that it may take something.
    is_notified: bool,
    is_blocked: bool,
    told: usize,
    released: Vec<Released>,
}

impl World {
    fn new(settle: Option<Duration>, timeout: Duration) -> Self {
        let start = Instant::now();
        let mut queue = SettlingQueue::new(settle, timeout);
        queue.ready(start, |_| true);
        Self {
            start,
            now: start,
            queue,
            timeout,
            items: Vec::new(),
            taken: Vec::new(),
            is_notified: false,
            is_blocked: false,
            told: 0,
            released: Vec::new(),
        }
    }

    fn send(&mut self) {
        self.send_that_waited(Duration::ZERO);
    }

    /// A send that waited for a place before it was accepted.
    fn send_that_waited(&mut self, waited: Duration) {
        let deadline = self.now + self.timeout.saturating_sub(waited);
        self.queue.push(self.items.len(), deadline);
        self.items.push((self.now, deadline));
        self.is_notified = true;
        self.broker_takes();
    }

    fn lost(&mut self) {
        self.released.extend(self.queue.lost(self.now));
    }

    fn ready(&mut self) {
        let (now, items) = (self.now, &self.items);
        self.queue.ready(now, |item| items[*item].1 > now);
        self.is_notified = true;
        self.broker_takes();
    }

    fn broker_takes(&mut self) {
        const LIMIT: usize = 256;
        if self.is_blocked || !std::mem::take(&mut self.is_notified) {
            return;
        }
        loop {
            let permitted = self.queue.permitted(self.now, LIMIT);
            let mut count = 0;
            while count < permitted
                && let Some(item) = self.queue.pop(|_| true)
            {
                self.taken.push((item, self.now));
                count += 1;
            }
            self.released.extend(self.queue.opened_when_empty(self.now));
            // As the publisher does: a full batch may not have been all.
            if count < LIMIT {
                return;
            }
        }
    }

    /// As the timekeeper has it, millisecond by millisecond: what has ended is dropped.
    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now += ms(1);
            let (now, items) = (self.now, &self.items);
            self.queue.drop_ended(|item| items[*item].1 > now);
            self.released.extend(self.queue.opened_when_empty(now));
            if self.queue.is_due(now) {
                self.told += 1;
                self.is_notified = true;
                self.broker_takes();
            }
        }
    }

    /// When each item was taken, in milliseconds since the beginning.
    fn taken_at(&self) -> Vec<u64> {
        let at = |(_, at): &(usize, Instant)| at.duration_since(self.start).as_millis() as u64;
        self.taken.iter().map(at).collect()
    }
}

#[test]
fn without_an_outage_each_send_goes_at_once() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.send();
    // The first connection of a layer: nothing was lost.
    world.ready();
    world.pass(3);
    world.send();
    // Lost and back, and nothing waited for it.
    world.lost();
    world.pass(100);
    world.ready();
    world.send();
    assert_eq!(world.taken_at(), [0, 3, 103]);
    assert_eq!((world.told, world.released.len()), (0, 0));
}

#[test]
fn sends_that_waited_are_held_for_the_settling_time_and_later_ones_stay_behind() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.lost();
    world.send();
    world.pass(100);
    world.send();
    world.ready();
    world.pass(200);
    world.send();
    world.pass(299);
    assert!(world.taken.is_empty());
    world.pass(1);
    assert_eq!(world.taken_at(), [600; 3]);
    assert_eq!(
        world.released,
        [Released {
            waited: 2,
            behind: 1,
            took: SETTLE,
        }]
    );
    // All have gone: the next one goes at once.
    world.send();
    assert_eq!(world.taken_at().last(), Some(&600));
}

#[test]
fn a_settling_time_of_0_releases_all_at_once() {
    let mut world = World::new(None, TIMEOUT);
    world.lost();
    for _ in 0..1000 {
        world.send();
    }
    world.ready();
    assert_eq!(world.taken_at(), [0; 1000]);
}

#[test]
fn a_connection_that_is_lost_again_begins_the_settling_time_anew() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.lost();
    world.send();
    world.ready();
    world.pass(400);
    world.lost();
    world.pass(1000);
    assert!(world.taken.is_empty());
    world.ready();
    world.pass(1000);
    assert_eq!(world.taken_at(), [1900]);
}

#[test]
fn a_send_near_its_end_goes_early_with_all_before_it_and_the_others_settle() {
    let mut world = World::new(Some(SETTLE), ms(1200));
    world.lost();
    world.send();
    // Behind the first, and ends 100 ms before it.
    world.send_that_waited(ms(100));
    world.pass(800);
    world.send();
    world.ready();
    // 250 ms before the end of the second, at 1100.
    world.pass(49);
    assert!(world.taken.is_empty());
    world.pass(1);
    assert_eq!(world.taken_at(), [850; 2]);
    world.pass(1000);
    assert_eq!(world.taken_at(), [850, 850, 1300]);
}

#[test]
fn what_ended_during_the_outage_hurries_nothing() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.lost();
    world.send();
    // Ends 500 ms later.
    world.send_that_waited(ms(9500));
    world.pass(1000);
    world.ready();
    world.pass(499);
    assert!(world.taken.is_empty());
    world.pass(1);
    assert_eq!(world.taken, [(0, world.now)]);
}

#[test]
fn what_is_released_goes_in_batches_that_grow() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.lost();
    for _ in 0..10_000 {
        world.send();
    }
    world.ready();
    world.pass(500);
    assert_eq!(world.taken.len(), FIRST_BATCH);
    world.pass(95);
    assert_eq!(world.taken.len(), FIRST_BATCH * 10);
    world.pass(400);
    assert_eq!(world.taken.len(), FIRST_BATCH * 50);
    world.pass(500);
    assert_eq!(world.taken.len(), FIRST_BATCH * 150);
    world.pass(1000);
    assert_eq!(world.taken.len(), 10_000);
}

#[test]
fn a_queue_that_is_full_halves_the_batches_for_a_second_and_not_for_ever() {
    let mut world = World::new(Some(SETTLE), 10 * TIMEOUT);
    world.lost();
    for _ in 0..30_000 {
        world.send();
    }
    world.ready();
    // How many go in the next 0.1 s.
    let rate = |world: &mut World| {
        let before = world.taken.len();
        world.pass(100);
        (world.taken.len() - before) / 10
    };
    world.pass(500 + 1000);
    assert_eq!(rate(&mut world), FIRST_BATCH * 4);
    // Of the same burst: they count once.
    world.queue.refused(world.now);
    world.pass(50);
    world.queue.refused(world.now);
    assert_eq!(rate(&mut world), FIRST_BATCH * 2);
    world.pass(500);
    assert_eq!(rate(&mut world), FIRST_BATCH * 2);
    world.pass(300);
    assert_eq!(rate(&mut world), FIRST_BATCH * 4);
    // A queue that stays full: it counts for a while, and what goes is never less than at first.
    let mut least = usize::MAX;
    for step in 0..80 {
        world.queue.refused(world.now);
        let rate = rate(&mut world);
        if step < 10 {
            least = least.min(rate);
        }
    }
    assert_eq!(least, FIRST_BATCH);
    assert_eq!(world.taken.len(), 30_000);
}

#[test]
fn a_broker_that_blocks_is_told_once_and_gets_no_burst_afterwards() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.lost();
    for _ in 0..100 {
        world.send();
    }
    world.ready();
    world.is_blocked = true;
    world.pass(800);
    assert_eq!((world.taken.len(), world.told), (0, 1));
    world.is_blocked = false;
    world.broker_takes();
    assert_eq!(world.taken.len(), FIRST_BATCH);
}

#[test]
fn what_was_not_taken_of_a_batch_is_not_added_to_the_next() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.lost();
    for _ in 0..100 {
        world.send();
    }
    world.queue.ready(world.now, |_| true);
    for interval in 0..10 {
        let now = world.now + SETTLE + INTERVAL * interval;
        assert_eq!(world.queue.permitted(now, 256), FIRST_BATCH);
    }
}

#[test]
fn sends_that_ended_are_neither_taken_nor_counted() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.lost();
    for _ in 0..4 {
        world.send();
    }
    world.queue.ready(world.now, |_| true);
    world.queue.drop_ended(|item| *item != 0);
    let later = world.now + SETTLE;
    assert_eq!(world.queue.permitted(later, 10), 10);
    assert_eq!(world.queue.pop(|item| *item != 1), Some(2));
    assert_eq!(world.queue.opened_when_empty(later), None);
    assert_eq!(world.queue.pop(|_| true), Some(3));
    let released = world.queue.opened_when_empty(later).unwrap();
    assert_eq!((released.waited, released.behind), (2, 0));
    assert!(world.queue.is_open());
}

#[test]
fn an_opened_queue_gives_all() {
    let mut world = World::new(Some(SETTLE), TIMEOUT);
    world.lost();
    for _ in 0..1000 {
        world.send();
    }
    world.ready();
    world.pass(505);
    let released = world.queue.open(world.now).unwrap();
    assert_eq!(released.waited, FIRST_BATCH);
    world.is_notified = true;
    world.broker_takes();
    assert_eq!(world.taken.len(), 1000);
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    /// Milliseconds that it had waited for a place.
    Late(u64),
    Lost,
    Ready,
    Block(bool),
    Refused,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_usize..300).prop_map(Step::Send),
        2 => (0_u64..3000).prop_map(Step::Late),
        2 => Just(Step::Lost),
        3 => Just(Step::Ready),
        1 => any::<bool>().prop_map(Step::Block),
        2 => Just(Step::Refused),
        8 => (1_u64..700).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn order_is_kept_and_nothing_is_held_too_long_or_let_go_too_early(
        steps in proptest::collection::vec(step(), 0..60),
        settle in prop_oneof![Just(None), (1_u64..1500).prop_map(|settle| Some(ms(settle)))],
        timeout in 2_u64..6000,
    ) {
        let timeout = ms(timeout);
        let mut world = World::new(settle, timeout);
        let margin = (timeout / 4).min(TO_CONFIRM);
        let (mut is_lost, mut last_ready) = (false, None);
        let mut was_blocked = false;
        let seen = Cell::new(0);
        for step in steps {
            let before = world.queue.is_empty();
            match step {
                Step::Send(count) => (0..count).for_each(|_| world.send()),
                Step::Late(waited) => world.send_that_waited(ms(waited)),
                Step::Lost => { world.lost(); is_lost = true; }
                Step::Ready => {
                    if std::mem::take(&mut is_lost) {
                        last_ready = (!before).then_some((world.now, world.items.len()));
                        world.ready();
                    }
                }
                Step::Block(is_blocked) => {
                    was_blocked |= is_blocked;
                    world.is_blocked = is_blocked;
                    world.broker_takes();
                }
                Step::Refused => world.queue.refused(world.now),
                Step::Pass(milliseconds) => world.pass(milliseconds),
            }
            // In order, each once.
            let taken = &world.taken[seen.replace(world.taken.len())..];
            if let Some((first, _)) = taken.first() {
                prop_assert!(world.taken[..world.taken.len() - taken.len()]
                    .last().is_none_or(|(before, _)| before < first));
            }
            prop_assert!(taken.windows(2).all(|two| two[0].0 < two[1].0));
            // None too early: at the end of its settling time, or since one behind it must go.
            for &(item, at) in taken {
                if let (Some(settle), Some((ready, waited))) = (settle, last_ready)
                    && item < waited
                    && at < ready + settle
                {
                    // What had ended during the outage counts no more.
                    let mut behind = world.items.iter().enumerate().skip(item);
                    let must_go = behind.any(|(other, &(came, ends))| {
                        came <= at && ends <= at + margin && (other >= waited || ends > ready)
                    });
                    prop_assert!(must_go, "{item}");
                }
            }
            // None too late: what may be taken has gone before it ends.
            if !is_lost && !was_blocked {
                let mut left = world.items.iter().enumerate();
                let last = world.taken.last().map_or(0, |(item, _)| *item + 1);
                let held = left.find(|(item, (_, ends))| {
                    *item >= last && *ends > world.now && *ends <= world.now + margin
                });
                prop_assert!(held.is_none(), "{held:?}");
            }
        }
        // All is released within a bound, whatever came before.
        world.is_blocked = false;
        if std::mem::take(&mut is_lost) {
            world.ready();
        }
        world.is_notified = true;
        world.broker_takes();
        world.pass(settle.unwrap_or_default().as_millis() as u64 + 8000);
        prop_assert!(world.queue.is_empty() && world.queue.is_open());
    }
}

#[test]
fn nothing_is_taken_before_the_first_connection_and_all_at_once_then() {
    let now = Instant::now();
    let mut queue = SettlingQueue::new(Some(SETTLE), TIMEOUT);
    queue.push(1, now + TIMEOUT);
    assert_eq!(queue.permitted(now, 10), 0);
    assert_eq!(queue.next_release(), None);
    queue.ready(now, |_| true);
    assert!(queue.is_open());
    assert_eq!(queue.permitted(now, 10), 10);
}

#[test]
fn a_first_attempt_that_fails_is_an_outage() {
    let now = Instant::now();
    let mut queue = SettlingQueue::new(Some(SETTLE), TIMEOUT);
    queue.push(1, now + TIMEOUT);
    queue.lost(now);
    queue.ready(now, |_| true);
    assert_eq!(queue.permitted(now, 10), 0);
    assert_eq!(queue.permitted(now + SETTLE, 10), FIRST_BATCH.min(10));
}
