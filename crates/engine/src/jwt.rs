//! Bearer tokens: a JWT (RFC 7519) signed by an issuer of the snapshot.
//!
//! Follows RFC 8725: the key decides the algorithm, `none` and HMAC do not exist here, `iss` and
//! `aud` are checked, `crit` is refused. A token can be bound to a client certificate (RFC 8705 §3.1).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// Everybody whose tokens are believed, and the tokens that are not.
pub struct Issuers {
    by_iss: HashMap<String, Trusted>,
    /// `<iss>#<jti>` each.
    revoked: HashSet<String>,
}

struct Trusted {
    issuer: Issuer,
    keys: Vec<Key>,
}

struct Key {
    id: KeyId,
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
    /// SHA-256 of the certificate it is bound to.
    pub bound_to: Option<[u8; 32]>,
    /// `jti`.
    pub id: Option<String>,
    /// The key that verified it.
    pub key: KeyId,
}

/// A key of an issuer, which is another when anything of it changes.
pub type KeyId = Arc<str>;

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
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    cnf: Option<Confirmation>,
}

/// RFC 7800 §3.1: what the holder of the token must show. Of all its kinds only one is known here.
#[derive(Deserialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    certificate: Option<String>,
}

impl Confirmation {
    /// A confirmation that cannot be checked is none: the token is refused.
    fn thumbprint(&self) -> Result<[u8; 32], Refusal> {
        let text = self.certificate.as_deref();
        let text = text.ok_or_else(|| {
            Refusal::with(
                Cause::TokenBinding,
                "cnf has no x5t#S256, and nothing else is known",
            )
        })?;
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| Refusal::with(Cause::TokenClaims, "cnf.x5t#S256 is no SHA-256"))
    }
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
    /// Reads the issuers of a snapshot, and the tokens (`<iss>#<jti>`) that count no more.
    pub fn compile(issuers: Vec<Issuer>, revoked: Vec<String>) -> Result<Self, LoadError> {
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
        let revoked = revoked.into_iter().collect();
        Ok(Self { by_iss, revoked })
    }

    /// Verifies `token`: shape, issuer, key, algorithm, signature, times, audience, revocation, in
    /// this order.
    pub fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        let (header, iss) = peek(token)?;
        let trusted = self
            .by_iss
            .get(&iss)
            .ok_or_else(|| Refusal::with(Cause::TokenIssuer, "iss is not trusted"))?;
        let mut refusal = None;
        for key in trusted.keys_for(&header)?.into_iter().take(MAX_TRIES) {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &trusted.validation(key.alg)) {
                Ok(decoded) => {
                    let Claims { iss, jti, .. } = &decoded.claims;
                    self.require_unrevoked(iss, jti.as_deref())?;
                    return trusted.verified(decoded.claims, &key.id);
                }
                Err(error) => refusal = Some(refuse(&error)),
            }
        }
        Err(refusal.unwrap_or_else(|| Cause::TokenKeyUnknown.into()))
    }

    /// Whether a token that was verified before would be again; of its times nothing is said.
    pub fn require_believed(&self, token: &Verified) -> Result<(), Refusal> {
        let trusted = self.by_iss.get(&token.issuer).ok_or(Cause::TokenIssuer)?;
        if !trusted.keys.iter().any(|key| key.id == token.key) {
            return Err(Cause::TokenKeyUnknown.into());
        }
        let audiences = &trusted.issuer.audiences;
        if !token.audiences.iter().any(|it| audiences.contains(it)) {
            return Err(Cause::TokenAudience.into());
        }
        self.require_unrevoked(&token.issuer, token.id.as_deref())
    }

    /// Whether this token proves nobody here: it is revoked, or its issuer is not believed.
    pub fn refuses(&self, iss: &str, jti: &str) -> bool {
        !self.by_iss.contains_key(iss) || self.require_unrevoked(iss, Some(jti)).is_err()
    }

    fn require_unrevoked(&self, iss: &str, jti: Option<&str>) -> Result<(), Refusal> {
        let Some(jti) = jti.filter(|_| !self.revoked.is_empty()) else {
            return Ok(());
        };
        match self.revoked.contains(&format!("{iss}#{jti}")) {
            true => Err(Cause::TokenRevoked.into()),
            false => Ok(()),
        }
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

    fn verified(&self, claims: Claims, key: &KeyId) -> Result<Verified, Refusal> {
        let scopes = claims.scope.or(claims.scp);
        let bound_to = claims.cnf.as_ref().map(Confirmation::thumbprint);
        Ok(Verified {
            issuer: claims.iss,
            subject: claims.sub,
            audiences: claims.aud.list(),
            scopes: scopes.map(OneOrMany::words).unwrap_or_default(),
            expires_at: claims.exp.saturating_add(self.issuer.leeway_seconds),
            bound_to: bound_to.transpose()?,
            id: claims.jti,
            key: Arc::clone(key),
        })
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
    let jwk = Jwk::deserialize(&members).map_err(|error| invalid(error.to_string()))?;
    Ok(Key {
        id: format!(
            "{} {:?} {members}",
            key.kid.as_deref().unwrap_or(""),
            key.alg
        )
        .into(),
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

#[cfg(test)]
#[path = "jwt_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
