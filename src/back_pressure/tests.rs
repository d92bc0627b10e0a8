//! The rules by themselves, and what they come to in a process of many channels.

use super::*;

mod starvation;
mod world;

const STALL: Duration = Duration::from_secs(1);
const PREFETCH: usize = 4;

fn rules(local_capacity: usize) -> Rules {
    Rules {
        local_capacity,
        prefetch: PREFETCH,
        remote_capacity: 100,
        stall_after: Some(STALL),
    }
}

/// Back-pressure whose credit is used up at `now`, by as many messages as that takes.
fn used_up(now: Instant) -> BackPressure {
    let mut pressure = BackPressure::new(rules(0));
    pressure.arrived(PREFETCH, now);
    assert_eq!(release(&mut pressure, PREFETCH, now), (0, None));
    pressure
}

/// A process in which nobody takes anything.
fn release(pressure: &mut BackPressure, backlog: usize, now: Instant) -> (usize, Option<Change>) {
    let memory = Memory { backlog, taken: 0 };
    pressure.release(memory, now, |_| {
        panic!("nothing was taken: it need not be asked")
    })
}

fn ended(lasted: Duration) -> Option<Change> {
    Some(Change::Ended { lasted })
}

#[test]
fn up_to_local_capacity_every_delivery_is_acked() {
    let now = Instant::now();
    let mut pressure = BackPressure::new(rules(2));
    let mut released = |arrived, backlog| {
        pressure.arrived(arrived, now);
        release(&mut pressure, backlog, now).0
    };
    assert_eq!(released(2, 2), 2);
    assert_eq!(released(2, 4), 0);
    assert_eq!(released(0, 3), 1);
    assert_eq!(released(0, 2), 1);
    assert_eq!(released(0, 0), 0);
}

#[test]
fn without_local_capacity_there_is_an_ack_for_each_message_taken() {
    let now = Instant::now();
    let mut pressure = BackPressure::new(rules(0));
    pressure.arrived(3, now);
    assert_eq!(release(&mut pressure, 3, now), (0, None));
    assert_eq!(pressure.unacked(), 3);
    assert_eq!(release(&mut pressure, 2, now), (1, None));
    assert_eq!(release(&mut pressure, 0, now), (2, None));
}

#[test]
fn a_group_message_for_many_channels_holds_no_more_than_was_delivered() {
    let now = Instant::now();
    let mut pressure = BackPressure::new(rules(1));
    pressure.arrived(1, now);
    assert_eq!(release(&mut pressure, 50, now), (0, None));
    assert_eq!(release(&mut pressure, 2, now), (0, None));
    assert_eq!(release(&mut pressure, 1, now), (1, None));
}

#[test]
fn a_new_connection_owes_nothing_for_the_old_one() {
    let now = Instant::now();
    let mut pressure = used_up(now);
    pressure.reset();
    assert_eq!(pressure.unacked(), 0);
    assert_eq!(pressure.next_change(PREFETCH), None);
    assert_eq!(release(&mut pressure, PREFETCH, now + STALL), (0, None));
    // What the new one sends is held for as long again before anything is done about it.
    pressure.arrived(PREFETCH, now);
    assert_eq!(release(&mut pressure, 2 * PREFETCH, now + STALL), (0, None));
    assert_eq!(pressure.next_stall(), Some(now + 2 * STALL));
}

#[test]
fn credit_that_is_used_up_for_stall_after_begins_isolation_and_no_sooner() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    let due = start + STALL;
    assert_eq!(pressure.next_stall(), Some(due));
    assert_eq!(pressure.next_change(PREFETCH), Some(start + STALL / MARKS));
    let early = due - Duration::from_nanos(1);
    assert_eq!(release(&mut pressure, PREFETCH, early), (0, None));
    assert!(!pressure.is_isolating());
    let began = release(&mut pressure, PREFETCH, due);
    assert_eq!(began, (PREFETCH, Some(Change::Began)));
    assert!(pressure.is_isolating());
    assert_eq!(pressure.unacked(), 0);
}

#[test]
fn credit_that_is_not_used_up_begins_nothing_however_long_it_lasts() {
    let start = Instant::now();
    let mut pressure = BackPressure::new(rules(0));
    pressure.arrived(PREFETCH - 1, start);
    for seconds in 0..10 {
        let now = start + Duration::from_secs(seconds);
        assert_eq!(release(&mut pressure, PREFETCH - 1, now), (0, None));
        assert_eq!(pressure.next_change(PREFETCH - 1), None);
    }
}

#[test]
fn a_moment_of_free_credit_does_not_stop_the_clock_and_a_longer_one_does() {
    let start = Instant::now();
    for (free_for, isolates) in [
        (
            Periods::of(STALL).round_trip - Duration::from_nanos(1),
            true,
        ),
        (Periods::of(STALL).round_trip, false),
    ] {
        for acked in [1, PREFETCH] {
            let mut pressure = used_up(start);
            let freed = start + STALL / 2;
            let left = PREFETCH - acked;
            assert_eq!(release(&mut pressure, left, freed), (acked, None));
            pressure.arrived(acked, freed + free_for);
            assert_eq!(
                release(&mut pressure, PREFETCH, freed + free_for),
                (0, None)
            );
            let (_, change) = release(&mut pressure, PREFETCH, start + STALL);
            assert_eq!(change.is_some(), isolates, "{acked} free for {free_for:?}");
        }
    }
}

#[test]
fn a_broker_that_sends_no_more_though_acks_go_on_holds_nothing() {
    const MANY: usize = 5 * PREFETCH;
    let start = Instant::now();
    for (sends_on, isolates) in [(true, true), (false, false)] {
        let mut pressure = BackPressure::new(Rules {
            prefetch: MANY,
            ..rules(0)
        });
        pressure.arrived(MANY, start);
        assert_eq!(release(&mut pressure, MANY, start), (0, None));
        // An ack at each step, and for a round trip also what the broker sends for it.
        let step = Periods::of(STALL).round_trip / 5;
        let mut held = MANY;
        for number in 1..=19 {
            let now = start + step * number;
            assert_eq!(release(&mut pressure, held - 1, now), (1, None));
            if number <= 5 || sends_on {
                pressure.arrived(1, now);
            } else {
                held -= 1;
            }
        }
        let (_, change) = release(&mut pressure, held, start + STALL);
        assert_eq!(change.is_some(), isolates, "it sends on: {sends_on}");
    }
}

#[test]
fn a_process_that_takes_what_the_broker_can_hold_in_time_is_not_stalled() {
    let start = Instant::now();
    for (fewer, isolates) in [(0, false), (1, true)] {
        let mut pressure = used_up(start);
        // As many as can have waited on the broker when the clock began, or one fewer.
        for number in 0..100 - fewer {
            let now = start + STALL / 200 * number;
            assert_eq!(release(&mut pressure, PREFETCH - 1, now), (1, None));
            pressure.arrived(1, now);
            assert_eq!(release(&mut pressure, PREFETCH, now), (0, None));
        }
        let (_, change) = release(&mut pressure, PREFETCH, start + STALL);
        assert_eq!(change.is_some(), isolates, "{fewer} fewer");
    }
}

#[test]
fn what_came_to_the_broker_after_the_clock_began_is_timed_too() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    // All that waited at first arrives in half the time; then nothing moves any more.
    let half = start + STALL / 2;
    assert_eq!(release(&mut pressure, 0, half), (PREFETCH, None));
    pressure.arrived(100, half);
    assert_eq!(release(&mut pressure, 100, half), (0, None));
    let due = half + STALL;
    assert_eq!(pressure.next_stall(), Some(due));
    assert_eq!(release(&mut pressure, 100, due - STALL / 100), (0, None));
    assert_eq!(release(&mut pressure, 100, due).1, Some(Change::Began));
}

#[test]
fn isolation_holds_nothing_until_half_is_left_and_the_broker_had_time_to_send() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    let began = start + STALL;
    assert_eq!(
        release(&mut pressure, PREFETCH, began).1,
        Some(Change::Began)
    );
    pressure.arrived(50, began);
    assert_eq!(release(&mut pressure, 50, began), (50, None));
    let more_than_half = PREFETCH / 2 + 1;
    assert_eq!(
        release(&mut pressure, more_than_half, began + 5 * STALL),
        (0, None)
    );
    assert_eq!(pressure.next_change(more_than_half), None);
    assert_eq!(
        release(&mut pressure, PREFETCH / 2, began + 6 * STALL),
        (0, ended(6 * STALL))
    );
    assert!(!pressure.is_isolating());

    let mut pressure = used_up(start);
    assert_eq!(
        release(&mut pressure, PREFETCH, began).1,
        Some(Change::Began)
    );
    let may_end = began + Periods::of(STALL).round_trip;
    assert_eq!(
        release(&mut pressure, 0, may_end - Duration::from_nanos(1)),
        (0, None)
    );
    assert_eq!(pressure.next_change(0), Some(may_end));
    assert_eq!(
        release(&mut pressure, 0, may_end),
        (0, ended(Periods::of(STALL).round_trip))
    );
}

#[test]
fn a_process_that_takes_messages_is_isolated_only_while_a_channel_is_kept_waiting() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    let mut at = |part: u32, taken, is_kept_waiting: Option<bool>| {
        let memory = Memory {
            backlog: PREFETCH,
            taken,
        };
        let now = start + STALL * part / 16;
        let mut asked = None;
        let (_, change) = pressure.release(memory, now, |since| {
            asked = Some(since);
            is_kept_waiting.unwrap()
        });
        assert_eq!(asked.is_some(), is_kept_waiting.is_some(), "{part}");
        let next = pressure.next_stall().unwrap_or(now);
        (change, asked.unwrap_or(start), next)
    };
    assert_eq!(at(15, 1, None), (None, start, start + STALL));
    // Each receiver has work; who has will be looked at again, and not at each message.
    let again = start + STALL * 18 / 16;
    assert_eq!(at(16, 1, Some(false)), (None, start, again));
    assert_eq!(at(17, 2, None), (None, start, again));
    let (change, since, _) = at(18, 2, Some(true));
    assert_eq!(change, Some(Change::Began));
    assert!(
        since <= start + STALL * 2 / 16,
        "looked at what was used lately alone"
    );
}

#[test]
fn a_process_that_has_stopped_to_take_messages_is_isolated_though_no_channel_is_kept_waiting() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    let mut at = |part: u32, taken| {
        let memory = Memory {
            backlog: PREFETCH,
            taken,
        };
        pressure
            .release(memory, start + STALL * part / 8, |_| false)
            .1
    };
    for part in 1..80 {
        assert_eq!(at(part, u64::from(part)), None);
    }
    for part in 80..87 {
        assert_eq!(at(part, 79), None, "{part}");
    }
    assert_eq!(at(87, 79), Some(Change::Began));
}

#[test]
fn what_is_kept_of_a_long_stall_is_little() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    for part in 0..10_000_u32 {
        let memory = Memory {
            backlog: PREFETCH,
            taken: part.into(),
        };
        let now = start + STALL * part / 32;
        assert_eq!(pressure.release(memory, now, |_| false), (0, None));
        assert!(pressure.marks.len() <= MARKS as usize + 2);
    }
    // And of a long flow.
    for part in 0..10_000_u32 {
        let now = start + 1000 * STALL + STALL * part / 1024;
        pressure.arrived(1, now);
        let memory = Memory {
            backlog: 0,
            taken: part.into(),
        };
        assert!(pressure.release(memory, now, |_| false).0 > 0);
        assert!(pressure.history.len() <= MARKS as usize + 2);
    }
}

#[test]
fn a_timer_is_armed_while_deliveries_are_unacked() {
    let start = Instant::now();
    let mut pressure = BackPressure::new(Rules {
        remote_capacity: 1,
        ..rules(0)
    });
    pressure.arrived(PREFETCH, start);
    assert_eq!(release(&mut pressure, PREFETCH, start), (0, None));
    // Each delivery means that what was marked has arrived: then there is a new mark.
    for milliseconds in 1..10 {
        let now = start + Duration::from_millis(milliseconds);
        assert_eq!(release(&mut pressure, PREFETCH - 1, now), (1, None));
        pressure.arrived(1, now);
        assert_eq!(release(&mut pressure, PREFETCH, now), (0, None));
        assert_eq!(pressure.next_stall(), Some(now + STALL));
        assert!(pressure.next_change(PREFETCH).is_some());
    }
}

#[test]
fn acks_that_are_on_their_way_do_not_stop_the_clock() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    // One at a time is taken, and its place in the air for as long: never are all unacked at once.
    for number in 0..9 {
        let now = start + STALL / 10 * number;
        assert_eq!(
            release(&mut pressure, PREFETCH - 1, now).0,
            usize::from(number == 0)
        );
        pressure.arrived(1, now + STALL / 20);
        let taken = release(&mut pressure, PREFETCH - 1, now + STALL / 20);
        assert_eq!(taken, (1, None));
    }
    let due = start + STALL;
    let (_, change) = release(&mut pressure, PREFETCH - 1, due);
    assert_eq!(change, Some(Change::Began));
}

#[test]
fn isolation_lasts_until_what_was_on_the_broker_has_arrived() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    let began = start + STALL;
    assert_eq!(
        release(&mut pressure, PREFETCH, began).1,
        Some(Change::Began)
    );
    // As fast as acks come to the broker, and all is taken at once.
    let mut now = began;
    for number in 1..100 {
        now += Periods::of(STALL).round_trip / 10;
        pressure.arrived(PREFETCH, now);
        let (_, change) = release(&mut pressure, 0, now);
        let has_arrived = number * PREFETCH >= 100;
        assert_eq!(change.is_some(), has_arrived, "{number}");
        if has_arrived {
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn after_isolation_credit_counts_anew() {
    let start = Instant::now();
    let mut pressure = used_up(start);
    let _ = release(&mut pressure, PREFETCH, start + STALL);
    let over = start + 2 * STALL;
    assert_eq!(release(&mut pressure, 0, over).1, ended(STALL));
    pressure.arrived(PREFETCH, over);
    assert_eq!(release(&mut pressure, PREFETCH, over), (0, None));
    assert_eq!(pressure.unacked(), PREFETCH);
    assert_eq!(pressure.next_stall(), Some(over + STALL));
}

#[test]
fn half_is_of_what_may_wait_in_memory_with_what_is_sent_ahead() {
    let start = Instant::now();
    let mut pressure = BackPressure::new(rules(10));
    pressure.arrived(14, start);
    assert_eq!(release(&mut pressure, 14, start), (10, None));
    let began = start + STALL;
    assert_eq!(
        release(&mut pressure, 14, began),
        (PREFETCH, Some(Change::Began))
    );
    assert_eq!(release(&mut pressure, 8, began + STALL), (0, None));
    assert_eq!(release(&mut pressure, 7, began + STALL), (0, ended(STALL)));
}

#[test]
fn without_stall_after_nothing_is_ever_isolated() {
    let start = Instant::now();
    let mut pressure = BackPressure::new(Rules {
        stall_after: None,
        ..rules(0)
    });
    pressure.arrived(PREFETCH, start);
    for seconds in 0..100 {
        let now = start + Duration::from_secs(60 * seconds);
        assert_eq!(release(&mut pressure, PREFETCH, now), (0, None));
        assert_eq!(pressure.next_change(PREFETCH), None);
    }
}
