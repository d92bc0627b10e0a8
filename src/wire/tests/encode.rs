//! What goes out, and what does not.

use super::*;

fn refused(message: &[u8], with: &str) {
    let result = encode(message, TO_GROUP, NO_LIMIT);
    assert_refused(result, ErrorKind::Invalid, with);
}

#[test]
fn the_body_is_that_of_a_python_peer() {
    let message = b"\x82\xa4type\xacchat.message\xa4text\xa2hi";
    assert_eq!(
        encode(message, TO_CHANNEL, NO_LIMIT).unwrap(),
        PYTHON_CHANNEL
    );

    let cut = PYTHON_GROUP.len() - 22;
    let message = [b"\x84", &PYTHON_GROUP[1..cut]].concat();
    let to = Recipient::Group("room.1");
    assert_eq!(encode(&message, to, NO_LIMIT).unwrap(), PYTHON_GROUP);

    // The head grows from one byte to three.
    let cut = PYTHON_MAP16.len() - GROUP_ENTRY.len();
    let message = [b"\x8f", &PYTHON_MAP16[3..cut]].concat();
    assert_eq!(encode(&message, TO_GROUP, NO_LIMIT).unwrap(), PYTHON_MAP16);
}

#[test]
fn entries_go_out_as_they_are() {
    // A long head for a short map, a long string head, a wide integer, float 32.
    let entries = b"\xd9\x01a\xd3\x00\x00\x00\x00\x00\x00\x00\x01\xa1f\xca\x3f\x00\x00\x00";
    for head in [&b"\x82"[..], b"\xde\x00\x02", b"\xdf\x00\x00\x00\x02"] {
        let message = [head, entries].concat();
        let body = encode(&message, TO_GROUP, NO_LIMIT).unwrap();
        assert_eq!(body, [b"\x83", &entries[..], GROUP_ENTRY].concat());
        assert_eq!(body.capacity(), body.len());
    }
    let body = encode(b"\x80", TO_GROUP, NO_LIMIT).unwrap();
    assert_eq!(body, [b"\x81", GROUP_ENTRY].concat());
}

#[test]
fn integers_above_signed_64_bits_go_out() {
    let cut = PYTHON_UINT64.len() - GROUP_ENTRY.len();
    let message = [b"\x81", &PYTHON_UINT64[1..cut]].concat();
    let body = encode(&message, TO_GROUP, NO_LIMIT).unwrap();
    assert_eq!(body, PYTHON_UINT64);
    // The least of them, deep inside, and as it is.
    let least = b"\x92\x01\x81\xa1k\xcf\x80\x00\x00\x00\x00\x00\x00\x00";
    let body = encode(&under_v(least), TO_GROUP, NO_LIMIT).unwrap();
    assert_eq!(body, [b"\x82\xa1v", &least[..], GROUP_ENTRY].concat());
    // As a key it is none.
    refused(
        b"\x81\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "message: key number 1 is the integer 18446744073709551615",
    );
}

#[test]
fn a_message_is_one_complete_map() {
    refused(b"", "message: no bytes");
    refused(b"\xc0", "message: nil; a message is one");
    refused(b"\x93\x01\x02\x03", "message: an array; a message is one");
    refused(b"\x80\x80", "message: 1 bytes follow the end");
    refused(b"\xc1", "message: not MessagePack: no value begins with");
    refused(b"\x81", "message: not complete MessagePack");
    refused(b"\x81\xa1v", "message.v: not complete MessagePack");
    refused(&under_v(b"\xc1"), "message.v: not MessagePack");
    refused(&under_v(b"\x92\x01\xa5abc"), "message.v[1]: not complete");
    for claim in [&b"\xdf\xff\xff\xff\xff"[..], b"\xde\xff\xff", b"\x8f"] {
        refused(claim, "message");
        refused(&under_v(claim), "message.v: not complete");
    }
    refused(
        &under_v(b"\xdd\xff\xff\xff\xff\x01"),
        "message.v[1]: not complete",
    );
    refused(
        &under_v(b"\xc6\xff\xff\xff\xffabc"),
        "message.v: not complete",
    );
}

#[test]
fn what_could_end_a_peers_reader_is_refused_with_its_path() {
    refused(
        b"\x81\xa4user\x81\xa4tags\x94\x01\x02\x03\xd6\x05abcd",
        "message.user.tags[3]: ext type 5 is not allowed; allowed are nil, booleans,",
    );
    refused(
        &under_v(b"\xd6\xff\x00\x00\x00\x01"),
        "message.v: ext type -1",
    );
    refused(
        &under_v(b"\xa3ab\xff"),
        "message.v: a string that is not valid UTF-8 from its byte 2",
    );
    refused(
        b"\x81\xa1\xff\x01",
        "message[\"\u{fffd}\"]: a string that is not valid UTF-8",
    );
    refused(
        b"\x82\xa1a\x01\x07\x01",
        "message: key number 2 is the integer 7; keys must be strings",
    );
    refused(
        &under_v(b"\x81\xc4\x01k\x01"),
        "message.v: key number 1 is a byte string",
    );
    refused(&under_v(b"\x81\xc0\x01"), "message.v: key number 1 is nil");
    refused(
        &under_v(b"\x81\x90\x01"),
        "message.v: key number 1 is an array",
    );
}

#[test]
fn integers_are_judged_by_their_value() {
    for good in [
        &b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\xcf\x00\x00\x00\x00\x00\x00\x00\x01",
        b"\xcc\xff",
        b"\xd0\x80",
    ] {
        encode(&under_v(good), TO_GROUP, NO_LIMIT).unwrap();
    }
}

#[test]
fn the_keys_of_the_layer_are_reserved_at_the_top_only() {
    refused(
        b"\x81\xb0__asgi_channel__\xa1x",
        "message: the key \"__asgi_channel__\" is reserved",
    );
    refused(
        b"\x82\xa1a\x01\xae__asgi_group__\xc0",
        "message: the key \"__asgi_group__\" is reserved",
    );
    encode(&under_v(b"\x81\xae__asgi_group__\xa1g"), TO_GROUP, NO_LIMIT).unwrap();
}

#[test]
fn maps_and_arrays_nest_128_deep() {
    // The message itself is the first.
    encode(&under_v(&nested(127, b"\x01")), TO_GROUP, NO_LIMIT).unwrap();
    encode(&under_v(&nested(126, b"\x80")), TO_GROUP, NO_LIMIT).unwrap();
    refused(&under_v(&nested(128, b"\x01")), "nest deeper than 128");
    refused(&under_v(&nested(127, b"\x80")), "nest deeper than 128");
    refused(&under_v(&nested(127, b"\x80")), "message.v[0][0]");
    refused(
        &under_v(&nested(10_000_000, b"\x01")),
        "nest deeper than 128",
    );
}

#[test]
fn a_key_that_stands_twice_passes() {
    encode(b"\x82\xa1a\x01\xa1a\x02", TO_GROUP, NO_LIMIT).unwrap();
}

#[test]
fn the_whole_body_counts_for_its_size() {
    let message = under_v(&[&b"\xc5\x01\x00"[..], &[7; 256]].concat());
    let size = message.len() + GROUP_ENTRY.len();
    assert_eq!(encode(&message, TO_GROUP, size).unwrap().len(), size);
    assert_refused(
        encode(&message, TO_GROUP, size - 1),
        ErrorKind::TooLarge,
        &format!("{size} bytes long; at most {}", size - 1),
    );
    // Three bytes of head instead of one.
    let fifteen = [&b"\x8f"[..], &b"\xa1a\x01".repeat(15)].concat();
    let size = fifteen.len() + 2 + GROUP_ENTRY.len();
    assert_eq!(encode(&fifteen, TO_GROUP, size).unwrap().len(), size);
    assert_refused(
        encode(&fifteen, TO_GROUP, size - 1),
        ErrorKind::TooLarge,
        &format!("{size} bytes"),
    );
}
