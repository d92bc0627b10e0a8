//! A program that calls the C API as its input says: any function, in any order, with good, wrong,
//! NULL and huge arguments, from up to three threads and from inside callbacks, on `memory://`
//! layers with either `dispatch`.
//!
//! It keeps the rules of the header itself (no handle is used once its `_free` has begun) and holds
//! the library to them: no crash, no hang, outputs and errors as promised, `destroy` exactly once
//! for each callback that was taken and never for one that was refused, no call after the last.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what may fail here is a mistake of the program itself"
)]

mod api;
mod callbacks;
mod model;
mod program;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use api::Api;
use model::{Dice, Report, World};

/// The longest that one call may take: all that waits is given well below a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// After so long a case is a hang.
const CASE: Duration = Duration::from_secs(120);

/// The most that one input does.
const MAX_ACTS: usize = 256;

/// Runs one program on the library as it is.
pub(crate) fn check(input: &[u8]) -> Result<(), String> {
    watch(Instant::now() + CASE);
    let report = run(Api::LIBRARY, PATIENCE, input);
    match report.wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(wrong.join("\n")),
    }
}

fn run(api: Api, patience: Duration, input: &[u8]) -> Report {
    let mut dice = Dice::new(input);
    let mode = dice.byte();
    let world = World::new(api, program::act, patience, MAX_ACTS, mode & 1 == 1);
    let rest = dice.rest();
    // The first layers, so that no input has to find out how to open one.
    program::open_first(&world, mode);
    let threads = match (mode >> 1) % 4 {
        0 | 1 => 1,
        threads => usize::from(threads),
    };
    let share = rest.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut parts = rest.chunks(share);
        let own = parts.next().unwrap_or_default();
        for part in parts {
            let world = &world;
            scope.spawn(move || program::obey(world, part));
        }
        program::obey(&world, own);
    });
    program::end(&world);
    world.report()
}

/// Ends the process with a word where a case is not over in time: a hang has no other witness.
fn watch(deadline: Instant) {
    static DEADLINE: OnceLock<Mutex<Instant>> = OnceLock::new();
    let mut started = false;
    let shared = DEADLINE.get_or_init(|| {
        started = true;
        Mutex::new(deadline)
    });
    *shared.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    if started {
        thread::spawn(move || {
            loop {
                let until = *shared.lock().unwrap_or_else(PoisonError::into_inner);
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() && model::busy() {
                    eprintln!("a program of the C API hangs: not over after {CASE:?}");
                    std::process::abort();
                }
                thread::sleep(left.max(Duration::from_secs(1)));
            }
        });
    }
}
