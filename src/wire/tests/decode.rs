//! What comes in.

use super::*;

fn group(name: &str) -> OwnedRecipient {
    OwnedRecipient::Group(name.to_owned())
}

fn refused(delivery: &[u8], with: &str) {
    assert_refused(decode(delivery.to_vec()), ErrorKind::Invalid, with);
}

#[test]
fn deliveries_of_python_peers() {
    let decoded = decode(PYTHON_CHANNEL.to_vec()).unwrap();
    assert_eq!(
        decoded.recipient,
        OwnedRecipient::Channel("channels_abcdefghijkl!xyz".to_owned())
    );
    assert_eq!(decoded.body.group(), None);
    assert_eq!(
        decoded.body.data(),
        b"\x82\xa4type\xacchat.message\xa4text\xa2hi"
    );

    let decoded = decode(PYTHON_GROUP.to_vec()).unwrap();
    assert_eq!(decoded.recipient, group("room.1"));
    assert_eq!(decoded.body.group(), Some(c"room.1"));
    let cut = PYTHON_GROUP.len() - 22;
    assert_eq!(
        decoded.body.data(),
        [b"\x84", &PYTHON_GROUP[1..cut]].concat()
    );

    let decoded = decode(PYTHON_FIRST.to_vec()).unwrap();
    assert_eq!(decoded.recipient, group("g"));
    assert_eq!(decoded.body.data(), b"\x81\xa4type\xa1t");
}

#[test]
fn the_map_without_the_recipient_has_the_shortest_head() {
    // The sender had fifteen entries in a head of one byte, and so has the receiver.
    let decoded = decode(PYTHON_MAP16.to_vec()).unwrap();
    let cut = PYTHON_MAP16.len() - GROUP_ENTRY.len();
    assert_eq!(
        decoded.body.data(),
        [b"\x8f", &PYTHON_MAP16[3..cut]].concat()
    );
    let wide = [b"\xdf\x00\x00\x00\x02\xa1a\x01", GROUP_ENTRY].concat();
    let decoded = decode(wide).unwrap();
    assert_eq!(decoded.body.data(), b"\x81\xa1a\x01");
}

#[test]
fn the_recipient_may_stand_anywhere() {
    // Foreign keys and values, one of them long so that either side of the recipient can move.
    let long = [b"\xa1l\xc5\x01\x00", &[7; 256][..]].concat();
    let others: [&[u8]; 4] = [
        b"\x01\x92\xc0\xc3",
        b"\xc4\x01b\x80",
        &long,
        b"\x91\xc0\xa0",
    ];
    for head in [&b"\x85"[..], b"\xde\x00\x05", b"\xdf\x00\x00\x00\x05"] {
        for at in 0..=others.len() {
            let before = others[..at].concat();
            let after = others[at..].concat();
            let delivery = [head, &before, GROUP_ENTRY, &after].concat();
            let decoded = decode(delivery).unwrap();
            assert_eq!(decoded.recipient, group("g"));
            let data = decoded.body.data();
            assert_eq!(data, [b"\x84", &others.concat()[..]].concat());
        }
    }
}

#[test]
fn the_recipient_alone_leaves_an_empty_map() {
    let decoded = decode([b"\x81", GROUP_ENTRY].concat()).unwrap();
    assert_eq!(decoded.body.data(), b"\x80");
    let decoded = decode([b"\xde\x00\x01", GROUP_ENTRY].concat()).unwrap();
    assert_eq!(decoded.body.data(), b"\x80");
}

#[test]
fn the_usual_delivery_is_not_moved() {
    let bytes = PYTHON_CHANNEL.to_vec();
    let address = bytes.as_ptr();
    let decoded = decode(bytes).unwrap();
    assert_eq!(decoded.body.data().as_ptr(), address);
}

#[test]
fn values_pass_unchanged() {
    for delivery in [PYTHON_EXT, PYTHON_UINT64, PYTHON_FLOAT32] {
        let cut = delivery.len() - GROUP_ENTRY.len();
        let decoded = decode(delivery.to_vec()).unwrap();
        assert_eq!(decoded.body.data()[1..], delivery[1..cut]);
    }
    // Invalid UTF-8, a key that stands twice, and no end of nesting.
    let entries = [
        b"\xa1\xff\xa1\xfe\xa1a\x01\xa1a\x02\xa1d",
        &nested(1_000_000, b"\xc0")[..],
    ];
    let delivery = [b"\x85", &entries.concat()[..], GROUP_ENTRY].concat();
    let decoded = decode(delivery).unwrap();
    assert_eq!(decoded.body.data()[1..], entries.concat());
}

#[test]
fn the_name_of_the_recipient_is_a_string_or_bytes_of_utf8_without_nul() {
    let with_name = |name: &[u8]| [b"\x81\xae__asgi_group__", name].concat();
    for (name, read) in [
        (&b"\xa0"[..], ""),
        (b"\xa4a b!", "a b!"),
        (b"\xc4\x01g", "g"),
        (b"\xd9\x01g", "g"),
        (b"\xa2\xc3\xa9", "\u{e9}"),
    ] {
        assert_eq!(decode(with_name(name)).unwrap().recipient, group(read));
    }
    refused(&with_name(b"\xa3a\0b"), "delivery: a NUL in the name");
    refused(&with_name(b"\xa1\xff"), "not valid UTF-8");
    refused(&with_name(b"\xc4\x01\xff"), "not valid UTF-8");
    refused(&with_name(b"\xc0"), "the recipient is nil, not a string");
    refused(&with_name(b"\x90"), "the recipient is an array");
    refused(&with_name(b"\x07"), "the recipient is the integer 7");
}

#[test]
fn what_is_no_delivery_is_refused() {
    refused(b"", "delivery: not complete");
    refused(b"\xc0", "delivery: nil, not a map");
    refused(b"\x80", "no recipient");
    refused(
        b"\x81\xa4type\xa1t",
        "no recipient: neither __asgi_channel__",
    );
    // A byte string is not the key that peers look for, nor is one further inside.
    refused(b"\x81\xc4\x0e__asgi_group__\xa1g", "no recipient");
    refused(&under_v(&[b"\x81", GROUP_ENTRY].concat()), "no recipient");
    refused(
        &[b"\x82", GROUP_ENTRY, GROUP_ENTRY].concat(),
        "more than one",
    );
    refused(
        &[b"\x82", GROUP_ENTRY, b"\xb0__asgi_channel__\xa1c"].concat(),
        "more than one recipient",
    );
    refused(&[b"\x81", GROUP_ENTRY, b"\xc0"].concat(), "1 bytes follow");
    refused(&[b"\x82", GROUP_ENTRY, b"\xa1a\xc1"].concat(), "0xc1");
}

#[test]
fn no_claimed_length_is_believed() {
    for claim in [
        &b"\xdf\xff\xff\xff\xff"[..],
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ] {
        refused(claim, "delivery");
        refused(
            &[b"\x82", GROUP_ENTRY, b"\xa1v", claim].concat(),
            "not complete",
        );
        // Many of them: the sum of all claims is huge.
        let claims = [b"\x82", GROUP_ENTRY, b"\xa1v", &claim.repeat(100_000)[..]].concat();
        refused(&claims, "not complete");
    }
    // As many entries as claimed, but one.
    let short = [&b"\xdf\x00\x01\x00\x01"[..], &b"\xc0\xc0".repeat(1 << 16)].concat();
    refused(&short, "not complete");
}

#[test]
fn every_beginning_of_a_delivery_is_refused() {
    for delivery in [
        PYTHON_CHANNEL,
        PYTHON_GROUP,
        PYTHON_MAP16,
        PYTHON_FLOAT32,
        PYTHON_FIRST,
        PYTHON_EXT,
        PYTHON_UINT64,
    ] {
        decode(delivery.to_vec()).unwrap();
        for end in 0..delivery.len() {
            decode(delivery[..end].to_vec()).unwrap_err();
        }
    }
}

#[test]
fn the_type_of_a_message() {
    let kind = |data: &[u8]| {
        let body = Body::new(data.to_vec(), 0..data.len(), None);
        message_type(&body).map(std::ffi::CStr::to_owned)
    };
    let decoded = decode(PYTHON_GROUP.to_vec()).unwrap();
    assert_eq!(message_type(&decoded.body), Some(c"chat.message"));
    assert_eq!(
        kind(b"\x82\x92\x01\x81\xc0\xc0\x07\xa4type\xa1t"),
        Some(c"t".to_owned())
    );
    assert_eq!(kind(b"\x81\xa4type\xa0"), Some(c"".to_owned()));
    assert_eq!(
        kind(b"\x82\xa4type\xa1a\xa4type\xa1b"),
        Some(c"a".to_owned())
    );
    for none in [
        &b"\x80"[..],
        b"\x81\xa4Type\xa1t",
        b"\x81\xc4\x04type\xa1t",
        b"\x81\xa4type\x01",
        b"\x81\xa4type\xc4\x01t",
        b"\x81\xa4type\xa2a\0",
        b"\x81\xa4type\xa1\xff",
        b"\x81\xa1v\x81\xa4type\xa1t",
        b"\x81\xa4type",
        b"\x90",
        b"",
    ] {
        assert_eq!(kind(none), None, "{none:x?}");
    }
}
