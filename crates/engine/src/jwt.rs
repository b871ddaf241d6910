//! Bearer tokens: a JWT (RFC 7519) signed by an issuer of the snapshot.
//!
//! Follows RFC 8725: the key decides the algorithm, `none` and HMAC do not exist here, `iss` and
//! `aud` are checked, `crit` is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::load::LoadError;
use crate::refusal::{Cause, Refusal};
use crate::snapshot::{Issuer, IssuerKey, IssuerKeyAlg};

/// The longest token read, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// The most scopes or audiences of a token that are kept.
const MAX_LIST: usize = 64;
/// The most keys of one issuer that one token is tried with.
const MAX_TRIES: usize = 8;

/// Everybody whose tokens are believed.
pub struct Issuers(HashMap<String, Trusted>);

struct Trusted {
    issuer: Issuer,
    keys: Vec<Key>,
}

struct Key {
    kid: Option<String>,
    alg: Algorithm,
    key: DecodingKey,
}

/// What a verified token says.
#[derive(Debug)]
pub struct Verified {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `scope` or `scp`.
    pub scopes: Vec<String>,
    /// When it ends, in seconds since the epoch, the issuer's leeway included.
    pub expires_at: u64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: u64,
    aud: OneOrMany,
    #[serde(default)]
    scope: Option<OneOrMany>,
    #[serde(default)]
    scp: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn list(self) -> Vec<String> {
        let mut list = match self {
            Self::One(text) => vec![text],
            Self::Many(list) => list,
        };
        list.truncate(MAX_LIST);
        list
    }

    fn words(self) -> Vec<String> {
        let split = |text: String| {
            text.split_ascii_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut words: Vec<_> = self.list().into_iter().flat_map(split).collect();
        words.truncate(MAX_LIST);
        words
    }
}

impl Issuers {
    /// Reads the issuers of a snapshot.
    pub fn compile(issuers: Vec<Issuer>) -> Result<Self, LoadError> {
        let mut by_iss = HashMap::new();
        for issuer in issuers {
            let keys = issuer.keys.iter().map(read_key).collect::<Result<_, _>>()?;
            let trusted = Trusted { issuer, keys };
            let iss = trusted.issuer.issuer.clone();
            if by_iss.insert(iss.clone(), trusted).is_some() {
                return Err(LoadError::new(
                    "issuer_doubled",
                    format!("two issuers have the iss {iss}"),
                ));
            }
        }
        Ok(Self(by_iss))
    }

    /// Verifies `token`: shape, issuer, key, algorithm, signature, times, audience, in this order.
    pub fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        let (header, iss) = peek(token)?;
        let trusted = self
            .0
            .get(&iss)
            .ok_or_else(|| Refusal::with(Cause::TokenIssuer, "iss is not trusted"))?;
        let mut refusal = None;
        for key in trusted.keys_for(&header)?.into_iter().take(MAX_TRIES) {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &trusted.validation(key.alg)) {
                Ok(decoded) => return Ok(trusted.verified(decoded.claims)),
                Err(error) => refusal = Some(refuse(&error)),
            }
        }
        Err(refusal.unwrap_or_else(|| Cause::TokenKeyUnknown.into()))
    }
}

impl Trusted {
    /// The keys that may have signed a token with this header: those of its `kid`, and those that
    /// have none to compare. The key's own algorithm decides; the token's word is only compared.
    fn keys_for(&self, header: &Header) -> Result<Vec<&Key>, Refusal> {
        let names_it = |key: &&Key| key.kid.is_none() || key.kid == header.kid;
        let named: Vec<_> = self.keys.iter().filter(names_it).collect();
        if named.is_empty() {
            return Err(Refusal::with(Cause::TokenKeyUnknown, "no key has this kid"));
        }
        let has_alg = |key: &&Key| alg_name(key.alg) == header.alg;
        let fitting: Vec<_> = named.into_iter().filter(has_alg).collect();
        if fitting.is_empty() {
            return Err(Refusal::with(
                Cause::TokenAlgorithm,
                "alg is not that of the key",
            ));
        }
        Ok(fitting)
    }

    fn verified(&self, claims: Claims) -> Verified {
        let scopes = claims.scope.or(claims.scp);
        Verified {
            issuer: claims.iss,
            subject: claims.sub,
            audiences: claims.aud.list(),
            scopes: scopes.map(OneOrMany::words).unwrap_or_default(),
            expires_at: claims.exp.saturating_add(self.issuer.leeway_seconds),
        }
    }

    fn validation(&self, alg: Algorithm) -> Validation {
        let mut validation = Validation::new(alg);
        validation.leeway = self.issuer.leeway_seconds;
        validation.validate_nbf = true;
        validation.validate_exp = true;
        validation.validate_aud = true;
        validation.set_audience(&self.issuer.audiences);
        validation.set_issuer(&[&self.issuer.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation
    }
}

/// Reads what decides how to verify. Nothing of it is believed.
fn peek(token: &str) -> Result<(Header, String), Refusal> {
    let malformed = |what: &'static str| Refusal::with(Cause::TokenMalformed, what);
    if token.len() > MAX_TOKEN {
        return Err(malformed("the token is longer than 8 KiB"));
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("a token has three parts"));
    };
    let header: Header = URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| malformed("the header is no JSON"))?;
    if header.crit.is_some() {
        return Err(malformed("crit is not understood here"));
    }
    if header.alg.eq_ignore_ascii_case("none") || header.alg.starts_with("HS") {
        return Err(Refusal::with(Cause::TokenAlgorithm, "alg is none or HMAC"));
    }
    let claims: Value = URL_SAFE_NO_PAD
        .decode(claims)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(|| malformed("the claims are no JSON"))?;
    let iss = claims
        .get("iss")
        .and_then(Value::as_str)
        .ok_or_else(|| Refusal::with(Cause::TokenClaims, "iss is missing"))?;
    Ok((header, iss.to_owned()))
}

fn refuse(error: &jsonwebtoken::errors::Error) -> Refusal {
    let cause = match error.kind() {
        ErrorKind::ExpiredSignature => Cause::TokenExpired,
        ErrorKind::ImmatureSignature => Cause::TokenNotYetValid,
        ErrorKind::InvalidAudience => Cause::TokenAudience,
        ErrorKind::InvalidIssuer => Cause::TokenIssuer,
        ErrorKind::InvalidSignature => Cause::TokenSignature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => Cause::TokenAlgorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => Cause::TokenClaims,
        _ => Cause::TokenMalformed,
    };
    Refusal::with(cause, error.to_string())
}

fn read_key(key: &IssuerKey) -> Result<Key, LoadError> {
    let invalid = |error: String| LoadError::new("key_invalid", error);
    let members = serde_json::to_value(&key.jwk).map_err(|error| invalid(error.to_string()))?;
    let jwk: Jwk = serde_json::from_value(members).map_err(|error| invalid(error.to_string()))?;
    Ok(Key {
        kid: key.kid.clone(),
        alg: algorithm(key.alg),
        key: DecodingKey::from_jwk(&jwk).map_err(|error| invalid(error.to_string()))?,
    })
}

fn algorithm(alg: IssuerKeyAlg) -> Algorithm {
    match alg {
        IssuerKeyAlg::ES256 => Algorithm::ES256,
        IssuerKeyAlg::ES384 => Algorithm::ES384,
        IssuerKeyAlg::RS256 => Algorithm::RS256,
        IssuerKeyAlg::RS384 => Algorithm::RS384,
        IssuerKeyAlg::RS512 => Algorithm::RS512,
        IssuerKeyAlg::PS256 => Algorithm::PS256,
        IssuerKeyAlg::PS384 => Algorithm::PS384,
        IssuerKeyAlg::PS512 => Algorithm::PS512,
        IssuerKeyAlg::EdDSA => Algorithm::EdDSA,
    }
}

fn alg_name(alg: Algorithm) -> &'static str {
    match alg {
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        Algorithm::RS256 => "RS256",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::EdDSA => "EdDSA",
        _ => "",
    }
}

const SUBJECT: HeaderName = HeaderName::from_static("x-vedette-subject");
const ISSUER: HeaderName = HeaderName::from_static("x-vedette-issuer");
const SCOPES: HeaderName = HeaderName::from_static("x-vedette-scopes");
/// Carries `<iss>#<sub>`, or anonymous.
pub const PRINCIPAL: HeaderName = HeaderName::from_static("x-vedette-principal");

/// What a verified caller is, kept for as long as the token lives.
#[derive(Debug)]
pub struct Caller {
    /// Different for every verification: names the caller in the table of decisions.
    pub id: u64,
    /// `<iss>#<sub>`.
    pub principal: Arc<str>,
    /// What a function is told of the caller.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the token said.
    pub token: Verified,
}

static NEXT_CALLER: AtomicU64 = AtomicU64::new(1);

impl Caller {
    /// The caller whom `token` proves. A claim that is no header value, such as a subject with a
    /// line break, is refused: it must not become a header of its own.
    pub fn new(token: Verified) -> Result<Self, Refusal> {
        let principal = format!("{}#{}", token.issuer, token.subject);
        let mut headers = vec![
            (SUBJECT, header_value(&token.subject)?),
            (ISSUER, header_value(&token.issuer)?),
            (PRINCIPAL, header_value(&principal)?),
        ];
        if !token.scopes.is_empty() {
            headers.push((SCOPES, header_value(&token.scopes.join(" "))?));
        }
        Ok(Self {
            id: NEXT_CALLER.fetch_add(1, Ordering::Relaxed),
            principal: principal.into(),
            headers,
            token,
        })
    }
}

fn header_value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(text.as_bytes()))
        .map_err(|_| Refusal::with(Cause::TokenClaims, "a claim is no header value"))
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
