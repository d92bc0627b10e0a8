//! A process with many channels on a broker, by a given clock: the real rules and the real
//! mailboxes, with a plain queue in place of RabbitMQ.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::back_pressure::{BackPressure, Change, Memory, Rules};
use crate::mailbox::{Bounds, Ended, Mailboxes};
use crate::message::Body;

/// Who decides what stays unacked.
pub(super) enum Clock {
    /// One clock for the process: the rules under test.
    Process(Box<BackPressure>),
    /// What does not do: a clock for each channel. One that has not taken a message for so long does
    /// not hold deliveries any more.
    EachChannel(Duration),
}

struct Sent {
    to: Vec<String>,
    number: u64,
}

pub(super) struct World {
    pub(super) now: Instant,
    rules: Rules,
    clock: Clock,
    bounds: Bounds,
    boxes: Mailboxes<(), u32>,
    /// On the broker.
    queue: VecDeque<Sent>,
    /// How many the broker has sent that it does not know to be acked.
    unacked: usize,
    /// How long a message or an ack is on its way.
    latency: Duration,
    /// On their way, with the time at which they arrive.
    deliveries: VecDeque<(Instant, Sent)>,
    acks: VecDeque<(Instant, usize)>,
    /// How many the clock for each channel holds.
    held: usize,
    /// For each channel that holds messages: when one was last taken, or the first came.
    moved: HashMap<String, Instant>,
    next_number: u64,
    /// Whether anybody receives from [`PROMPT`].
    pub(super) has_prompt: bool,
    /// Messages for [`PROMPT`] that the broker has taken and it has not: when.
    owed: VecDeque<(u64, Instant)>,
    pub(super) heard: usize,
    pub(super) longest_wait: Duration,
    pub(super) lost: usize,
    pub(super) isolations: usize,
}

/// The channel whose receiver takes each message at once.
pub(super) const PROMPT: &str = "q!prompt";

fn body(number: u64) -> Arc<Body> {
    let bytes = number.to_be_bytes().to_vec();
    let length = bytes.len();
    Arc::new(Body::new(bytes, 0..length, None))
}

impl World {
    pub(super) fn new(rules: Rules, bounds: Bounds, local_expiry: Duration) -> Self {
        Self {
            now: Instant::now(),
            rules,
            clock: Clock::Process(Box::new(BackPressure::new(rules))),
            bounds,
            boxes: Mailboxes::new(local_expiry),
            queue: VecDeque::new(),
            unacked: 0,
            latency: Duration::ZERO,
            deliveries: VecDeque::new(),
            acks: VecDeque::new(),
            held: 0,
            moved: HashMap::new(),
            next_number: 0,
            has_prompt: true,
            owed: VecDeque::new(),
            heard: 0,
            longest_wait: Duration::ZERO,
            lost: 0,
            isolations: 0,
        }
    }

    pub(super) fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    pub(super) fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sends one message to these channels; `false` if the broker's queue is full.
    pub(super) fn send(&mut self, to: &[String]) -> bool {
        if self.queue.len() as u64 >= self.rules.remote_capacity {
            return false;
        }
        self.next_number += 1;
        if to.iter().any(|channel| channel == PROMPT) {
            self.owed.push_back((self.next_number, self.now));
        }
        self.queue.push_back(Sent {
            to: to.to_vec(),
            number: self.next_number,
        });
        self.go_on();
        true
    }

    pub(super) fn send_to(&mut self, channel: &str) -> bool {
        self.send(&[channel.to_owned()])
    }

    /// A channel takes its first message.
    pub(super) fn take(&mut self, channel: &str) -> bool {
        let taken = self.boxes.pull(channel, self.now).is_some();
        if taken {
            self.moved.insert(channel.to_owned(), self.now);
        }
        self.go_on();
        taken
    }

    pub(super) fn discard(&mut self, channel: &str) {
        self.boxes.discard(channel, Ended::Discarded);
        self.moved.remove(channel);
        self.go_on();
    }

    /// Time passes, and what is due in it happens when it is.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.go_on();
        }
        self.now = end;
        if self.boxes.expire(self.now).dropped > 0 {
            self.go_on();
        }
    }

    /// What arrives next, or what the rules have armed.
    fn next_event(&self) -> Option<Instant> {
        let timer = match &self.clock {
            Clock::Process(pressure) => pressure.next_change(self.memory().backlog),
            // Looks all the time.
            Clock::EachChannel(_) => Some(self.now + Duration::from_millis(5)),
        };
        let delivery = self.deliveries.front().map(|(at, _)| *at);
        let ack = self.acks.front().map(|(at, _)| *at);
        // What was armed for the past does nothing more.
        let timer = timer.filter(|at| *at > self.now);
        timer.into_iter().chain(delivery).chain(ack).min()
    }

    fn memory(&self) -> Memory {
        Memory {
            backlog: match self.rules.local_capacity {
                0 => self.boxes.deliveries(),
                _ => self.boxes.backlog(),
            },
            taken: self.boxes.taken(),
        }
    }

    /// Messages in memory.
    pub(super) fn waiting(&self) -> usize {
        self.boxes.backlog()
    }

    pub(super) fn is_isolating(&self) -> bool {
        match &self.clock {
            Clock::Process(pressure) => pressure.is_isolating(),
            Clock::EachChannel(_) => false,
        }
    }

    /// Moves what can be moved: acks, deliveries, and what the prompt receiver takes.
    fn go_on(&mut self) {
        loop {
            self.ack();
            let mut has_moved = false;
            while let Some((at, count)) = self.acks.front().copied()
                && at <= self.now
            {
                self.acks.pop_front();
                self.unacked -= count;
                has_moved = true;
            }
            while self.unacked < self.rules.prefetch
                && let Some(sent) = self.queue.pop_front()
            {
                self.unacked += 1;
                self.deliveries.push_back((self.now + self.latency, sent));
            }
            while self
                .deliveries
                .front()
                .is_some_and(|(at, _)| *at <= self.now)
                && let Some((_, sent)) = self.deliveries.pop_front()
            {
                match &mut self.clock {
                    Clock::Process(pressure) => pressure.arrived(1, self.now),
                    Clock::EachChannel(_) => self.held += 1,
                }
                self.deliver(&sent.to, sent.number);
                self.take_promptly();
                has_moved = true;
            }
            if !has_moved {
                return;
            }
        }
    }

    fn deliver(&mut self, to: &[String], number: u64) {
        let keys: Vec<_> = to.iter().map(|channel| self.boxes.pin(channel)).collect();
        let mut lost = 0;
        self.boxes
            .deliver_to_all(&keys, body(number), self.now, |delivered| {
                lost += usize::from(delivered.lost.is_some());
            });
        self.lost += lost;
        for (key, channel) in keys.into_iter().zip(to) {
            self.boxes.unpin(key);
            self.moved.entry(channel.clone()).or_insert(self.now);
        }
    }

    fn take_promptly(&mut self) {
        if !self.has_prompt {
            return;
        }
        self.boxes.remove_pull(PROMPT, &0);
        while let Some(message) = self.boxes.pull(PROMPT, self.now) {
            let number = u64::from_be_bytes(message.body().data().try_into().unwrap());
            while let Some((owed, sent)) = self.owed.pop_front() {
                self.longest_wait = self.longest_wait.max(self.now - sent);
                if owed == number {
                    self.heard += 1;
                    break;
                }
            }
        }
        self.boxes.add_pull(PROMPT, 0);
        // What is still on the broker waits, too.
        if let Some((_, sent)) = self.owed.front() {
            self.longest_wait = self.longest_wait.max(self.now - *sent);
        }
    }

    fn ack(&mut self) {
        self.take_promptly();
        let memory = self.memory();
        let released = match &mut self.clock {
            Clock::Process(pressure) => {
                let boxes = &self.boxes;
                let is_one_kept_waiting = |since| boxes.is_one_kept_waiting(since);
                let (released, change) = pressure.release(memory, self.now, is_one_kept_waiting);
                match change {
                    Some(Change::Began) => {
                        self.isolations += 1;
                        self.boxes.set_bounds(Some(self.bounds));
                    }
                    Some(Change::Ended { .. }) => self.boxes.set_bounds(None),
                    None => {}
                }
                released
            }
            Clock::EachChannel(stall_after) => {
                let counted = self.boxes.biggest(usize::MAX);
                let holds = |channel: &str| {
                    let moved = self.moved.get(channel);
                    moved.is_none_or(|moved| self.now - *moved < *stall_after)
                };
                let backlog: usize = counted
                    .iter()
                    .filter(|(channel, _)| holds(&channel.to_string_lossy()))
                    .map(|(_, count)| count)
                    .sum();
                let keep = self
                    .held
                    .min(backlog.saturating_sub(self.rules.local_capacity));
                let released = self.held - keep;
                self.held = keep;
                released
            }
        };
        if released > 0 {
            self.acks.push_back((self.now + self.latency, released));
        }
    }
}
