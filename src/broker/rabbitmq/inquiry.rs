//! Asks whether a queue that has refused a message is still there.
//!
//! RabbitMQ nacks what a full queue refuses; but also what a queue is sent while it is being deleted,
//! when its process has died, or with its node. Its length cannot be asked for, since it is exclusive
//! to another connection; whether it is there can: to declare it passively is a channel error in any
//! case, 404 where it is gone and 405 where it is another's. It is asked three times, since a queue that is
//! being deleted is there for a moment still; on RabbitMQ 4.3 that takes a Raft commit.
//!
//! Each question costs an AMQP channel, whose number lapin does not use again, and a line in the broker's
//! log. So an answer holds for a while, longer each time that a queue is still there; and half of the
//! numbers of a connection are not for questions. Where none is left, a refusal is told as that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};

use super::connect::Link;
use super::own_queue::Look;
use super::shared::Shared;
use super::topology::{Topology, find_queue, short};
use crate::broker::{Outcome, Publication, Route, Token};

/// How long an answer holds, and at most where it was the same before.
const HOLDS: Duration = Duration::from_secs(1);
const HOLDS_AT_MOST: Duration = Duration::from_secs(60);

/// How long an answer is waited for. Where the process of a queue hangs, there is none.
const PATIENCE: Duration = Duration::from_secs(1);

/// After how long a queue that was there is asked for again, each time.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];

/// More answers than this are not kept.
const KEPT: usize = 1000;

/// A direct message that was refused.
pub(super) type Refused = Publication;

/// Whether a queue is there, and since when that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    at: Instant,
    is_there: bool,
    holds: Duration,
}

impl Answer {
    fn still_holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < self.holds
    }
}

/// What is known of queues.
#[derive(Debug, Default)]
struct Answers(HashMap<String, Answer>);

impl Answers {
    fn of(&self, queue: &str, now: Instant) -> Option<bool> {
        let answer = self.0.get(queue)?;
        answer.still_holds(now).then_some(answer.is_there)
    }

    fn learn(&mut self, queue: String, is_there: bool, at: Instant) {
        if self.0.len() >= KEPT {
            self.0.retain(|_, answer| answer.still_holds(at));
        }
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        let holds = match self.0.get(&queue) {
            Some(last) if is_there && last.is_there => (2 * last.holds).min(HOLDS_AT_MOST),
            _ => HOLDS,
        };
        let answer = Answer {
            at,
            is_there,
            holds,
        };
        self.0.insert(queue, answer);
    }
}

fn queue_of(refused: &Refused) -> &str {
    match &refused.route {
        Route::Queue(queue) => queue,
        Route::Group(_) => "",
    }
}

fn outcome(refused: &Refused, is_there: bool) -> (Token, Outcome) {
    let outcome = if is_there {
        Outcome::Full
    } else {
        Outcome::no_channel(queue_of(refused), refused.body.clone())
    };
    (refused.token, outcome)
}

/// The publisher's end, and that of [`Inquiry`].
pub(super) fn channel() -> (UnboundedSender<Refused>, UnboundedReceiver<Refused>) {
    unbounded_channel()
}

/// Judges what was refused, as long as the connection stands. What is not judged by then is told as
/// refused: that it was is certain.
pub(super) struct Inquiry {
    shared: Arc<Shared>,
    topology: Topology,
    link: std::sync::Weak<Link>,
    refused: UnboundedReceiver<Refused>,
    answers: Answers,
    /// In the order in which they were refused.
    waiting: Vec<Refused>,
}

impl Inquiry {
    pub(super) fn new(
        shared: Arc<Shared>,
        topology: Topology,
        link: std::sync::Weak<Link>,
        refused: UnboundedReceiver<Refused>,
    ) -> Self {
        Self {
            shared,
            topology,
            link,
            refused,
            answers: Answers::default(),
            waiting: Vec::new(),
        }
    }

    /// Runs until the publisher has ended.
    pub(super) async fn run(mut self) -> String {
        loop {
            if self.waiting.is_empty() {
                let Some(first) = self.refused.recv().await else {
                    return "the publisher has ended".to_owned();
                };
                self.waiting.push(first);
            }
            self.take_more();
            if self.report_known() {
                continue;
            }
            let mut asked = self.ask_all().await;
            for pause in AGAIN {
                self.learn_who_is_gone(asked);
                self.report_known();
                sleep(pause).await;
                asked = self.ask_all().await;
            }
            let now = Instant::now();
            for (queue, is_there) in asked {
                self.answers.learn(queue, is_there, now);
            }
            self.report_known();
        }
    }

    /// That a queue is gone needs no second question.
    fn learn_who_is_gone(&mut self, asked: Vec<(String, bool)>) {
        let now = Instant::now();
        for (queue, is_there) in asked {
            if !is_there {
                self.answers.learn(queue, false, now);
            }
        }
    }

    fn take_more(&mut self) {
        while let Ok(refused) = self.refused.try_recv() {
            self.waiting.push(refused);
        }
    }

    /// Tells what can be told; whether that is all.
    fn report_known(&mut self) -> bool {
        let now = Instant::now();
        let answers = &self.answers;
        let mut outcomes = Vec::new();
        self.waiting.retain(|refused| {
            let known = answers.of(queue_of(refused), now);
            outcomes.extend(known.map(|is_there| outcome(refused, is_there)));
            known.is_none()
        });
        self.report(outcomes);
        self.waiting.is_empty()
    }

    fn report(&self, mut outcomes: Vec<(Token, Outcome)>) {
        if let Some(host) = self.shared.host.upgrade()
            && !outcomes.is_empty()
        {
            host.publications_ended(&mut outcomes);
        }
    }

    /// Asks for each queue that something waits for.
    async fn ask_all(&self) -> Vec<(String, bool)> {
        let now = Instant::now();
        let mut queues: Vec<String> = self
            .waiting
            .iter()
            .map(|refused| queue_of(refused).to_owned())
            .filter(|queue| self.answers.of(queue, now).is_none())
            .collect();
        queues.sort_unstable();
        queues.dedup();
        let mut answers = Vec::with_capacity(queues.len());
        for queue in queues {
            let is_there = self.ask(&queue).await;
            answers.push((queue, is_there));
        }
        answers
    }

    /// Whether `queue` is there. Where no answer can be had, it is: then it refused the message.
    async fn ask(&self, queue: &str) -> bool {
        let (Some(link), Ok(queue)) = (self.link.upgrade(), short(queue)) else {
            return true;
        };
        if link.is_blocked() || !link.spend_number(|numbers| numbers.div_ceil(2)) {
            return true;
        }
        let Ok(channel) = self.topology.open(&link).await else {
            return true;
        };
        let look = find_queue(&link, channel, queue, PATIENCE).await;
        !matches!(look, Ok(Look::Free))
    }
}

/// What was refused has its outcome, however this ends.
impl Drop for Inquiry {
    fn drop(&mut self) {
        // From here on the publisher tells it by itself.
        self.refused.close();
        self.take_more();
        let left = self.waiting.iter().map(|refused| outcome(refused, true));
        self.report(left.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_a_second() {
        let mut answers = Answers::default();
        let start = Instant::now();
        assert_eq!(answers.of("q", start), None);
        answers.learn("q".to_owned(), true, start);
        answers.learn("gone".to_owned(), false, start);
        let soon = start + HOLDS - Duration::from_millis(1);
        assert_eq!(answers.of("q", soon), Some(true));
        assert_eq!(answers.of("gone", soon), Some(false));
        assert_eq!(answers.of("q", start + HOLDS), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_longer_while_the_queue_is_there() {
        let mut answers = Answers::default();
        let mut now = Instant::now();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            answers.learn("q".to_owned(), true, now);
            now += Duration::from_secs(seconds);
            assert_eq!(answers.of("q", now - Duration::from_millis(1)), Some(true));
            assert_eq!(answers.of("q", now), None);
        }
        answers.learn("q".to_owned(), false, now);
        assert_eq!(answers.of("q", now + HOLDS), None);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_do_not_hold_any_more_are_forgotten() {
        let mut answers = Answers::default();
        let start = Instant::now();
        for number in 0..10 * KEPT {
            let now = start + HOLDS * number as u32 / 100;
            answers.learn(number.to_string(), true, now);
        }
        assert!(answers.0.len() <= KEPT);
    }
}
