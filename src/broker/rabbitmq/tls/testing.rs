//! What the tests of several files need.

/// Whether a text has a debug print in it: `TwoWords`, braces, quotes or a list of bytes.
pub(super) fn looks_like_code(text: &str) -> bool {
    let two_words = text.split(|c: char| !c.is_alphanumeric()).any(|word| {
        let capitals = word
            .split(|c: char| c.is_lowercase())
            .filter(|capitals| capitals.len() == 1);
        capitals.count() > 1
            && word.starts_with(|c: char| c.is_uppercase())
            && word.ends_with(|c: char| c.is_lowercase())
    });
    two_words || text.contains(['{', '[', '"'])
}

/// An element of DER.
pub(super) fn der(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let mut all = vec![tag];
    match contents.len() {
        length @ 0..0x80 => all.push(length as u8),
        length @ 0x80..0x100 => all.extend([0x81, length as u8]),
        length => all.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    all.extend(contents);
    all
}

#[test]
fn a_debug_print_looks_like_code() {
    for text in [
        "not good: UnknownIssuer",
        "not good: Other(OtherError(CaUsedAsEndEntity))",
        "for DnsName(\"localhost\")",
        "signed with [6, 8, 42]",
        "Context { a: 1 }",
    ] {
        assert!(looks_like_code(text), "{text}");
    }
    let names = "RabbitMQ, OpenSSL, Ed25519, RSASSA-PSS, brainpoolP256r1, clientAuth and SHA-512";
    assert!(!looks_like_code(names));
}
