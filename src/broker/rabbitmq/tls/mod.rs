//! TLS: what a layer's connections have in common, and the handshake.
//!
//! Not left to lapin, which adds `tls_ca_file` to the authorities of the system: who names one
//! wants no other to vouch for the broker.

mod algorithms;
mod certificate_errors;
mod explain;
mod files;
mod heard;
mod identity;
#[cfg(test)]
mod testing;
mod trust;

use std::io;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::certificate_errors::Trusted;
use self::explain::Handshake;
use self::heard::Heard;
use self::identity::ClientIdentity;
use self::trust::NamedVerifier;
use super::failure::{Failure, is_hang_up};
use crate::config;
use crate::config::Settings;
use crate::endpoint::{Endpoint, Hosts, Scheme};
use crate::error::Error;

/// What the TLS connections of one layer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    files: config::Tls,
    provider: Arc<CryptoProvider>,
    /// The authorities of the system; `None` where options name others in their place.
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
        let system = if settings.tls.names_certificates() {
            None
        } else {
            Some(trust::system(&provider)?)
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
        let verifier: Arc<dyn ServerCertVerifier> = match &self.system {
            Some(system) => Arc::clone(system) as Arc<dyn ServerCertVerifier>,
            None => {
                let (verifier, ignored) = NamedVerifier::read(&self.files, &self.provider)?;
                unreadable = ignored;
                Arc::new(verifier)
            }
        };
        let certificate = match (&self.files.cert_file, &self.files.key_file) {
            (Some(cert), Some(key)) => Some(identity::read(cert, key, &self.provider)?),
            _ => None,
        };
        let client = Arc::new(ClientIdentity::new(certificate));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::invalid(format!("TLS cannot be used: {error}")))?
            .dangerous() // the verifiers above check all there is to check
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::clone(&client) as Arc<dyn ResolvesClientCert>);
        // There is no second connection from this reading of the files.
        config.resumption = Resumption::disabled();
        Ok(Connector {
            config: Arc::new(config),
            client,
            files: self.files.clone(),
            unreadable,
        })
    }
}

/// The files as they were when a connection began.
pub(super) struct Connector {
    config: Arc<ClientConfig>,
    client: Arc<ClientIdentity>,
    files: config::Tls,
    /// How many certificates that options name are none that can be trusted.
    unreadable: usize,
}

impl Connector {
    /// Does the TLS handshake on a TCP connection.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        tcp: TcpStream,
    ) -> Result<(TcpStream, ClientConnection), Failure> {
        let name = name_of(endpoint).map_err(Failure::refused)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let handshake = connector.connect(name, Heard::new(tcp)).into_fallible();
        let connected = handshake.await.map_err(|(error, tcp)| {
            if is_hang_up(error.kind()) && !tcp.has_heard() {
                // As a load balancer does that has no broker to connect us with.
                return Failure::passing(
                    "the other side hung up during the TLS handshake without a word; is this the \
                     port of a RabbitMQ that speaks TLS (usually 5671), and does it run?",
                );
            }
            self.explain(endpoint, &error)
        })?;
        let (tcp, session) = connected.into_inner();
        Ok((tcp.into_tcp(), session))
    }

    /// Why TLS failed, in the handshake or after it. With TLS 1.3 the broker judges our
    /// certificate when we are long done.
    pub(super) fn explain(&self, endpoint: &Endpoint, error: &io::Error) -> Failure {
        let handshake = Handshake {
            endpoint,
            certificate_wanted: self.client.was_asked(),
            cert_file: self.files.cert_file.as_deref(),
            trusted: if self.files.names_certificates() {
                Trusted::Named {
                    file: self.files.ca_file.as_deref(),
                    pem: self.files.ca_pem.is_some(),
                    unreadable: self.unreadable,
                }
            } else {
                Trusted::System
            },
        };
        handshake.explain(error)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_kinds_can_stand_in_a_certificate() {
        let name = |host: &str| {
            let mut endpoint = match crate::endpoint::parse("amqps://broker") {
                Ok(Hosts::Amqp(mut endpoints)) if endpoints.len() == 1 => endpoints.remove(0),
                other => panic!("not one endpoint: {other:?}"),
            };
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
}
