//! TLS as this node speaks it: 1.3, and 1.2 only where asked for; X25519MLKEM768 first, HTTP/2
//! before HTTP/1.1. Clients are asked for a certificate when the plan has authorities, and need not have one (ADR 0014).

use std::fs;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ConfigBuilder, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    SupportedProtocolVersion, WantsVerifier,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SignatureVerificationAlgorithm, UnixTime};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::certificate::{self, Authorities};
use crate::load::{EngineDir, LoadError};
use crate::refusal::{Cause, Refusal};

/// How long a client whose certificate was refused may take to read why.
const ALERT: Duration = Duration::from_secs(1);

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
    oldest: TlsVersion,
    plain: ArcSwap<ServerConfig>,
    asking: ArcSwapOption<Asking>,
}

/// The same settings for a plan with authorities.
struct Asking {
    base: Arc<ServerConfig>,
    authorities: Arc<Authorities>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads certificate chain and key.
    pub fn load(dir: &EngineDir, oldest: TlsVersion) -> Result<Self, LoadError> {
        Ok(Self {
            oldest,
            plain: ArcSwap::new(Arc::new(read(dir, oldest)?)),
            asking: ArcSwapOption::empty(),
        })
    }

    /// Reads them again; connections that are open keep theirs.
    pub fn reload(&self, dir: &EngineDir) -> Result<(), LoadError> {
        self.plain.store(Arc::new(read(dir, self.oldest)?));
        Ok(())
    }

    /// The settings for a new connection under a plan with these authorities.
    ///
    /// Other authorities mean other session tickets: a session is resumed only under those that
    /// judged its certificate.
    pub fn current(
        &self,
        authorities: Option<&Arc<Authorities>>,
    ) -> Result<Arc<ServerConfig>, LoadError> {
        let base = self.plain.load_full();
        let Some(authorities) = authorities else {
            return Ok(base);
        };
        let is_current = |asking: &Arc<Asking>| {
            Arc::ptr_eq(&asking.base, &base) && Arc::ptr_eq(&asking.authorities, authorities)
        };
        if let Some(asking) = self.asking.load_full().filter(is_current) {
            return Ok(Arc::clone(&asking.config));
        }
        let config = Arc::new(asking(&base, authorities, self.oldest)?);
        self.asking.store(Some(Arc::new(Asking {
            base,
            authorities: Arc::clone(authorities),
            config: Arc::clone(&config),
        })));
        Ok(config)
    }
}

/// The algorithms that certificates may be signed with.
pub fn algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    ALGORITHMS.all
}

static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);

/// What was wrong with the client's certificate, when that is why a handshake failed.
pub fn refusal_of(error: &std::io::Error) -> Option<Refusal> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(error) => Some(certificate::refusal_of(error)),
        Error::NoCertificatesPresented => Some(Cause::CredentialsRequired.into()),
        _ => None,
    }
}

/// Closes a connection so that the alert on it is read: what the client still sends would turn a
/// plain close into a reset, which throws the alert away.
pub async fn let_alert_arrive(mut stream: TcpStream) {
    let drained = async {
        let _ = stream.shutdown().await;
        let mut rest = [0; 1024];
        let mut left = 64;
        while left > 0 && matches!(stream.read(&mut rest).await, Ok(1..)) {
            left -= 1;
        }
    };
    let _ = timeout(ALERT, drained).await;
}

/// Asks for a client certificate, and has the authorities of the plan judge it.
#[derive(Debug)]
struct Verifier(Arc<Authorities>);

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.hints()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<_> = [end_entity]
            .into_iter()
            .chain(intermediates)
            .cloned()
            .collect();
        self.0
            .verify(&chain, now.as_secs(), algorithms())
            .map(|_| ClientCertVerified::assertion())
            .map_err(Error::InvalidCertificate)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &ALGORITHMS)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

fn asking(
    base: &ServerConfig,
    authorities: &Arc<Authorities>,
    oldest: TlsVersion,
) -> Result<ServerConfig, LoadError> {
    let mut config = builder(oldest)?
        .with_client_cert_verifier(Arc::new(Verifier(Arc::clone(authorities))))
        .with_cert_resolver(Arc::clone(&base.cert_resolver));
    finish(&mut config)?;
    Ok(config)
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
    let mut config = builder(oldest)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| invalid(error.to_string()))?;
    finish(&mut config)?;
    Ok(config)
}

fn builder(oldest: TlsVersion) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, LoadError> {
    let versions: &[&SupportedProtocolVersion] = match oldest {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(|error| LoadError::new("tls_invalid", error.to_string()))
}

/// What both kinds of settings share; each has tickets of its own.
fn finish(config: &mut ServerConfig) -> Result<(), LoadError> {
    let invalid = |error: Error| LoadError::new("tls_invalid", error.to_string());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(invalid)?;
    config.max_early_data_size = 0;
    Ok(())
}
