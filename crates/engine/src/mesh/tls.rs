//! TLS of a sidecar's inbound side: 1.3, its own SVID, and clients that show theirs.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::snapshot::SidecarMode;
use crate::svids::Svids;

/// The settings of one sidecar; the SVID and what is believed are those of the moment.
pub struct MeshTls {
    strict: Arc<ServerConfig>,
    permissive: Arc<ServerConfig>,
}

impl MeshTls {
    /// For the sidecar of that name.
    ///
    /// # Errors
    /// Never, with the TLS library as it is built here.
    pub fn new(svids: &Arc<Svids>, name: &Arc<str>) -> Result<Self, &'static str> {
        let config = |is_mandatory| config(svids, name, is_mandatory).map_err(|_| "its TLS");
        Ok(Self {
            strict: Arc::new(config(true)?),
            permissive: Arc::new(config(false)?),
        })
    }

    /// Those for a new connection.
    pub fn of(&self, mode: SidecarMode) -> Arc<ServerConfig> {
        match mode {
            SidecarMode::Strict => Arc::clone(&self.strict),
            SidecarMode::Permissive => Arc::clone(&self.permissive),
        }
    }
}

/// No session is resumed: its client would not be asked again.
fn config(svids: &Arc<Svids>, name: &Arc<str>, is_mandatory: bool) -> Result<ServerConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Callers {
        svids: Arc::clone(svids),
        algorithms: provider.signature_verification_algorithms,
        is_mandatory,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Shown {
            svids: Arc::clone(svids),
            name: Arc::clone(name),
        }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Shows the SVID of the moment, whatever name the client asks for.
struct Shown {
    svids: Arc<Svids>,
    name: Arc<str>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.svids.shown(&self.name)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({})", self.name)
    }
}

/// Asks for an SVID of a trust domain that the node knows. Each request asks again whether it counts.
struct Callers {
    svids: Arc<Svids>,
    algorithms: WebPkiSupportedAlgorithms,
    is_mandatory: bool,
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers(..)")
    }
}

impl ClientCertVerifier for Callers {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
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
        self.svids
            .vouch(&chain, now.as_secs())
            .map(|_| ClientCertVerified::assertion())
            .map_err(Error::InvalidCertificate)
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
