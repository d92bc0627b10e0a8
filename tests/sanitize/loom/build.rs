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
    as_it_is("attention", "broker/rabbitmq/attention.rs"),
    as_it_is("attention_at_the_end", "broker/rabbitmq/attention.rs"),
    as_it_is("in_flight", "broker/rabbitmq/in_flight.rs"),
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
        name: "doorbell_wakes_first",
        file: "broker/rabbitmq/doorbell.rs",
        changes: &[(
            concat!(
                "if !self.rung.swap(true, Ordering::AcqRel) {\n",
                "            self.publisher.wake();\n",
                "        }",
            ),
            "self.publisher.wake();\n        self.rung.swap(true, Ordering::AcqRel);",
        )],
    },
    Mutant {
        name: "attention_looks_first",
        file: "broker/rabbitmq/attention.rs",
        changes: &[(
            concat!(
                "self.place.store(place as u8, Ordering::SeqCst);\n",
                "        let may_go = self.told.load(Ordering::SeqCst) == 0;",
            ),
            concat!(
                "let may_go = self.told.load(Ordering::SeqCst) == 0;\n",
                "        self.place.store(place as u8, Ordering::SeqCst);",
            ),
        )],
    },
    Mutant {
        name: "attention_acquire_release",
        file: "broker/rabbitmq/attention.rs",
        changes: &[
            (
                "self.told.fetch_or(what, Ordering::SeqCst)",
                "self.told.fetch_or(what, Ordering::AcqRel)",
            ),
            (
                "self.place.load(Ordering::SeqCst)",
                "self.place.load(Ordering::Acquire)",
            ),
            (
                "self.place.store(place as u8, Ordering::SeqCst)",
                "self.place.store(place as u8, Ordering::Release)",
            ),
            (
                "self.told.load(Ordering::SeqCst)",
                "self.told.load(Ordering::Acquire)",
            ),
        ],
    },
    Mutant {
        name: "attention_tells_the_gone_once",
        file: "broker/rabbitmq/attention.rs",
        changes: &[("Place::Gone => Place::Gone,\n            _ if", "_ if")],
    },
    Mutant {
        name: "in_flight_forgets_late",
        file: "broker/rabbitmq/in_flight.rs",
        changes: &[
            (
                "slot.wake.queued.swap(false, Ordering::AcqRel);",
                "let _ = slot;",
            ),
            (
                "if let Some((key, output)) = self.poll(index) {",
                "let polled = self.poll(index);\n\
                 if let Some(slot) = self.slots.get(index) {\n\
                     slot.wake.queued.swap(false, Ordering::AcqRel);\n\
                 }\n\
                 if let Some((key, output)) = polled {",
            ),
        ],
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
        // What `include!` does not take.
        let text: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("//!"))
            .collect();
        fs::write(
            Path::new(&output).join(format!("{}.rs", mutant.name)),
            text.join("\n"),
        )?;
    }
    Ok(())
}
