//! The client's certificate: reads it with its key, and shows it to brokers that ask for one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};

use super::algorithms;
use super::files::{self, Source};
use crate::error::Error;

/// The client's certificate, and whether a broker wanted to see one.
#[derive(Debug)]
pub(super) struct ClientIdentity {
    certificate: Option<Arc<CertifiedKey>>,
    was_asked: AtomicBool,
}

impl ClientIdentity {
    pub(super) fn new(certificate: Option<Arc<CertifiedKey>>) -> Self {
        Self {
            certificate,
            was_asked: AtomicBool::new(false),
        }
    }

    pub(super) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Acquire)
    }
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Release);
        self.certificate.clone()
    }

    fn has_certs(&self) -> bool {
        self.certificate.is_some()
    }
}

/// Reads the client's certificate chain and key.
pub(super) fn read(
    cert_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let chain = files::certificates("tls_cert_file", Source::File(cert_file))?;
    let key = files::private_key(key_file)?;
    let kind = algorithms::private_key(&key);
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(identity) => Ok(Arc::new(identity)),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(files::bad(
            "tls_key_file",
            Source::File(key_file),
            &format!(
                "is not the key of '{}' (option 'tls_cert_file'), where the client's own \
                 certificate must come first",
                cert_file.display()
            ),
        )),
        Err(rustls::Error::InvalidCertificate(_)) => Err(files::bad(
            "tls_cert_file",
            Source::File(cert_file),
            "begins with a certificate that cannot be read",
        )),
        Err(_) => Err(files::bad(
            "tls_key_file",
            Source::File(key_file),
            &unusable(kind),
        )),
    }
}

/// Why a key cannot be signed with.
fn unusable(kind: Option<String>) -> String {
    let usable = algorithms::USABLE_KEYS;
    match kind {
        None => "holds a private key that is malformed".to_owned(),
        Some(kind) => format!(
            "holds a private key that is {kind}, or damaged: this library signs with {usable}; \
             create such a key, and have a certificate issued for it"
        ),
    }
}
