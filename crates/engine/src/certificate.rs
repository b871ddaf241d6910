//! Client certificates: whose they are, and which authority of the plan vouches for them.
//!
//! [`read`] and [`spiffe_id`] are pure and take hostile bytes. A chain is verified by webpki
//! (RFC 5280: path, validity, name constraints, basic constraints); what webpki leaves open is
//! checked here: key usage, the required clientAuth, SPIFFE IDs, pins, revoked serials.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{CertificateError, DistinguishedName, OtherError};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use serde::Serialize;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::oid::db::rfc5280::ID_KP_CLIENT_AUTH;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{self, BasicConstraints, ExtendedKeyUsage, SubjectAltName};

use crate::load::LoadError;
use crate::refusal::{Cause, Refusal};
use crate::snapshot::ClientAuthority;

/// The most certificates of a chain, its own included.
const MAX_CHAIN: usize = 8;
/// The most bytes of a chain: a live connection keeps it.
const MAX_CHAIN_BYTES: usize = 32 * 1024;
/// The most roots of one authority.
const MAX_ROOTS: usize = 64;
/// The longest SPIFFE ID (SPIFFE-ID §2.3).
const MAX_SPIFFE_ID: usize = 2048;

/// Whose certificate it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The authority of the snapshot that vouches for it.
    pub authority: String,
    /// Its SPIFFE ID, when the authority has a trust domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// Its subject (RFC 4514).
    pub subject: String,
    /// Its serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub fingerprint: String,
    /// The same, as RFC 8705 §3.1 binds tokens to it.
    #[serde(skip)]
    pub thumbprint: [u8; 32],
    /// Serial numbers of the certificates between it and its authority.
    #[serde(skip)]
    pub issuers: Vec<String>,
    /// Tells it from every other under one plan: authority and fingerprint.
    #[serde(skip)]
    pub key: String,
}

impl Workload {
    /// A workload of `authority` with what `leaf` says.
    pub fn new(authority: &str, spiffe_id: Option<String>, leaf: &Leaf) -> Self {
        let fingerprint = hex(&leaf.thumbprint);
        Self {
            authority: authority.to_owned(),
            spiffe_id,
            subject: leaf.subject.clone(),
            serial: leaf.serial.clone(),
            issuers: Vec::new(),
            key: format!("{authority}/{fingerprint}"),
            fingerprint,
            thumbprint: leaf.thumbprint,
        }
    }

    /// Its name as a principal. No token has such a one: theirs have a `#` after the issuer, and no
    /// issuer may begin with `x509:`.
    pub fn principal(&self) -> String {
        match &self.spiffe_id {
            Some(id) => id.clone(),
            None => format!("x509:{}#{}", self.authority, self.subject),
        }
    }
}

/// A workload, and how long its chain vouches for it.
#[derive(Debug)]
pub struct Vouched {
    /// Whose certificate it is.
    pub workload: Workload,
    /// When the first certificate of the chain ends, in seconds since the epoch.
    pub expires_at: u64,
}

/// What a certificate says of itself; nothing of it is proved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaf {
    /// Its subject (RFC 4514); empty when it names nobody.
    pub subject: String,
    /// Its serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// SHA-256 of the certificate.
    pub thumbprint: [u8; 32],
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`), lower-case hex.
    pub pin: String,
    /// Its URI names, in order.
    pub uris: Vec<String>,
    /// Whether it says that it is an authority.
    pub is_authority: bool,
    /// Whether it may sign handshakes; `None` when it does not say.
    pub signs: Option<bool>,
    /// Whether it may sign certificates or revocation lists.
    pub signs_certificates: bool,
    /// Whether it is for clients (`clientAuth`).
    pub is_for_clients: bool,
    /// When it begins, in seconds since the epoch.
    pub not_before: u64,
    /// When it ends, in seconds since the epoch.
    pub not_after: u64,
}

/// Reads one certificate.
///
/// # Errors
/// A sentence, when it is no certificate or has an extension of a kind twice.
pub fn read(der: &[u8]) -> Result<Leaf, &'static str> {
    let certificate = Certificate::from_der(der).map_err(|_| "it is no certificate")?;
    let tbs = &certificate.tbs_certificate;
    let malformed = |_| "an extension is malformed or there twice";
    let usage = tbs.get::<pkix::KeyUsage>().map_err(malformed)?;
    let usage = usage.map(|(_, usage)| usage);
    let purposes = tbs.get::<ExtendedKeyUsage>().map_err(malformed)?;
    let constraints = tbs.get::<BasicConstraints>().map_err(malformed)?;
    let names = tbs.get::<SubjectAltName>().map_err(malformed)?;
    let uri = |name: GeneralName| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    };
    let key = tbs.subject_public_key_info.to_der();
    Ok(Leaf {
        subject: tbs.subject.to_string(),
        serial: serial_of(tbs.serial_number.as_bytes()),
        thumbprint: sha256(der),
        pin: hex(&sha256(&key.map_err(|_| "its key is malformed")?)),
        uris: names.map_or_else(Vec::new, |(_, names)| {
            names.0.into_iter().filter_map(uri).collect()
        }),
        is_authority: constraints.is_some_and(|(_, it)| it.ca),
        signs: usage.as_ref().map(pkix::KeyUsage::digital_signature),
        signs_certificates: usage
            .as_ref()
            .is_some_and(|usage| usage.key_cert_sign() || usage.crl_sign()),
        is_for_clients: purposes.is_some_and(|(_, it)| it.0.contains(&ID_KP_CLIENT_AUTH)),
        not_before: tbs.validity.not_before.to_unix_duration().as_secs(),
        not_after: tbs.validity.not_after.to_unix_duration().as_secs(),
    })
}

/// The trust domain of a well-formed SPIFFE ID of a workload (SPIFFE-ID §2).
///
/// # Errors
/// A sentence, when it is none.
pub fn spiffe_id(uri: &str) -> Result<&str, &'static str> {
    if uri.len() > MAX_SPIFFE_ID {
        return Err("the SPIFFE ID is longer than 2048 bytes");
    }
    let rest = uri
        .strip_prefix("spiffe://")
        .ok_or("the URI name is no SPIFFE ID")?;
    let (domain, path) = rest
        .split_once('/')
        .ok_or("a SPIFFE ID of a workload has a path")?;
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(in_domain) {
        return Err("the trust domain of the SPIFFE ID is malformed");
    }
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let is_segment = |it: &str| !matches!(it, "" | "." | "..") && it.bytes().all(in_path);
    if !path.split('/').all(is_segment) {
        return Err("the path of the SPIFFE ID is malformed");
    }
    Ok(domain)
}

/// The authorities of a plan whose clients may prove themselves with a certificate.
#[derive(Debug)]
pub struct Authorities {
    list: Vec<Authority>,
    hints: Vec<DistinguishedName>,
}

#[derive(Debug)]
struct Authority {
    declared: ClientAuthority,
    roots: Vec<Root>,
    pins: HashSet<String>,
    revoked: HashSet<String>,
}

#[derive(Debug)]
struct Root {
    anchor: TrustAnchor<'static>,
    not_before: u64,
    not_after: u64,
}

impl Authorities {
    /// Reads the authorities of a snapshot; none when there are none. The ones of the plan before
    /// are taken over when nothing changed, so that TLS sessions outlive other changes.
    pub fn compile(
        declared: Vec<ClientAuthority>,
        before: Option<&Arc<Self>>,
    ) -> Result<Option<Arc<Self>>, LoadError> {
        if declared.is_empty() {
            return Ok(None);
        }
        if let Some(before) = before.filter(|before| before.is_of(&declared)) {
            return Ok(Some(Arc::clone(before)));
        }
        let list = declared
            .into_iter()
            .map(Authority::compile)
            .collect::<Result<Vec<_>, _>>()?;
        let roots = list.iter().flat_map(|authority| &authority.roots);
        let hints = roots
            .map(|root| DistinguishedName::in_sequence(root.anchor.subject.as_ref()))
            .collect();
        Ok(Some(Arc::new(Self { list, hints })))
    }

    fn is_of(&self, declared: &[ClientAuthority]) -> bool {
        self.list.iter().map(|it| &it.declared).eq(declared)
    }

    /// The names of the roots, for clients to choose a certificate by.
    pub fn hints(&self) -> &[DistinguishedName] {
        &self.hints
    }

    /// Whether this certificate proves nobody here: it is revoked, or its authority is not trusted.
    pub fn refuses(&self, authority: &str, serial: &str) -> bool {
        let named = self.list.iter().find(|it| it.declared.name == authority);
        named.is_none_or(|it| it.revoked.contains(serial))
    }

    /// Verifies a chain (its own certificate first) against each authority in turn.
    ///
    /// # Errors
    /// Why the authority that came closest does not vouch for it.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: u64,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<Vouched, CertificateError> {
        let (own, others) = chain.split_first().ok_or(CertificateError::BadEncoding)?;
        require_short(chain)?;
        let leaf = read(own).map_err(untrusted)?;
        let mut closest = CertificateError::UnknownIssuer;
        for authority in &self.list {
            match authority.vouch(own, others, &leaf, now, algorithms) {
                Ok(vouched) => return Ok(vouched),
                Err(CertificateError::UnknownIssuer) => {}
                Err(error) => closest = error,
            }
        }
        Err(closest)
    }
}

/// Limits of a chain that a client came with.
///
/// # Errors
/// When it is longer than 8 certificates or 32 KiB.
pub fn require_short(chain: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
    let bytes: usize = chain.iter().map(|it| it.len()).sum();
    if chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
        return Err(untrusted(
            "the chain is longer than 8 certificates or 32 KiB",
        ));
    }
    Ok(())
}

impl Authority {
    fn compile(declared: ClientAuthority) -> Result<Self, LoadError> {
        let invalid =
            |what: &str| LoadError::new("authority_invalid", format!("{}: {what}", declared.name));
        let roots = CertificateDer::pem_slice_iter(declared.certificates.as_bytes())
            .map(|certificate| Root::read(&certificate.map_err(|_| "malformed PEM")?))
            .collect::<Result<Vec<_>, _>>()
            .map_err(invalid)?;
        if roots.is_empty() || roots.len() > MAX_ROOTS {
            return Err(invalid("an authority has 1 to 64 certificates"));
        }
        Ok(Self {
            roots,
            pins: declared.pins.iter().cloned().collect(),
            revoked: declared.revoked.iter().cloned().collect(),
            declared,
        })
    }

    fn vouch(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        leaf: &Leaf,
        now: u64,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<Vouched, CertificateError> {
        let certificate = EndEntityCert::try_from(own).map_err(of_webpki)?;
        let is_alive = |root: &&Root| (root.not_before..=root.not_after).contains(&now);
        let anchors = self.roots.iter().filter(is_alive);
        let anchors: Vec<_> = anchors.map(|it| it.anchor.clone()).collect();
        let path = certificate
            .verify_for_usage(
                algorithms,
                &anchors,
                others,
                UnixTime::since_unix_epoch(Duration::from_secs(now)),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(of_webpki)?;
        let (expires_at, between) = self.require_unrevoked(&path, leaf)?;
        require_usage(leaf)?;
        if !self.pins.is_empty() && !self.pins.contains(&leaf.pin) {
            return Err(untrusted("its key is not one of the pinned ones"));
        }
        let spiffe_id = match &self.declared.trust_domain {
            Some(domain) => Some(require_spiffe_id(leaf, domain)?),
            None if leaf.subject.is_empty() => return Err(untrusted("it has no subject")),
            None => None,
        };
        let mut workload = Workload::new(&self.declared.name, spiffe_id, leaf);
        workload.issuers = between;
        Ok(Vouched {
            workload,
            expires_at,
        })
    }

    /// When the path ends, and the serials between its ends; refuses one with a revoked certificate on it.
    fn require_unrevoked(
        &self,
        path: &VerifiedPath<'_>,
        leaf: &Leaf,
    ) -> Result<(u64, Vec<String>), CertificateError> {
        let anchor = path.anchor();
        let is_used = |root: &&Root| {
            root.anchor.subject == anchor.subject
                && root.anchor.subject_public_key_info == anchor.subject_public_key_info
        };
        let roots = self.roots.iter().filter(is_used);
        let mut ends = roots
            .map(|it| it.not_after)
            .max()
            .unwrap_or(0)
            .min(leaf.not_after);
        let mut serials = Vec::new();
        for certificate in path.intermediate_certificates() {
            let between = read(&certificate.der()).map_err(untrusted)?;
            ends = ends.min(between.not_after);
            serials.push(between.serial);
        }
        let is_revoked = |serial| self.revoked.contains(serial);
        if is_revoked(&leaf.serial) || serials.iter().any(is_revoked) {
            return Err(CertificateError::Revoked);
        }
        Ok((ends, serials))
    }
}

impl Root {
    fn read(der: &CertificateDer<'_>) -> Result<Self, &'static str> {
        let validity = read(der)?;
        let anchor = anchor_from_trusted_cert(der).map_err(|_| "a certificate is malformed")?;
        Ok(Self {
            anchor: anchor.to_owned(),
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }
}

fn require_usage(leaf: &Leaf) -> Result<(), CertificateError> {
    if !leaf.is_for_clients {
        return Err(CertificateError::InvalidPurpose);
    }
    if leaf.is_authority {
        return Err(untrusted("it is an authority's own"));
    }
    if leaf.signs == Some(false) {
        return Err(untrusted("its key usage has no digitalSignature"));
    }
    Ok(())
}

/// SPIFFE X509-SVID §2, §4.3, §5.2: one URI name, the key signs and signs no certificates.
fn require_spiffe_id(leaf: &Leaf, domain: &str) -> Result<String, CertificateError> {
    let [uri] = leaf.uris.as_slice() else {
        return Err(untrusted("a SPIFFE certificate has exactly one URI name"));
    };
    if spiffe_id(uri).map_err(untrusted)? != domain {
        return Err(untrusted("the SPIFFE ID is of another trust domain"));
    }
    if leaf.signs != Some(true) || leaf.signs_certificates {
        return Err(untrusted(
            "a SPIFFE certificate has the key usage digitalSignature, not keyCertSign or cRLSign",
        ));
    }
    Ok(uri.clone())
}

/// The refusal of a request, or of a connection, whose certificate nobody vouches for.
pub fn refusal_of(error: &CertificateError) -> Refusal {
    use CertificateError as E;
    let cause = match error {
        E::Expired | E::ExpiredContext { .. } => Cause::CertificateExpired,
        E::NotValidYet | E::NotValidYetContext { .. } => Cause::CertificateNotYetValid,
        E::Revoked => Cause::CertificateRevoked,
        _ => Cause::CertificateInvalid,
    };
    let detail = match error {
        E::UnknownIssuer => "no authority vouches for it".to_owned(),
        E::InvalidPurpose => "it is not for clients (clientAuth)".to_owned(),
        E::Other(OtherError(why)) => why.to_string(),
        error => error.to_string(),
    };
    Refusal::with(cause, detail)
}

/// What is wrong with a certificate, when rustls has no word for it.
#[derive(Debug)]
struct Untrusted(&'static str);

impl std::fmt::Display for Untrusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Untrusted {}

/// A certificate that is refused for a reason of ours.
pub fn untrusted(what: &'static str) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(Untrusted(what))))
}

/// rustls turns these into the alert that fits (RFC 8446 §6.2); its own table is private.
pub fn of_webpki(error: webpki::Error) -> CertificateError {
    use webpki::Error as E;
    match error {
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        E::InvalidCertValidity => CertificateError::Expired,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CaUsedAsEndEntity => untrusted("it is an authority's own"),
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}

fn serial_of(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The chain that a client came with, kept as long as its connection: each plan judges it anew.
pub struct Presented {
    /// Its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// SHA-256 over the whole chain; names it in the table of callers.
    pub digest: [u8; 32],
}

impl Presented {
    /// Keeps a chain.
    pub fn new(chain: &[CertificateDer<'_>]) -> Self {
        let chain: Vec<_> = chain.iter().map(|it| it.clone().into_owned()).collect();
        let bytes: Vec<u8> = chain.iter().flat_map(|it| it.iter().copied()).collect();
        Self {
            digest: sha256(&bytes),
            chain,
        }
    }
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
