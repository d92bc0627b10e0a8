//! Why a TLS handshake failed, in sentences: what failed, why, and what to do.

use std::io;
use std::path::Path;

use rustls::{AlertDescription, InvalidMessage, PeerIncompatible, PeerMisbehaved};

use super::super::failure::{Failure, is_hang_up};
use super::algorithms::VERIFIABLE;
use super::certificate_errors::{self, Trusted};
use crate::endpoint::Endpoint;

/// What is known of a handshake that failed.
pub(super) struct Handshake<'a> {
    pub(super) endpoint: &'a Endpoint,
    /// Whether the broker asked for a client certificate.
    pub(super) certificate_wanted: bool,
    /// Option `tls_cert_file`.
    pub(super) cert_file: Option<&'a Path>,
    pub(super) trusted: Trusted<'a>,
}

impl Handshake<'_> {
    pub(super) fn explain(&self, error: &io::Error) -> Failure {
        if is_hang_up(error.kind()) {
            return self.explain_hang_up();
        }
        let reason = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match reason {
            Some(reason) => self.explain_tls(reason),
            None => Failure::passing(format!("TLS failed: {error}")),
        }
    }

    fn explain_tls(&self, error: &rustls::Error) -> Failure {
        use rustls::Error;
        match error {
            Error::InvalidCertificate(why) => Failure::refused(certificate_errors::explain(
                why,
                &self.endpoint.host,
                self.trusted,
            )),
            Error::InvalidCertRevocationList(why) => {
                Failure::refused(certificate_errors::explain_list(why))
            }
            Error::AlertReceived(alert) => self.explain_alert(*alert),
            Error::InvalidMessage(why) => Failure::refused(self.explain_message(*why)),
            Error::PeerIncompatible(why) => Failure::refused(explain_incompatible(why)),
            Error::PeerMisbehaved(why) => Failure::refused(misbehaved(explain_misbehaved(why))),
            Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
                Failure::refused(misbehaved("it sent a message out of turn"))
            }
            Error::PeerSentOversizedRecord => {
                Failure::refused(misbehaved("it sent a record that is too large"))
            }
            Error::NoCertificatesPresented => Failure::refused(
                "the broker sent no certificate: set ssl_options.certfile and ssl_options.keyfile \
                 in its configuration",
            ),
            Error::UnsupportedNameType => Failure::refused(format!(
                "'{}' can stand in no certificate: use a DNS name or an IP address as the host",
                self.endpoint.host
            )),
            // Bits that turned over on the way, or an attack: the next connection may be better.
            Error::DecryptError => Failure::passing(
                "a TLS message from the broker could not be decrypted: it was damaged or changed \
                 on the way",
            ),
            Error::FailedToGetCurrentTime => Failure::passing(
                "the time of this machine, needed to check certificates, cannot be read",
            ),
            Error::FailedToGetRandomBytes => {
                Failure::passing("this system gave no random bytes, which TLS needs")
            }
            // No broker causes one of these.
            Error::General(why) => Failure::passing(format!("TLS failed: {why}")),
            Error::Other(why) => Failure::passing(format!("TLS failed: {why}")),
            _ => Failure::passing("TLS failed for an internal error"),
        }
    }

    fn explain_hang_up(&self) -> Failure {
        if !self.certificate_wanted {
            // It does not care who we are, so that is not why.
            return Failure::passing(
                "the other side speaks TLS, but hung up before it said a word of AMQP; is there a \
                 RabbitMQ behind this port?",
            );
        }
        Failure::hung_up(match self.cert_file {
            None => "the broker asks for a client certificate, was given none and hung up: set \
                     options tls_cert_file and tls_key_file"
                .to_owned(),
            Some(file) => format!(
                "the broker asks for a client certificate, was shown '{}' (option tls_cert_file) \
                 and hung up: see that this has not expired and that the broker trusts its CA; \
                 the broker's log says more",
                file.display()
            ),
        })
    }

    /// Why the broker ended TLS.
    fn explain_alert(&self, alert: AlertDescription) -> Failure {
        let says = format!(
            "the broker says {} (TLS alert {})",
            alert_name(alert),
            u8::from(alert)
        );
        let asked = self.certificate_wanted;
        let ours = self.cert_file.map(Path::display);
        Failure::refused(match (alert, ours) {
            (AlertDescription::CertificateRequired, _) => wants_certificate(&says),
            // As TLS 1.2 puts it.
            (AlertDescription::HandshakeFailure, None) if asked => wants_certificate(&says),
            (AlertDescription::CertificateExpired, Some(ours)) => format!(
                "{says}: the client certificate '{ours}' (option tls_cert_file) has expired, or \
                 the broker's clock is wrong"
            ),
            (AlertDescription::CertificateRevoked, Some(ours)) => format!(
                "{says}: the client certificate '{ours}' (option tls_cert_file) has been revoked: \
                 replace it"
            ),
            (
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied
                | AlertDescription::DecryptError
                | AlertDescription::HandshakeFailure,
                Some(ours),
            ) if asked => format!(
                "{says}: it does not accept the client certificate '{ours}' (option \
                 tls_cert_file); its CA must be among those that the broker trusts, and the \
                 intermediate certificates in that file"
            ),
            (AlertDescription::ProtocolVersion, _) => format!(
                "{says}: it has no TLS version in common with this library, which has 1.2 and 1.3; \
                 see ssl_options.versions in its configuration"
            ),
            (AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity, _) => {
                format!(
                    "{says}: it has no cipher suite, key exchange group or signature algorithm in \
                     common with this library. Its key and the signature of its certificate must \
                     be {VERIFIABLE} (P-521 is not among them), and its cipher suites ECDHE with \
                     AES-GCM or CHACHA20-POLY1305; the broker's log says more"
                )
            }
            (AlertDescription::UnrecognisedName, _) => {
                format!("{says}: it has no certificate for '{}'", self.endpoint.host)
            }
            _ => return Failure::passing(format!("{says}; the broker's log says more")),
        })
    }

    /// Why what was received is not TLS, or not a message that can be read.
    fn explain_message(&self, why: InvalidMessage) -> String {
        let malformed = match why {
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::InvalidEmptyPayload => {
                return format!(
                    "the other side does not speak TLS: if port {} is RabbitMQ's plain one, use \
                     its port for TLS (usually 5671), or amqp:// where nobody can listen in",
                    self.endpoint.port
                );
            }
            InvalidMessage::CertificatePayloadTooLarge
            | InvalidMessage::HandshakePayloadTooLarge => {
                return "the broker sends certificates of more than 64 KiB: have it send its own \
                        and the intermediate ones alone"
                    .to_owned();
            }
            InvalidMessage::InvalidDhParams
            | InvalidMessage::UnsupportedCurveType
            | InvalidMessage::UnsupportedKeyExchangeAlgorithm(_) => {
                return no_common("key exchange", KEY_EXCHANGE);
            }
            InvalidMessage::UnsupportedCompression => {
                return no_common("compression", "none at all, as TLS 1.3 demands");
            }
            InvalidMessage::MissingData(what) | InvalidMessage::TrailingData(what) => {
                return misbehaved(&format!("its message is malformed at {}", words(what)));
            }
            InvalidMessage::UnexpectedMessage(what) => {
                return misbehaved(&format!("it sent an unexpected message, {}", words(what)));
            }
            InvalidMessage::IllegalEmptyList(what) => {
                return misbehaved(&format!("its list of {} is empty", words(what)));
            }
            InvalidMessage::DuplicateExtension(_)
            | InvalidMessage::UnknownHelloRetryRequestExtension
            | InvalidMessage::UnknownCertificateExtension => {
                "it sent an extension twice, or one that was not offered"
            }
            InvalidMessage::NoSignatureSchemes => {
                "it asks for a client certificate and names no signature algorithm for it"
            }
            _ => "it sent a message that is malformed",
        };
        misbehaved(malformed)
    }
}

fn wants_certificate(says: &str) -> String {
    format!("{says}: it asks for a client certificate; set options tls_cert_file and tls_key_file")
}

const KEY_EXCHANGE: &str = "ECDHE on X25519, P-256 and P-384";

fn no_common(what: &str, ours: &str) -> String {
    format!(
        "the broker's TLS has no {what} in common with this library, which has {ours}: see \
         ssl_options in the broker's configuration"
    )
}

fn misbehaved(how: &str) -> String {
    format!(
        "the other side broke the rules of TLS: {how}; update it, or what is between it and this \
         machine"
    )
}

/// The name of a part of a message, as `ServerHelloPayload`, in words.
fn words(name: &str) -> String {
    let mut text = String::new();
    let mut after_small = false;
    for letter in name.chars() {
        if letter.is_uppercase() && after_small {
            text.push(' ');
        }
        after_small = letter.is_lowercase();
        text.push(letter);
    }
    text
}

/// What the broker's TLS lacks.
fn explain_incompatible(why: &PeerIncompatible) -> String {
    use PeerIncompatible as Why;
    match why {
        Why::ServerDoesNotSupportTls12Or13
        | Why::ServerTlsVersionIsDisabledByOurConfig
        | Why::Tls12NotOffered
        | Why::Tls12NotOfferedOrEnabled
        | Why::SupportedVersionsExtensionRequired => no_common("version", "1.2 and 1.3"),
        Why::NoCipherSuitesInCommon => {
            no_common("cipher suite", "ECDHE with AES-GCM or CHACHA20-POLY1305")
        }
        Why::NoKxGroupsInCommon
        | Why::NamedGroupsExtensionRequired
        | Why::KeyShareExtensionRequired => no_common("key exchange group", KEY_EXCHANGE),
        Why::EcPointsExtensionRequired
        | Why::NoEcPointFormatsInCommon
        | Why::UncompressedEcPointsRequired => {
            no_common("format of curve points", "uncompressed points")
        }
        Why::NoSignatureSchemesInCommon | Why::SignatureAlgorithmsExtensionRequired => {
            no_common("signature algorithm", VERIFIABLE)
        }
        Why::NoCertificateRequestSignatureSchemesInCommon => {
            "the broker asks for a client certificate, and accepts no signature algorithm that \
             this library can sign with: see ssl_options in the broker's configuration"
                .to_owned()
        }
        Why::NullCompressionRequired => no_common("compression", "none at all"),
        Why::ExtendedMasterSecretExtensionRequired => no_common(
            "protection of the master secret",
            "the extension extended_master_secret",
        ),
        Why::IncorrectCertificateTypeExtension | Why::UnsolicitedCertificateTypeExtension => {
            no_common("type of certificate", "X.509")
        }
        Why::ServerSentHelloRetryRequestWithUnknownExtension => {
            misbehaved("its HelloRetryRequest has an extension that this library does not know")
        }
        Why::Tls13RequiredForQuic | Why::ServerRejectedEncryptedClientHello(_) => {
            misbehaved("it answered to what was not asked")
        }
        _ => "the broker's TLS does not fit that of this library: see ssl_options in the broker's \
              configuration"
            .to_owned(),
    }
}

/// Which rule of TLS the other side broke. rustls does not document these; they are for whoever
/// looks into its peer, so those are together that one looks for in the same place.
fn explain_misbehaved(why: &PeerMisbehaved) -> &'static str {
    use PeerMisbehaved as Why;
    match why {
        Why::AttemptedDowngradeToTls12WhenTls13IsSupported
        | Why::SelectedTls12UsingTls13VersionExtension => {
            "it chose TLS 1.2 though both sides have 1.3, as after an attack"
        }
        Why::SelectedUnofferedCipherSuite
        | Why::SelectedUnusableCipherSuiteForVersion
        | Why::SelectedDifferentCipherSuiteAfterRetry
        | Why::CipherSuiteDifferedOnRetry => "it chose a cipher suite that was not offered",
        Why::SelectedUnofferedKxGroup
        | Why::WrongGroupForKeyShare
        | Why::InvalidKeyShare
        | Why::MissingKeyShare
        | Why::OfferedDuplicateKeyShares
        | Why::ServerHelloMustOfferUncompressedEcPoints => {
            "its part of the key exchange is missing, malformed or for a group that was not offered"
        }
        Why::SelectedUnofferedCompression
        | Why::SelectedUnofferedCertCompression
        | Why::InvalidCertCompression
        | Why::OfferedDuplicateCertificateCompressions
        | Why::OfferedIncorrectCompressions => "it compressed what was not to be compressed",
        Why::SelectedUnofferedApplicationProtocol | Why::OfferedEmptyApplicationProtocol => {
            "it chose an application protocol (ALPN), though none was offered"
        }
        Why::SignedKxWithWrongAlgorithm | Why::SignedHandshakeWithUnadvertisedSigScheme => {
            "it signed the handshake with an algorithm that does not fit its key or was not offered"
        }
        Why::IllegalHelloRetryRequestWithEmptyCookie
        | Why::IllegalHelloRetryRequestWithNoChanges
        | Why::IllegalHelloRetryRequestWithOfferedGroup
        | Why::IllegalHelloRetryRequestWithUnofferedCipherSuite
        | Why::IllegalHelloRetryRequestWithUnofferedNamedGroup
        | Why::IllegalHelloRetryRequestWithUnsupportedVersion
        | Why::IllegalHelloRetryRequestWithWrongSessionId
        | Why::IllegalHelloRetryRequestWithInvalidEch
        | Why::DuplicateHelloRetryRequestExtensions
        | Why::HandshakeHashVariedAfterRetry
        | Why::EchAcceptanceVariedAfterRetry
        | Why::RefusedToFollowHelloRetryRequest
        | Why::ServerNameDifferedOnRetry => "its request to begin again is malformed",
        Why::SelectedUnofferedPsk
        | Why::SelectedInvalidPsk
        | Why::ResumptionOfferedWithIncompatibleCipherSuite
        | Why::ResumptionOfferedWithVariedCipherSuite
        | Why::ResumptionOfferedWithVariedEms
        | Why::ResumptionAttemptedWithVariedEms
        | Why::ServerEchoedCompatibilitySessionId
        | Why::EarlyDataExtensionWithoutResumption
        | Why::EarlyDataOfferedWithVariedCipherSuite
        | Why::OfferedEarlyDataWithOldProtocolVersion
        | Why::InvalidMaxEarlyDataSize
        | Why::DuplicateNewSessionTicketExtensions => {
            "it resumed a session, or let one be resumed, in a way that is not allowed"
        }
        Why::BadCertChainExtensions
        | Why::DisallowedEncryptedExtension
        | Why::DuplicateEncryptedExtensions
        | Why::DuplicateServerHelloExtensions
        | Why::UnexpectedCleartextExtension
        | Why::UnsolicitedCertExtension
        | Why::UnsolicitedEncryptedExtension
        | Why::UnsolicitedSctList
        | Why::UnsolicitedServerHelloExtension
        | Why::UnsolicitedEchExtension => {
            "it sent an extension twice, in the wrong place, or one that was not offered"
        }
        Why::TooManyEmptyFragments
        | Why::TooManyKeyUpdateRequests
        | Why::TooManyRenegotiationRequests
        | Why::TooManyWarningAlertsReceived => {
            "it sent too many messages that have no content: empty ones, warnings, or requests to \
             renegotiate or to change keys"
        }
        Why::IllegalMiddleboxChangeCipherSpec
        | Why::IllegalTlsInnerPlaintext
        | Why::KeyEpochWithPendingFragment
        | Why::MessageInterleavedWithHandshakeMessage
        | Why::RejectedEarlyDataInterleavedWithHandshakeMessage => {
            "its records are cut where they must not be, or are out of turn"
        }
        // What only servers and QUIC meet is here too.
        _ => "it sent what the handshake does not allow",
    }
}

/// The name of an alert in the RFCs of TLS, which is what the logs of others have.
fn alert_name(alert: AlertDescription) -> &'static str {
    use AlertDescription as Alert;
    match alert {
        Alert::CloseNotify => "close_notify",
        Alert::UnexpectedMessage => "unexpected_message",
        Alert::BadRecordMac => "bad_record_mac",
        Alert::DecryptionFailed => "decryption_failed",
        Alert::RecordOverflow => "record_overflow",
        Alert::DecompressionFailure => "decompression_failure",
        Alert::HandshakeFailure => "handshake_failure",
        Alert::NoCertificate => "no_certificate",
        Alert::BadCertificate => "bad_certificate",
        Alert::UnsupportedCertificate => "unsupported_certificate",
        Alert::CertificateRevoked => "certificate_revoked",
        Alert::CertificateExpired => "certificate_expired",
        Alert::CertificateUnknown => "certificate_unknown",
        Alert::IllegalParameter => "illegal_parameter",
        Alert::UnknownCA => "unknown_ca",
        Alert::AccessDenied => "access_denied",
        Alert::DecodeError => "decode_error",
        Alert::DecryptError => "decrypt_error",
        Alert::ExportRestriction => "export_restriction",
        Alert::ProtocolVersion => "protocol_version",
        Alert::InsufficientSecurity => "insufficient_security",
        Alert::InternalError => "internal_error",
        Alert::InappropriateFallback => "inappropriate_fallback",
        Alert::UserCanceled => "user_canceled",
        Alert::NoRenegotiation => "no_renegotiation",
        Alert::MissingExtension => "missing_extension",
        Alert::UnsupportedExtension => "unsupported_extension",
        Alert::CertificateUnobtainable => "certificate_unobtainable",
        Alert::UnrecognisedName => "unrecognized_name",
        Alert::BadCertificateStatusResponse => "bad_certificate_status_response",
        Alert::BadCertificateHashValue => "bad_certificate_hash_value",
        Alert::UnknownPSKIdentity => "unknown_psk_identity",
        Alert::CertificateRequired => "certificate_required",
        Alert::NoApplicationProtocol => "no_application_protocol",
        Alert::EncryptedClientHelloRequired => "ech_required",
        _ => "that it ends the handshake",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{CertRevocationListError, CertificateError, OtherError};

    use super::super::super::failure::Kind;
    use super::super::testing::looks_like_code;
    use super::*;
    use crate::endpoint::Hosts;

    /// What is said of an error where the broker asked for a certificate, or did not.
    fn explained(error: rustls::Error, asked: bool, cert_file: Option<&str>) -> Failure {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        explained_io(&error, asked, cert_file)
    }

    fn explained_io(error: &io::Error, asked: bool, cert_file: Option<&str>) -> Failure {
        let endpoint = match crate::endpoint::parse("amqps://me:secret@broker/there") {
            Ok(Hosts::Amqp(mut endpoints)) if endpoints.len() == 1 => endpoints.remove(0),
            other => panic!("not one endpoint: {other:?}"),
        };
        let handshake = Handshake {
            endpoint: &endpoint,
            certificate_wanted: asked,
            cert_file: cert_file.map(Path::new),
            trusted: Trusted::System,
        };
        handshake.explain(error)
    }

    #[test]
    fn what_will_not_pass_is_told_from_what_may() {
        use AlertDescription as Alert;
        let ours = Some("/our.pem");
        let refused = Kind::Refused;
        for (alert, asked, cert_file, kind, words) in [
            (
                Alert::CertificateRequired,
                true,
                None,
                refused,
                "tls_cert_file",
            ),
            (
                Alert::HandshakeFailure,
                true,
                None,
                refused,
                "tls_cert_file",
            ),
            (Alert::HandshakeFailure, false, None, refused, "P-521"),
            (Alert::InsufficientSecurity, false, None, refused, "P-521"),
            (Alert::HandshakeFailure, true, ours, refused, "/our.pem"),
            (Alert::UnknownCA, true, ours, refused, "/our.pem"),
            (Alert::CertificateExpired, true, ours, refused, "/our.pem"),
            (Alert::CertificateRevoked, true, ours, refused, "/our.pem"),
            (Alert::ProtocolVersion, false, None, refused, "1.2 and 1.3"),
            (Alert::UnrecognisedName, false, None, refused, "'broker'"),
            (
                Alert::InternalError,
                true,
                ours,
                Kind::Passing,
                "broker's log",
            ),
            (
                Alert::UserCanceled,
                false,
                None,
                Kind::Passing,
                "broker's log",
            ),
        ] {
            let failure = explained(rustls::Error::AlertReceived(alert), asked, cert_file);
            assert_eq!(failure.kind, kind, "{alert:?}: {}", failure.why);
            assert!(failure.why.contains(words), "{alert:?}: {}", failure.why);
        }
    }

    #[test]
    fn a_hang_up_counts_against_us_only_if_the_broker_asked_who_we_are() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        for (asked, cert_file, kind, words) in [
            (true, None, Kind::HungUp, "set options tls_cert_file"),
            (true, Some("/our.pem"), Kind::HungUp, "'/our.pem'"),
            (
                false,
                Some("/our.pem"),
                Kind::Passing,
                "before it said a word of AMQP",
            ),
        ] {
            let failure = explained_io(&reset, asked, cert_file);
            assert_eq!(failure.kind, kind, "{}", failure.why);
            assert!(failure.why.contains(words), "{}", failure.why);
        }
    }

    /// The alert can get lost in the reset of the connection that follows it, and users look for
    /// these words in the guide.
    #[test]
    fn a_wanted_certificate_is_told_in_the_same_words_with_and_without_the_alert() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        for failure in [
            explained_io(&reset, true, None),
            explained(alert, true, None),
        ] {
            let words = "asks for a client certificate";
            assert!(failure.why.contains(words), "{}", failure.why);
        }
    }

    #[test]
    fn each_alert_has_the_name_and_the_number_of_the_rfcs() {
        for number in 0..=u8::MAX {
            let alert = AlertDescription::from(number);
            for (asked, cert_file) in [(false, None), (true, None), (true, Some("/our.pem"))] {
                let failure = explained(rustls::Error::AlertReceived(alert), asked, cert_file);
                let why = failure.why;
                assert!(why.contains(&format!("(TLS alert {number})")), "{why}");
                assert!(!looks_like_code(&why), "{why}");
            }
            let known = !matches!(alert, AlertDescription::Unknown(_));
            assert_eq!(alert_name(alert).contains(' '), !known, "{alert:?}");
        }
        assert_eq!(alert_name(AlertDescription::UnknownCA), "unknown_ca");
    }

    #[test]
    fn each_fault_of_a_certificate_is_a_refusal() {
        for why in [
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
            CertificateError::Expired,
            CertificateError::NotValidForName,
            CertificateError::Revoked,
            CertificateError::InvalidPurpose,
            CertificateError::Other(OtherError(Arc::new(webpki::Error::CaUsedAsEndEntity))),
        ] {
            let failure = explained(rustls::Error::InvalidCertificate(why), false, None);
            assert_eq!(failure.kind, Kind::Refused, "{}", failure.why);
            assert!(
                failure.why.contains("the broker's certificate"),
                "{}",
                failure.why
            );
        }
    }

    /// Those of rustls 0.23.46 that are for clients.
    #[test]
    fn a_broker_whose_tls_does_not_fit_is_told_what_would() {
        use PeerIncompatible as Why;
        for (why, words) in [
            (Why::ServerDoesNotSupportTls12Or13, "1.2 and 1.3"),
            (Why::ServerTlsVersionIsDisabledByOurConfig, "1.2 and 1.3"),
            (Why::NoCipherSuitesInCommon, "AES-GCM"),
            (Why::NoKxGroupsInCommon, "X25519"),
            (Why::KeyShareExtensionRequired, "X25519"),
            (Why::NamedGroupsExtensionRequired, "X25519"),
            (Why::UncompressedEcPointsRequired, "points"),
            (Why::EcPointsExtensionRequired, "points"),
            (Why::NoEcPointFormatsInCommon, "points"),
            (Why::NoSignatureSchemesInCommon, VERIFIABLE),
            (
                Why::NoCertificateRequestSignatureSchemesInCommon,
                "client certificate",
            ),
            (Why::NullCompressionRequired, "compression"),
            (Why::ExtendedMasterSecretExtensionRequired, "master secret"),
            (Why::IncorrectCertificateTypeExtension, "X.509"),
            (Why::UnsolicitedCertificateTypeExtension, "X.509"),
            (
                Why::ServerSentHelloRetryRequestWithUnknownExtension,
                "HelloRetryRequest",
            ),
            (Why::ServerRejectedEncryptedClientHello(None), "not asked"),
        ] {
            let text = explain_incompatible(&why);
            assert!(text.contains(words), "{why:?}: {text}");
            assert!(!text.contains("does not fit"), "{why:?}: {text}");
            let failure = explained(why.into(), false, None);
            assert_eq!((failure.kind, failure.why), (Kind::Refused, text));
        }
    }

    #[test]
    fn a_peer_that_breaks_the_rules_of_tls_is_told_how() {
        use PeerMisbehaved as Why;
        for (why, words) in [
            (
                Why::AttemptedDowngradeToTls12WhenTls13IsSupported,
                "TLS 1.2 though",
            ),
            (Why::SelectedUnofferedCipherSuite, "cipher suite"),
            (Why::WrongGroupForKeyShare, "key exchange"),
            (Why::SelectedUnofferedCompression, "compressed"),
            (Why::SelectedUnofferedApplicationProtocol, "ALPN"),
            (Why::SignedKxWithWrongAlgorithm, "signed the handshake"),
            (Why::IllegalHelloRetryRequestWithNoChanges, "begin again"),
            (Why::SelectedInvalidPsk, "resumed"),
            (Why::UnsolicitedEncryptedExtension, "extension"),
            (Why::TooManyWarningAlertsReceived, "too many"),
            (Why::KeyEpochWithPendingFragment, "records"),
            (Why::MissingQuicTransportParameters, "handshake"),
        ] {
            let failure = explained(why.clone().into(), false, None);
            assert_eq!(failure.kind, Kind::Refused, "{why:?}");
            assert!(failure.why.contains(words), "{why:?}: {}", failure.why);
            assert!(!looks_like_code(&failure.why), "{}", failure.why);
        }
    }

    #[test]
    fn what_is_no_tls_is_told_from_malformed_tls() {
        use InvalidMessage as Why;
        for (why, words) in [
            (Why::InvalidContentType, "does not speak TLS: if port 5671"),
            (Why::UnknownProtocolVersion, "does not speak TLS"),
            (Why::MessageTooLarge, "does not speak TLS"),
            (Why::InvalidEmptyPayload, "does not speak TLS"),
            (Why::CertificatePayloadTooLarge, "64 KiB"),
            (Why::HandshakePayloadTooLarge, "64 KiB"),
            (Why::InvalidDhParams, "key exchange"),
            (Why::UnsupportedCurveType, "key exchange"),
            (Why::UnsupportedCompression, "compression"),
            (
                Why::MissingData("ServerHelloPayload"),
                "Server Hello Payload",
            ),
            (
                Why::TrailingData("CertificatePayloadTls13"),
                "Certificate Payload Tls13",
            ),
            (Why::UnexpectedMessage("Finished"), "Finished"),
            (Why::IllegalEmptyList("ServerNames"), "Server Names"),
            (Why::DuplicateExtension(7), "extension twice"),
            (Why::UnknownCertificateExtension, "extension"),
            (Why::NoSignatureSchemes, "client certificate"),
            (Why::InvalidCcs, "malformed"),
            (Why::MessageTooShort, "malformed"),
            (Why::InvalidKeyUpdate, "malformed"),
        ] {
            let failure = explained(rustls::Error::InvalidMessage(why), false, None);
            assert_eq!(failure.kind, Kind::Refused, "{why:?}");
            assert!(failure.why.contains(words), "{why:?}: {}", failure.why);
            assert!(!looks_like_code(&failure.why), "{}", failure.why);
        }
    }

    #[test]
    fn all_other_errors_are_told_in_words_too() {
        use rustls::{ContentType, Error, HandshakeType};
        for (error, kind, words) in [
            (Error::NoCertificatesPresented, Kind::Refused, "certfile"),
            (Error::UnsupportedNameType, Kind::Refused, "'broker'"),
            (Error::PeerSentOversizedRecord, Kind::Refused, "too large"),
            (
                Error::InappropriateMessage {
                    expect_types: vec![ContentType::Handshake],
                    got_type: ContentType::ApplicationData,
                },
                Kind::Refused,
                "out of turn",
            ),
            (
                Error::InappropriateHandshakeMessage {
                    expect_types: vec![HandshakeType::ServerHello],
                    got_type: HandshakeType::Finished,
                },
                Kind::Refused,
                "out of turn",
            ),
            (Error::DecryptError, Kind::Passing, "decrypted"),
            (Error::FailedToGetCurrentTime, Kind::Passing, "time"),
            (Error::FailedToGetRandomBytes, Kind::Passing, "random"),
            (Error::HandshakeNotComplete, Kind::Passing, "internal"),
            (Error::General("a reason".into()), Kind::Passing, "a reason"),
            (
                Error::Other(OtherError(Arc::from(Box::from("a reason")))),
                Kind::Passing,
                "a reason",
            ),
            (
                Error::InvalidCertRevocationList(CertRevocationListError::ParseError),
                Kind::Refused,
                "CRL",
            ),
        ] {
            let failure = explained(error.clone(), false, None);
            assert_eq!(failure.kind, kind, "{error:?}: {}", failure.why);
            assert!(failure.why.contains(words), "{error:?}: {}", failure.why);
            assert!(!looks_like_code(&failure.why), "{}", failure.why);
        }
    }
}
