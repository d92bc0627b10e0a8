//! Names of channels, groups and queues: which are valid, how a channel name is taken apart, and
//! how a new one is made of random bytes.

use std::fmt;

use crate::error::Error;

/// The longest name of a channel or a group, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 99;

/// How many random letters end the name of a new channel, or of a queue.
pub(crate) const RANDOM_LETTERS: usize = 12;

/// The longest name of our own queue: there must be room for `!` and a random local part.
const MAX_QUEUE_BYTES: usize = MAX_NAME_BYTES - 1 - RANDOM_LETTERS;

/// What a queue name of ours begins with, as that of a Python peer does.
const QUEUE_PREFIX: &str = "channels_";

/// How much of a wrong value an error repeats, in characters.
const MAX_QUOTED_CHARS: usize = 64;

/// The two parts of a channel name, `queue!local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelName<'a> {
    /// The queue of the process that owns the channel. Never empty.
    pub(crate) queue: &'a str,
    /// What tells the channels of one process apart. May be empty.
    pub(crate) local: &'a str,
}

/// Takes a channel name apart.
pub(crate) fn parse_channel(name: &str) -> Result<ChannelName<'_>, Error> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!(
            "channel name {} {why}; allowed are ASCII letters, digits, '-', '_' and '.', with \
             exactly one '!' after the queue name, at most {MAX_NAME_BYTES} bytes",
            Quoted(name),
        )))
    };
    if name.len() > MAX_NAME_BYTES {
        return refuse(&format!("is {} bytes long", name.len()));
    }
    let Some((queue, local)) = name.split_once('!') else {
        return refuse("has no '!'");
    };
    if local.contains('!') {
        return refuse("has more than one '!'");
    }
    if queue.is_empty() {
        return refuse("has no queue name before the '!'");
    }
    if let Some(c) = first_bad_char(queue).or_else(|| first_bad_char(local)) {
        return refuse(&format!("holds {c:?}"));
    }
    Ok(ChannelName { queue, local })
}

/// Whether a group may have this name.
pub(crate) fn validate_group(name: &str) -> Result<(), Error> {
    validate_plain("group name", name, MAX_NAME_BYTES)
}

/// Whether our own queue may have this name (option `queue_name`).
pub(crate) fn validate_queue(name: &str) -> Result<(), Error> {
    validate_plain("queue name", name, MAX_QUEUE_BYTES)?;
    // RabbitMQ keeps this prefix for itself and refuses to declare such a queue.
    if name.starts_with("amq.") {
        return Err(Error::invalid(format!(
            "queue name {} begins with 'amq.', which RabbitMQ reserves for itself",
            Quoted(name)
        )));
    }
    Ok(())
}

/// The name of a new channel on `queue`: `prefix` and 12 letters made of random bytes.
pub(crate) fn channel(
    queue: &str,
    prefix: &str,
    random: &[u8; RANDOM_LETTERS],
) -> Result<String, Error> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!(
            "channel prefix {} {why}; allowed are ASCII letters, digits, '-', '_' and '.', on \
             this queue at most {} of them",
            Quoted(prefix),
            MAX_QUEUE_BYTES.saturating_sub(queue.len()),
        )))
    };
    if let Some(c) = first_bad_char(prefix) {
        return refuse(&format!("holds {c:?}"));
    }
    if queue.len() + prefix.len() > MAX_QUEUE_BYTES {
        return refuse(&format!("is {} bytes long", prefix.len()));
    }
    let mut name = String::with_capacity(MAX_NAME_BYTES);
    name.push_str(queue);
    name.push('!');
    name.push_str(prefix);
    name.extend(letters(random));
    Ok(name)
}

/// The name of a new queue: `channels_` and 12 letters made of random bytes.
pub(crate) fn queue(random: &[u8; RANDOM_LETTERS]) -> String {
    let mut name = String::from(QUEUE_PREFIX);
    name.extend(letters(random));
    name
}

/// Another name for a queue that was first called `first`. It begins with that name if a user chose it,
/// since the user's rights on the broker may go by it.
pub(crate) fn other_queue(first: &str, random: &[u8; RANDOM_LETTERS]) -> String {
    let is_made = first
        .strip_prefix(QUEUE_PREFIX)
        .is_some_and(|rest| rest.len() == RANDOM_LETTERS);
    if is_made {
        return queue(random);
    }
    let room = MAX_QUEUE_BYTES - 1 - RANDOM_LETTERS;
    let mut name: String = first.chars().take(room).collect();
    name.push('_');
    name.extend(letters(random));
    name
}

/// A wrong value as an error shows it: escaped, in quotes, and cut to a sane length.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(MAX_QUOTED_CHARS) {
            Some((end, _)) => write!(f, "{:?}...", self.0.get(..end).unwrap_or_default()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// Checks a name that holds no '!'.
fn validate_plain(what: &str, name: &str, max: usize) -> Result<(), Error> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!(
            "{what} {} {why}; allowed are ASCII letters, digits, '-', '_' and '.', 1 to {max} of \
             them",
            Quoted(name),
        )))
    };
    if name.is_empty() {
        return refuse("is empty");
    }
    if name.len() > max {
        return refuse(&format!("is {} bytes long", name.len()));
    }
    match first_bad_char(name) {
        Some(c) => refuse(&format!("holds {c:?}")),
        None => Ok(()),
    }
}

fn first_bad_char(text: &str) -> Option<char> {
    // Bytes first: this runs for each send, and a name is nearly always good. All of them, since
    // without a way out in the middle the processor takes many at once.
    if text
        .bytes()
        .fold(true, |good, byte| good & is_name_byte(byte))
    {
        return None;
    }
    text.chars().find(|c| {
        !u8::try_from(u32::from(*c)).is_ok_and(is_name_byte) // also false for what is not ASCII
    })
}

/// Whether a name may hold this byte.
pub(crate) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// One of the 52 ASCII letters for each byte.
/// The letters of a name that random bytes make.
pub(crate) fn letters(random: &[u8; RANDOM_LETTERS]) -> impl Iterator<Item = char> {
    random.iter().map(|byte| {
        let letter = byte % 52;
        char::from(match letter {
            0..26 => b'a' + letter,
            _ => b'A' + (letter - 26),
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::ErrorKind;

    /// Refused, with each of these facts: the name or what is wrong in it, or a length.
    fn refused(result: Result<impl fmt::Debug, Error>, facts: &[&str]) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let message = error.message();
        for fact in facts {
            assert!(message.contains(fact), "{message:?} lacks {fact:?}");
        }
    }

    #[test]
    fn a_channel_name_is_a_queue_and_a_local_part() {
        let name = parse_channel("channels_abc!specific.Az-0_9").unwrap();
        assert_eq!(name.queue, "channels_abc");
        assert_eq!(name.local, "specific.Az-0_9");
        assert_eq!(parse_channel("q!").unwrap().local, "");
        let longest = format!("q!{}", "x".repeat(MAX_NAME_BYTES - 2));
        assert_eq!(parse_channel(&longest).unwrap().local.len(), 97);
    }

    #[test]
    fn a_bad_channel_name_is_refused_and_shown_with_what_is_wrong_in_it() {
        for name in ["", "queue", "a!b!c", "a!!", "!local"] {
            refused(parse_channel(name), &[&format!("{name:?}"), "'!'"]);
        }
        refused(parse_channel("a b!c"), &[r#""a b!c""#, "' '"]);
        refused(parse_channel("a!b/c"), &[r#""a!b/c""#, "'/'"]);
        refused(parse_channel("a!b\0"), &["'\\0'"]);
        refused(parse_channel("a!h\u{e9}"), &["'\u{e9}'"]);
        refused(parse_channel("\u{e9}!a"), &["'\u{e9}'"]);
        refused(
            parse_channel(&format!("q!{}", "x".repeat(MAX_NAME_BYTES - 1))),
            &["100", "99"],
        );
    }

    #[test]
    fn a_group_name_has_no_exclamation_mark() {
        validate_group("room.1_a-B").unwrap();
        validate_group(&"g".repeat(MAX_NAME_BYTES)).unwrap();
        refused(validate_group(""), &[r#""""#]);
        refused(validate_group("a!b"), &[r#""a!b""#, "'!'"]);
        refused(validate_group("a\nb"), &[r#""a\nb""#, r"'\n'"]);
        refused(
            validate_group(&"g".repeat(MAX_NAME_BYTES + 1)),
            &["100", "99"],
        );
    }

    #[test]
    fn a_queue_name_leaves_room_for_a_new_channel() {
        let longest = "q".repeat(86);
        validate_queue(&longest).unwrap();
        let name = channel(&longest, "", &[7; 12]).unwrap();
        assert_eq!(name.len(), MAX_NAME_BYTES);
        parse_channel(&name).unwrap();
        refused(validate_queue(&"q".repeat(87)), &["87", "86"]);
        refused(validate_queue(""), &[r#""""#]);
        refused(validate_queue("a!b"), &[r#""a!b""#, "'!'"]);
        validate_queue("amq-gen-1").unwrap();
        refused(validate_queue("amq.gen-1"), &[r#""amq.gen-1""#, "'amq.'"]);
    }

    #[test]
    fn new_names_are_made_of_the_random_bytes() {
        let random = [0, 25, 26, 51, 52, 255, 1, 2, 3, 4, 5, 6];
        assert_eq!(queue(&random), "channels_azAZaVbcdefg");
        validate_queue(&queue(&random)).unwrap();
        assert_eq!(
            channel("channels_x", "ws.", &random).unwrap(),
            "channels_x!ws.azAZaVbcdefg"
        );
        for byte in 0..=u8::MAX {
            parse_channel(&channel("q", "", &[byte; 12]).unwrap()).unwrap();
        }
    }

    #[test]
    fn another_queue_begins_with_the_name_that_a_user_chose() {
        let random = [0; RANDOM_LETTERS];
        assert_eq!(other_queue("game-1", &random), "game-1_aaaaaaaaaaaa");
        assert_eq!(other_queue(&queue(&[1; 12]), &random), queue(&random));
        let longest = "q".repeat(MAX_QUEUE_BYTES);
        for first in [longest.as_str(), &longest[1..], &longest[13..]] {
            let other = other_queue(first, &random);
            assert!(validate_queue(&other).is_ok(), "{other}");
            assert_ne!(&other, first);
        }
    }

    #[test]
    fn a_bad_prefix_is_refused() {
        refused(channel("q", "a!", &[0; 12]), &[r#""a!""#, "'!'"]);
        refused(channel("q", "a b", &[0; 12]), &[r#""a b""#, "' '"]);
        let longest = "p".repeat(85);
        assert_eq!(
            channel("q", &longest, &[0; 12]).unwrap().len(),
            MAX_NAME_BYTES
        );
        refused(
            channel("q", &format!("{longest}p"), &[0; 12]),
            &["86", "85"],
        );
        refused(channel(&"q".repeat(200), "p", &[0; 12]), &[r#""p""#]);
    }

    #[test]
    fn a_long_value_is_cut_in_an_error() {
        let shown = Quoted(&"\u{e9}".repeat(100_000)).to_string();
        assert_eq!(shown.chars().count(), MAX_QUOTED_CHARS + 5);
        assert!(shown.ends_with("\"..."));
        assert_eq!(Quoted("a\0\"").to_string(), r#""a\0\"""#);
    }
}
