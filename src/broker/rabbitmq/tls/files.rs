//! Reads PEM, from files or the values of options, and says what is wrong where it cannot be used.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;

/// Beyond any bundle of certificates, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Where PEM comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    File(&'a Path),
    /// The value of the option. No error shows it.
    Value(&'a str),
}

impl Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "'{}'", file.display()),
            Self::Value(_) => f.write_str("its value"),
        }
    }
}

/// The certificates in a source; at least one.
pub(super) fn certificates(
    option: &str,
    source: Source<'_>,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = match source {
        Source::File(file) => Cow::Owned(read_file(option, file)?),
        Source::Value(value) => Cow::Borrowed(value.as_bytes()),
    };
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken(option, source, &error))?;
    if certificates.is_empty() {
        return Err(bad(
            option,
            source,
            "holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')",
        ));
    }
    Ok(certificates)
}

pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    const OPTION: &str = "tls_key_file";
    let source = Source::File(file);
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
            source,
            "is encrypted, and there is nobody to ask for its passphrase: decrypt it ('openssl \
             pkey -in … -out …') into a file that only this user may read",
        ));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => bad(
            OPTION,
            source,
            "holds no private key in PEM ('-----BEGIN PRIVATE KEY-----', or RSA or EC before \
             PRIVATE)",
        ),
        error => broken(OPTION, source, &error),
    })
}

/// PEM that is damaged. What the parser found is not shown: it may be of a key.
fn broken(option: &str, source: Source<'_>, error: &pem::Error) -> Error {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "has a '-----BEGIN' without its '-----END'",
        pem::Error::Base64Decode(_) => "has something between its markers that is not base64",
        _ => "is damaged",
    };
    bad(option, source, what)
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
        Ok(count) if count as u64 == MAX_FILE => {
            Err(bad(option, Source::File(file), "is too large"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::invalid(format!(
            "option '{option}': '{}' cannot be read: {error}",
            file.display()
        ))),
    }
}

pub(super) fn bad(option: &str, source: Source<'_>, what: &str) -> Error {
    Error::invalid(format!("option '{option}': {source} {what}"))
}
