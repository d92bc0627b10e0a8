//! Which certificates of brokers are trusted: those that a trusted CA has signed, and those that
//! `tls_ca_file` and `tls_ca_pem` name themselves.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    VerifierBuilderError, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor,
    verify_server_name,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::certificate_errors::is_ca;
use super::files::{self, Source};
use crate::config;
use crate::error::Error;

/// Trusts what the system's CAs have signed.
pub(super) fn system(provider: &Arc<CryptoProvider>) -> Result<Arc<Verifier>, Error> {
    match Verifier::new(Arc::clone(provider)) {
        Ok(verifier) => Ok(Arc::new(verifier)),
        Err(error) => Err(Error::invalid(format!(
            "this system has no certificate authorities to check a broker with ({error}): install \
             them (on Debian the package ca-certificates), or name those to trust by option \
             'tls_ca_file' or 'tls_ca_pem'"
        ))),
    }
}

/// Trusts the certificates that options name, and no others.
#[derive(Debug)]
pub(super) struct NamedVerifier {
    authorities: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl NamedVerifier {
    /// Reads what the options name; the second is the number of certificates that cannot be
    /// parsed.
    pub(super) fn read(
        options: &config::Tls,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(Self, usize), Error> {
        let file = options.ca_file.as_deref().map(Source::File);
        let pem = options.ca_pem.as_ref().map(|pem| Source::Value(&pem.0));
        let (mut roots, mut certificates, mut unreadable) = (RootCertStore::empty(), Vec::new(), 0);
        for (option, source) in [("tls_ca_file", file), ("tls_ca_pem", pem)] {
            let Some(source) = source else { continue };
            let named = files::certificates(option, source)?;
            // Bundles tend to have one that is odd.
            let (usable, odd) = roots.add_parsable_certificates(named.iter().cloned());
            if usable == 0 {
                let what = "holds no certificate that can be read";
                return Err(files::bad(option, source, what));
            }
            certificates.extend(named);
            unreadable += odd;
        }
        let verifier = Self::new(roots, certificates, provider).map_err(|error| {
            Error::invalid(format!(
                "the certificates of options 'tls_ca_file' and 'tls_ca_pem' cannot be used: {error}"
            ))
        })?;
        Ok((verifier, unreadable))
    }

    fn new(
        roots: RootCertStore,
        certificates: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()?;
        Ok(Self {
            authorities,
            certificates,
        })
    }
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let signed = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match signed {
            Err(refusal) if self.certificates.contains(end_entity) => {
                verify_pinned(end_entity, server_name, now, refusal)
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Verifies all but the signature of a certificate that is trusted as it is: dates, purpose, name.
///
/// webpki refuses it for its `refusal`: it knows no certificate that is a CA and a server at once,
/// and none without an issuer. That is what `openssl req -x509` makes.
fn verify_pinned(
    end_entity: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
    refusal: rustls::Error,
) -> Result<ServerCertVerified, rustls::Error> {
    let certificate = ParsedCertificate::try_from(end_entity)?;
    let no_roots = RootCertStore::empty();
    let verify_at =
        |time| verify_server_cert_signed_by_trust_anchor(&certificate, &no_roots, &[], time, &[]);
    // webpki checks dates, then whether it is a CA, then its purpose, then who issued it, and stops
    // at the first that fails. That the dates come first is no promise, so it has to show it: a
    // certificate that has not expired by the end of time was not asked for its dates.
    let end_of_time = UnixTime::since_unix_epoch(Duration::MAX);
    match verify_at(end_of_time) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) => {}
        _ => return Err(refusal),
    }
    match verify_at(now) {
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
        Err(rustls::Error::InvalidCertificate(error)) if is_ca(&error) => {}
        Err(error) => return Err(error),
        Ok(()) => return Err(refusal), // no root can have signed it: there is none
    }
    verify_server_name(&certificate, server_name)?;
    Ok(ServerCertVerified::assertion())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::{CertifiedKey, SigningKey};
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

    use super::super::testing::der;
    use super::*;

    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const ED25519: &[u8] = &[SEQUENCE, 5, 6, 3, 0x2b, 0x65, 0x70];

    /// A key of Ed25519, which is any 32 bytes.
    fn key(seed: u8) -> Arc<dyn SigningKey> {
        let private = der(0x04, &[&der(0x04, &[&[seed; 32]])]);
        let private = der(SEQUENCE, &[&[INTEGER, 1, 0], ED25519, &private]);
        let private = PrivateKeyDer::Pkcs8(private.into());
        ring::default_provider()
            .key_provider
            .load_private_key(private)
            .expect("a key")
    }

    /// What a certificate says. Its signature is none, as nobody looks at that of a pinned one.
    struct Said {
        key: Arc<dyn SigningKey>,
        not_before: &'static str,
        not_after: &'static str,
        ca: bool,
        usage: Option<&'static [u8]>,
        host: &'static str,
    }

    impl Said {
        fn of(key: Arc<dyn SigningKey>) -> Self {
            Self {
                key,
                not_before: "20200101000000Z",
                not_after: "20991231235959Z",
                ca: true,
                usage: None,
                host: "broker",
            }
        }

        fn certificate(&self) -> CertificateDer<'static> {
            self.signed(|_| vec![0; 64])
        }

        fn signed_by(&self, issuer: &Arc<dyn SigningKey>) -> CertificateDer<'static> {
            let signer = issuer.choose_scheme(&[SignatureScheme::ED25519]);
            let signer = signer.expect("a key of Ed25519");
            self.signed(|said| signer.sign(said).expect("a signature"))
        }

        fn signed(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> CertificateDer<'static> {
            let extension = |id: u8, value: &[u8]| {
                let id = der(0x06, &[&[0x55, 0x1d, id]]);
                der(SEQUENCE, &[&id, &der(0x04, &[value])])
            };
            let name = der(SEQUENCE, &[&der(0x82, &[self.host.as_bytes()])]);
            let mut extensions = extension(17, &name);
            if self.ca {
                extensions.extend(extension(19, &der(SEQUENCE, &[&[1, 1, 0xff]])));
            }
            if let Some(usage) = self.usage {
                extensions.extend(extension(37, &der(SEQUENCE, &[&der(0x06, &[usage])])));
            }
            let dates = [self.not_before, self.not_after].map(|at| der(0x18, &[at.as_bytes()]));
            let nobody = der(SEQUENCE, &[]);
            let key = self.key.public_key().expect("a public key");
            let said = der(
                SEQUENCE,
                &[
                    &der(0xa0, &[&[INTEGER, 1, 2]]),
                    &[INTEGER, 1, 7],
                    ED25519,
                    &nobody,
                    &der(SEQUENCE, &[&dates.concat()]),
                    &nobody,
                    &key,
                    &der(0xa3, &[&der(SEQUENCE, &[&extensions])]),
                ],
            );
            let signature = der(0x03, &[&[0], &sign(&said)]);
            der(SEQUENCE, &[&said, ED25519, &signature]).into()
        }
    }

    fn trusting(certificate: &CertificateDer<'static>) -> NamedVerifier {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        NamedVerifier::new(roots, vec![certificate.clone()], &provider).expect("a verifier")
    }

    /// What comes of a certificate that is trusted as it is, at a time in seconds.
    fn verified(said: &Said, at: u64) -> Result<(), CertificateError> {
        let certificate = said.certificate();
        let name = ServerName::try_from("broker").expect("a name");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let verifier = trusting(&certificate);
        match verifier.verify_server_cert(&certificate, &[], &name, &[], now) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(why)) => Err(why),
            Err(other) => panic!("{other:?}"),
        }
    }

    const IN_2020: u64 = 1_577_836_800;
    const IN_2030: u64 = 1_900_000_000;
    const AFTER_2099: u64 = 4_102_444_800;

    /// A certificate as PEM.
    fn pem(certificate: &CertificateDer<'_>) -> String {
        let base64 = base64::engine::general_purpose::STANDARD.encode(certificate);
        format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn certificates_of_the_file_and_of_the_text_are_trusted_together() {
        let provider = Arc::new(ring::default_provider());
        let (one, other) = (
            Said::of(key(1)).certificate(),
            Said::of(key(2)).certificate(),
        );
        let file = std::env::temp_dir().join(format!("channel-layer-{}.pem", std::process::id()));
        std::fs::write(&file, pem(&one)).expect("a file");
        let both = config::Tls {
            ca_file: Some(file.clone()),
            ca_pem: Some(config::Pem(pem(&other))),
            ..config::Tls::default()
        };
        let text = config::Tls {
            ca_file: None,
            ..both.clone()
        };
        let read = |options: &config::Tls| NamedVerifier::read(options, &provider);
        let (of_both, of_text) = (read(&both), read(&text));
        std::fs::remove_file(&file).expect("the file");
        let (of_both, unreadable) = of_both.expect("a verifier");
        assert_eq!(
            (&of_both.certificates, unreadable),
            (&vec![one, other.clone()], 0)
        );
        assert_eq!(of_text.expect("a verifier").0.certificates, [other]);
    }

    #[test]
    fn text_that_holds_no_certificate_is_refused_and_never_shown() {
        let provider = Arc::new(ring::default_provider());
        for (text, words) in [
            ("s3cr3t", "holds no certificate in PEM"),
            (
                "-----BEGIN CERTIFICATE-----\ns3cr3t",
                "without its '-----END'",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n!s3cr3t\n-----END CERTIFICATE-----\n",
                "not base64",
            ),
            (
                &pem(&CertificateDer::from(b"s3cr3t".to_vec())),
                "can be read",
            ),
        ] {
            let options = config::Tls {
                ca_pem: Some(config::Pem(text.to_owned())),
                ..config::Tls::default()
            };
            let error = NamedVerifier::read(&options, &provider).expect_err(words);
            let error = error.to_string();
            assert!(error.contains("option 'tls_ca_pem'"), "{error}");
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[test]
    fn a_pinned_certificate_is_trusted_whoever_has_signed_it() {
        for ca in [true, false] {
            let said = Said {
                ca,
                ..Said::of(key(1))
            };
            assert_eq!(verified(&said, IN_2030), Ok(()), "{ca}");
        }
    }

    #[test]
    fn the_dates_of_a_pinned_certificate_count() {
        for ca in [true, false] {
            let said = Said {
                ca,
                ..Said::of(key(1))
            };
            assert_eq!(verified(&said, IN_2020), Ok(()));
            assert_eq!(verified(&said, AFTER_2099 - 1), Ok(()));
            let early = verified(&said, IN_2020 - 1);
            assert!(
                matches!(early, Err(CertificateError::NotValidYetContext { .. })),
                "{early:?}"
            );
            let late = verified(&said, AFTER_2099);
            assert!(
                matches!(late, Err(CertificateError::ExpiredContext { .. })),
                "{late:?}"
            );
            let inverted = Said {
                ca,
                not_before: "20990101000000Z",
                not_after: "20200101000000Z",
                ..Said::of(key(1))
            };
            assert!(verified(&inverted, IN_2030).is_err());
            let endless = Said {
                ca,
                not_before: "19700101000000Z",
                not_after: "99991231235959Z",
                ..Said::of(key(1))
            };
            assert_eq!(verified(&endless, 0), Ok(()));
            assert_eq!(verified(&endless, 253_402_300_799), Ok(()));
        }
    }

    #[test]
    fn the_name_of_a_pinned_certificate_counts() {
        for ca in [true, false] {
            let said = Said {
                ca,
                host: "other",
                ..Said::of(key(1))
            };
            let outcome = verified(&said, IN_2030);
            assert!(
                matches!(
                    outcome,
                    Err(CertificateError::NotValidForNameContext { .. })
                ),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn the_name_of_a_certificate_that_a_trusted_ca_has_signed_counts() {
        let verifier = trusting(&Said::of(key(1)).certificate());
        let name = ServerName::try_from("broker").expect("a name");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(IN_2030));
        let verified = |host, issuer| {
            let said = Said {
                ca: false,
                host,
                ..Said::of(key(2))
            };
            verifier.verify_server_cert(&said.signed_by(&key(issuer)), &[], &name, &[], now)
        };
        assert!(verified("broker", 1).is_ok());
        let of_another = verified("other", 1);
        assert!(
            matches!(
                of_another,
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForNameContext { .. }
                ))
            ),
            "{of_another:?}"
        );
        assert!(verified("broker", 3).is_err(), "another has signed it");
    }

    /// A client's certificate may lie in the same file as what is trusted.
    #[test]
    fn a_pinned_certificate_for_clients_is_no_server() {
        const CLIENT: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
        const SERVER: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
        let said = |usage| Said {
            ca: false,
            usage: Some(usage),
            ..Said::of(key(1))
        };
        assert_eq!(verified(&said(SERVER), IN_2030), Ok(()));
        let outcome = verified(&said(CLIENT), IN_2030);
        assert!(
            matches!(outcome, Err(CertificateError::InvalidPurposeContext { .. })),
            "{outcome:?}"
        );
    }

    #[test]
    fn a_certificate_of_the_same_name_with_another_key_is_not_pinned() {
        for ca in [true, false] {
            let said = |seed| Said {
                ca,
                ..Said::of(key(seed))
            };
            let verifier = trusting(&said(1).certificate());
            let name = ServerName::try_from("broker").expect("a name");
            let now = UnixTime::since_unix_epoch(Duration::from_secs(IN_2030));
            let other = said(2).certificate();
            assert!(
                verifier
                    .verify_server_cert(&other, &[], &name, &[], now)
                    .is_err()
            );
        }
    }

    /// A server that shows a certificate and signs with a key, whether they belong together or not.
    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesServerCert for Shows {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    /// A whole handshake, in memory, with a server that has this key.
    fn shake_hands(
        version: &'static rustls::SupportedProtocolVersion,
        server_key: Arc<dyn SigningKey>,
    ) -> Result<(), rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let certificate = Said::of(key(1)).certificate();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trusting(&certificate)))
            .with_no_client_auth();
        let shown = CertifiedKey::new(vec![certificate], server_key);
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shows(Arc::new(shown))));
        let name = ServerName::try_from("broker").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("memory");
            server.read_tls(&mut bytes.as_slice()).expect("memory");
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).expect("memory");
            client.read_tls(&mut bytes.as_slice()).expect("memory");
            client.process_new_packets()?;
        }
        Ok(())
    }

    /// All can show a pinned certificate: it is public.
    #[test]
    fn a_pinned_certificate_shown_without_its_key_is_refused() {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            assert_eq!(shake_hands(version, key(1)), Ok(()), "{version:?}");
            assert_eq!(
                shake_hands(version, key(2)),
                Err(CertificateError::BadSignature.into()),
                "{version:?}"
            );
        }
    }
}
