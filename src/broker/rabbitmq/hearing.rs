//! Whether our queue hears what is published: the rules for probes, without I/O or clock.
//!
//! A probe is a pair of messages on one AMQP channel: the first by the groups exchange, the second by
//! the default exchange. RabbitMQ keeps the order of messages on one AMQP channel to one queue, so the
//! second without the first means that the groups exchange does not route to the queue. It is not
//! enough that no probe was returned: an alternate exchange takes what the groups exchange does not
//! route.
//!
//! A probe that is nacked has found the queue, which is full. Before the first pair has arrived that will
//! do, if anything else has been delivered: a queue may be full for long.
//!
//! Silence proves nothing while the broker may have a reason for it: the consumer's credit is used up,
//! publishers are blocked, or other messages arrive that are in front of the probe.

use std::time::{Duration, Instant};

/// When to probe again after the first pair has arrived: a late clean-up of an earlier queue of the same
/// name takes effect within seconds.
const AFTER_READY: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// When to probe again where a pair could not be sent, or proved nothing, before the first has arrived.
const RETRY: Duration = Duration::from_millis(100);

/// A right may come back. Each attempt without it costs an AMQP channel and a line in the broker's log.
const DENIED_AT_MOST: Duration = Duration::from_secs(30);

/// So many rounds in a row that bindings do not route although they were made again: the queue is
/// declared again too.
const STRIKES: u32 = 2;

/// How a probe reaches the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Way {
    /// By the groups exchange, and the binding of the check key.
    Groups = 0,
    /// By the default exchange.
    Direct = 1,
}

impl Way {
    pub(super) const ALL: [Self; 2] = [Self::Groups, Self::Direct];
}

/// What the broker answered to one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Confirmed,
    /// No queue was found.
    Returned,
    /// The queue refused it.
    Nacked,
}

/// What a round has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The queue hears what is published.
    Heard,
    /// The groups exchange does not route to the queue: it is to be bound again.
    NotBound,
    /// The queue is gone, or it was bound again in vain.
    QueueLost,
    /// Nothing arrives although nothing stands in the way.
    Silent,
}

/// What may explain that a probe does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    None,
    /// The consumer has as many unacknowledged deliveries as it may.
    CreditUsedUp,
    /// The broker blocks publishers.
    PublishersBlocked,
}

#[derive(Debug, Clone, Copy, Default)]
struct Probe {
    is_sent: bool,
    answer: Option<Answer>,
    has_arrived: bool,
}

#[derive(Debug)]
struct Round {
    number: u64,
    probes: [Probe; 2],
    /// Since when all probes are answered, and nothing else has arrived.
    quiet_since: Option<Instant>,
    was_hindered: bool,
}

/// A way that the user may not publish.
#[derive(Debug, Clone, Copy)]
struct Denial {
    pause: Duration,
    /// `None`: for good.
    until: Option<Instant>,
}

/// What is known of one queue and one publishing connection.
#[derive(Debug)]
pub(super) struct Hearing {
    interval: Duration,
    patience: Duration,
    denials: [Option<Denial>; 2],
    rounds: u64,
    round: Option<Round>,
    /// `None` until the queue is bound again.
    next_round: Option<Instant>,
    /// How many rounds have shown that the queue hears.
    heard: usize,
    /// Whether anything was delivered since the queue was made.
    is_fed: bool,
    strikes: u32,
}

impl Hearing {
    /// Probes every `interval`; a probe that was confirmed and has not arrived `patience` later will
    /// not. `is_heard`: another connection has shown it before.
    pub(super) fn new(
        interval: Duration,
        patience: Duration,
        is_heard: bool,
        now: Instant,
    ) -> Self {
        Self {
            interval,
            patience,
            denials: [None; 2],
            rounds: 0,
            round: None,
            next_round: Some(now),
            heard: usize::from(is_heard),
            is_fed: false,
            strikes: 0,
        }
    }

    /// Whether the queue is known to hear. True too where the user may write to neither exchange.
    pub(super) fn is_heard(&self) -> bool {
        self.heard > 0
    }

    /// Whether what is heard has come by the groups exchange too.
    pub(super) fn probes_groups(&self) -> bool {
        self.denials[Way::Groups as usize].is_none()
    }

    /// The round under way.
    pub(super) fn round(&self) -> Option<u64> {
        self.round.as_ref().map(|round| round.number)
    }

    /// Begins a round if it is time: its number, and the ways to probe.
    pub(super) fn begin(&mut self, now: Instant, obstacle: Obstacle) -> Option<(u64, Vec<Way>)> {
        if self.round.is_some() || self.next_round.is_none_or(|at| now < at) {
            return None;
        }
        // Where all depends on it, a probe may wait in the queue until there is credit.
        let is_hindered = match obstacle {
            Obstacle::None => false,
            Obstacle::CreditUsedUp => self.is_heard(),
            Obstacle::PublishersBlocked => true,
        };
        if is_hindered {
            self.next_round = Some(now + RETRY);
            return None;
        }
        self.rounds += 1;
        let ways: Vec<Way> = Way::ALL
            .into_iter()
            .filter(|way| self.is_allowed(*way, now))
            .collect();
        let mut round = Round {
            number: self.rounds,
            probes: [Probe::default(); 2],
            quiet_since: None,
            was_hindered: false,
        };
        for way in &ways {
            round.probe(*way).is_sent = true;
        }
        self.round = Some(round);
        Some((self.rounds, ways))
    }

    /// The broker has answered all probes of round `number`.
    pub(super) fn answered(&mut self, number: u64, answers: &[(Way, Answer)], now: Instant) {
        if let Some(round) = self.round.as_mut().filter(|round| round.number == number) {
            for (way, answer) in answers {
                round.probe(*way).answer = Some(*answer);
                if let Some(denial) = self.denials.get_mut(*way as usize) {
                    *denial = None;
                }
            }
            round.quiet_since = Some(now);
        }
    }

    /// The user may not publish that way: it is not probed for a while, or no more unless `may_retry`; and
    /// the round is void. Whether that is news.
    pub(super) fn denied(&mut self, way: Way, may_retry: bool, now: Instant) -> bool {
        let Some(denial) = self.denials.get_mut(way as usize) else {
            return false;
        };
        let is_news = denial.is_none();
        let pause = denial.map_or(self.interval.min(DENIED_AT_MOST), |denial| {
            (denial.pause * 2).min(DENIED_AT_MOST)
        });
        *denial = Some(Denial {
            pause,
            until: may_retry.then(|| now + pause),
        });
        self.round = None;
        self.next_round = Some(now);
        is_news
    }

    fn is_allowed(&self, way: Way, now: Instant) -> bool {
        let denial = self.denials.get(way as usize).copied().flatten();
        denial.is_none_or(|denial| denial.until.is_some_and(|until| until <= now))
    }

    /// The exchange of that way does not exist.
    pub(super) fn has_no_exchange(&mut self) -> Verdict {
        self.not_bound()
    }

    /// A probe was delivered.
    pub(super) fn arrived(&mut self, number: u64, way: Way) {
        if let Some(round) = self.round.as_mut().filter(|round| round.number == number) {
            round.probe(way).has_arrived = true;
        }
    }

    /// Something was delivered since the queue was made.
    pub(super) fn is_fed(&mut self) {
        self.is_fed = true;
    }

    /// Something else arrives, or a part of it: the probe may be behind it.
    pub(super) fn other_arrives(&mut self, now: Instant) {
        if let Some(round) = &mut self.round
            && let Some(since) = &mut round.quiet_since
        {
            *since = now;
        }
    }

    /// What may keep a probe from arriving at this moment.
    pub(super) fn hindered(&mut self, obstacle: Obstacle) {
        if let Some(round) = &mut self.round {
            round.was_hindered |= obstacle != Obstacle::None;
        }
    }

    /// All bindings were made again: the queue has to be heard again.
    pub(super) fn bound_again(&mut self, now: Instant) {
        self.heard = 0;
        self.round = None;
        self.next_round = Some(now);
    }

    /// Ends the round if it shows something. `None`: nothing, or nothing yet.
    pub(super) fn judge(&mut self, now: Instant) -> Option<Verdict> {
        let round = self.round.as_ref()?;
        let sent = || round.probes.iter().filter(|probe| probe.is_sent);
        let is_nacked = |probe: &Probe| probe.answer == Some(Answer::Nacked);
        let has_found_all = sent().all(|probe| probe.has_arrived || is_nacked(probe));
        if sent().all(|probe| probe.has_arrived)
            || (has_found_all && self.is_fed && !self.is_heard())
        {
            return Some(self.heard(now));
        }
        let [groups, direct] = round.probes;
        if direct.answer == Some(Answer::Returned) {
            return self.not_found(now);
        }
        let is_overtaken = direct.has_arrived
            && groups.answer == Some(Answer::Confirmed)
            && !groups.has_arrived
            && !round.was_hindered;
        if groups.answer == Some(Answer::Returned) || (groups.is_sent && is_overtaken) {
            return Some(self.not_bound());
        }
        let quiet_since = round.quiet_since?;
        if has_found_all {
            self.postpone(now);
            return None;
        }
        if now.saturating_duration_since(quiet_since) < self.patience {
            return None;
        }
        let is_confirmed = |probe: &Probe| probe.answer == Some(Answer::Confirmed);
        let is_silent = sent().all(|probe| is_confirmed(probe) && !probe.has_arrived);
        let is_proven = groups.has_arrived && direct.answer == Some(Answer::Confirmed);
        if is_proven && !self.is_heard() {
            // It may have expired where one delivery at a time is on its way. The default exchange has no
            // alternate one: it was routed.
            return Some(self.heard(now));
        }
        if is_silent && !round.was_hindered {
            self.round = None;
            return Some(Verdict::Silent);
        }
        self.postpone(now);
        None
    }

    /// When to call [`Hearing::begin`] or [`Hearing::judge`] even if nothing happens.
    pub(super) fn next_look(&self) -> Option<Instant> {
        match &self.round {
            None => self.next_round,
            Some(round) => round.quiet_since.map(|since| since + self.patience),
        }
    }

    fn heard(&mut self, now: Instant) -> Verdict {
        let pause = AFTER_READY.get(self.heard).copied();
        let before = match self.heard {
            0 => Duration::ZERO,
            heard => AFTER_READY.get(heard - 1).copied().unwrap_or_default(),
        };
        let pause = pause.map_or(self.interval, |at| (at - before).min(self.interval));
        self.heard += 1;
        self.strikes = 0;
        self.round = None;
        self.next_round = Some(now + pause);
        Verdict::Heard
    }

    fn not_bound(&mut self) -> Verdict {
        self.strikes += 1;
        if self.strikes >= STRIKES {
            return self.queue_lost();
        }
        self.round = None;
        self.next_round = None;
        Verdict::NotBound
    }

    /// The node of the publishing connection may not know the queue yet.
    fn not_found(&mut self, now: Instant) -> Option<Verdict> {
        self.strikes += 1;
        if self.strikes >= STRIKES {
            return Some(self.queue_lost());
        }
        self.round = None;
        self.next_round = Some(now + RETRY);
        None
    }

    fn queue_lost(&mut self) -> Verdict {
        self.round = None;
        Verdict::QueueLost
    }

    fn postpone(&mut self, now: Instant) {
        self.round = None;
        let pause = if self.is_heard() {
            self.interval
        } else {
            RETRY
        };
        self.next_round = Some(now + pause);
    }
}

impl Round {
    fn probe(&mut self, way: Way) -> &mut Probe {
        match way {
            Way::Groups => &mut self.probes[0],
            Way::Direct => &mut self.probes[1],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const PATIENCE: Duration = Duration::from_secs(5);
    const BOTH: [(Way, Answer); 2] = [
        (Way::Groups, Answer::Confirmed),
        (Way::Direct, Answer::Confirmed),
    ];

    fn begun() -> (Hearing, Instant) {
        let now = Instant::now();
        let mut hearing = Hearing::new(INTERVAL, PATIENCE, false, now);
        let begun = hearing.begin(now, Obstacle::None);
        assert_eq!(begun, Some((1, Way::ALL.to_vec())));
        (hearing, now)
    }

    fn heard(hearing: &mut Hearing, number: u64, now: Instant) {
        hearing.arrived(number, Way::Groups);
        hearing.answered(number, &BOTH, now);
        assert_eq!(hearing.judge(now), None);
        hearing.arrived(number, Way::Direct);
        assert_eq!(hearing.judge(now), Some(Verdict::Heard));
    }

    #[test]
    fn pairs_that_arrive_are_heard_and_repeated_soon_then_at_each_interval() {
        let (mut hearing, start) = begun();
        let mut now = start;
        let mut at = Vec::new();
        for number in 1..7 {
            at.push(now.duration_since(start).as_millis());
            assert_eq!(hearing.is_heard(), number > 1);
            heard(&mut hearing, number, now);
            let next = hearing.next_look().unwrap();
            let just_before = next - Duration::from_millis(1);
            assert_eq!(hearing.begin(just_before, Obstacle::None), None);
            now = next;
            assert!(hearing.begin(now, Obstacle::None).is_some());
        }
        assert_eq!(at, [0, 250, 1000, 3000, 13_000, 23_000]);
    }

    #[test]
    fn the_second_without_the_first_means_that_the_queue_is_not_bound() {
        let (mut hearing, now) = begun();
        hearing.arrived(1, Way::Direct);
        assert_eq!(hearing.judge(now), None, "the first may have been refused");
        hearing.answered(1, &BOTH, now);
        assert_eq!(hearing.judge(now), Some(Verdict::NotBound));
        assert_eq!(hearing.next_look(), None, "it waits for the bindings");
        assert_eq!(hearing.begin(now + INTERVAL, Obstacle::None), None);
        hearing.bound_again(now);
        assert!(hearing.begin(now, Obstacle::None).is_some());
        heard(&mut hearing, 2, now);
    }

    #[test]
    fn a_first_that_was_nacked_or_may_have_expired_proves_nothing() {
        for (answer, obstacle) in [
            (Answer::Nacked, Obstacle::None),
            (Answer::Confirmed, Obstacle::CreditUsedUp),
        ] {
            let (mut hearing, now) = begun();
            hearing.hindered(obstacle);
            hearing.arrived(1, Way::Direct);
            let answers = [(Way::Groups, answer), (Way::Direct, Answer::Confirmed)];
            hearing.answered(1, &answers, now);
            assert_eq!(hearing.judge(now), None);
            assert_eq!(hearing.judge(now + PATIENCE), None);
            assert!(
                hearing
                    .begin(now + PATIENCE + RETRY, Obstacle::None)
                    .is_some()
            );
        }
    }

    #[test]
    fn a_return_by_the_groups_exchange_is_a_lost_binding_and_a_direct_one_a_lost_queue() {
        let (mut hearing, now) = begun();
        hearing.hindered(Obstacle::CreditUsedUp);
        let answers = [
            (Way::Groups, Answer::Returned),
            (Way::Direct, Answer::Confirmed),
        ];
        hearing.answered(1, &answers, now);
        assert_eq!(hearing.judge(now), Some(Verdict::NotBound));

        let (mut hearing, now) = begun();
        let answers = [
            (Way::Groups, Answer::Returned),
            (Way::Direct, Answer::Returned),
        ];
        hearing.answered(1, &answers, now);
        assert_eq!(hearing.judge(now), None, "the node may not know it yet");
        let now = hearing.next_look().unwrap();
        assert!(hearing.begin(now, Obstacle::None).is_some());
        hearing.answered(2, &answers, now);
        assert_eq!(hearing.judge(now), Some(Verdict::QueueLost));
    }

    #[test]
    fn a_second_probe_that_expires_behind_a_first_that_arrived_is_as_good() {
        let (mut hearing, now) = begun();
        hearing.hindered(Obstacle::CreditUsedUp);
        hearing.arrived(1, Way::Groups);
        hearing.answered(1, &BOTH, now);
        assert_eq!(hearing.judge(now), None);
        assert_eq!(hearing.judge(now + PATIENCE), Some(Verdict::Heard));
    }

    #[test]
    fn a_queue_that_is_bound_again_in_vain_is_lost() {
        let (mut hearing, now) = begun();
        let answers = [
            (Way::Groups, Answer::Returned),
            (Way::Direct, Answer::Confirmed),
        ];
        hearing.answered(1, &answers, now);
        assert_eq!(hearing.judge(now), Some(Verdict::NotBound));
        hearing.bound_again(now);
        assert!(hearing.begin(now, Obstacle::None).is_some());
        hearing.answered(2, &answers, now);
        assert_eq!(hearing.judge(now), Some(Verdict::QueueLost));
    }

    #[test]
    fn silence_counts_once_all_is_confirmed_and_nothing_else_arrives() {
        let (mut hearing, now) = begun();
        assert_eq!(hearing.judge(now + 10 * PATIENCE), None, "not confirmed");
        hearing.answered(1, &BOTH, now);
        hearing.other_arrives(now + PATIENCE / 2);
        assert_eq!(hearing.judge(now + PATIENCE), None);
        let later = now + PATIENCE / 2 + PATIENCE;
        assert_eq!(hearing.next_look(), Some(later));
        assert_eq!(hearing.judge(later), Some(Verdict::Silent));
    }

    #[test]
    fn nothing_is_probed_while_it_would_prove_nothing() {
        let mut now = Instant::now();
        let mut hearing = Hearing::new(INTERVAL, PATIENCE, false, now);
        assert_eq!(hearing.begin(now, Obstacle::PublishersBlocked), None);
        now = hearing.next_look().unwrap();
        assert!(hearing.begin(now, Obstacle::CreditUsedUp).is_some());
        heard(&mut hearing, 1, now);
        now = hearing.next_look().unwrap();
        for obstacle in [Obstacle::CreditUsedUp, Obstacle::PublishersBlocked] {
            assert_eq!(hearing.begin(now, obstacle), None);
            now = hearing.next_look().unwrap();
        }
        assert!(hearing.begin(now, Obstacle::None).is_some());
    }

    #[test]
    fn a_full_queue_counts_as_heard_once_something_else_arrives() {
        let nacked = [(Way::Groups, Answer::Nacked), (Way::Direct, Answer::Nacked)];
        let (mut hearing, now) = begun();
        hearing.answered(1, &nacked, now);
        assert_eq!(hearing.judge(now), None);
        assert!(!hearing.is_heard());
        let now = hearing.next_look().unwrap();
        assert!(hearing.begin(now, Obstacle::CreditUsedUp).is_some());
        hearing.is_fed();
        hearing.answered(2, &nacked, now);
        assert_eq!(hearing.judge(now), Some(Verdict::Heard));
    }

    #[test]
    fn a_queue_that_was_bound_again_has_to_be_heard_again() {
        let (mut hearing, now) = begun();
        heard(&mut hearing, 1, now);
        hearing.bound_again(now);
        assert!(!hearing.is_heard());
        assert!(hearing.begin(now, Obstacle::CreditUsedUp).is_some());
        heard(&mut hearing, 2, now);
        assert_eq!(
            hearing.next_look(),
            Some(now + AFTER_READY[0]),
            "and is probed soon again"
        );
    }

    #[test]
    fn a_queue_that_another_connection_has_heard_is_probed_at_once_and_counts_as_heard() {
        let now = Instant::now();
        let mut hearing = Hearing::new(INTERVAL, PATIENCE, true, now);
        assert!(hearing.is_heard());
        assert!(hearing.begin(now, Obstacle::None).is_some());
    }

    #[test]
    fn a_way_that_is_denied_is_left_out_and_without_any_it_counts_as_heard() {
        let (mut hearing, now) = begun();
        assert!(hearing.denied(Way::Direct, true, now));
        let (number, ways) = hearing.begin(now, Obstacle::None).unwrap();
        assert_eq!(ways, [Way::Groups]);
        hearing.arrived(number, Way::Groups);
        assert_eq!(hearing.judge(now), Some(Verdict::Heard));

        let (mut hearing, now) = begun();
        hearing.denied(Way::Groups, true, now);
        hearing.denied(Way::Direct, true, now);
        assert_eq!(hearing.begin(now, Obstacle::None), Some((2, vec![])));
        assert_eq!(hearing.judge(now), Some(Verdict::Heard));
    }

    #[test]
    fn a_way_that_is_denied_is_tried_again_after_a_pause_that_grows() {
        let (mut hearing, mut now) = begun();
        let mut tried = Vec::new();
        let start = now;
        assert!(hearing.denied(Way::Groups, true, now));
        while tried.len() < 4 {
            let (number, ways) = hearing.begin(now, Obstacle::None).unwrap();
            if ways.contains(&Way::Groups) {
                tried.push(now.duration_since(start).as_secs());
                assert!(!hearing.denied(Way::Groups, true, now), "it is no news");
                continue;
            }
            hearing.arrived(number, Way::Direct);
            assert_eq!(hearing.judge(now), Some(Verdict::Heard));
            now = hearing.next_look().unwrap();
        }
        assert_eq!(tried, [13, 33, 63, 93]);
        // The right is back.
        now += DENIED_AT_MOST;
        let (number, ways) = hearing.begin(now, Obstacle::None).unwrap();
        assert_eq!(ways, Way::ALL);
        heard(&mut hearing, number, now);
        assert!(hearing.denied(Way::Groups, false, now), "it is news again");
        // No AMQP channel may be spent on it any more.
        let later = now + 100 * DENIED_AT_MOST;
        assert_eq!(
            hearing.begin(later, Obstacle::None).unwrap().1,
            [Way::Direct]
        );
    }

    #[test]
    fn what_comes_of_an_earlier_round_is_void() {
        let (mut hearing, now) = begun();
        hearing.answered(1, &BOTH, now);
        hearing.hindered(Obstacle::CreditUsedUp);
        assert_eq!(hearing.judge(now + PATIENCE), None);
        let now = now + PATIENCE + INTERVAL;
        assert_eq!(hearing.begin(now, Obstacle::None).unwrap().0, 2);
        hearing.arrived(1, Way::Groups);
        hearing.arrived(1, Way::Direct);
        assert_eq!(hearing.judge(now), None);
    }

    proptest! {
        /// A queue that hears is never given up, whatever stands in the way for a while; and one that
        /// is not bound is found out.
        #[test]
        fn a_queue_that_hears_is_kept_and_one_that_is_not_bound_is_found(
            is_bound: bool,
            steps in prop::collection::vec((0_u64..400, 0_u8..3, any::<bool>()), 1..60),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut hearing = Hearing::new(INTERVAL, PATIENCE, false, now);
            let mut verdicts = Vec::new();
            for (delay, obstacle, nacked) in steps {
                now += Duration::from_millis(delay);
                let obstacle = match obstacle {
                    0 => Obstacle::CreditUsedUp,
                    _ => Obstacle::None,
                };
                hearing.hindered(obstacle);
                if let Some((number, _)) = hearing.begin(now, obstacle) {
                    let groups = if nacked { Answer::Nacked } else { Answer::Confirmed };
                    let answers = [(Way::Groups, groups), (Way::Direct, Answer::Confirmed)];
                    hearing.answered(number, &answers, now);
                    if is_bound && !nacked {
                        hearing.arrived(number, Way::Groups);
                    }
                    hearing.arrived(number, Way::Direct);
                }
                verdicts.extend(hearing.judge(now));
            }
            if is_bound {
                prop_assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Heard));
            } else {
                prop_assert!(verdicts.iter().all(|verdict| *verdict == Verdict::NotBound));
                prop_assert!(!hearing.is_heard());
            }
        }
    }
}
