//! Counts allocations, and prints a line for each case: its name, how often it was repeated, and how
//! many allocations of how many bytes that took. `count NAME...` does only these cases.
//!
//! Under callgrind, `counts.py` has it collect only while `measured` runs, once for each case.
#![allow(unsafe_code, reason = "an allocator is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use pure::{Case, Work};

/// The allocator of the system, counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: all is done by the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the rules.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the rules.
        unsafe { System.alloc_zeroed(layout) }
    }

    /// Counts as one more, of its new size: it may have to copy.
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the rules.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What callgrind collects, found by this name.
#[inline(never)]
fn measured(work: &mut dyn Work) {
    work.run();
    // No jump instead of a call: callgrind shall see the end of this function.
    black_box(());
}

fn allocated() -> (u64, u64) {
    (
        ALLOCATIONS.load(Ordering::Relaxed),
        BYTES.load(Ordering::Relaxed),
    )
}

fn count_case(case: &Case) {
    let mut work = (case.prepare)();
    // Once before, for what is done only the first time.
    work.feed(1);
    work.run();
    work.clear();

    work.feed(case.repeat);
    let before = allocated();
    measured(&mut *work);
    let after = allocated();
    work.clear();
    println!(
        "{} {} {} {}",
        case.name,
        case.repeat,
        after.0 - before.0,
        after.1 - before.1
    );
}

fn main() -> ExitCode {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let mut cases = pure::cases();
    if let Some(unknown) = chosen
        .iter()
        .find(|name| cases.iter().all(|case| case.name != **name))
    {
        eprintln!("count: there is no case '{unknown}'");
        return ExitCode::from(2);
    }
    if !chosen.is_empty() {
        cases.retain(|case| chosen.iter().any(|name| name == case.name));
    }
    for case in &cases {
        count_case(case);
    }
    ExitCode::SUCCESS
}
