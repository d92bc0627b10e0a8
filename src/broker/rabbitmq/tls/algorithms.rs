//! Names of the algorithms and keys that certificates and private keys refer to by number.
//!
//! Only for error messages: nothing is trusted or refused by what is read here.

use std::fmt::Write;

use rustls::pki_types::PrivateKeyDer;

/// The signatures that the crypto provider, ring, can verify; a test compares.
pub(super) const VERIFIABLE: &str = "RSA of 2048 to 8192 bits with SHA-256, SHA-384 or SHA-512, \
                                     ECDSA on P-256 or P-384 with SHA-256 or SHA-384, or Ed25519";

/// The private keys that the crypto provider can sign with.
pub(super) const USABLE_KEYS: &str = "RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, or \
                                      Ed25519";

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[0] EXPLICIT`, as the curve of a SEC1 key has it.
const CONTEXT_0: u8 = 0xa0;

/// The name of a signature algorithm, of the content of its `AlgorithmIdentifier`.
pub(super) fn signature(identifier: &[u8]) -> String {
    let Some((oid, _)) = object_identifier(identifier) else {
        return UNNAMED.to_owned();
    };
    let name = match oid.as_str() {
        "1.2.840.113549.1.1.2" => "RSA with MD2",
        "1.2.840.113549.1.1.4" => "RSA with MD5",
        "1.2.840.113549.1.1.5" => "RSA with SHA-1",
        "1.2.840.113549.1.1.10" => "RSASSA-PSS",
        "1.2.840.113549.1.1.11" => "RSA with SHA-256",
        "1.2.840.113549.1.1.12" => "RSA with SHA-384",
        "1.2.840.113549.1.1.13" => "RSA with SHA-512",
        "1.2.840.113549.1.1.14" => "RSA with SHA-224",
        "1.2.840.10045.4.1" => "ECDSA with SHA-1",
        "1.2.840.10045.4.3.1" => "ECDSA with SHA-224",
        "1.2.840.10045.4.3.2" => "ECDSA with SHA-256",
        "1.2.840.10045.4.3.3" => "ECDSA with SHA-384",
        "1.2.840.10045.4.3.4" => "ECDSA with SHA-512",
        "2.16.840.1.101.3.4.3.9" => "ECDSA with SHA3-224",
        "2.16.840.1.101.3.4.3.10" => "ECDSA with SHA3-256",
        "2.16.840.1.101.3.4.3.11" => "ECDSA with SHA3-384",
        "2.16.840.1.101.3.4.3.12" => "ECDSA with SHA3-512",
        "1.2.840.10040.4.3" => "DSA with SHA-1",
        "2.16.840.1.101.3.4.3.1" => "DSA with SHA-224",
        "2.16.840.1.101.3.4.3.2" => "DSA with SHA-256",
        "1.2.156.10197.1.501" => "SM2 with SM3",
        _ => return same_for_keys(&oid),
    };
    name.to_owned()
}

/// The name of a kind of key, of the content of its `AlgorithmIdentifier`.
pub(super) fn key(identifier: &[u8]) -> String {
    let Some((oid, parameters)) = object_identifier(identifier) else {
        return UNNAMED.to_owned();
    };
    match oid.as_str() {
        "1.2.840.113549.1.1.1" => "RSA".to_owned(),
        "1.2.840.113549.1.1.10" => "RSA for PSS alone".to_owned(),
        "1.2.840.10040.4.1" => "DSA".to_owned(),
        "1.2.840.10045.2.1" => ecdsa(parameters),
        _ => same_for_keys(&oid),
    }
}

/// What kind of private key it is and, where that matters, of what size; `None` if it is malformed.
pub(super) fn private_key(key: &PrivateKeyDer<'_>) -> Option<String> {
    match key {
        PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => {
            let mut rest = contents(SEQUENCE, key.secret_sec1_der())?;
            while let Some((tag, value, after)) = element(rest) {
                if tag == CONTEXT_0 {
                    return Some(ecdsa(value));
                }
                rest = after;
            }
            Some("ECDSA".to_owned())
        }
        PrivateKeyDer::Pkcs8(key) => {
            let rest = contents(SEQUENCE, key.secret_pkcs8_der())?;
            let (_version, rest) = tagged(INTEGER, rest)?;
            let (identifier, rest) = tagged(SEQUENCE, rest)?;
            let (private, _) = tagged(OCTET_STRING, rest)?;
            match self::key(identifier) {
                name if name == "RSA" => rsa(private),
                name => Some(name),
            }
        }
        _ => None,
    }
}

const UNNAMED: &str = "an algorithm whose identifier is malformed";

/// Algorithms that have one number for keys and signatures.
fn same_for_keys(oid: &str) -> String {
    let name = match oid {
        "1.3.101.110" => "X25519",
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        "2.16.840.1.101.3.4.3.17" => "ML-DSA-44",
        "2.16.840.1.101.3.4.3.18" => "ML-DSA-65",
        "2.16.840.1.101.3.4.3.19" => "ML-DSA-87",
        _ => return format!("the algorithm with the object identifier {oid}"),
    };
    name.to_owned()
}

/// ECDSA and its curve, of the parameters of the key.
fn ecdsa(parameters: &[u8]) -> String {
    let Some((curve, _)) = object_identifier(parameters) else {
        return "ECDSA on a curve that is not one of the named ones".to_owned();
    };
    let name = match curve.as_str() {
        "1.2.840.10045.3.1.1" => "P-192",
        "1.3.132.0.33" => "P-224",
        "1.2.840.10045.3.1.7" => "P-256",
        "1.3.132.0.34" => "P-384",
        "1.3.132.0.35" => "P-521",
        "1.3.132.0.10" => "secp256k1",
        "1.3.36.3.3.2.8.1.1.7" => "brainpoolP256r1",
        "1.3.36.3.3.2.8.1.1.11" => "brainpoolP384r1",
        "1.3.36.3.3.2.8.1.1.13" => "brainpoolP512r1",
        "1.2.156.10197.1.301" => "SM2",
        _ => return format!("ECDSA on the curve with the object identifier {curve}"),
    };
    format!("ECDSA on {name}")
}

/// RSA and its size, of an `RSAPrivateKey`.
fn rsa(key: &[u8]) -> Option<String> {
    let rest = contents(SEQUENCE, key)?;
    let (_version, rest) = tagged(INTEGER, rest)?;
    let (modulus, _) = tagged(INTEGER, rest)?;
    let first = modulus.iter().position(|&byte| byte != 0)?;
    let digits = modulus.get(first..)?;
    let unused = digits.first()?.leading_zeros() as usize;
    Some(format!("RSA of {} bits", digits.len() * 8 - unused))
}

/// The object identifier that DER begins with, in numbers and points, and what follows it.
fn object_identifier(der: &[u8]) -> Option<(String, &[u8])> {
    let (bytes, rest) = tagged(OBJECT_IDENTIFIER, der)?;
    let mut arcs = Vec::new();
    let mut arc: u64 = 0;
    for (at, byte) in bytes.iter().enumerate() {
        arc = arc.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            arcs.push(arc);
            arc = 0;
        } else if at + 1 == bytes.len() {
            return None;
        }
    }
    let (&first, others) = arcs.split_first()?;
    // The first two share one number.
    let root = (first / 40).min(2);
    let mut text = format!("{root}.{}", first - root * 40);
    for arc in others {
        write!(text, ".{arc}").ok()?;
    }
    Some((text, rest))
}

/// What is in an element with this tag that DER consists of.
fn contents(tag: u8, der: &[u8]) -> Option<&[u8]> {
    tagged(tag, der).map(|(contents, _)| contents)
}

/// What is in an element with this tag that DER begins with, and what follows it.
fn tagged(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    match element(der)? {
        (found, contents, rest) if found == tag => Some((contents, rest)),
        _ => None,
    }
}

/// The tag and the contents of the element that DER begins with, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |length, &digit| length << 8 | usize::from(digit));
            (length, rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::crypto::ring;
    use rustls::pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

    use super::super::testing::der;
    use super::*;

    fn oid(bytes: &[u8]) -> Vec<u8> {
        der(OBJECT_IDENTIFIER, &[bytes])
    }

    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

    #[test]
    fn algorithms_have_the_names_of_the_field() {
        let ecdsa_sha_512 = oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04]);
        assert_eq!(signature(&ecdsa_sha_512), "ECDSA with SHA-512");
        assert_eq!(key(&[oid(EC), oid(P521)].concat()), "ECDSA on P-521");
        assert_eq!(key(&oid(RSA)), "RSA");
        assert_eq!(key(&oid(&[0x2b, 0x65, 0x71])), "Ed448");
        assert_eq!(signature(&oid(&[0x2b, 0x65, 0x71])), "Ed448");
    }

    #[test]
    fn an_algorithm_without_a_name_is_shown_by_its_number() {
        assert!(signature(&oid(&[0x2a, 0x03, 0x84, 0x01])).contains(" 1.2.3.513"));
        assert!(signature(&oid(&[0x88, 0x37, 0x03])).contains(" 2.999.3"));
        assert!(key(&[oid(EC), oid(&[0x2a, 0x03])].concat()).contains(" 1.2.3"));
        for malformed in [&b""[..], &[6], &[6, 9, 1], &[6, 1, 0x80], &[5, 0], &[6, 0]] {
            assert_eq!(signature(malformed), UNNAMED, "{malformed:?}");
            assert_eq!(key(malformed), UNNAMED, "{malformed:?}");
        }
    }

    #[test]
    fn a_private_key_is_told_with_its_curve_or_size_in_each_form() {
        let zero = der(INTEGER, &[&[0]]);
        let rsa = |bytes| {
            let modulus = der(INTEGER, &[&[0], &vec![0xff; bytes]]);
            der(SEQUENCE, &[&zero, &modulus, &zero])
        };
        let (rsa_1024, rsa_4096) = (rsa(128), rsa(512));
        let ec = der(
            SEQUENCE,
            &[
                &zero,
                &der(OCTET_STRING, &[&[1; 66]]),
                &der(CONTEXT_0, &[&oid(P521)]),
            ],
        );
        let wrapped = |identifier: &[u8], key: &[u8]| {
            let identifier = der(SEQUENCE, &[identifier]);
            der(SEQUENCE, &[&zero, &identifier, &der(OCTET_STRING, &[key])])
        };
        for (key, name) in [
            (
                PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(rsa_1024.clone())),
                "RSA of 1024 bits",
            ),
            (
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(wrapped(&oid(RSA), &rsa_1024))),
                "RSA of 1024 bits",
            ),
            (
                PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(rsa_4096)),
                "RSA of 4096 bits",
            ),
            (
                PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(ec.clone())),
                "ECDSA on P-521",
            ),
            (
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(wrapped(
                    &[oid(EC), oid(P521)].concat(),
                    &ec,
                ))),
                "ECDSA on P-521",
            ),
        ] {
            assert_eq!(private_key(&key).as_deref(), Some(name));
        }
    }

    /// The constant is for people; this says when it has to change.
    #[test]
    fn what_can_be_verified_is_what_the_text_says() {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        let mut names: Vec<_> = algorithms
            .all
            .iter()
            .map(|algorithm| {
                let signature = signature(&algorithm.signature_alg_id());
                format!("{signature}, {}", key(&algorithm.public_key_alg_id()))
            })
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(
            names,
            [
                "ECDSA with SHA-256, ECDSA on P-256",
                "ECDSA with SHA-256, ECDSA on P-384",
                "ECDSA with SHA-384, ECDSA on P-256",
                "ECDSA with SHA-384, ECDSA on P-384",
                "Ed25519, Ed25519",
                "RSA with SHA-256, RSA",
                "RSA with SHA-384, RSA",
                "RSA with SHA-512, RSA",
                "RSASSA-PSS, RSA",
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes: Vec<u8>) {
            let _ = (signature(&bytes), key(&bytes));
            for key in [
                PrivateKeyDer::Pkcs1(bytes.clone().into()),
                PrivateKeyDer::Sec1(bytes.clone().into()),
                PrivateKeyDer::Pkcs8(bytes.clone().into()),
            ] {
                let _ = private_key(&key);
            }
        }
    }
}
