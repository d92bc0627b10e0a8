//! Spreads changes over AMQP channels, without I/O or clock.
//!
//! The broker does what comes on one AMQP channel one after the other; RabbitMQ 4 waits for its Raft log
//! each time, and does 5 times as much over 32 of them. Each costs the broker four processes. So there
//! is one *lane* until it has more to do than it may have under way, and more as long as that lasts.
//!
//! Changes have no answer of their own. A *barrier* is a method with one: its answer says that all
//! changes before it on the same lane are done.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The most lanes. More than 32 were not faster on any version of RabbitMQ.
const LANES: usize = 32;

/// How many changes one lane may have under way, if there may be others. The broker does some thousand in a
/// second, and callers have some thousand under way: so they fill all lanes.
const WINDOW: usize = 64;

/// How many if it is the only one.
const WINDOW_ALONE: usize = 256;

/// At most so many changes before the next barrier.
const CHUNK: usize = 32;

/// How long a lane may have nothing to do, unless it is the last.
const IDLE: Duration = Duration::from_secs(1);

/// The number of the AMQP channel of a lane.
pub(super) type LaneId = u16;

/// How many lanes the connections of a layer may have, as far as is known.
#[derive(Debug)]
pub(super) struct LaneLimit(AtomicUsize);

impl Default for LaneLimit {
    fn default() -> Self {
        Self(AtomicUsize::new(LANES))
    }
}

impl LaneLimit {
    /// `channels` is how many AMQP channels this connection may have, and `others` how many of them are for
    /// other things.
    pub(super) fn for_connection(&self, channels: usize, others: usize) -> usize {
        let most = channels.saturating_sub(others).max(1);
        most.min(self.0.load(Ordering::Relaxed))
    }

    /// The broker has ended a connection for one AMQP channel too many: there is room for one lane, since
    /// which of them were too many depends on what else was open for a moment.
    pub(super) fn is_reached(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step<T> {
    /// Open an AMQP channel: [`Lanes::opening`] follows at once, or [`Lanes::not_opened`].
    Open,
    /// Send a change on its way.
    Send(LaneId, T),
    /// Send a barrier behind it; [`Lanes::passed`] follows.
    Bar(LaneId),
    /// Close the AMQP channel, on which nothing is under way; [`Lanes::closed`] follows.
    Close(LaneId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Closing,
}

#[derive(Debug)]
struct Lane<T> {
    id: LaneId,
    state: State,
    /// What was sent and is not known to be done, oldest first.
    under_way: VecDeque<T>,
    /// How many of these each barrier under way is behind.
    barriers: VecDeque<usize>,
    /// How many of these have no barrier behind them yet.
    unbarred: usize,
    idle_since: Instant,
}

impl<T> Lane<T> {
    fn new(id: LaneId, now: Instant) -> Self {
        Self {
            id,
            state: State::Opening,
            under_way: VecDeque::new(),
            barriers: VecDeque::new(),
            unbarred: 0,
            idle_since: now,
        }
    }

    fn has_room(&self, window: usize) -> bool {
        self.state == State::Open && self.under_way.len() < window
    }

    fn is_idle(&self) -> bool {
        self.state == State::Open && self.under_way.is_empty()
    }
}

/// The lanes, and what waits for one.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    waiting: VecDeque<T>,
    most: usize,
}

impl<T: Clone> Lanes<T> {
    /// At most `most` lanes at a time, of which the first is to be opened whatever there is to do.
    pub(super) fn new(most: usize) -> Self {
        Self {
            lanes: Vec::new(),
            waiting: VecDeque::new(),
            most: most.clamp(1, LANES),
        }
    }

    pub(super) fn push(&mut self, change: T) {
        self.waiting.push_back(change);
    }

    /// How many changes are not known to be done.
    pub(super) fn unfinished(&self) -> usize {
        let under_way = self.lanes.iter().map(|lane| lane.under_way.len());
        self.waiting.len() + under_way.sum::<usize>()
    }

    /// What to do now; to be asked again until there is nothing.
    pub(super) fn next(&mut self, now: Instant) -> Option<Step<T>> {
        self.send(now)
            .or_else(|| self.bar())
            .or_else(|| self.open())
            .or_else(|| self.close(now))
    }

    fn send(&mut self, now: Instant) -> Option<Step<T>> {
        if self.waiting.is_empty() {
            return None;
        }
        let window = match self.most {
            1 => WINDOW_ALONE,
            _ => WINDOW,
        };
        let lanes = self.lanes.iter_mut();
        let lane = lanes
            .filter(|lane| lane.has_room(window) && lane.unbarred < CHUNK)
            .min_by_key(|lane| lane.under_way.len())?;
        let change = self.waiting.pop_front()?;
        lane.under_way.push_back(change.clone());
        lane.unbarred += 1;
        lane.idle_since = now;
        Some(Step::Send(lane.id, change))
    }

    /// Nothing more is to be sent, or to none of those that have changes without a barrier.
    fn bar(&mut self) -> Option<Step<T>> {
        let lane = self.lanes.iter_mut().find(|lane| lane.unbarred > 0)?;
        lane.barriers.push_back(lane.unbarred);
        lane.unbarred = 0;
        Some(Step::Bar(lane.id))
    }

    fn open(&self) -> Option<Step<T>> {
        let is_first = self.lanes.is_empty();
        let is_wanted = is_first || (!self.waiting.is_empty() && !self.are_opening());
        (is_wanted && self.lanes.len() < self.most).then_some(Step::Open)
    }

    fn close(&mut self, now: Instant) -> Option<Step<T>> {
        let has_others = self.has_several();
        let is_due =
            |lane: &&mut Lane<T>| has_others && lane.is_idle() && now >= lane.idle_since + IDLE;
        let lane = self.lanes.iter_mut().find(is_due)?;
        lane.state = State::Closing;
        Some(Step::Close(lane.id))
    }

    /// Whether there are several, without those that are being closed.
    fn has_several(&self) -> bool {
        let stays = |lane: &&Lane<T>| lane.state != State::Closing;
        self.lanes.iter().filter(stays).count() > 1
    }

    /// When to ask again even if nothing happens.
    pub(super) fn next_look(&self) -> Option<Instant> {
        if !self.has_several() {
            return None;
        }
        let idle = self.lanes.iter().filter(|lane| lane.is_idle());
        idle.map(|lane| lane.idle_since + IDLE).min()
    }

    fn lane(&mut self, id: LaneId) -> Option<&mut Lane<T>> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }

    /// The AMQP channel of this number is being opened; [`Lanes::opened`] follows.
    pub(super) fn opening(&mut self, id: LaneId, now: Instant) {
        self.lanes.push(Lane::new(id, now));
    }

    pub(super) fn opened(&mut self, id: LaneId, now: Instant) {
        if let Some(lane) = self.lane(id)
            && lane.state == State::Opening
        {
            lane.state = State::Open;
            lane.idle_since = now;
        }
    }

    /// The connection allows no more AMQP channels than there are. Whether that is any.
    pub(super) fn not_opened(&mut self) -> bool {
        self.most = self.lanes.len().max(1);
        !self.lanes.is_empty()
    }

    /// Whether an AMQP channel is being opened.
    pub(super) fn are_opening(&self) -> bool {
        self.lanes.iter().any(|lane| lane.state == State::Opening)
    }

    /// Whether all is done that was asked for, and there is a lane for what follows.
    pub(super) fn are_ready(&self) -> bool {
        self.lanes.iter().any(|lane| lane.state == State::Open) && self.unfinished() == 0
    }

    /// Closes all lanes, whatever is under way there: those of which the AMQP channel is to be closed now.
    /// Nothing is to be asked for any more but whether [`Lanes::are_gone`].
    pub(super) fn close_all(&mut self) -> Vec<LaneId> {
        let stays = |lane: &&mut Lane<T>| lane.state != State::Closing;
        let lanes = self.lanes.iter_mut().filter(stays);
        let close = |lane: &mut Lane<T>| {
            lane.state = State::Closing;
            lane.id
        };
        lanes.map(close).collect()
    }

    pub(super) fn are_gone(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn is_closing(&self, id: LaneId) -> bool {
        let closing = |lane: &Lane<T>| lane.id == id && lane.state == State::Closing;
        self.lanes.iter().any(closing)
    }

    /// The oldest barrier of a lane was answered: what is done, in the order in which it was sent there.
    pub(super) fn passed(&mut self, id: LaneId, now: Instant) -> Vec<T> {
        let Some(lane) = self.lane(id) else {
            return Vec::new();
        };
        let count = lane.barriers.pop_front().unwrap_or_default();
        lane.idle_since = now;
        lane.under_way.drain(..count).collect()
    }

    pub(super) fn closed(&mut self, id: LaneId) {
        self.lanes.retain(|lane| lane.id != id);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// What waits for an answer, and the change that was sent before it.
    type Asked = (Step<u32>, Option<u32>);

    /// What is to be done, up to where a lane is to be opened.
    fn steps(lanes: &mut Lanes<u32>, now: Instant) -> Vec<Step<u32>> {
        let mut steps = Vec::new();
        while !steps.contains(&Step::Open)
            && let Some(step) = lanes.next(now)
        {
            steps.push(step);
        }
        steps
    }

    fn open(lanes: &mut Lanes<u32>, id: LaneId, now: Instant) {
        lanes.opening(id, now);
        lanes.opened(id, now);
    }

    /// Lanes of which one is open, 0.
    fn filled(most: usize, count: u32, now: Instant) -> Lanes<u32> {
        let mut lanes = Lanes::new(most);
        open(&mut lanes, 0, now);
        (0..count).for_each(|change| lanes.push(change));
        lanes
    }

    #[test]
    fn the_first_lane_is_opened_before_there_is_anything_to_do() {
        let now = Instant::now();
        let mut lanes = Lanes::new(2);
        assert_eq!(steps(&mut lanes, now), [Step::Open]);
        assert!(!lanes.are_ready());
        lanes.opening(7, now);
        lanes.push(1);
        assert_eq!(steps(&mut lanes, now), [], "one at a time");
        assert!(lanes.are_opening());
        lanes.opened(7, now);
        assert_eq!(steps(&mut lanes, now), [Step::Send(7, 1), Step::Bar(7)]);
        assert!(!lanes.are_ready());
        lanes.passed(7, now);
        assert!(lanes.are_ready());
    }

    #[test]
    fn a_connection_that_allows_no_lane_at_all_is_told_as_such() {
        let mut lanes = Lanes::<u32>::new(3);
        assert_eq!(steps(&mut lanes, Instant::now()), [Step::Open]);
        assert!(!lanes.not_opened());
    }

    #[test]
    fn each_lane_is_closed_once_at_the_end_also_one_that_is_being_opened() {
        let now = Instant::now();
        let mut lanes = filled(3, WINDOW as u32 * 2, now);
        open(&mut lanes, 1, now);
        steps(&mut lanes, now);
        lanes.opening(2, now);
        assert_eq!(lanes.close_all(), [0, 1, 2]);
        assert!(lanes.close_all().is_empty());
        lanes.opened(2, now);
        assert!(lanes.is_closing(2));
        assert_eq!(lanes.passed(0, now).len(), CHUNK, "what is done is done");
        for id in 0..3 {
            assert!(!lanes.are_gone());
            lanes.closed(id);
        }
        assert!(lanes.are_gone());
    }

    #[test]
    fn a_single_change_has_its_barrier_at_once_and_needs_no_other_lane() {
        let now = Instant::now();
        let mut lanes = filled(LANES, 1, now);
        assert_eq!(steps(&mut lanes, now), [Step::Send(0, 0), Step::Bar(0)]);
        lanes.push(1);
        assert_eq!(steps(&mut lanes, now), [Step::Send(0, 1), Step::Bar(0)]);
        assert_eq!(lanes.passed(0, now), [0]);
        assert_eq!(lanes.passed(0, now), [1]);
        assert_eq!(lanes.unfinished(), 0);
        assert_eq!(lanes.next_look(), None);
    }

    #[test]
    fn one_lane_is_added_at_a_time_where_more_waits_than_may_be_under_way() {
        let now = Instant::now();
        let mut lanes = filled(3, WINDOW as u32 * 4, now);
        let first = steps(&mut lanes, now);
        let sent = |steps: &[Step<u32>], id| {
            let is_sent = |step: &&Step<u32>| matches!(step, Step::Send(lane, _) if *lane == id);
            steps.iter().filter(is_sent).count()
        };
        assert_eq!(sent(&first, 0), WINDOW);
        let bars = first.iter().filter(|step| **step == Step::Bar(0)).count();
        assert_eq!(bars, WINDOW / CHUNK);
        assert_eq!(first.last(), Some(&Step::Open));
        open(&mut lanes, 1, now);
        let second = steps(&mut lanes, now);
        assert_eq!(sent(&second, 1), WINDOW);
        assert_eq!(second.last(), Some(&Step::Open));
        open(&mut lanes, 2, now);
        let third = steps(&mut lanes, now);
        assert!(!third.contains(&Step::Open), "three at most");
        assert_eq!(lanes.unfinished(), WINDOW * 4);
    }

    #[test]
    fn a_lane_that_is_the_only_one_has_more_under_way() {
        let now = Instant::now();
        let under_way = |most| {
            let mut lanes = filled(most, 2 * WINDOW_ALONE as u32, now);
            let steps = steps(&mut lanes, now);
            let sent = steps.iter().filter(|step| matches!(step, Step::Send(..)));
            sent.count()
        };
        assert_eq!(under_way(1), WINDOW_ALONE);
        assert_eq!(under_way(2), WINDOW);
    }

    #[test]
    fn a_connection_that_allows_no_more_channels_is_not_asked_again() {
        let now = Instant::now();
        let mut lanes = filled(LANES, WINDOW_ALONE as u32 * 2, now);
        assert_eq!(steps(&mut lanes, now).last(), Some(&Step::Open));
        assert!(lanes.not_opened());
        let more = steps(&mut lanes, now);
        let sent = more.iter().filter(|step| matches!(step, Step::Send(..)));
        assert_eq!(
            sent.count(),
            WINDOW_ALONE - WINDOW,
            "it is the only one now"
        );
        assert_eq!(steps(&mut lanes, now), []);
        assert_eq!(lanes.passed(0, now).len(), CHUNK);
        let more = steps(&mut lanes, now);
        assert_eq!(more.len(), CHUNK + 1);
        assert!(!more.contains(&Step::Open));
    }

    #[test]
    fn lanes_that_have_nothing_to_do_are_closed_but_for_one() {
        let now = Instant::now();
        let mut lanes = filled(2, WINDOW as u32 + 1, now);
        steps(&mut lanes, now);
        open(&mut lanes, 1, now);
        steps(&mut lanes, now);
        for _ in 0..WINDOW / CHUNK {
            lanes.passed(0, now);
        }
        assert_eq!(lanes.passed(1, now).len(), 1);
        assert_eq!(steps(&mut lanes, now), []);
        let look = lanes.next_look().unwrap();
        assert_eq!(look, now + IDLE);
        assert_eq!(steps(&mut lanes, look - Duration::from_nanos(1)), []);
        let closing = steps(&mut lanes, look);
        let [Step::Close(closed)] = closing[..] else {
            panic!("{closing:?}");
        };
        assert_eq!(lanes.next_look(), None, "however long that takes");
        lanes.closed(closed);
        assert_eq!(lanes.next_look(), None);
        lanes.push(7);
        assert_eq!(steps(&mut lanes, look).len(), 2, "the other one works");
    }

    proptest! {
        /// Each change is sent once and reported once, after a barrier behind it; there are never more lanes
        /// than allowed; and all ends.
        #[test]
        fn every_change_is_done_once_in_whatever_order_answers_come(
            most in 1_usize..6,
            pushes in prop::collection::vec((0_u32..1500, 0_u64..1200), 1..8),
            order in prop::collection::vec(any::<u16>(), 1..64),
        ) {
            let mut now = Instant::now();
            let mut lanes = Lanes::new(most);
            let mut pushed = 0;
            let mut sent: BTreeMap<LaneId, VecDeque<u32>> = BTreeMap::new();
            // For each lane, oldest first.
            let mut asked: BTreeMap<LaneId, VecDeque<Asked>> = BTreeMap::new();
            let mut done = BTreeSet::new();
            let mut pushes = pushes.into_iter();
            let mut order = order.into_iter().cycle();
            loop {
                if let Some((count, pause)) = pushes.next() {
                    (pushed..pushed + count).for_each(|change| lanes.push(change));
                    pushed += count;
                    now += Duration::from_millis(pause);
                }
                while let Some(step) = lanes.next(now) {
                    match step {
                        Step::Send(id, change) => {
                            let lane = sent.get_mut(&id).expect("an open lane");
                            lane.push_back(change);
                            let window = if most == 1 { WINDOW_ALONE } else { WINDOW };
                            prop_assert!(lane.len() <= window);
                        }
                        Step::Bar(id) | Step::Close(id) => {
                            let before = sent.get(&id).expect("an open lane").back().copied();
                            prop_assert!(before.is_some() || step == Step::Close(id));
                            asked.entry(id).or_default().push_back((step, before));
                        }
                        Step::Open => {
                            // Numbers of lanes that are closed are used again.
                            let mut ids = 0..;
                            let id = ids.find(|id| !sent.contains_key(id)).expect("a number");
                            sent.insert(id, VecDeque::new());
                            prop_assert!(sent.len() <= most);
                            lanes.opening(id, now);
                            asked.entry(id).or_default().push_back((step, None));
                        }
                    }
                }
                asked.retain(|_, answers| !answers.is_empty());
                let which = usize::from(order.next().unwrap_or_default()) % asked.len().max(1);
                let Some((&id, answers)) = asked.iter_mut().nth(which) else {
                    if pushes.len() == 0 {
                        break;
                    }
                    continue;
                };
                let Some((step, before)) = answers.pop_front() else {
                    continue;
                };
                match step {
                    Step::Bar(_) => {
                        let passed = lanes.passed(id, now);
                        prop_assert_eq!(passed.last().copied(), before);
                        for change in passed {
                            let first = sent.get_mut(&id).and_then(VecDeque::pop_front);
                            prop_assert_eq!(first, Some(change));
                            prop_assert!(done.insert(change), "{} is done twice", change);
                        }
                    }
                    Step::Close(_) => {
                        lanes.closed(id);
                        let left = sent.remove(&id).expect("an open lane");
                        prop_assert!(left.is_empty());
                    }
                    _ => lanes.opened(id, now),
                }
            }
            prop_assert_eq!(done.len(), pushed as usize);
            prop_assert_eq!(lanes.unfinished(), 0);
        }
    }
}
