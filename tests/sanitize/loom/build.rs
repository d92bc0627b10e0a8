//! Puts the library's own files where the models find them, and mutants of them: each with a bug
//! planted, which a model must find.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

struct Mutant {
    name: &'static str,
    file: &'static str,
    changes: &'static [(&'static str, &'static str)],
}

const fn as_it_is(name: &'static str, file: &'static str) -> Mutant {
    Mutant {
        name,
        file,
        changes: &[],
    }
}

const FILES: &[Mutant] = &[
    as_it_is("doorbell", "broker/rabbitmq/doorbell.rs"),
    as_it_is("wakeup", "broker/rabbitmq/io/wakeup.rs"),
    as_it_is("credit", "broker/rabbitmq/credit.rs"),
    as_it_is("credit_generations", "broker/rabbitmq/credit.rs"),
    as_it_is("closing", "layer/closing.rs"),
    as_it_is("timekeeper", "layer/timekeeper.rs"),
    as_it_is("timekeeper_again", "layer/timekeeper.rs"),
    Mutant {
        name: "doorbell_relaxed",
        file: "broker/rabbitmq/doorbell.rs",
        changes: &[(
            "swap(true, Ordering::AcqRel)",
            "swap(true, Ordering::Relaxed)",
        )],
    },
    Mutant {
        name: "doorbell_looks_first",
        file: "broker/rabbitmq/doorbell.rs",
        changes: &[(
            "!self.0.swap(true, Ordering::AcqRel)",
            concat!(
                "let was = self.0.load(Ordering::SeqCst);\n",
                "        self.0.store(true, Ordering::SeqCst);\n",
                "        !was",
            ),
        )],
    },
    Mutant {
        name: "wakeup_looks_first",
        file: "broker/rabbitmq/io/wakeup.rs",
        changes: &[(
            "if self.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {",
            concat!(
                "let was = self.state.load(Ordering::SeqCst);\n",
                "        self.state.store(NOTIFIED, Ordering::SeqCst);\n",
                "        if was == ASLEEP {",
            ),
        )],
    },
    Mutant {
        name: "wakeup_sleeps_though_told",
        file: "broker/rabbitmq/io/wakeup.rs",
        changes: &[("asleep.is_ok()", "let _ = asleep;\n        true")],
    },
    // Without reading what it overwrites, the thread need not see what was done before.
    Mutant {
        name: "wakeup_stores",
        file: "broker/rabbitmq/io/wakeup.rs",
        changes: &[(
            "self.state.swap(AWAKE, Ordering::SeqCst);",
            "self.state.store(AWAKE, Ordering::Release);",
        )],
    },
    Mutant {
        name: "credit_acquire_release",
        file: "broker/rabbitmq/credit.rs",
        changes: &[
            (
                "self.wake_at.store(count, Ordering::SeqCst)",
                "self.wake_at.store(count, Ordering::Release)",
            ),
            (
                "self.wake_at.load(Ordering::SeqCst)",
                "self.wake_at.load(Ordering::Acquire)",
            ),
            (
                "self.word.load(Ordering::SeqCst)",
                "self.word.load(Ordering::Acquire)",
            ),
        ],
    },
    Mutant {
        name: "credit_of_any_generation",
        file: "broker/rabbitmq/credit.rs",
        changes: &[(
            "(current == generation as u32).then(||",
            "Some(current).map(|_|",
        )],
    },
    Mutant {
        name: "closing_looks_first",
        file: "layer/closing.rs",
        changes: &[(
            concat!(
                "self.calls.fetch_add(1, Ordering::SeqCst);\n",
                "        let call = InCall(self);\n",
                "        self.not_begun().then_some(call)",
            ),
            concat!(
                "let open = self.not_begun();\n",
                "        self.calls.fetch_add(1, Ordering::SeqCst);\n",
                "        let call = InCall(self);\n",
                "        open.then_some(call)",
            ),
        )],
    },
    Mutant {
        name: "closing_tells_without_the_lock",
        file: "layer/closing.rs",
        changes: &[("drop(self.0.progress.lock());", "")],
    },
    Mutant {
        name: "timekeeper_is_not_told",
        file: "layer/timekeeper.rs",
        changes: &[("self.rearmed.notify_one();", "")],
    },
    Mutant {
        name: "timekeeper_unarms_late",
        file: "layer/timekeeper.rs",
        changes: &[
            ("self.armed.store(UNARMED, Ordering::SeqCst);", ""),
            (
                "let Some(next) = next_due() else {\n                return;\n            };",
                "let Some(next) = next_due() else {\n                return;\n            };\n\
                 self.armed.store(UNARMED, Ordering::SeqCst);",
            ),
        ],
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    let source = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../../src");
    let output = env::var("OUT_DIR")?;
    println!("cargo:rerun-if-changed=build.rs");
    for mutant in FILES {
        let file = source.join(mutant.file);
        println!("cargo:rerun-if-changed={}", file.display());
        let mut text = fs::read_to_string(&file)?;
        for (from, to) in mutant.changes {
            if text.matches(from).count() != 1 {
                return Err(format!(
                    "mutant {}: {} does not hold exactly once: {from}",
                    mutant.name, mutant.file
                )
                .into());
            }
            text = text.replace(from, to);
        }
        // What `include!` does not take, and a module that is not there.
        let text: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("//!"))
            .collect();
        let text = text
            .join("\n")
            .replace("pub(in crate::broker::rabbitmq)", "pub(crate)");
        fs::write(Path::new(&output).join(format!("{}.rs", mutant.name)), text)?;
    }
    Ok(())
}
