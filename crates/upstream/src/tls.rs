//! TLS towards services: 1.3 and 1.2, certificates always checked.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::config::{ClientCertificate, Protocol, TlsConfig};
use crate::error::ConfigError;

/// How one endpoint is spoken to.
pub(crate) struct Settings {
    /// With the protocols of the service.
    pub(crate) any: Arc<ClientConfig>,
    /// For connections that must be HTTP/1.1.
    pub(crate) http1: Arc<ClientConfig>,
}

/// Certificates the machine trusts. Damaged ones are left out.
pub(crate) fn machine_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

pub(crate) fn settings(
    config: &TlsConfig,
    protocol: Protocol,
    machine: &Arc<RootCertStore>,
) -> Result<Settings, ConfigError> {
    let roots = match &config.ca {
        None => Arc::clone(machine),
        Some(pem) => Arc::new(roots_of(pem)?),
    };
    let mut any = client_config(roots, config.client.as_ref())?;
    let mut http1 = any.clone();
    let (h1, h2) = (b"http/1.1".to_vec(), b"h2".to_vec());
    http1.alpn_protocols = vec![h1.clone()];
    any.alpn_protocols = match protocol {
        Protocol::Auto => vec![h2, h1],
        Protocol::Http1 => vec![h1],
        Protocol::Http2 => vec![h2],
    };
    Ok(Settings {
        any: Arc::new(any),
        http1: Arc::new(http1),
    })
}

/// The name its certificate must be for.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, ConfigError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(ServerName::from(address));
    }
    ServerName::try_from(name.to_owned()).map_err(|_| ConfigError(format!("no host name: {name}")))
}

fn client_config(
    roots: Arc<RootCertStore>,
    client: Option<&ClientCertificate>,
) -> Result<ClientConfig, ConfigError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| ConfigError(error.to_string()))?
        .with_root_certificates(roots);
    let Some(client) = client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(&client.0)?;
    // The message of a PEM error could quote the key: say only that it is none.
    let key = PrivateKeyDer::from_pem_slice(client.0.as_bytes())
        .map_err(|_| ConfigError("the client key holds no private key".into()))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|_| ConfigError("the client key does not fit its certificate".into()))
}

fn roots_of(pem: &str) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| ConfigError(format!("a certificate to trust: {error}")))?;
    }
    Ok(roots)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ConfigError(format!("certificates: {error}")))?;
    if found.is_empty() {
        return Err(ConfigError("no certificate in the PEM".into()));
    }
    Ok(found)
}
