//! TLS as this node speaks it: 1.3, and 1.2 only where asked for; X25519MLKEM768 first, HTTP/2
//! before HTTP/1.1.

use std::fs;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::load::{EngineDir, LoadError};

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2: rustls has only suites with AEAD and forward secrecy.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// The TLS settings in force; control renews the certificate under them.
pub struct Tls {
    current: ArcSwap<ServerConfig>,
    oldest: TlsVersion,
}

impl Tls {
    /// Reads certificate chain and key.
    pub fn load(dir: &EngineDir, oldest: TlsVersion) -> Result<Self, LoadError> {
        Ok(Self {
            current: ArcSwap::new(Arc::new(read(dir, oldest)?)),
            oldest,
        })
    }

    /// Reads them again; connections that are open keep theirs.
    pub fn reload(&self, dir: &EngineDir) -> Result<(), LoadError> {
        self.current.store(Arc::new(read(dir, self.oldest)?));
        Ok(())
    }

    /// The settings for a new connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn read(dir: &EngineDir, oldest: TlsVersion) -> Result<ServerConfig, LoadError> {
    let invalid = |what: String| LoadError::new("tls_invalid", what);
    let (chain, key) = dir.tls();
    let chain = fs::read(&chain).map_err(|error| invalid(format!("server.pem: {error}")))?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(format!("server.pem: {error}")))?;
    let key = fs::read(&key).map_err(|error| invalid(format!("server.key: {error}")))?;
    // The message of a PEM error could quote the file: say only that it is no key.
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| invalid("server.key holds no private key".into()))?;
    let versions: &[&SupportedProtocolVersion] = match oldest {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(|error| invalid(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| invalid(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| invalid(error.to_string()))?;
    config.max_early_data_size = 0;
    Ok(config)
}
