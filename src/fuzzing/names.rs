//! Lines as names.

use crate::error::{Error, ErrorKind};
use crate::name::{self, ChannelName};

use super::{Verdict, ensure};

/// What is under test; a test puts a broken one in its place.
pub(super) trait Names {
    fn parse_channel<'a>(&self, text: &'a str) -> Result<ChannelName<'a>, Error> {
        name::parse_channel(text)
    }

    fn validate_group(&self, text: &str) -> Result<(), Error> {
        name::validate_group(text)
    }

    fn validate_queue(&self, text: &str) -> Result<(), Error> {
        name::validate_queue(text)
    }

    fn channel(&self, queue: &str, prefix: &str, random: &[u8; 12]) -> Result<String, Error> {
        name::channel(queue, prefix, random)
    }
}

/// The library as it is.
pub(super) struct Library;

impl Names for Library {}

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";

fn plain(text: &str) -> bool {
    text.chars().all(|c| ALPHABET.contains(c))
}

fn agrees<T>(what: &str, text: &str, result: &Result<T, Error>, expected: bool) -> Verdict {
    match result {
        Ok(_) => ensure!(expected, "{text:?} was taken as a {what}"),
        Err(error) => {
            ensure!(!expected, "{text:?} was refused as a {what}: {error}");
            ensure!(error.kind() == ErrorKind::Invalid, "{:?}", error.kind());
            let said = error.to_string();
            ensure!(
                said.contains("allowed are") || said.contains("reserves"),
                "the error does not say what is allowed: {said}"
            );
            ensure!(said.len() < 1024, "an error of {} bytes", said.len());
            ensure!(!said.chars().any(char::is_control), "raw control: {said:?}");
        }
    }
    Ok(())
}

pub(super) fn check(names: &dyn Names, input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let mut queue = "q";
    for line in text.split('\n') {
        let parts: Vec<&str> = line.split('!').collect();
        let parsed = names.parse_channel(line);
        let good =
            line.len() < 100 && parts.len() == 2 && !parts[0].is_empty() && plain(&parts.concat());
        agrees("channel", line, &parsed, good)?;
        if let Ok(name) = parsed {
            let joined = format!("{}!{}", name.queue, name.local);
            ensure!(joined == line, "{line:?} was split to {joined:?}");
        }

        let good = (1..100).contains(&line.len()) && plain(line);
        agrees("group", line, &names.validate_group(line), good)?;

        let good = (1..=86).contains(&line.len()) && plain(line) && !line.starts_with("amq.");
        agrees("queue", line, &names.validate_queue(line), good)?;
        if good {
            queue = line;
        }

        // As a prefix, with a queue from an earlier line, and random bytes from this one.
        let mut random = [0; 12];
        for (to, from) in random.iter_mut().zip(line.bytes().rev()) {
            *to = from.wrapping_mul(31);
        }
        let made = names.channel(queue, line, &random);
        let good = plain(line) && queue.len() + 1 + line.len() + 12 < 100;
        agrees("prefix", line, &made, good)?;
        if let Ok(made) = made {
            agrees("new channel", &made, &names.parse_channel(&made), true)?;
            let begin = format!("{queue}!{line}");
            let letters = made.strip_prefix(&begin).unwrap_or_default();
            ensure!(
                letters.len() == 12 && letters.chars().all(|c| c.is_ascii_alphabetic()),
                "{made:?} is not {begin:?} and 12 letters"
            );
        }
    }
    Ok(())
}
