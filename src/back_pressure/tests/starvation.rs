//! No channel keeps another waiting for longer than `stall_after`, whatever it does.

use std::time::Duration;

use proptest::prelude::*;

use super::super::Rules;
use super::world::{Clock, PROMPT, World};
use crate::mailbox::Bounds;

const STALL: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);

/// The options as they are by default.
const RULES: Rules = Rules {
    local_capacity: 100,
    prefetch: 10,
    remote_capacity: 100,
    stall_after: Some(STALL),
};
const BOUNDS: Bounds = Bounds {
    channel: 100,
    total: 100_000,
};
const EXPIRY: Duration = Duration::from_secs(60);

/// What may be added to `stall_after`: the marks of the clock, and a step of the simulation.
const GRACE: Duration = Duration::from_millis(125 + 10);

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("q!{prefix}{number}"))
        .collect()
}

/// What the other channels of the process do at one step, of which there are 100 a second.
type Others = fn(&mut World, step: usize);

/// 20 receivers that take a message each 0.9 s, while their group gets 20 a second.
fn readers_that_take_a_message_now_and_then(world: &mut World, step: usize) {
    let readers = names("slow", 20);
    if step.is_multiple_of(5) {
        world.send(&readers);
    }
    for (number, reader) in readers.iter().enumerate() {
        if (step + 4 * number).is_multiple_of(90) {
            world.take(reader);
        }
    }
}

/// Callbacks that run for 1.5 s, each at another time.
fn callbacks_out_of_phase(world: &mut World, step: usize) {
    let busy = names("busy", 30);
    if step.is_multiple_of(10) {
        world.send(&busy);
    }
    for (number, channel) in busy.iter().enumerate() {
        if (step + 5 * number).is_multiple_of(150) {
            world.take(channel);
        }
    }
}

/// 50 channels a second that nobody reads, each a new one.
fn fresh_channels_that_nobody_reads(world: &mut World, step: usize) {
    if step.is_multiple_of(2) {
        world.send_to(&format!("q!fresh{step}"));
    }
    if step.is_multiple_of(4) {
        world.send(&names(&format!("member{step}."), 20));
    }
}

/// Messages that nobody takes, and that expire before the clock of a channel has run out.
fn messages_that_expire_before_stall_after(world: &mut World, step: usize) {
    let dead = names("dead", 30);
    if step.is_multiple_of(3) {
        world.send(&dead);
    }
    if step.is_multiple_of(60) {
        // Where the first expire, the clock of their channel has seen it move.
        for channel in &dead {
            world.take(channel);
        }
    }
}

/// Channels that are discarded, each before its clock has run out, and made again.
fn channels_that_come_and_go(world: &mut World, step: usize) {
    let members = names("visitor", 40);
    if step.is_multiple_of(4) {
        world.send(&members);
    }
    for (number, member) in members.iter().enumerate() {
        if (step + 2 * number).is_multiple_of(80) {
            world.discard(member);
        }
    }
}

/// Sends 6 messages a second to the prompt receiver for 10 s, beside what the others do.
fn play(mut world: World, others: Others) -> (World, usize) {
    let mut sent = 0;
    for step in 0..1000 {
        others(&mut world, step);
        if step >= 100 && step.is_multiple_of(16) && world.send_to(PROMPT) {
            sent += 1;
        }
        world.pass(STEP);
    }
    (world, sent)
}

/// What a full queue takes to come here, `prefetch` messages a round trip, however prompt all are.
fn on_the_way(rules: &Rules, latency: Duration) -> Duration {
    let round_trips = rules.remote_capacity.div_ceil(rules.prefetch as u64) + 1;
    2 * latency * u32::try_from(round_trips).unwrap()
}

fn hears_all_in_time(local_expiry: Duration, others: Others) {
    let milliseconds = Duration::from_millis;
    for (local_capacity, latency) in [
        (0, milliseconds(0)),
        (RULES.local_capacity, milliseconds(0)),
        (RULES.local_capacity, milliseconds(30)),
        (0, milliseconds(30)),
    ] {
        let rules = Rules {
            local_capacity,
            ..RULES
        };
        let world = World::new(rules, BOUNDS, local_expiry).with_latency(latency);
        let (mut world, sent) = play(world, others);
        world.pass(STALL);
        assert!(
            world.isolations > 0,
            "the others keep nobody waiting: a test of nothing"
        );
        assert_eq!(world.heard, sent);
        assert!(sent > 40, "only {sent} were taken by the broker");
        assert!(
            world.longest_wait <= STALL + GRACE + on_the_way(&rules, latency),
            "waited {:?}",
            world.longest_wait
        );
    }
    let each = World::new(RULES, BOUNDS, local_expiry).with_clock(Clock::EachChannel(STALL));
    let (each, sent) = play(each, others);
    assert!(
        each.longest_wait > 2 * STALL || each.heard < sent || sent < 30,
        "a clock for each channel would do: {} of {sent} heard, waited {:?}",
        each.heard,
        each.longest_wait
    );
}

#[test]
fn readers_that_take_a_message_each_0_9_s_starve_nobody() {
    hears_all_in_time(EXPIRY, readers_that_take_a_message_now_and_then);
}

#[test]
fn callbacks_of_1_5_s_out_of_phase_starve_nobody() {
    hears_all_in_time(EXPIRY, callbacks_out_of_phase);
}

#[test]
fn fifty_fresh_channels_a_second_that_nobody_reads_starve_nobody() {
    hears_all_in_time(EXPIRY, fresh_channels_that_nobody_reads);
}

#[test]
fn a_local_expiry_below_stall_after_starves_nobody() {
    hears_all_in_time(STALL * 8 / 10, messages_that_expire_before_stall_after);
}

#[test]
fn channels_that_are_discarded_and_made_again_starve_nobody() {
    hears_all_in_time(EXPIRY, channels_that_come_and_go);
}

#[test]
fn without_stall_after_nothing_is_lost_and_the_broker_holds_the_senders_back() {
    let rules = Rules {
        stall_after: None,
        ..RULES
    };
    let mut world = World::new(rules, BOUNDS, EXPIRY);
    let accepted = (0..1000)
        .filter(|_| {
            world.pass(STEP);
            world.send_to("q!dead")
        })
        .count();
    assert_eq!(accepted, 100 + 10 + 100);
    assert_eq!((world.lost, world.isolations, world.waiting()), (0, 0, 110));
}

/// A worker with a queue for bursts: nobody waits behind it, so that its senders are held back by what
/// the queue holds, and nothing is lost.
#[test]
fn a_burst_to_a_receiver_that_is_alone_is_not_lost_however_long_it_takes() {
    let rules = Rules {
        remote_capacity: 10_000,
        ..RULES
    };
    let mut world = World::new(rules, BOUNDS, EXPIRY);
    world.has_prompt = false;
    let sent = (0..5000).filter(|_| world.send_to("q!worker")).count();
    assert_eq!(sent, 5000);
    let mut taken = 0;
    while world.take("q!worker") {
        taken += 1;
        world.pass(Duration::from_millis(5));
    }
    assert_eq!((taken, world.lost, world.isolations), (5000, 0, 0));

    // And one that comes when it has fallen behind is not kept waiting.
    for _ in 0..5000 {
        world.send_to("q!worker");
    }
    for _ in 0..1000 {
        world.take("q!worker");
        world.pass(STEP);
    }
    assert_eq!(world.isolations, 0);
    world.has_prompt = true;
    assert!(world.send_to(PROMPT));
    for _ in 0..30 {
        world.take("q!worker");
        world.pass(STEP);
    }
    assert_eq!((world.heard, world.isolations), (1, 1));
    assert!(
        world.longest_wait <= GRACE,
        "waited {:?}",
        world.longest_wait
    );
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    Group(usize),
    Take(usize),
    Discard(usize),
    Prompt,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..6).prop_map(Step::Send),
        3 => (1_usize..6).prop_map(Step::Group),
        4 => (0_usize..6).prop_map(Step::Take),
        1 => (0_usize..6).prop_map(Step::Discard),
        3 => Just(Step::Prompt),
        6 => (1_u64..150).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever the others do, and with any capacities.
    #[test]
    fn no_sequence_keeps_a_channel_that_is_received_from_waiting_longer(
        steps in proptest::collection::vec(step(), 0..400),
        local_capacity in 0_usize..6,
        prefetch in 1_usize..5,
        remote_capacity in 1_u64..8,
        channel in 1_usize..8,
        total in 1_usize..16,
        local_expiry in 100_u64..5000,
        latency in prop_oneof![Just(0_u64), 1_u64..40],
    ) {
        let rules = Rules { local_capacity, prefetch, remote_capacity, stall_after: Some(STALL) };
        let bounds = Bounds { channel, total };
        let latency = Duration::from_millis(latency);
        let mut world =
            World::new(rules, bounds, Duration::from_millis(local_expiry)).with_latency(latency);
        let channels = names("other", 6);
        let mut sent = 0;
        for step in steps {
            match step {
                Step::Send(number) => { world.send_to(&channels[number]); }
                Step::Group(count) => { world.send(&channels[..count]); }
                Step::Take(number) => { world.take(&channels[number]); }
                Step::Discard(number) => world.discard(&channels[number]),
                Step::Prompt => sent += usize::from(world.send_to(PROMPT)),
                // In steps, as a timer would have it.
                Step::Pass(milliseconds) => {
                    for _ in 0..milliseconds.div_ceil(10) {
                        world.pass(STEP);
                    }
                }
            }
            // Before isolation credit bounds deliveries, each of which may be for all channels; in it
            // the bounds do, but for what was there when it began and a first message for each.
            let by_credit = local_capacity + prefetch * channels.len();
            let most = by_credit.max(total + channels.len());
            prop_assert!(world.waiting() <= most, "{} wait, of {most}", world.waiting());
            if !world.is_isolating() && world.isolations == 0 {
                prop_assert_eq!(world.lost, 0);
            }
        }
        for _ in 0..200 {
            world.pass(STEP);
        }
        prop_assert_eq!(world.heard, sent);
        let most = STALL + GRACE + on_the_way(&rules, latency);
        prop_assert!(world.longest_wait <= most, "waited {:?} of {most:?}", world.longest_wait);
    }
}
