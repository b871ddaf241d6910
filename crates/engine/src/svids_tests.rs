//! Which chains count in the mesh, and when it is told that others do. The certificates are those of `certificate_tests`.

use rustls_pki_types::pem::PemObject;
use serde_json::json;

use super::*;

/// In 2028.
const NOW: u64 = 58 * 31_557_600;
const ID: &str = "spiffe://example.org/ns/web/sa/shop";

fn der(name: &str) -> CertificateDer<'static> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/certificates");
    CertificateDer::from_pem_file(format!("{folder}/{name}.pem")).unwrap()
}

fn chain(names: &[&str]) -> Vec<CertificateDer<'static>> {
    names.iter().map(|name| der(name)).collect()
}

/// What believes the authority `ca` for a trust domain, but for these serial numbers.
fn file(domain: &str, revoked: &[&str]) -> serde_json::Value {
    let authority = BASE64_STANDARD.encode(der("ca"));
    json!({"svids": {}, "bundles": {domain: [authority]}, "revoked": revoked})
}

fn read_by(svids: &Svids, file: &serde_json::Value) {
    let path = std::env::temp_dir().join(format!("vedette-svids-{}", crate::trace::next_random()));
    fs::write(&path, file.to_string()).unwrap();
    let read = svids.reload(&path);
    fs::remove_file(&path).unwrap();
    read.unwrap();
}

fn believing(domain: &str, revoked: &[&str]) -> Svids {
    let svids = Svids::default();
    read_by(&svids, &file(domain, revoked));
    svids
}

#[test]
fn an_svid_of_a_known_trust_domain_proves_its_id_for_as_long_as_its_chain_lives() {
    let svids = believing("example.org", &[]);
    let vouched = svids.vouch(&chain(&["spiffe", "between"]), NOW).unwrap();
    assert_eq!(vouched.workload.principal(), ID);
    assert_eq!(vouched.workload.authority, "spiffe://example.org");
    // The intermediate ends five years before the certificate.
    assert_eq!(vouched.expires_at, read(&der("between")).unwrap().not_after);
}

#[test]
fn a_bundle_is_believed_for_its_own_trust_domain_alone() {
    let svids = believing("example.com", &[]);
    let refused = svids.vouch(&chain(&["spiffe", "between"]), NOW);
    assert!(refused.is_err_and(|it| format!("{it:?}").contains("trust domain is not known")));
}

#[test]
fn a_revoked_serial_anywhere_in_the_chain_ends_it() {
    let between = read(&der("between")).unwrap().serial;
    for revoked in ["a1f", &between] {
        let svids = believing("example.org", &[revoked]);
        let refused = svids.vouch(&chain(&["spiffe", "between"]), NOW);
        assert!(matches!(refused, Err(CertificateError::Revoked)));
    }
}

#[test]
fn what_is_no_svid_proves_nobody() {
    let svids = believing("example.org", &[]);
    let nine = ["spiffe"; 9];
    for names in [&["plain"][..], &["spiffe"], &["ca"], &[], &nine] {
        assert!(svids.vouch(&chain(names), NOW).is_err(), "{names:?}");
    }
    let later = 80 * 31_557_600;
    let expired = svids.vouch(&chain(&["spiffe", "between"]), later);
    assert!(expired.is_err());
}

#[test]
fn other_bundles_and_serials_are_another_state_and_the_same_are_not() {
    let svids = believing("example.org", &[]);
    let first = svids.number();
    read_by(&svids, &file("example.org", &[]));
    assert_eq!(svids.number(), first);
    read_by(&svids, &file("example.org", &["a1f"]));
    assert_ne!(svids.number(), first);
    let second = svids.number();
    read_by(&svids, &file("example.com", &["a1f"]));
    assert_ne!(svids.number(), second);
}
