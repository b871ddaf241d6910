//! Which envelopes are believed.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;

fn key_pair() -> (Ed25519KeyPair, VerifyingKey) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let public = pair.public_key().as_ref();
    let spki = [&ED25519_SPKI, public].concat();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(spki)
    );
    (pair, VerifyingKey::from_pem(&pem).unwrap())
}

fn envelope(pair: &Ed25519KeyPair, payload: &[u8], payload_type: &str) -> Vec<u8> {
    let signature = pair.sign(&pre_authentication_encoding(PAYLOAD_TYPE, payload));
    json!({
        "payloadType": payload_type,
        "payload": STANDARD.encode(payload),
        "signatures": [{"keyid": "k", "sig": STANDARD.encode(signature.as_ref())}],
    })
    .to_string()
    .into_bytes()
}

fn code(envelope: &[u8], key: &VerifyingKey) -> &'static str {
    verify(envelope, key).map_or_else(|error| error.code, |_| "verified")
}

#[test]
fn what_this_node_signed_is_believed() {
    let (pair, key) = key_pair();
    assert_eq!(
        verify(&envelope(&pair, b"{}", PAYLOAD_TYPE), &key).unwrap(),
        b"{}"
    );
}

#[test]
fn one_changed_byte_is_enough_to_be_refused() {
    let (pair, key) = key_pair();
    let whole = envelope(&pair, br#"{"a":"bcd"}"#, PAYLOAD_TYPE);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        // The key id is a hint and is not signed; everything else is.
        let is_hint = whole[..at].ends_with(br#""keyid":""#);
        assert!(is_hint || code(&changed, &key) != "verified", "byte {at}");
    }
}

#[test]
fn another_key_another_type_and_other_members_are_refused() {
    let (pair, _) = key_pair();
    let (_, other) = key_pair();
    assert_eq!(
        code(&envelope(&pair, b"{}", PAYLOAD_TYPE), &other),
        "signature_invalid"
    );
    let (pair, key) = key_pair();
    assert_eq!(
        code(&envelope(&pair, b"{}", "text/plain"), &key),
        "envelope_malformed"
    );
    assert_eq!(code(b"{}", &key), "envelope_malformed");
    assert_eq!(code(b"", &key), "envelope_malformed");
    let unsigned = json!({"payloadType": PAYLOAD_TYPE, "payload": "e30=", "signatures": []});
    assert_eq!(
        code(unsigned.to_string().as_bytes(), &key),
        "signature_invalid"
    );
}

#[test]
fn a_key_of_another_kind_is_no_key() {
    let pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    assert!(VerifyingKey::from_pem(pem).is_err());
    assert!(VerifyingKey::from_pem("").is_err());
}

#[test]
fn a_signature_counts_for_the_type_of_payload_that_was_signed() {
    let (pair, key) = key_pair();
    let envelope = envelope(&pair, b"{}", PAYLOAD_TYPE);
    assert!(verify_as(PAYLOAD_TYPE, &envelope, &key).is_ok());
    let text = String::from_utf8(envelope).unwrap();
    let other = text.replace(PAYLOAD_TYPE, POSTURE_TYPE);
    let refused = verify_as(POSTURE_TYPE, other.as_bytes(), &key).unwrap_err();
    assert_eq!(refused.code, "signature_invalid");
    let refused = verify_as(POSTURE_TYPE, text.as_bytes(), &key).unwrap_err();
    assert_eq!(refused.code, "envelope_malformed");
}
