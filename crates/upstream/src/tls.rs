//! TLS towards services: 1.3 and 1.2, certificates always checked.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::{ClientCertificate, Protocol, SpiffeConfig, TlsConfig};
use crate::error::ConfigError;

/// How old a connection between SVIDs may be that gets another request. They live for minutes: what both sides proved is
/// proved again before it has ended.
const LONGEST_USE: Duration = Duration::from_secs(300);

/// How one endpoint is spoken to.
pub(crate) struct Settings {
    /// With the protocols of the service.
    pub(crate) any: Arc<ClientConfig>,
    /// For connections that must be HTTP/1.1.
    pub(crate) http1: Arc<ClientConfig>,
    /// How old a connection may be that gets another request; absent: any age.
    pub(crate) longest_use: Option<Duration>,
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
    let mut any = match (&config.spiffe, &config.ca) {
        (Some(spiffe), _) => spiffe_config(spiffe)?,
        (None, None) => client_config(Arc::clone(machine), config.client.as_ref())?,
        (None, Some(pem)) => client_config(Arc::new(roots_of(pem)?), config.client.as_ref())?,
    };
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
        longest_use: config.spiffe.as_ref().map(|_| LONGEST_USE),
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

/// Both sides show SVIDs, of TLS 1.3 alone. No session is resumed: its peer would not be asked again.
fn spiffe_config(spiffe: &SpiffeConfig) -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| ConfigError(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Peers {
            spiffe: spiffe.clone(),
            algorithms,
        }))
        .with_client_cert_resolver(Arc::new(Shown(spiffe.clone())));
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Shows the SVID of the moment.
struct Shown(SpiffeConfig);

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.identity.shown()?;
        shown.key.choose_scheme(schemes).is_some().then_some(shown)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(..)")
    }
}

/// Believes a server that proves one of the SPIFFE IDs. The name it was looked up by proves nothing.
struct Peers {
    spiffe: SpiffeConfig,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peers({:?})", self.spiffe.peers)
    }
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let id = self.spiffe.identity.proved(leaf, others, now)?;
        if self.spiffe.peers.contains(&id) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General(format!(
            "the peer is {id}, which is not asked for"
        )))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
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
