//! The signed envelope of a snapshot: DSSE v1 with one Ed25519 signature.
//!
//! Follows the DSSE specification (secure-systems-lab/dsse, `protocol.md`): the signature covers
//! the pre-authentication encoding of type and payload, so neither can be swapped.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::load::LoadError;

/// The type of a snapshot's payload.
const PAYLOAD_TYPE: &str = "application/vnd.vedette.snapshot+json";
/// The type of a table of facts.
pub const POSTURE_TYPE: &str = "application/vnd.vedette.posture+json";
/// The most bytes an envelope may have: ten thousand functions are about 6 MB.
const MAX_ENVELOPE: usize = 64 << 20;
/// DER of a `SubjectPublicKeyInfo` for Ed25519 up to the key itself (RFC 8410 §4).
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    #[allow(dead_code)]
    keyid: String,
    sig: String,
}

/// The key that snapshots of this node are signed with.
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Reads an Ed25519 public key in PEM (`PUBLIC KEY`).
    pub fn from_pem(pem: &str) -> Result<Self, LoadError> {
        let body: String = pem
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        STANDARD
            .decode(body)
            .ok()
            .and_then(|der| der.strip_prefix(&ED25519_SPKI).map(<[u8]>::to_vec))
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or_else(|| LoadError::new("key_invalid", "signing.pub is no Ed25519 public key"))
    }
}

/// Verifies `envelope` and returns its payload.
pub fn verify(envelope: &[u8], key: &VerifyingKey) -> Result<Vec<u8>, LoadError> {
    verify_as(PAYLOAD_TYPE, envelope, key)
}

/// The same of another type of payload.
pub fn verify_as(kind: &str, envelope: &[u8], key: &VerifyingKey) -> Result<Vec<u8>, LoadError> {
    let malformed = |what: String| LoadError::new("envelope_malformed", what);
    if envelope.len() > MAX_ENVELOPE {
        return Err(malformed("the envelope is larger than 64 MiB".into()));
    }
    let envelope: Envelope =
        serde_json::from_slice(envelope).map_err(|error| malformed(error.to_string()))?;
    if envelope.payload_type != kind {
        return Err(malformed(format!("the payload type is not {kind}")));
    }
    let payload = STANDARD
        .decode(&envelope.payload)
        .map_err(|error| malformed(format!("payload: {error}")))?;
    let signed = pre_authentication_encoding(kind, &payload);
    let public = UnparsedPublicKey::new(&ED25519, key.0);
    let is_signed = envelope.signatures.iter().any(|signature| {
        STANDARD
            .decode(&signature.sig)
            .is_ok_and(|bytes| public.verify(&signed, &bytes).is_ok())
    });
    if is_signed {
        return Ok(payload);
    }
    Err(LoadError::new(
        "signature_invalid",
        "it is not signed by this node",
    ))
}

fn pre_authentication_encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    signed.extend_from_slice(payload);
    signed
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
