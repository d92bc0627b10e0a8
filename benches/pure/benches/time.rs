//! The cases by the clock. `--help` says what criterion can do.

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use pure::{Case, cases};

/// How many repetitions are fed at once, at most, as a multiple of what is counted: a case that
/// works on much is counted a few times only.
const BATCH: u64 = 10;

fn time(case: &Case, criterion: &mut Criterion) {
    let batch = case.repeat as u64 * BATCH;
    let mut work = None;
    criterion.bench_function(case.name, |bencher| {
        // Only if this case was chosen, and once for all samples.
        let work = work.get_or_insert_with(case.prepare);
        bencher.iter_custom(|count| {
            let (mut left, mut took) = (count, Duration::ZERO);
            while left > 0 {
                let now = left.min(batch);
                work.feed(usize::try_from(now).expect("a batch is small"));
                let start = Instant::now();
                work.run();
                took += start.elapsed();
                work.clear();
                left -= now;
            }
            took
        });
    });
}

fn all(criterion: &mut Criterion) {
    for case in cases() {
        time(&case, criterion);
    }
}

criterion_group! {
    name = benches;
    // Half of criterion's times: there are many cases, and few of them take long.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(2500));
    targets = all
}
criterion_main!(benches);
