//! What is passed: names, messages and callbacks, good ones and bad ones.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use crate::ffi::callback::{layer_destroy_cb, layer_done_cb};

use crate::ffi::fuzzing::callbacks::{on_destroy, on_done};
use crate::ffi::fuzzing::model::{Arguments, Dice, Handle, Kind, To, Token, World, lock};

/// A string, or NULL; and whether it is what it should be.
pub(super) struct Text {
    pub(super) text: Option<CString>,
    pub(super) good: bool,
}

impl Text {
    pub(super) fn new(bytes: &[u8], good: impl FnOnce(&str) -> bool) -> Self {
        let good = str::from_utf8(bytes).is_ok_and(good);
        let text = CString::new(bytes).expect("no text here holds a NUL");
        Self {
            text: Some(text),
            good,
        }
    }

    pub(super) fn null() -> Self {
        Self {
            text: None,
            good: false,
        }
    }

    pub(super) fn pointer(&self) -> *const c_char {
        self.text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
    }

    pub(super) fn str(&self) -> String {
        let text = self.text.as_deref().unwrap_or_default();
        text.to_string_lossy().into_owned()
    }
}

pub(super) fn plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

pub(super) fn is_channel(text: &str) -> bool {
    text.len() < 100
        && text.split('!').count() == 2
        && !text.starts_with('!')
        && plain(&text.replacen('!', "", 1))
}

pub(super) fn is_group(text: &str) -> bool {
    (1..100).contains(&text.len()) && plain(text)
}

/// Strings that are no name of anything.
pub(super) fn odd(dice: &mut Dice<'_>) -> Text {
    const ODD: &[&[u8]] = &[
        b"",
        b"!",
        b"a!b!c",
        b"!a",
        b"a b!c",
        b"a!\xff",
        b"\xed\xa0\x80",
        b"a/b",
        b"\x01",
        "g\u{e9}!x".as_bytes(),
        b"a!b\n",
    ];
    match dice.below(ODD.len() + 3) {
        0 => Text::null(),
        1 => Text::new(&b"x".repeat(100_000), |_| false),
        2 => Text::new(&[b"q!", &b"y".repeat(98)[..]].concat(), |_| false),
        n => Text::new(ODD[n - 3], |_| false),
    }
}

/// A channel, of the layer in the slot as a rule.
pub(super) fn channel(world: &World, dice: &mut Dice<'_>, slot: usize) -> Text {
    let how = dice.below(16);
    let own = world.facts(slot).filter(|_| how < 11);
    let known = match own {
        Some(facts) => lock(&facts.channels).clone(),
        None => lock(&world.channels).clone(),
    };
    match how {
        14 => odd(dice),
        15 => Text::new(b"nobody!here", is_channel),
        _ if known.is_empty() => Text::new(b"nobody!there", is_channel),
        n => {
            let name = &known[dice.below(known.len())];
            match n {
                // Of the same queue, and made up.
                13 => {
                    let queue = name.split('!').next().unwrap_or_default();
                    Text::new(format!("{queue}!").as_bytes(), is_channel)
                }
                _ => Text::new(name.as_bytes(), is_channel),
            }
        }
    }
}

pub(super) fn group(dice: &mut Dice<'_>) -> Text {
    match dice.below(16) {
        15 => odd(dice),
        14 => Text::new(&b"g".repeat(99), is_group),
        n => Text::new([&b"g0"[..], b"g1", b"g2"][n % 3], is_group),
    }
}

pub(super) fn own(text: &Text, handle: Option<&Handle>) -> bool {
    let queue = handle.and_then(|handle| handle.facts.queue.get());
    text.good && text.str().split('!').next() == queue.map(String::as_str)
}

/// A slot, with a layer in it as a rule; or one that is none, for NULL.
pub(super) fn slot(world: &World, dice: &mut Dice<'_>) -> usize {
    match dice.below(16) {
        15 => 3,
        n => (0..3)
            .map(|other| (n + other) % 3)
            .find(|slot| world.facts(*slot).is_some())
            .unwrap_or(n % 3),
    }
}

/// A message, or what is none.
pub(super) struct Payload {
    pub(super) bytes: Vec<u8>,
    /// Instead of the bytes.
    pub(super) pointer: Option<(*const u8, usize)>,
    pub(super) arguments: Arguments,
    pub(super) number: Option<u64>,
}

impl Payload {
    pub(super) fn pointer(&self) -> (*const u8, usize) {
        self.pointer
            .unwrap_or((self.bytes.as_ptr(), self.bytes.len()))
    }
}

pub(super) fn payload(world: &World, dice: &mut Dice<'_>, to: To) -> Payload {
    const BAD: &[&[u8]] = &[
        b"",
        b"\x80\x80",
        b"\x81\xa1a",
        b"\x81\x01\x01",
        b"\x81\xa1a\xd4\x05\x00",
        b"\xc1",
        b"\x81\xa1a\xa1\xff",
        b"\x81\xb0__asgi_channel__\xa3a!b",
        b"\x91\x80",
        b"\xdf\xff\xff\xff\xff\xa1a\x01",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ];
    let plain = |bytes: Vec<u8>, arguments| Payload {
        bytes,
        pointer: None,
        arguments,
        number: None,
    };
    match dice.below(16) {
        11 => plain(dice.pick(BAD).to_vec(), Arguments::Bad),
        12 => plain(dice.bytes(12).to_vec(), Arguments::Unknown),
        13 => plain([b"\x81\xa1v", dice.bytes(12)].concat(), Arguments::Unknown),
        14 => plain(
            [b"\x81\xa1a", &b"\x91".repeat(10_000)[..], b"\xc0"].concat(),
            Arguments::Bad,
        ),
        15 => {
            let mut payload = plain(vec![0x80], Arguments::Bad);
            // Lengths that no object has, which is to be seen before the bytes are.
            payload.pointer = Some(match dice.below(3) {
                0 => (ptr::null(), 0),
                1 => (ptr::null(), usize::MAX),
                _ => (payload.bytes.as_ptr(), usize::MAX),
            });
            payload
        }
        n => {
            let number = world.sends(to);
            let mut bytes = vec![if n > 8 { 0x83 } else { 0x82 }];
            bytes.extend_from_slice(b"\xa4type\xa1t\xa1n\xce");
            bytes.extend_from_slice(&(number as u32).to_be_bytes());
            if n > 8 {
                bytes.extend_from_slice(b"\xa1b\xc5\x0b\xb8");
                bytes.resize(bytes.len() + 3000, 0xa5);
            }
            let mut payload = plain(bytes, Arguments::Good);
            payload.number = Some(number);
            payload
        }
    }
}

pub(super) fn json(world: &World, dice: &mut Dice<'_>, to: To) -> (Text, Option<u64>) {
    const BAD: &[&[u8]] = &[
        b"",
        b"[]",
        b"{",
        b"{\"a\":1,\"a\":2}",
        b"{\"a\":18446744073709551616}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\xff\"}",
        b"{\"__asgi_group__\":\"g\"}",
        b"{\"a\":\"\xef\xbf\xbf?\"}",
        b"{}x",
        b"nul",
    ];
    match dice.below(8) {
        6 => (Text::new(dice.pick(BAD), |_| false), None),
        7 => match dice.below(2) {
            0 => (Text::null(), None),
            _ => (Text::new(&b"{\"a\":".repeat(10_000), |_| false), None),
        },
        _ => {
            let number = world.sends(to);
            let text = format!("{{\"type\":\"t\",\"n\":{number}}}");
            (Text::new(text.as_bytes(), |_| true), Some(number))
        }
    }
}

/// A callback to hand in: function, token, destroy.
pub(super) struct Given {
    pub(super) token: Arc<Token>,
    pub(super) is_null: bool,
    pub(super) destroy: layer_destroy_cb,
}

pub(super) fn give(
    world: &Arc<World>,
    dice: &mut Dice<'_>,
    kind: Kind,
    message: Option<u64>,
) -> Given {
    let how = dice.byte();
    // Whether events are over is known by their destroy alone.
    let has_destroy = how & 7 != 7 || matches!(kind, Kind::Log | Kind::State | Kind::Isolation);
    let script = dice.bytes(usize::from(how >> 4) % 10);
    Given {
        token: world.token(kind, has_destroy, script, message),
        is_null: how & 8 == 8 && how & 3 == 3,
        destroy: has_destroy.then_some(on_destroy),
    }
}

pub(super) fn done(given: &Given) -> layer_done_cb {
    if given.is_null { None } else { Some(on_done) }
}
