//! Tries every order in which the atomic operations of the library's own algorithms can meet.
//!
//! The files under test are the library's own, compiled with loom's primitives in the place of
//! std's and tokio's. Each model is also run on mutants of its file (`build.rs`), each in a process
//! of its own, and must fail there: that shows that it sees bugs of the kind.

// The library's files name these crates; here they are the modules below.
extern crate self as futures_util;
extern crate self as tokio;

mod models;
pub(crate) mod runtime;
pub(crate) mod sync;
pub(crate) mod task;
pub(crate) mod time;

pub(crate) mod broker {
    pub(crate) type Generation = u64;
}

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

const SIGABRT: i32 = 6;

static ORDERS: AtomicUsize = AtomicUsize::new(0);

/// Runs a model in every order; a panic or a deadlock in any of them ends this process.
fn every_order(model: impl Fn() + Send + Sync + 'static) -> usize {
    ORDERS.store(0, Ordering::Relaxed);
    let mut builder = loom::model::Builder::new();
    // Bugs that take more preemptions than this are said to be rare; unbounded takes hours.
    builder.preemption_bound.get_or_insert(3);
    builder.max_branches = 10_000;
    builder.check(move || {
        ORDERS.fetch_add(1, Ordering::Relaxed);
        model();
    });
    ORDERS.load(Ordering::Relaxed)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, name] = arguments.as_slice()
        && option == "--only"
    {
        return match models::ALL
            .iter()
            .copied()
            .flatten()
            .find(|model| model.name == name)
        {
            Some(model) => {
                println!("{}", every_order(model.run));
                ExitCode::SUCCESS
            }
            None => ExitCode::from(2),
        };
    }
    let Ok(program) = std::env::current_exe() else {
        return ExitCode::FAILURE;
    };
    let (mut passed, mut failed) = (0, 0);
    for model in models::ALL.iter().copied().flatten() {
        let mut command = Command::new(&program);
        command.args(["--only", model.name]);
        if model.mutant {
            command.stderr(Stdio::null());
        }
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => {
                println!("not ok {}: it does not run: {error}", model.name);
                failed += 1;
                continue;
            }
        };
        // loom panics, or cannot go on from a panic and aborts.
        let found = output.status.code() == Some(101) || output.status.signal() == Some(SIGABRT);
        let (right, seen) = if model.mutant {
            (found, "the planted bug is found".to_owned())
        } else {
            let orders = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (output.status.success(), format!("{orders} orders"))
        };
        if right {
            println!("ok {}: {seen}", model.name);
            passed += 1;
        } else {
            println!("not ok {}: it ended with {}", model.name, output.status);
            failed += 1;
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
