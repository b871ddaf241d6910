//! Which tokens prove a caller, and why the others do not.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;
use crate::caller::Caller;

struct Minter {
    key: EcdsaKeyPair,
}

impl Minter {
    fn new() -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        Self { key }
    }

    fn issuers(&self, kid: Option<&str>) -> Issuers {
        let point = self.key.public_key().as_ref().to_vec();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let jwk = [
            ("kty".to_owned(), "EC".to_owned()),
            ("crv".to_owned(), "P-256".to_owned()),
            ("x".to_owned(), part(1..33)),
            ("y".to_owned(), part(33..65)),
        ];
        let key = IssuerKey {
            kid: kid.map(str::to_owned),
            alg: IssuerKeyAlg::ES256,
            jwk: jwk.into(),
        };
        let issuer = Issuer {
            name: "node".into(),
            issuer: "spiffe://td".into(),
            audiences: vec!["spiffe://td/gateway".into()],
            leeway_seconds: 5,
            keys: vec![key],
        };
        Issuers::compile(vec![issuer], vec!["spiffe://td#gone".into()]).unwrap()
    }

    fn mint(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k", "typ": "JWT"})
}

fn claims() -> Value {
    let now = crate::clock::unix_seconds();
    json!({"iss": "spiffe://td", "aud": "spiffe://td/gateway", "sub": "alice", "exp": now + 60})
}

fn with(mut json: Value, name: &str, value: Value) -> Value {
    json[name] = value;
    json
}

fn cause(issuers: &Issuers, token: &str) -> &'static str {
    match issuers.verify(token) {
        Ok(_) => "verified",
        Err(refusal) => refusal.cause.outcome().1,
    }
}

#[test]
fn a_token_of_the_node_proves_its_subject() {
    let minter = Minter::new();
    let claims = with(claims(), "scope", json!("read write"));
    let verified = minter
        .issuers(Some("k"))
        .verify(&minter.mint(&header(), &claims))
        .unwrap();
    assert_eq!(verified.subject, "alice");
    assert_eq!(verified.scopes, ["read", "write"]);
    assert_eq!(verified.audiences, ["spiffe://td/gateway"]);
}

#[test]
fn each_claim_that_is_wrong_has_its_own_cause() {
    let minter = Minter::new();
    let issuers = minter.issuers(Some("k"));
    let now = crate::clock::unix_seconds();
    for (name, value, expected) in [
        ("exp", json!(now - 60), "token_expired"),
        ("nbf", json!(now + 60), "token_not_yet_valid"),
        ("aud", json!("spiffe://other/gateway"), "token_audience"),
        ("iss", json!("spiffe://other"), "token_issuer"),
        ("sub", Value::Null, "token_claims"),
    ] {
        let token = minter.mint(&header(), &with(claims(), name, value));
        assert_eq!(cause(&issuers, &token), expected, "{name}");
    }
}

#[test]
fn the_key_decides_the_algorithm() {
    let minter = Minter::new();
    let issuers = minter.issuers(Some("k"));
    for alg in ["none", "None", "HS256", "HS512", "RS256", "ES384"] {
        let token = minter.mint(&with(header(), "alg", json!(alg)), &claims());
        assert_eq!(cause(&issuers, &token), "token_algorithm", "{alg}");
    }
}

#[test]
fn a_signature_of_another_key_or_another_text_is_refused() {
    let (minter, other) = (Minter::new(), Minter::new());
    let issuers = minter.issuers(Some("k"));
    assert_eq!(
        cause(&issuers, &other.mint(&header(), &claims())),
        "token_signature"
    );
    let token = minter.mint(&header(), &claims());
    let (_, signature) = token.rsplit_once('.').unwrap();
    let forged = with(claims(), "sub", json!("root"));
    let forged = format!("{}.{}.{signature}", part(&header()), part(&forged));
    assert_eq!(cause(&issuers, &forged), "token_signature");
}

#[test]
fn a_key_is_found_by_its_kid_and_one_without_serves_any() {
    let minter = Minter::new();
    let token = minter.mint(&with(header(), "kid", json!("other")), &claims());
    assert_eq!(
        cause(&minter.issuers(Some("k")), &token),
        "token_key_unknown"
    );
    assert_eq!(cause(&minter.issuers(None), &token), "verified");
}

#[test]
fn what_is_no_token_is_malformed() {
    let minter = Minter::new();
    let issuers = minter.issuers(Some("k"));
    let crit = minter.mint(&with(header(), "crit", json!(["exp"])), &claims());
    for token in [
        "",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "..",
        crit.as_str(),
        &"x".repeat(9000),
    ] {
        assert_eq!(cause(&issuers, token), "token_malformed", "{}", token.len());
    }
}

#[test]
fn a_subject_cannot_smuggle_a_header() {
    let minter = Minter::new();
    let claims = with(claims(), "sub", json!("alice\r\nx-vedette-scopes: admin"));
    let verified = minter
        .issuers(Some("k"))
        .verify(&minter.mint(&header(), &claims))
        .unwrap();
    let refusal = Caller::new(verified).unwrap_err();
    assert_eq!(refusal.cause, Cause::TokenClaims);
}

#[test]
fn a_revoked_token_is_refused_and_its_neighbours_are_not() {
    let minter = Minter::new();
    let issuers = minter.issuers(Some("k"));
    for (jti, expected) in [
        ("gone", "token_revoked"),
        ("here", "verified"),
        ("", "verified"),
    ] {
        let token = minter.mint(&header(), &with(claims(), "jti", json!(jti)));
        assert_eq!(cause(&issuers, &token), expected, "{jti}");
    }
    // A forger learns nothing of the list.
    let forged = Minter::new().mint(&header(), &with(claims(), "jti", json!("gone")));
    assert_eq!(cause(&issuers, &forged), "token_signature");
}

#[test]
fn a_bound_token_counts_beside_its_certificate_only() {
    use crate::certificate::{Leaf, Workload};

    let minter = Minter::new();
    let issuers = minter.issuers(Some("k"));
    let bound = |cnf: Value| minter.mint(&header(), &with(claims(), "cnf", cnf));
    let own = json!({"x5t#S256": URL_SAFE_NO_PAD.encode([7; 32])});
    let caller = Caller::new(issuers.verify(&bound(own)).unwrap()).unwrap();
    let certificate = |byte: u8| {
        let leaf = Leaf {
            thumbprint: [byte; 32],
            ..Leaf::default()
        };
        Workload::new("corp", None, &leaf)
    };
    assert!(caller.require_binding(Some(&certificate(7))).is_ok());
    for other in [None, Some(&certificate(8))] {
        let refusal = caller.require_binding(other).unwrap_err();
        assert_eq!(refusal.cause, Cause::TokenBinding);
    }
    let free = issuers.verify(&minter.mint(&header(), &claims())).unwrap();
    assert!(Caller::new(free).unwrap().require_binding(None).is_ok());
    for (cnf, expected) in [
        (json!({"jkt": "abc"}), "token_binding"),
        (json!({"x5t#S256": "short"}), "token_claims"),
        (json!("text"), "token_claims"),
    ] {
        assert_eq!(cause(&issuers, &bound(cnf.clone())), expected, "{cnf}");
    }
}
