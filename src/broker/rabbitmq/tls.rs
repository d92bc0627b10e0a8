//! TLS: whom we trust, who we say we are, and in words for people why a handshake failed.
//!
//! Not left to lapin, which adds `tls_ca_file` to the authorities of the system: who names one
//! wants no other to vouch for the broker.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, InconsistentKeys, RootCertStore,
    SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::{Failure, is_hang_up};
use super::socket::Tcp;
use crate::config;
use crate::config::Settings;
use crate::endpoint::{Endpoint, Hosts, Scheme};
use crate::error::Error;

/// Beyond any bundle of certificates, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// What the TLS connections of one layer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    files: config::Tls,
    provider: Arc<CryptoProvider>,
    /// The authorities of the system; `None` where `tls_ca_file` is in their place.
    ///
    /// Read once, on the thread of the caller: finding them takes milliseconds and reads the
    /// environment, which is not safe beside a host that changes it.
    system: Option<Arc<Verifier>>,
}

impl Tls {
    /// What `amqps://` hosts need; `None` if there is no such host. Reads all files, so that what
    /// is wrong with them is told at once.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>, Error> {
        let Hosts::Amqp(endpoints) = &settings.hosts else {
            return Ok(None);
        };
        let mut wanted = false;
        for endpoint in endpoints {
            if endpoint.scheme == Scheme::Amqps {
                name_of(endpoint).map_err(|why| Error::invalid(why).context("option 'host'"))?;
                wanted = true;
            }
        }
        if !wanted {
            return Ok(None);
        }
        let provider = Arc::new(ring::default_provider());
        let system = match settings.tls.ca_file {
            Some(_) => None,
            None => Some(system_authorities(&provider)?),
        };
        let tls = Self {
            files: settings.tls.clone(),
            provider,
            system,
        };
        tls.read()?;
        Ok(Some(tls))
    }

    /// Reads the files, so that certificates can be renewed under a running layer.
    pub(super) fn read(&self) -> Result<Connector, Error> {
        let mut unreadable = 0;
        let verifier: Arc<dyn ServerCertVerifier> = match (&self.files.ca_file, &self.system) {
            (Some(file), _) => {
                let (roots, ignored) = authorities(file)?;
                unreadable = ignored;
                rustls::client::WebPkiServerVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&self.provider),
                )
                .build()
                .map_err(|error| {
                    Error::invalid(format!(
                        "option 'tls_ca_file': '{}' cannot be used: {error}",
                        file.display()
                    ))
                })?
            }
            (None, Some(system)) => Arc::clone(system) as Arc<dyn ServerCertVerifier>,
            (None, None) => system_authorities(&self.provider)?,
        };
        let identity = match (&self.files.cert_file, &self.files.key_file) {
            (Some(cert), Some(key)) => Some(identity(cert, key, &self.provider)?),
            _ => None,
        };
        let us = Arc::new(Us {
            identity,
            was_asked: AtomicBool::new(false),
        });
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid(format!("TLS cannot be used: {error}")))?
            .dangerous() // the verifiers above check all there is to check
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::clone(&us) as Arc<dyn ResolvesClientCert>);
        // There is no second connection from this reading of the files.
        config.resumption = Resumption::disabled();
        Ok(Connector {
            config: Arc::new(config),
            us,
            files: self.files.clone(),
            unreadable,
        })
    }
}

/// The client's certificate, and whether a broker wanted to see one.
#[derive(Debug)]
struct Us {
    identity: Option<Arc<CertifiedKey>>,
    was_asked: AtomicBool,
}

impl ResolvesClientCert for Us {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Release);
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        self.identity.is_some()
    }
}

/// The files as they were when a connection began.
pub(super) struct Connector {
    config: Arc<ClientConfig>,
    us: Arc<Us>,
    files: config::Tls,
    /// How many certificates of `tls_ca_file` are none that can be trusted.
    unreadable: usize,
}

impl Connector {
    /// Makes a TLS connection of a TCP one.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        tcp: Tcp,
    ) -> Result<TlsStream<Tcp>, Failure> {
        let name = name_of(endpoint).map_err(Failure::refused)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let handshake = connector.connect(name, tcp).into_fallible();
        handshake.await.map_err(|(error, tcp)| {
            if is_hang_up(error.kind()) && !tcp.has_heard() {
                // As a load balancer does that has no broker to connect us with.
                return Failure::passing(
                    "the other side hung up during the TLS handshake without a word; is this the \
                     port of a RabbitMQ that speaks TLS (usually 5671), and does it run?",
                );
            }
            self.explain(endpoint, &error)
        })
    }

    /// Why TLS failed, in the handshake or after it. With TLS 1.3 the broker judges our
    /// certificate when we are long done.
    pub(super) fn explain(&self, endpoint: &Endpoint, error: &io::Error) -> Failure {
        if is_hang_up(error.kind()) {
            return self.explain_hang_up();
        }
        let reason = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match reason {
            Some(rustls::Error::InvalidCertificate(why)) => {
                Failure::refused(self.explain_certificate(endpoint, why))
            }
            Some(rustls::Error::AlertReceived(alert)) => self.explain_alert(endpoint, *alert),
            Some(rustls::Error::InvalidMessage(_)) => Failure::refused(format!(
                "the other side does not speak TLS: if port {} is RabbitMQ's plain one, use its \
                 port for TLS (usually 5671), or amqp:// where nobody can listen in",
                endpoint.port
            )),
            Some(rustls::Error::PeerIncompatible(why)) => Failure::refused(format!(
                "the broker's TLS does not fit ours, which is 1.2 or 1.3: {why:?}"
            )),
            _ => Failure::passing(format!("TLS failed: {error}")),
        }
    }

    fn explain_hang_up(&self) -> Failure {
        if !self.us.was_asked.load(Ordering::Acquire) {
            // It does not care who we are, so that is not why.
            return Failure::passing(
                "the other side speaks TLS, but hung up before it said a word of AMQP; is there a \
                 RabbitMQ behind this port?",
            );
        }
        Failure::hung_up(match &self.files.cert_file {
            None => "the broker asked for a client certificate, was given none and hung up: set \
                     options tls_cert_file and tls_key_file"
                .to_owned(),
            Some(file) => format!(
                "the broker asked for a client certificate, was shown '{}' (option tls_cert_file) \
                 and hung up: see that this has not expired and that the broker trusts its \
                 authority; the broker's log says more",
                file.display()
            ),
        })
    }

    /// Why we do not take the broker's certificate.
    fn explain_certificate(&self, endpoint: &Endpoint, why: &CertificateError) -> String {
        let host = &endpoint.host;
        match why {
            // The second is said of an authority of the same name with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                let trusted = match &self.files.ca_file {
                    None => "those of this system; for an authority of your own set option \
                             tls_ca_file"
                        .to_owned(),
                    Some(file) if self.unreadable == 0 => {
                        format!("those in '{}' alone (option tls_ca_file)", file.display())
                    }
                    Some(file) => format!(
                        "those in '{}' alone (option tls_ca_file), of which {} cannot be read",
                        file.display(),
                        self.unreadable
                    ),
                };
                format!(
                    "the broker's certificate is of no authority that is trusted (or the broker \
                     does not send those in between); trusted are {trusted}"
                )
            }
            CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                format!(
                    "the broker's certificate names no host (a common name does not count), and \
                     so not '{host}': it needs that as a subject alternative name"
                )
            }
            CertificateError::NotValidForNameContext { presented, .. } => format!(
                "the broker's certificate is not for '{host}' but for {}: use a host that it \
                 names, or have it name this one",
                presented.join(", ")
            ),
            CertificateError::ExpiredContext { time, not_after } => format!(
                "the broker's certificate expired {} ago, by this machine's clock: renew it",
                Span::between(*not_after, *time)
            ),
            CertificateError::NotValidYetContext { time, not_before } => format!(
                "the broker's certificate is not valid for another {}, by this machine's clock: \
                 is that right?",
                Span::between(*time, *not_before)
            ),
            why => format!("the broker's certificate is not good: {why}"),
        }
    }

    /// Why the broker ended TLS.
    fn explain_alert(&self, endpoint: &Endpoint, alert: AlertDescription) -> Failure {
        let says = format!("the broker says '{alert:?}'");
        let was_asked = self.us.was_asked.load(Ordering::Acquire);
        let ours = self.files.cert_file.as_deref().map(Path::display);
        Failure::refused(match (alert, ours) {
            (AlertDescription::CertificateRequired, _) => wants_certificate(&says),
            // As TLS 1.2 puts it.
            (AlertDescription::HandshakeFailure, None) if was_asked => wants_certificate(&says),
            (AlertDescription::CertificateExpired, Some(ours)) => format!(
                "{says}: our certificate '{ours}' (option tls_cert_file) has expired, or its \
                 clock is wrong"
            ),
            (
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateRevoked
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::AccessDenied
                | AlertDescription::DecryptError
                | AlertDescription::HandshakeFailure,
                Some(ours),
            ) if was_asked => format!(
                "{says}: it does not take our certificate '{ours}' (option tls_cert_file); the \
                 authority of that must be among those that the broker trusts, and what lies in \
                 between in the file"
            ),
            (AlertDescription::ProtocolVersion, _) => {
                format!("{says}: it has no version of TLS in common with us, who have 1.2 and 1.3")
            }
            (AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity, _) => {
                format!("{says}: it has no cipher in common with us; the broker's log says more")
            }
            (AlertDescription::UnrecognisedName, _) => {
                format!("{says}: it has no certificate for '{}'", endpoint.host)
            }
            _ => return Failure::passing(format!("{says}; the broker's log says more")),
        })
    }
}

fn wants_certificate(says: &str) -> String {
    format!("{says}: it asks for a client certificate; set options tls_cert_file and tls_key_file")
}

/// A span of time as people say it.
struct Span(u64);

impl Span {
    fn between(from: UnixTime, to: UnixTime) -> Self {
        Self(to.as_secs().saturating_sub(from.as_secs()))
    }
}

impl fmt::Display for Span {
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

/// The name that the broker's certificate must be for.
fn name_of(endpoint: &Endpoint) -> Result<ServerName<'static>, String> {
    ServerName::try_from(endpoint.host.clone()).map_err(|_| {
        format!(
            "'{}' can stand in no certificate: for amqps:// the host must be a DNS name or an IP \
             address",
            endpoint.host
        )
    })
}

fn system_authorities(provider: &Arc<CryptoProvider>) -> Result<Arc<Verifier>, Error> {
    match Verifier::new(Arc::clone(provider)) {
        Ok(verifier) => Ok(Arc::new(verifier)),
        Err(error) => Err(Error::invalid(format!(
            "this system has no certificate authorities to check a broker with ({error}): install \
             them (on Debian the package ca-certificates), or name those to trust by option \
             'tls_ca_file'"
        ))),
    }
}

/// The authorities in a file, and how many of them cannot be used.
fn authorities(file: &Path) -> Result<(RootCertStore, usize), Error> {
    let certificates = certificates("tls_ca_file", file)?;
    let mut roots = RootCertStore::empty();
    // Bundles tend to have one that is odd.
    let (_, unreadable) = roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(bad(
            "tls_ca_file",
            file,
            "holds no certificate that can be read",
        ));
    }
    Ok((roots, unreadable))
}

/// The client's certificate chain and key.
fn identity(
    cert_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let chain = certificates("tls_cert_file", cert_file)?;
    let key = private_key(key_file)?;
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(identity) => Ok(Arc::new(identity)),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(bad(
            "tls_key_file",
            key_file,
            &format!(
                "is not the key of '{}' (option 'tls_cert_file'), where the client's own \
                 certificate must come first",
                cert_file.display()
            ),
        )),
        Err(rustls::Error::InvalidCertificate(_)) => Err(bad(
            "tls_cert_file",
            cert_file,
            "begins with a certificate that cannot be read",
        )),
        Err(_) => Err(bad(
            "tls_key_file",
            key_file,
            "holds a key of a kind that is not known; known are RSA from 2048 bits, ECDSA on P-256 \
             or P-384, and Ed25519",
        )),
    }
}

/// The certificates in a file; at least one.
fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read_file(option, file)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken(option, file, &error))?;
    if certificates.is_empty() {
        return Err(bad(
            option,
            file,
            "holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')",
        ));
    }
    Ok(certificates)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    const OPTION: &str = "tls_key_file";
    let bytes = read_file(OPTION, file)?;
    // The second is how it was done before PKCS#8.
    if [
        &b"-----BEGIN ENCRYPTED PRIVATE KEY"[..],
        b"Proc-Type: 4,ENCRYPTED",
    ]
    .iter()
    .any(|sign| bytes.windows(sign.len()).any(|window| window == *sign))
    {
        return Err(bad(
            OPTION,
            file,
            "is encrypted, and there is nobody to ask for its passphrase: decrypt it ('openssl \
             pkey -in … -out …') into a file that only this user may read",
        ));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => bad(
            OPTION,
            file,
            "holds no private key in PEM ('-----BEGIN PRIVATE KEY-----', or RSA or EC before \
             PRIVATE)",
        ),
        error => broken(OPTION, file, &error),
    })
}

/// A PEM file that is damaged. What the parser found is not shown: it may be of a key.
fn broken(option: &str, file: &Path, error: &pem::Error) -> Error {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "has a '-----BEGIN' without its '-----END'",
        pem::Error::Base64Decode(_) => "has something between its markers that is not base64",
        _ => "is damaged",
    };
    bad(option, file, what)
}

fn read_file(option: &str, file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = file.metadata().and_then(|metadata| {
        if metadata.is_file() {
            return File::open(file)?.take(MAX_FILE).read_to_end(&mut bytes);
        }
        // To open a pipe that nobody writes to would wait for ever.
        let why = "it is no regular file, and must be read again for each connection";
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    });
    match read {
        Ok(count) if count as u64 == MAX_FILE => Err(bad(option, file, "is too large")),
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::invalid(format!(
            "option '{option}': '{}' cannot be read: {error}",
            file.display()
        ))),
    }
}

fn bad(option: &str, file: &Path, what: &str) -> Error {
    Error::invalid(format!("option '{option}': '{}' {what}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::failure::Kind;
    use super::*;

    fn endpoint() -> Endpoint {
        match crate::endpoint::parse("amqps://me:secret@broker/there") {
            Ok(Hosts::Amqp(mut endpoints)) if endpoints.len() == 1 => endpoints.remove(0),
            other => panic!("not one endpoint: {other:?}"),
        }
    }

    /// What is said of an error where the broker asked for a certificate, or did not.
    fn explained(error: rustls::Error, asked: bool, cert_file: Option<&str>) -> Failure {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        explained_io(&error, asked, cert_file)
    }

    fn explained_io(error: &io::Error, asked: bool, cert_file: Option<&str>) -> Failure {
        let us = Arc::new(Us {
            identity: None,
            was_asked: AtomicBool::new(asked),
        });
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("it has versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let connector = Connector {
            config: Arc::new(config),
            us,
            files: config::Tls {
                cert_file: cert_file.map(Into::into),
                ..config::Tls::default()
            },
            unreadable: 0,
        };
        connector.explain(&endpoint(), error)
    }

    #[test]
    fn what_will_not_pass_is_told_from_what_may() {
        use AlertDescription as Alert;
        let ours = Some("/our.pem");
        for (alert, asked, cert_file, kind, words) in [
            (
                Alert::CertificateRequired,
                true,
                None,
                Kind::Refused,
                "client certificate",
            ),
            (
                Alert::HandshakeFailure,
                true,
                None,
                Kind::Refused,
                "client certificate",
            ),
            (
                Alert::HandshakeFailure,
                false,
                None,
                Kind::Refused,
                "cipher",
            ),
            (
                Alert::HandshakeFailure,
                true,
                ours,
                Kind::Refused,
                "/our.pem",
            ),
            (Alert::UnknownCA, true, ours, Kind::Refused, "/our.pem"),
            (
                Alert::CertificateExpired,
                true,
                ours,
                Kind::Refused,
                "/our.pem",
            ),
            (
                Alert::ProtocolVersion,
                false,
                None,
                Kind::Refused,
                "1.2 and 1.3",
            ),
            (
                Alert::UnrecognisedName,
                false,
                None,
                Kind::Refused,
                "'broker'",
            ),
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

    #[test]
    fn every_fault_of_a_certificate_is_a_refusal() {
        for why in [
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
            CertificateError::Expired,
            CertificateError::NotValidForName,
            CertificateError::Revoked,
            CertificateError::InvalidPurpose,
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

    #[test]
    fn names_and_addresses_of_both_kinds_can_stand_in_a_certificate() {
        let name = |host: &str| {
            let mut endpoint = endpoint();
            endpoint.host = host.to_owned();
            name_of(&endpoint)
        };
        for host in ["rabbit", "rabbit.example.org", "my_rabbit-1"] {
            assert!(matches!(name(host), Ok(ServerName::DnsName(_))), "{host}");
        }
        for host in ["127.0.0.1", "::1", "2001:db8::7"] {
            assert!(matches!(name(host), Ok(ServerName::IpAddress(_))), "{host}");
        }
        for host in ["1.2.3", "-rabbit", "a..b"] {
            let why = name(host).expect_err(host);
            assert!(why.contains(&format!("'{host}'")), "{why}");
        }
    }

    #[test]
    fn spans_are_said_in_the_unit_that_suits() {
        let span = |seconds: u64| {
            let start = UnixTime::since_unix_epoch(Duration::from_secs(1));
            let end = UnixTime::since_unix_epoch(Duration::from_secs(1 + seconds));
            Span::between(start, end).to_string()
        };
        assert_eq!(span(0), "0 seconds");
        assert_eq!(span(119), "119 seconds");
        assert_eq!(span(120), "2 minutes");
        assert_eq!(span(7200), "2 hours");
        assert_eq!(span(172_800), "2 days");
        assert_eq!(span(31_536_000), "365 days");
    }
}
