//! What can be timed and counted, without what goes before and after it.

use std::hint::black_box;

/// Something to be measured.
pub struct Case {
    /// What it is, as `part/what/how_much`.
    pub name: &'static str,
    /// How often to repeat it where it is counted.
    pub repeat: usize,
    /// Makes what it works on.
    pub prepare: fn() -> Box<dyn Work>,
}

impl Case {
    pub(crate) fn new(name: &'static str, repeat: usize, prepare: fn() -> Box<dyn Work>) -> Self {
        Self {
            name,
            repeat,
            prepare,
        }
    }
}

/// Only `run` is measured.
///
/// It is called by way of a vtable, so that all of it is compiled in this crate, as it is in the
/// library, and not in each program that measures.
pub trait Work {
    /// Makes what `count` repetitions consume.
    fn feed(&mut self, count: usize);
    /// Does these repetitions.
    fn run(&mut self);
    /// Drops what they have made.
    fn clear(&mut self);
}

/// `operation` leaves all as it was, so that it can be repeated.
pub(crate) fn steady<R>(operation: impl FnMut() -> R + 'static) -> Box<dyn Work> {
    Box::new(Steady {
        operation,
        count: 0,
    })
}

struct Steady<F> {
    operation: F,
    count: usize,
}

impl<R, F: FnMut() -> R> Work for Steady<F> {
    fn feed(&mut self, count: usize) {
        self.count = count;
    }

    fn run(&mut self) {
        for _ in 0..self.count {
            black_box((self.operation)());
        }
    }

    fn clear(&mut self) {}
}

/// Each `operation` consumes what `make` has made; what it returns is dropped later.
pub(crate) fn fed<I: 'static, O: 'static>(
    make: impl FnMut() -> I + 'static,
    operation: impl FnMut(I) -> O + 'static,
) -> Box<dyn Work> {
    Box::new(Fed {
        make,
        operation,
        inputs: Vec::new(),
        outputs: Vec::new(),
    })
}

struct Fed<I, O, M, F> {
    make: M,
    operation: F,
    inputs: Vec<I>,
    outputs: Vec<O>,
}

impl<I, O, M: FnMut() -> I, F: FnMut(I) -> O> Work for Fed<I, O, M, F> {
    fn feed(&mut self, count: usize) {
        self.inputs.reserve(count);
        for _ in 0..count {
            self.inputs.push((self.make)());
        }
        self.outputs.reserve(count);
    }

    fn run(&mut self) {
        for input in self.inputs.drain(..) {
            self.outputs
                .push(black_box((self.operation)(black_box(input))));
        }
    }

    fn clear(&mut self) {
        self.outputs.clear();
    }
}
