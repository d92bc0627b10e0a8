//! Why a broker's certificate is not trusted, in sentences: what failed, why, and what to do.

use std::fmt::{self, Display, Write};
use std::path::Path;

use rustls::pki_types::UnixTime;
use rustls::{CertRevocationListError, CertificateError, ExtendedKeyPurpose};

use super::algorithms::{self, VERIFIABLE};

/// Whom a layer trusts to vouch for brokers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trusted<'a> {
    System,
    /// The certificates that options name, and no others.
    Named {
        /// Option `tls_ca_file`.
        file: Option<&'a Path>,
        /// Whether option `tls_ca_pem` is set.
        pem: bool,
        /// How many of the certificates cannot be parsed.
        unreadable: usize,
    },
}

/// Where the certificates are that options name.
fn places(file: Option<&Path>, pem: bool) -> String {
    match file {
        None => "option tls_ca_pem".to_owned(),
        Some(file) => {
            let of_both = if pem { " and in option tls_ca_pem" } else { "" };
            format!("'{}' (option tls_ca_file){of_both}", file.display())
        }
    }
}

impl Display for Trusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::System => f.write_str(
                "trusted are the CAs of this system; for a CA of your own or a self-signed \
                 certificate set option tls_ca_file or tls_ca_pem",
            ),
            Self::Named {
                file,
                pem,
                unreadable,
            } => {
                let places = places(file, pem);
                write!(f, "trusted are the certificates in {places} alone")?;
                match unreadable {
                    0 => Ok(()),
                    count => write!(f, ", of which {count} cannot be parsed"),
                }
            }
        }
    }
}

/// Whether a certificate was refused because it is one of a CA.
pub(super) fn is_ca(error: &CertificateError) -> bool {
    matches!(of_webpki(error), Some(webpki::Error::CaUsedAsEndEntity))
}

/// The error that rustls has no name of its own for.
fn of_webpki(error: &CertificateError) -> Option<&webpki::Error> {
    match error {
        CertificateError::Other(other) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Why the certificate of the broker at `host` is refused.
pub(super) fn explain(error: &CertificateError, host: &str, trusted: Trusted<'_>) -> String {
    use CertificateError as Error;
    match error {
        Error::BadEncoding => malformed("it is not valid DER"),
        Error::Expired => format!("{ANY} has expired, or ends before it begins: renew it"),
        Error::ExpiredContext { time, not_after } => format!(
            "{ANY} expired {} ago, by this machine's clock: renew it, or correct the clock",
            Span::between(*not_after, *time)
        ),
        Error::NotValidYet => format!("{ANY} is not valid yet: {CHECK_CLOCKS}"),
        Error::NotValidYetContext { time, not_before } => format!(
            "{ANY} is not valid for another {}, by this machine's clock: {CHECK_CLOCKS}",
            Span::between(*time, *not_before)
        ),
        Error::Revoked => format!("{ANY} has been revoked by its CA: replace it"),
        Error::UnhandledCriticalExtension => critical_extension(),
        Error::UnknownIssuer => format!(
            "the broker's certificate is not signed by a trusted CA, or the broker does not send \
             the intermediate certificates; {trusted}"
        ),
        // Said of certificates and of the handshake.
        Error::BadSignature => format!(
            "a signature of the broker's certificate, of an intermediate one or of the TLS \
             handshake does not match the key that it must be of: another CA of the same name has \
             signed the certificate, the other side does not have its private key, or an RSA key \
             is shorter than 2048 bits or longer than 8192; {trusted}"
        ),
        Error::UnknownRevocationStatus => format!(
            "it is not known whether {ANY} has been revoked, since no revocation list (CRL) covers \
             it: have its CA publish one"
        ),
        Error::ExpiredRevocationList => {
            format!("the revocation list (CRL) for {ANY} has expired: {PUBLISH}")
        }
        Error::ExpiredRevocationListContext { time, next_update } => format!(
            "the revocation list (CRL) for {ANY} expired {} ago, by this machine's clock: {PUBLISH}",
            Span::between(*next_update, *time)
        ),
        Error::InvalidOcspResponse => format!(
            "the OCSP response that the broker sends for its certificate is not valid: have the \
             broker fetch a new one, or {STAPLE_NONE}"
        ),
        Error::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id,
            ..
        } => unverifiable(&format!(
            "it is {}",
            algorithms::signature(signature_algorithm_id)
        )),
        Error::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            public_key_algorithm_id,
        } => unverifiable(&format!(
            "it is {}, and the key that made it is {}",
            algorithms::signature(signature_algorithm_id),
            algorithms::key(public_key_algorithm_id)
        )),
        Error::NotValidForName => format!("the broker's certificate is not for '{host}': {RENAME}"),
        Error::NotValidForNameContext { presented, .. } => {
            let names = list(presented.iter().filter_map(|name| subject_name(name)));
            if names.is_empty() {
                format!(
                    "the broker's certificate names no host (a common name does not count), and so \
                     not '{host}': it needs that as a subject alternative name"
                )
            } else {
                format!("the broker's certificate is not for '{host}' but for {names}: {RENAME}")
            }
        }
        Error::InvalidPurpose => purpose("does not include it"),
        Error::InvalidPurposeContext { presented, .. } => {
            purpose(&format!("is {}", list(presented.iter().map(purpose_name))))
        }
        Error::ApplicationVerificationFailure => format!(
            "the system refuses the broker's certificate for a rule of its own, though it is valid; \
             {trusted}"
        ),
        Error::Other(other) => match of_webpki(error) {
            Some(error) => explain_webpki(error, host, trusted),
            // What a platform's own verifier says: it has no types for it, but words.
            None => format!("this system does not trust {ANY}: {other}"),
        },
        // rustls has an older, deprecated variant for this, which its verifier no longer uses.
        _ => unverifiable("its algorithm is not supported, or it breaks a rule of X.509"),
    }
}

/// What webpki finds that rustls has no error for.
fn explain_webpki(error: &webpki::Error, host: &str, trusted: Trusted<'_>) -> String {
    use webpki::Error;
    match error {
        Error::CaUsedAsEndEntity => {
            let remedy = match trusted {
                Trusted::System => {
                    "to trust it nevertheless, name a file with this very certificate by option \
                     tls_ca_file"
                        .to_owned()
                }
                Trusted::Named { file, pem, .. } => format!(
                    "to trust it nevertheless, put this very certificate into {}, where it is not",
                    places(file, pem && file.is_none())
                ),
            };
            format!(
                "the broker's certificate is that of a CA (CA:TRUE, as 'openssl req -x509' makes \
                 them), not of a server: {remedy}, or have a CA issue one with CA:FALSE"
            )
        }
        Error::EndEntityUsedAsCa => {
            "the broker's certificate is signed by one that is not of a CA (its basic constraints \
             do not say CA:TRUE): have a CA sign it"
                .to_owned()
        }
        Error::NameConstraintViolation => format!(
            "the CA that has signed the broker's certificate may not issue certificates for its \
             names (name constraints): have a CA sign it that may, or use names that this one may; \
             the host is '{host}'"
        ),
        Error::PathLenConstraintViolated => {
            "there are more intermediate certificates between the broker's and the trusted CA than \
             one of them allows (path length constraint): have a CA sign it that is nearer to the \
             trusted one"
                .to_owned()
        }
        Error::MaximumPathDepthExceeded => {
            "there are more intermediate certificates between the broker's and the trusted CA than \
             the 6 that this library follows: put one of them into the file of option tls_ca_file"
                .to_owned()
        }
        Error::MaximumSignatureChecksExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => {
            "the broker sends so many certificates, or they have so many name constraints, that \
             the search for a trusted CA was given up: have it send only those between its own \
             and the CA"
                .to_owned()
        }
        Error::UnsupportedCertVersion => format!(
            "{ANY} is of X.509 version 1 or 2, which has no subject alternative names: issue it as \
             version 3"
        ),
        Error::UnsupportedCriticalExtension => critical_extension(),
        Error::EmptyEkuExtension => purpose("is empty"),
        Error::CertDistrusted => {
            format!("{ANY} has a key that is known to be compromised: replace it, with a new key")
        }
        Error::SignatureAlgorithmMismatch => {
            malformed("it names one signature algorithm inside and another outside")
        }
        Error::ExtensionValueInvalid | Error::MalformedExtensions => {
            malformed("an extension stands in it twice or is malformed")
        }
        Error::InvalidSerialNumber => malformed("its serial number is not valid"),
        Error::InvalidNetworkMaskConstraint | Error::MalformedNameConstraint => {
            malformed("a name constraint, of a CA, is malformed")
        }
        Error::MalformedDnsIdentifier => malformed("a DNS name is malformed"),
        Error::UnsupportedNameType => {
            format!(
                "'{host}' is neither a DNS name nor an IP address: use one of these as the host"
            )
        }
        Error::InvalidCrlNumber
        | Error::UnsupportedCrlIssuingDistributionPoint
        | Error::UnsupportedCrlVersion
        | Error::UnsupportedDeltaCrl
        | Error::UnsupportedIndirectCrl
        | Error::UnsupportedRevocationReason
        | Error::UnsupportedRevocationReasonsPartitioning => {
            unusable_list("it is of a kind that this library does not support")
        }
        // All others have an error of rustls.
        _ => malformed("it breaks a rule of X.509 (RFC 5280)"),
    }
}

/// Why a revocation list cannot be used.
pub(super) fn explain_list(error: &CertRevocationListError) -> String {
    use CertRevocationListError as Error;
    unusable_list(match error {
        Error::BadSignature => "its signature does not match the key of the CA",
        Error::IssuerInvalidForCrl => "its issuer may not sign such lists (key usage cRLSign)",
        Error::UnsupportedSignatureAlgorithmContext { .. }
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed with an algorithm that this library cannot verify"
        }
        Error::ParseError | Error::InvalidCrlNumber | Error::InvalidRevokedCertSerialNumber => {
            "it is malformed"
        }
        _ => "it is of a kind that this library does not support",
    })
}

/// The certificate that webpki speaks of: it does not say which of the chain it is.
const ANY: &str = "the broker's certificate or an intermediate one";
const RENAME: &str = "use a host that it names, or have one issued that names this one";
const CHECK_CLOCKS: &str = "correct this machine's clock, or that of the CA's machine";
const PUBLISH: &str = "have the CA publish a new one, or correct the clock";
const STAPLE_NONE: &str = "switch OCSP stapling off";

fn malformed(why: &str) -> String {
    format!("{ANY} is malformed: {why}; have a new one issued")
}

fn unusable_list(why: &str) -> String {
    format!(
        "the revocation list (CRL) for {ANY} cannot be used: {why}; have the CA publish another"
    )
}

fn critical_extension() -> String {
    format!(
        "{ANY} has a critical extension that this library does not know: issue it without, or with \
         the extension not critical"
    )
}

fn purpose(usage: &str) -> String {
    format!(
        "{ANY} is not for servers: an extended key usage must include server authentication \
         (serverAuth), and this one {usage}: have another issued"
    )
}

fn unverifiable(why: &str) -> String {
    format!(
        "this library cannot verify a signature of the broker's certificate, of an intermediate \
         one or of the TLS handshake: {why}. Have a certificate issued whose key and signature are \
         {VERIFIABLE}; or, if the broker's own key is such a one, put its certificate into the \
         file of option tls_ca_file, and no CA has to vouch for it"
    )
}

/// An extended key usage as OpenSSL's documentation calls it.
fn purpose_name(purpose: &ExtendedKeyPurpose) -> String {
    match purpose {
        ExtendedKeyPurpose::ClientAuth => "client authentication (clientAuth)".to_owned(),
        ExtendedKeyPurpose::ServerAuth => "server authentication (serverAuth)".to_owned(),
        ExtendedKeyPurpose::Other(arcs) => {
            let mut text = String::new();
            for (at, arc) in arcs.iter().enumerate() {
                let point = if at == 0 { "" } else { "." };
                // Writing to a string does not fail.
                let _ = write!(text, "{point}{arc}");
            }
            text
        }
    }
}

/// A DNS name or an IP address among the subject alternative names, without the type that webpki's
/// debug print of them has around it.
fn subject_name(presented: &str) -> Option<String> {
    let name = match presented.split_once('(') {
        Some(("DnsName" | "IpAddress", name)) => name.strip_suffix(')')?.trim_matches('"'),
        Some(_) => return None,
        None if presented == "DirectoryName" => return None,
        None => presented,
    };
    // Anything can stand there, and this goes to terminals and logs.
    Some(name.escape_debug().to_string())
}

fn list(items: impl Iterator<Item = String>) -> String {
    const MOST: usize = 10;
    let mut items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(MOST);
    items.truncate(MOST);
    let text = items.join(", ");
    match more {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// A span of time as people say it.
struct Span(u64);

impl Span {
    fn between(from: UnixTime, to: UnixTime) -> Self {
        Self(to.as_secs().saturating_sub(from.as_secs()))
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(seconds) = *self;
        let (count, unit) = match seconds {
            0..120 => (seconds, "seconds"),
            120..7200 => (seconds / 60, "minutes"),
            7200..172_800 => (seconds / 3600, "hours"),
            _ => (seconds / 86_400, "days"),
        };
        write!(f, "{count} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::OtherError;
    use rustls::pki_types::ServerName;

    use super::super::testing::looks_like_code;
    use super::*;

    fn file() -> Trusted<'static> {
        Trusted::Named {
            file: Some(Path::new("/the/ca.pem")),
            pem: false,
            unreadable: 0,
        }
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn not_for(presented: &[&str]) -> CertificateError {
        CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("broker").expect("a name"),
            presented: presented.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn webpki_error(error: webpki::Error) -> CertificateError {
        CertificateError::Other(OtherError(Arc::new(error)))
    }

    fn p_521() -> Vec<u8> {
        [
            &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1][..],
            &[6, 5, 0x2b, 0x81, 4, 0, 0x23],
        ]
        .concat()
    }

    const ECDSA_SHA_512: [u8; 10] = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];

    /// All errors of rustls 0.23.46, and how each is told from the others.
    fn all_of_rustls() -> Vec<(CertificateError, &'static [&'static str])> {
        use CertificateError as Error;
        vec![
            (Error::BadEncoding, &["malformed", "DER"]),
            (Error::Expired, &["has expired", "renew"]),
            (
                Error::ExpiredContext {
                    time: at(400_000),
                    not_after: at(0),
                },
                &["expired 4 days ago", "renew"],
            ),
            (Error::NotValidYet, &["not valid yet", "clock"]),
            (
                Error::NotValidYetContext {
                    time: at(0),
                    not_before: at(400_000),
                },
                &["another 4 days", "clock"],
            ),
            (Error::Revoked, &["revoked", "replace"]),
            (Error::UnhandledCriticalExtension, &["critical extension"]),
            (
                Error::UnknownIssuer,
                &["trusted CA", "intermediate", "'/the/ca.pem'", "tls_ca_file"],
            ),
            (
                Error::BadSignature,
                &["signature", "same name", "2048", "'/the/ca.pem'"],
            ),
            (Error::UnknownRevocationStatus, &["CRL", "not known"]),
            (Error::ExpiredRevocationList, &["CRL", "expired"]),
            (
                Error::ExpiredRevocationListContext {
                    time: at(400_000),
                    next_update: at(0),
                },
                &["CRL", "expired 4 days ago"],
            ),
            (Error::InvalidOcspResponse, &["OCSP"]),
            (
                Error::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: ECDSA_SHA_512.to_vec(),
                    supported_algorithms: Vec::new(),
                },
                &["ECDSA with SHA-512", VERIFIABLE, "tls_ca_file"],
            ),
            (
                Error::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    signature_algorithm_id: ECDSA_SHA_512.to_vec(),
                    public_key_algorithm_id: p_521(),
                },
                &["ECDSA with SHA-512", "ECDSA on P-521", VERIFIABLE],
            ),
            (Error::NotValidForName, &["not for 'broker'"]),
            (
                not_for(&["DnsName(\"a.example\")", "IpAddress(192.0.2.1)"]),
                &["not for 'broker'", "for a.example, 192.0.2.1:"],
            ),
            (not_for(&[]), &["names no host", "'broker'"]),
            (Error::InvalidPurpose, &["not for servers", "serverAuth"]),
            (
                Error::InvalidPurposeContext {
                    required: ExtendedKeyPurpose::ServerAuth,
                    presented: vec![
                        ExtendedKeyPurpose::ClientAuth,
                        ExtendedKeyPurpose::Other(vec![1, 2, 3]),
                    ],
                },
                &["not for servers", "(clientAuth), 1.2.3", "serverAuth"],
            ),
            (
                Error::ApplicationVerificationFailure,
                &["rule of its own", "'/the/ca.pem'"],
            ),
            (
                Error::Other(OtherError(Arc::from(Box::from("no such luck")))),
                &["this system does not trust", "no such luck"],
            ),
        ]
    }

    /// The errors of webpki 0.103 that rustls passes on, and how each is told from the others.
    fn all_of_webpki() -> Vec<(webpki::Error, &'static [&'static str])> {
        use webpki::Error;
        vec![
            (
                Error::CaUsedAsEndEntity,
                &["CA:TRUE", "this very certificate", "'/the/ca.pem'"],
            ),
            (Error::EndEntityUsedAsCa, &["basic constraints"]),
            (
                Error::NameConstraintViolation,
                &["name constraints", "'broker'"],
            ),
            (Error::PathLenConstraintViolated, &["path length"]),
            (Error::MaximumPathDepthExceeded, &["than the 6"]),
            (Error::MaximumSignatureChecksExceeded, &["so many"]),
            (Error::MaximumPathBuildCallsExceeded, &["so many"]),
            (
                Error::MaximumNameConstraintComparisonsExceeded,
                &["so many"],
            ),
            (Error::UnsupportedCertVersion, &["version 1"]),
            (Error::UnsupportedCriticalExtension, &["critical extension"]),
            (Error::EmptyEkuExtension, &["serverAuth", "empty"]),
            (Error::CertDistrusted, &["compromised"]),
            (Error::SignatureAlgorithmMismatch, &["inside"]),
            (Error::ExtensionValueInvalid, &["extension", "malformed"]),
            (Error::MalformedExtensions, &["extension", "malformed"]),
            (Error::InvalidSerialNumber, &["serial number"]),
            (Error::InvalidNetworkMaskConstraint, &["name constraint"]),
            (Error::MalformedNameConstraint, &["name constraint"]),
            (Error::MalformedDnsIdentifier, &["DNS name"]),
            (Error::UnsupportedNameType, &["'broker'"]),
            (Error::InvalidCrlNumber, &["CRL"]),
            (Error::UnsupportedCrlIssuingDistributionPoint, &["CRL"]),
            (Error::UnsupportedCrlVersion, &["CRL"]),
            (Error::UnsupportedDeltaCrl, &["CRL"]),
            (Error::UnsupportedIndirectCrl, &["CRL"]),
            (Error::UnsupportedRevocationReason, &["CRL"]),
            (Error::UnsupportedRevocationReasonsPartitioning, &["CRL"]),
        ]
    }

    fn assert_says(error: &CertificateError, text: &str, words: &[&str]) {
        for word in words {
            assert!(text.contains(word), "{error:?}: no {word:?} in: {text}");
        }
        assert!(!looks_like_code(text), "{error:?}: {text}");
    }

    #[test]
    fn each_error_of_rustls_has_a_sentence_of_its_own() {
        let mut texts = BTreeSet::new();
        for (error, words) in all_of_rustls() {
            let text = explain(&error, "broker", file());
            assert_says(&error, &text, words);
            assert!(texts.insert(text), "{error:?} has the text of another");
        }
    }

    #[test]
    fn each_error_of_webpki_has_a_sentence() {
        let other = webpki_error(webpki::Error::BadDer);
        let other = explain(&other, "broker", file());
        for (error, words) in all_of_webpki() {
            let error = webpki_error(error);
            let text = explain(&error, "broker", file());
            assert_says(&error, &text, words);
            assert_ne!(text, other, "{error:?}");
        }
        assert!(!looks_like_code(&other), "{other}");
    }

    #[test]
    fn an_unusable_revocation_list_is_explained() {
        use CertRevocationListError as Error;
        for (error, words) in [
            (Error::BadSignature, "signature"),
            (Error::IssuerInvalidForCrl, "cRLSign"),
            (Error::ParseError, "malformed"),
            (Error::InvalidCrlNumber, "malformed"),
            (Error::InvalidRevokedCertSerialNumber, "malformed"),
            (
                Error::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: ECDSA_SHA_512.to_vec(),
                    supported_algorithms: Vec::new(),
                },
                "algorithm",
            ),
            (
                Error::UnsupportedSignatureAlgorithmForPublicKeyContext {
                    signature_algorithm_id: ECDSA_SHA_512.to_vec(),
                    public_key_algorithm_id: p_521(),
                },
                "algorithm",
            ),
            (Error::UnsupportedCrlVersion, "support"),
            (Error::UnsupportedCriticalExtension, "support"),
            (Error::UnsupportedDeltaCrl, "support"),
            (Error::UnsupportedIndirectCrl, "support"),
            (Error::UnsupportedRevocationReason, "support"),
            (Error::Other(OtherError(Arc::from(Box::from("no")))), "CRL"),
        ] {
            let text = explain_list(&error);
            assert!(
                text.contains("CRL") && text.contains(words),
                "{error:?}: {text}"
            );
            assert!(!looks_like_code(&text), "{error:?}: {text}");
        }
    }

    #[test]
    fn what_is_trusted_depends_on_the_option() {
        let issuer = CertificateError::UnknownIssuer;
        assert!(explain(&issuer, "broker", Trusted::System).contains("set option tls_ca_file"));
        let text = explain(
            &issuer,
            "broker",
            Trusted::Named {
                file: Some(Path::new("/the/ca.pem")),
                pem: false,
                unreadable: 3,
            },
        );
        assert!(text.contains("of which 3 cannot be parsed"), "{text}");
        assert!(!text.contains("tls_ca_pem"), "{text}");
        let ca = webpki_error(webpki::Error::CaUsedAsEndEntity);
        assert!(explain(&ca, "broker", Trusted::System).contains("by option tls_ca_file"));
        for (file, in_file) in [(None, false), (Some(Path::new("/the/ca.pem")), true)] {
            let trusted = Trusted::Named {
                file,
                pem: true,
                unreadable: 0,
            };
            let text = explain(&issuer, "broker", trusted);
            assert!(text.contains("option tls_ca_pem alone"), "{text}");
            assert_eq!(text.contains("'/the/ca.pem' (option tls_ca_file)"), in_file);
            let text = explain(&ca, "broker", trusted);
            assert_eq!(text.contains("option tls_ca_file"), in_file, "{text}");
            assert_eq!(text.contains("option tls_ca_pem"), !in_file, "{text}");
        }
    }

    #[test]
    fn names_are_shown_without_what_can_be_no_host_and_not_without_end() {
        let text = explain(
            &not_for(&[
                "DirectoryName",
                "Unsupported(0x01)",
                "UniformResourceIdentifier(\"http://x\")",
            ]),
            "broker",
            file(),
        );
        assert!(text.contains("names no host"), "{text}");
        let text = explain(&not_for(&["DnsName(\"a\n\u{1b}b\")"]), "broker", file());
        assert!(!text.contains(|c: char| c.is_control()), "{text}");
        let text = explain(&not_for(&["DnsName(\"a\")"; 1000]), "broker", file());
        assert!(text.contains("and 990 more"), "{text}");
    }

    #[test]
    fn spans_are_said_in_the_unit_that_suits() {
        let span = |seconds: u64| Span::between(at(1), at(1 + seconds)).to_string();
        assert_eq!(span(0), "0 seconds");
        assert_eq!(span(119), "119 seconds");
        assert_eq!(span(120), "2 minutes");
        assert_eq!(span(7200), "2 hours");
        assert_eq!(span(172_800), "2 days");
        assert_eq!(span(31_536_000), "365 days");
    }
}
