//! What the fuzzers have found so far, and mutations of it that are the same in each run. And that
//! the readings of the rules see a library that breaks them.

mod planted;
mod replay;
