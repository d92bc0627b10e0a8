//! The committed corpora, and mutations of them, through what the fuzzers call.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fastrand::Rng;

use crate::fuzzing::{self, Verdict};

/// The longest input that is made here. What is larger is a file of the corpus.
const MAX_INPUT: usize = 2048;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The files of a corpus, in an order that does not depend on the machine.
pub(super) fn corpus(target: &str) -> Vec<Vec<u8>> {
    if !fuzz_folder().exists() {
        // A package of the library is without the fuzzers.
        return vec![Vec::new()];
    }
    let folder = fuzz_folder().join("corpus").join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "{} is no corpus", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The words of a dictionary, as libFuzzer reads it.
fn words(target: &str) -> Vec<Vec<u8>> {
    let path = fuzz_folder()
        .join("dictionaries")
        .join(format!("{target}.dict"));
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('"')?.1.strip_suffix('"'))
        .map(unescaped)
        .collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'x') => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other.unwrap(),
            },
            byte => byte,
        });
    }
    bytes
}

/// One to four small changes.
pub(super) fn mutated(rng: &mut Rng, corpus: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[rng.usize(..corpus.len())].clone();
    input.truncate(MAX_INPUT);
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=input.len());
        let end = rng.usize(at..=input.len().min(at + 8));
        match rng.usize(..8) {
            0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            1 if at < input.len() => input[at] = rng.u8(..),
            2 => drop(input.drain(at..end)),
            3 => input.insert(at, rng.u8(..)),
            4 if !words.is_empty() => {
                let word = &words[rng.usize(..words.len())];
                drop(input.splice(at..end, word.iter().copied()));
            }
            5 => {
                let other = &corpus[rng.usize(..corpus.len())];
                let from = rng.usize(..=other.len());
                let part = &other[from..other.len().min(from + 64)];
                drop(input.splice(at..end, part.iter().copied()));
            }
            6 => {
                let copy = input[at..end].to_vec();
                drop(input.splice(at..at, copy));
            }
            _ => input.truncate(at.max(1)),
        }
    }
    input.truncate(MAX_INPUT);
    input
}

/// How many mutations: as many as are named, or by an environment variable so many times more.
fn rounds(rounds: usize) -> usize {
    let factor = std::env::var("CHANNEL_LAYER_FUZZ_FACTOR");
    rounds * factor.map_or(1, |factor| factor.parse().expect("a whole number"))
}

fn replay(target: &str, check: fn(&[u8]) -> Verdict, mutations: usize) {
    let began = Instant::now();
    let (corpus, words) = (corpus(target), words(target));
    let one = |input: &[u8], what: &str| {
        if let Err(wrong) = check(input) {
            panic!("{target}, {what}: {wrong}\ninput: {}", input.escape_ascii());
        }
    };
    for (number, input) in corpus.iter().enumerate() {
        one(input, &format!("file {number} of the corpus"));
    }
    let mutations = rounds(mutations);
    let mut rng = Rng::with_seed(3);
    for number in 0..mutations {
        let input = mutated(&mut rng, &corpus, &words);
        one(&input, &format!("mutation {number}"));
    }
    eprintln!(
        "fuzz {target}: {} files and {mutations} mutations in {:.1?}, no finding",
        corpus.len(),
        began.elapsed()
    );
}

#[test]
fn hostile_bytes_are_read_by_the_rules_of_the_wire() {
    replay("wire", fuzzing::wire, 4000);
}

#[test]
fn hostile_options_are_taken_by_their_table() {
    replay("options", fuzzing::options, 4000);
}

#[test]
fn hostile_names_are_taken_by_their_rule() {
    replay("names", fuzzing::names, 4000);
}

#[test]
fn hostile_json_is_taken_as_serde_json_takes_it() {
    replay("json", fuzzing::json, 4000);
}

#[test]
fn hostile_streams_are_split_by_the_rules_of_amqp() {
    replay("amqp", fuzzing::amqp, 4000);
}

#[test]
fn hostile_programs_find_the_c_api_as_its_header_says() {
    replay("c_api", fuzzing::c_api, 1000);
}
