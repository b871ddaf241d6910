//! Who is calling, once proved: by a token, or by a client certificate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cedar_policy::{Entity, EntityUid};
use http::{HeaderName, HeaderValue};

use crate::certificate::{Vouched, Workload};
use crate::jwt::Verified;
use crate::refusal::{Cause, Refusal};

const SUBJECT: HeaderName = HeaderName::from_static("x-vedette-subject");
const ISSUER: HeaderName = HeaderName::from_static("x-vedette-issuer");
const SCOPES: HeaderName = HeaderName::from_static("x-vedette-scopes");
const SPIFFE_ID: HeaderName = HeaderName::from_static("x-vedette-spiffe-id");
const AUTHORITY: HeaderName = HeaderName::from_static("x-vedette-certificate-authority");
const CERTIFICATE_SUBJECT: HeaderName = HeaderName::from_static("x-vedette-certificate-subject");
const SERIAL: HeaderName = HeaderName::from_static("x-vedette-certificate-serial");
const FINGERPRINT: HeaderName = HeaderName::from_static("x-vedette-certificate-fingerprint");
/// Carries the principal, or anonymous.
pub const PRINCIPAL: HeaderName = HeaderName::from_static("x-vedette-principal");

/// What a verified caller is, kept for as long as the proof lives.
#[derive(Debug)]
pub struct Caller {
    /// Different for every verification: names the caller in the table of decisions.
    pub id: u64,
    /// `<iss>#<sub>` of a token; of a certificate its SPIFFE ID, else `x509:<authority>#<subject>`; of a function its
    /// SPIFFE ID.
    pub principal: Arc<str>,
    /// What a function is told of the caller.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// When the proof ends, in seconds since the epoch.
    pub expires_at: u64,
    /// What it is.
    pub proof: Proof,
    /// What Cedar is told of the caller, once it was asked.
    pub entity: OnceLock<(EntityUid, Entity)>,
}

/// What proved a caller.
#[derive(Debug)]
pub enum Proof {
    /// A token, and what it says.
    Token(Verified),
    /// A client certificate, and whose it is.
    Certificate(Workload),
    /// That this node runs it: a function, by its name.
    Function(Arc<str>),
}

static NEXT_CALLER: AtomicU64 = AtomicU64::new(1);

impl Caller {
    /// The caller whom `token` proves. A claim that is no header value, such as a subject with a
    /// line break, is refused: it must not become a header of its own.
    pub fn new(token: Verified) -> Result<Self, Refusal> {
        let value = |text: &str| {
            header_value(text)
                .ok_or_else(|| Refusal::with(Cause::TokenClaims, "a claim is no header value"))
        };
        let principal = format!("{}#{}", token.issuer, token.subject);
        let mut headers = vec![
            (SUBJECT, value(&token.subject)?),
            (ISSUER, value(&token.issuer)?),
            (PRINCIPAL, value(&principal)?),
        ];
        if !token.scopes.is_empty() {
            headers.push((SCOPES, value(&token.scopes.join(" "))?));
        }
        let expires_at = token.expires_at;
        Ok(Self::with(
            principal,
            headers,
            expires_at,
            Proof::Token(token),
        ))
    }

    /// The caller whom a client certificate proves.
    pub fn of_certificate(vouched: Vouched) -> Result<Self, Refusal> {
        let value = |text: &str| {
            header_value(text).ok_or_else(|| {
                Refusal::with(Cause::CertificateInvalid, "the subject is no header value")
            })
        };
        let workload = vouched.workload;
        let principal = workload.principal();
        let mut headers = vec![
            (PRINCIPAL, value(&principal)?),
            (AUTHORITY, value(&workload.authority)?),
            (SERIAL, value(&workload.serial)?),
            (FINGERPRINT, value(&workload.fingerprint)?),
        ];
        if let Some(id) = &workload.spiffe_id {
            headers.push((SPIFFE_ID, value(id)?));
        }
        if !workload.subject.is_empty() {
            headers.push((CERTIFICATE_SUBJECT, value(&workload.subject)?));
        }
        let proof = Proof::Certificate(workload);
        Ok(Self::with(principal, headers, vouched.expires_at, proof))
    }

    /// A function of this node, which has this SPIFFE ID while it is the component that was deployed.
    pub fn of_function(name: &str, id: String) -> Self {
        Self::with(id, Vec::new(), u64::MAX, Proof::Function(name.into()))
    }

    fn with(
        principal: String,
        headers: Vec<(HeaderName, HeaderValue)>,
        expires_at: u64,
        proof: Proof,
    ) -> Self {
        Self {
            id: NEXT_CALLER.fetch_add(1, Ordering::Relaxed),
            principal: principal.into(),
            headers,
            expires_at,
            proof,
            entity: OnceLock::new(),
        }
    }

    /// Whose certificate it is, for a caller proved by one.
    pub fn workload(&self) -> Option<&Workload> {
        match &self.proof {
            Proof::Certificate(workload) => Some(workload),
            Proof::Token(_) | Proof::Function(_) => None,
        }
    }

    /// RFC 8705 §3: a token bound to a certificate counts only beside that certificate.
    pub fn require_binding(&self, certificate: Option<&Workload>) -> Result<(), Refusal> {
        let Proof::Token(Verified {
            bound_to: Some(bound_to),
            ..
        }) = &self.proof
        else {
            return Ok(());
        };
        let refused = |detail: &'static str| Err(Refusal::with(Cause::TokenBinding, detail));
        match certificate {
            None => refused("the token is bound to a certificate and none came with it"),
            Some(workload) if workload.thumbprint != *bound_to => {
                refused("the token is bound to another certificate")
            }
            Some(_) => Ok(()),
        }
    }
}

fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(text.as_bytes())).ok()
}
