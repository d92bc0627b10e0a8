//! Another library of Rust, for a program that links two: it allocates, unwinds and formats.

use std::collections::HashMap;
use std::panic;

#[unsafe(no_mangle)]
pub extern "C" fn beside_sum(to: u32) -> u32 {
    panic::set_hook(Box::new(|_| {}));
    let caught = panic::catch_unwind(|| panic!("{}", "as planned"));
    let squares: HashMap<String, u32> = (1..=to).map(|n| (format!("{n}"), n)).collect();
    squares.values().sum::<u32>() + u32::from(caught.is_err())
}
