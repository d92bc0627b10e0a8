//! Messages as JSON text, both ways.

use super::*;

fn body(data: &[u8]) -> Body {
    Body::new(data.to_vec(), 0..data.len(), None)
}

/// The JSON view of a MessagePack map.
fn view(data: &[u8]) -> Result<String, Error> {
    let body = body(data);
    json(&body).map(|text| text.to_str().unwrap().to_owned())
}

fn no_view(data: &[u8], with: &str) {
    assert_refused(view(data), ErrorKind::Invalid, with);
}

/// The message that JSON text becomes, without the recipient.
fn message(text: &str) -> Result<Vec<u8>, Error> {
    let body = encode_json(text.as_bytes(), TO_GROUP, NO_LIMIT)?;
    assert!(body.ends_with(GROUP_ENTRY));
    Ok(decode(body).unwrap().body.data().to_vec())
}

fn refused(text: &str, with: &str) {
    assert_refused(message(text), ErrorKind::Invalid, with);
}

/// The MessagePack of one JSON value.
fn value(text: &str) -> Vec<u8> {
    let message = message(&format!(r#"{{"v":{text}}}"#)).unwrap();
    message.strip_prefix(b"\x81\xa1v").unwrap().to_vec()
}

#[test]
fn the_view_of_a_python_message() {
    let decoded = decode(PYTHON_GROUP.to_vec()).unwrap();
    let expected = "{\"type\":\"chat.message\",\"n\":[1,-1,300,70000,1099511627776,\
                    -9223372036854775808,9223372036854775807,1.5,null,true,false],\
                    \"b\":\"\u{ffff}AP8=\",\"u\":\"h\u{e9}\"}";
    assert_eq!(json(&decoded.body).unwrap().to_str().unwrap(), expected);
    // Computed once.
    let first = json(&decoded.body).unwrap().as_ptr();
    assert_eq!(json(&decoded.body).unwrap().as_ptr(), first);
    // And back, to the very bytes of Python.
    let to = Recipient::Group("room.1");
    assert_eq!(
        encode_json(expected.as_bytes(), to, NO_LIMIT).unwrap(),
        PYTHON_GROUP
    );
}

#[test]
fn the_view_of_an_integer_above_signed_64_bits() {
    let decoded = decode(PYTHON_UINT64.to_vec()).unwrap();
    let expected = r#"{"n":18446744073709551615}"#;
    assert_eq!(json(&decoded.body).unwrap().to_str().unwrap(), expected);
    assert_eq!(
        encode_json(expected.as_bytes(), TO_GROUP, NO_LIMIT).unwrap(),
        PYTHON_UINT64
    );
    assert_eq!(
        view(&under_v(b"\xcf\x80\x00\x00\x00\x00\x00\x00\x00")).unwrap(),
        r#"{"v":9223372036854775808}"#
    );
}

#[test]
fn the_view_is_compact_and_escapes_what_it_must() {
    assert_eq!(view(b"\x80").unwrap(), "{}");
    assert_eq!(view(&under_v(b"\x92\x80\x90")).unwrap(), r#"{"v":[{},[]]}"#);
    assert_eq!(
        view(b"\x81\xa3a\0\"\xa7\x01\\/\n\xc2\x85\x7f").unwrap(),
        "{\"a\\u0000\\\"\":\"\\u0001\\\\/\\n\u{85}\u{7f}\"}"
    );
    assert_eq!(view(&under_v(b"\xc4\x00")).unwrap(), "{\"v\":\"\u{ffff}\"}");
    assert_eq!(
        view(&under_v(b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00")).unwrap(),
        r#"{"v":1.0}"#
    );
    // A float 32 by its value, which is not 0.1.
    assert_eq!(
        view(&under_v(b"\xca\x3d\xcc\xcc\xcd")).unwrap(),
        r#"{"v":0.10000000149011612}"#
    );
}

#[test]
fn what_json_cannot_hold_has_no_view() {
    let decoded = decode(PYTHON_EXT.to_vec()).unwrap();
    assert_refused(
        json(&decoded.body),
        ErrorKind::Invalid,
        "message.t: JSON has no ext type -1",
    );
    no_view(
        &under_v(b"\x91\xca\x7f\xc0\x00\x00"),
        "message.v[0]: JSON has no float NaN",
    );
    no_view(
        &under_v(b"\xcb\xff\xf0\x00\x00\x00\x00\x00\x00"),
        "message.v: JSON has no float -inf",
    );
    no_view(b"\x81\x07\x01", "message: a key is the integer 7");
    no_view(b"\x81\xc4\x01k\x01", "message: a key is a byte string");
    no_view(
        &under_v(b"\xa2a\xff"),
        "message.v: a string that is not valid UTF-8",
    );
    no_view(
        b"\x81\xa1\xff\x01",
        "message[\"\u{fffd}\"]: a string that is not",
    );
    no_view(
        &under_v(b"\x82\xa1k\x01\xa1k\x02"),
        "message.v.k: this key stands twice",
    );
    no_view(
        &under_v(b"\xa4\xef\xbf\xbfA"),
        "message.v: a string that begins with U+FFFF",
    );
    // The same key in two maps is none twice.
    view(b"\x82\xa1a\x81\xa1k\x01\xa1k\x81\xa1a\x02").unwrap();
    // A key is never bytes.
    view(b"\x81\xa3\xef\xbf\xbf\x01").unwrap();
}

#[test]
fn the_view_nests_128_deep() {
    let text = view(&under_v(&nested(127, b"\x01"))).unwrap();
    assert!(text.starts_with(r#"{"v":[[["#) && text.ends_with("]]]}"));
    no_view(&under_v(&nested(128, b"\x01")), "nest deeper than 128");
    no_view(
        &under_v(&nested(1_000_000, b"\x01")),
        "nest deeper than 128",
    );
}

#[test]
fn values_of_json_text() {
    assert_eq!(value("null"), b"\xc0");
    assert_eq!(value(" true\n"), b"\xc3");
    assert_eq!(value("\tfalse\r"), b"\xc2");
    assert_eq!(value("0"), b"\x00");
    assert_eq!(value("-0"), b"\x00");
    assert_eq!(value("127"), b"\x7f");
    assert_eq!(value("128"), b"\xcc\x80");
    assert_eq!(value("-32"), b"\xe0");
    assert_eq!(value("-33"), b"\xd0\xdf");
    assert_eq!(value("1.0"), b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00");
    assert_eq!(value("1e0"), b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00");
    assert_eq!(value("-0.0"), b"\xcb\x80\x00\x00\x00\x00\x00\x00\x00");
    assert_eq!(value("1e-999"), b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00");
    assert_eq!(value(r#""""#), b"\xa0");
    assert_eq!(value(r#""a""#), b"\xa1a");
    assert_eq!(value("[ ]"), b"\x90");
    assert_eq!(value("{ }"), b"\x80");
    assert_eq!(
        value(r#"[1,[2 , 3],{"k":[]}]"#),
        b"\x93\x01\x92\x02\x03\x81\xa1k\x90"
    );
    let sixteen = format!("[{}1]", "[0],".repeat(15));
    assert_eq!(
        value(&sixteen),
        [b"\xdc\x00\x10", &b"\x91\x00".repeat(15)[..], b"\x01"].concat()
    );
}

#[test]
fn integers_are_those_of_64_bits_with_and_without_a_sign() {
    assert_eq!(
        value("9223372036854775807"),
        b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"
    );
    assert_eq!(
        value("-9223372036854775808"),
        b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00"
    );
    assert_eq!(
        value("9223372036854775808"),
        b"\xcf\x80\x00\x00\x00\x00\x00\x00\x00"
    );
    assert_eq!(
        value("18446744073709551615"),
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"
    );
    for number in [
        "-9223372036854775809",
        "-18446744073709551615",
        "18446744073709551616",
        "100000000000000000000000",
    ] {
        refused(
            &format!(r#"{{"a":[0,{number}]}}"#),
            &format!("message.a[1]: the number {number} is outside -2^63 to 2^64-1"),
        );
    }
    refused(
        &format!(r#"{{"a":{}}}"#, "9".repeat(100_000)),
        "9... is outside",
    );
    refused(
        r#"{"a":1e999}"#,
        "message.a: the number 1e999 is outside a 64 bit float",
    );
    refused(r#"{"a":-1e999}"#, "outside a 64 bit float");
}

#[test]
fn escapes_in_strings() {
    assert_eq!(value(r#""\"\\\/\b\f\n\r\t""#), b"\xa8\"\\/\x08\x0c\n\r\t");
    assert_eq!(value(r#""\u0000""#), b"\xa1\0");
    assert_eq!(
        value(r#""a\u00e9b\u20ACc""#),
        b"\xa8a\xc3\xa9b\xe2\x82\xacc"
    );
    assert_eq!(value(r#""\ud83d\ude00""#), b"\xa4\xf0\x9f\x98\x80");
    assert_eq!(value("\"\u{1f600}\u{7f}\""), b"\xa5\xf0\x9f\x98\x80\x7f");
    for half in [
        r"\ud800",
        r"\udc00",
        r"\ud800\ud800",
        r"\ud800x",
        r"\ud800\n",
        r"\ud800\u0041",
    ] {
        refused(
            &format!(r#"{{"a":"{half}"}}"#),
            "message.a: half of a surrogate pair",
        );
    }
    refused(r#"{"a":"\u12"}"#, "four hexadecimal digits");
    refused(r#"{"a":"\u+123"}"#, "four hexadecimal digits");
    refused("{\"a\":\"\\u12\u{e9}\"}", "four hexadecimal digits");
    refused(
        r#"{"a":"\x"}"#,
        "message.a: not JSON: 'x' at byte 7 of the text; no such escape",
    );
    refused("{\"a\":\"\n\"}", "control characters must be escaped");
    refused("{\"a\":\"\0\"}", "control characters must be escaped");
    refused(
        r#"{"a":"b"#,
        "message.a: the JSON text ends inside a string",
    );
    refused(
        r#"{"a":"b\"#,
        "message.a: not JSON: the text ends too early",
    );
}

#[test]
fn a_string_after_the_mark_is_bytes() {
    assert_eq!(value("\"\u{ffff}\""), b"\xc4\x00");
    assert_eq!(value("\"\u{ffff}AP8=\""), b"\xc4\x02\x00\xff");
    assert_eq!(value(r#""\uffffAP8=""#), b"\xc4\x02\x00\xff");
    // Not at the start, it is text.
    assert_eq!(value("\"a\u{ffff}\""), b"\xa4a\xef\xbf\xbf");
    for bad in ["A", "AP8", "AP9=", "A P8=", "!!!!", "AP8=\u{ffff}", "AP_="] {
        refused(
            &format!("{{\"a\":[\"\u{ffff}{bad}\"]}}"),
            "message.a[0]: a string that begins with U+FFFF stands for bytes",
        );
    }
}

#[test]
fn json_text_is_one_object() {
    assert_eq!(message(" \r\n\t{ } ").unwrap(), b"\x80");
    refused(
        "",
        "message: not JSON: the text ends too early; a message is one JSON object",
    );
    refused(
        "[]",
        "message: not JSON: '[' at byte 0 of the text; a message is one JSON object",
    );
    refused("1", "one JSON object");
    refused("null", "one JSON object");
    refused("{}{}", "nothing may follow");
    refused("{},", "nothing may follow");
    refused("\u{feff}{}", "one JSON object");
    refused("{", "a key in quotes");
    refused("{a:1}", "a key in quotes");
    refused("{'a':1}", "a key in quotes");
    refused(r#"{"a":1,}"#, "a key in quotes");
    refused(r#"{,"a":1}"#, "a key in quotes");
    refused(
        r#"{"a" 1}"#,
        "message.a: not JSON: '1' at byte 5 of the text; here a ':' is needed",
    );
    refused(r#"{"a":}"#, "message.a: not JSON: '}' at byte 5");
    refused(r#"{"a":1 "b":2}"#, "here a ',' or a '}' is needed");
    refused(r#"{"a":1"#, "the text ends too early; here a ',' or a '}'");
    refused(r#"{"a":[1,]}"#, "message.a[1]: not JSON: ']'");
    refused(
        r#"{"a":[1"#,
        "message.a: not JSON: the text ends too early; here a ',' or a ']'",
    );
    refused(r#"{"a":[1}"#, "here a ',' or a ']' is needed");
    for number in [
        "01", "-", "+1", ".5", "1.", "1.e5", "1e", "1e+", "0x1", "-a", "NaN", "Infinity", "--1",
        "1_0",
    ] {
        refused(&format!(r#"{{"a":{number}}}"#), "not JSON");
    }
    for word in ["nul", "True", "truer", "nulll", "falsey"] {
        refused(&format!(r#"{{"a":{word}}}"#), "not JSON");
    }
    refused(r#"{"a":1 /* */}"#, "here a ',' or a '}'");
    assert_refused(
        encode_json(b"{\"a\":\"\xff\"}", TO_GROUP, NO_LIMIT),
        ErrorKind::Invalid,
        "not valid UTF-8",
    );
}

#[test]
fn keys_are_unique_and_not_ours() {
    refused(
        r#"{"b":0,"a":{"k":1,"j":2,"k":3}}"#,
        "message.a.k: this key stands twice",
    );
    refused(r#"{"a":1,"\u0061":1}"#, "message.a: this key stands twice");
    message(r#"{"a":{"k":1},"k":{"a":1}}"#).unwrap();
    refused(
        r#"{"__asgi_group__":1}"#,
        "message: the key \"__asgi_group__\" is reserved",
    );
    refused(
        r#"{"__asgi\u005fchannel__":1}"#,
        "\"__asgi_channel__\" is reserved",
    );
    message(r#"{"a":{"__asgi_group__":1}}"#).unwrap();
    // A key with the mark is text.
    assert_eq!(
        message("{\"\u{ffff}\":1}").unwrap(),
        b"\x81\xa3\xef\xbf\xbf\x01"
    );
    // Many keys take no quadratic time.
    let keys: Vec<String> = (0..50_000).map(|i| format!("\"k{i}\":0")).collect();
    let many = message(&format!("{{{}}}", keys.join(","))).unwrap();
    assert!(many.starts_with(b"\xde\xc3\x50\xa2k0\x00"));
    refused(
        &format!("{{{},\"k7\":1}}", keys.join(",")),
        "message.k7: this key",
    );
}

#[test]
fn json_text_nests_128_deep() {
    let text = |depth: usize, inside: &str| {
        format!(
            r#"{{"v":{}{inside}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert_eq!(
        message(&text(127, "1")).unwrap(),
        under_v(&nested(127, b"\x01"))
    );
    message(&text(126, "{}")).unwrap();
    refused(&text(128, "1"), "nest deeper than 128");
    refused(&text(127, "{}"), "nest deeper than 128");
    refused(
        &format!(r#"{{"v":{}"#, "[".repeat(1_000_000)),
        "nest deeper than 128",
    );
    refused(&r#"{"v":"#.repeat(1_000_000), "nest deeper than 128");
}

#[test]
fn the_body_counts_for_its_size_and_not_the_text() {
    let text = br#"{  "v"  :  "\u0061"  }"#;
    let size = 1 + 4 + GROUP_ENTRY.len();
    assert_eq!(encode_json(text, TO_GROUP, size).unwrap().len(), size);
    assert_refused(
        encode_json(text, TO_GROUP, size - 1),
        ErrorKind::TooLarge,
        &format!("{size} bytes long; at most {}", size - 1),
    );
}

#[test]
fn floats_are_read_and_written_exactly() {
    // serde_json without its feature `float_roundtrip` misses some of these by the last bit.
    for text in [
        "0.1",
        "2.2250738585072014e-308",
        "5e-324",
        "1.7976931348623157e308",
        "9007199254740993.0",
        "51.24817837550540",
        "-93.3113703768803",
        "117.0768345984325",
    ] {
        let expected: f64 = text.parse().unwrap();
        assert_eq!(value(text), [b"\xcb", &expected.to_be_bytes()[..]].concat());
        let shown = view(&under_v(&value(text))).unwrap();
        let shown = shown
            .strip_prefix(r#"{"v":"#)
            .unwrap()
            .strip_suffix('}')
            .unwrap();
        assert_eq!(shown.parse::<f64>().unwrap(), expected);
    }
}
