//! Which certificates prove a caller, and why the others do not. The certificates are made by
//! `testdata/certificates/make.py` and valid from 2026 to 2036, the intermediate to 2031.

use rustls_pki_types::pem::PemObject;

use super::*;
use crate::tls::algorithms;

const YEAR: u64 = 31_557_600;
/// In 2028.
const NOW: u64 = 58 * YEAR;
const ID: &str = "spiffe://example.org/ns/web/sa/shop";

fn pem(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/certificates");
    std::fs::read_to_string(format!("{folder}/{name}.pem")).unwrap()
}

fn der(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem(name).as_bytes()).unwrap()
}

fn chain(names: &[&str]) -> Vec<CertificateDer<'static>> {
    names.iter().map(|name| der(name)).collect()
}

fn authority(name: &str, root: &str) -> ClientAuthority {
    ClientAuthority {
        name: name.into(),
        certificates: pem(root),
        trust_domain: None,
        pins: vec![],
        revoked: vec![],
    }
}

fn spiffe() -> ClientAuthority {
    ClientAuthority {
        trust_domain: Some("example.org".into()),
        ..authority("mesh", "ca")
    }
}

fn judge(declared: &[ClientAuthority], names: &[&str], now: u64) -> Result<Vouched, Refusal> {
    let authorities = Authorities::compile(declared.to_vec(), None)
        .unwrap()
        .unwrap();
    let judged = authorities.verify(&chain(names), now, algorithms());
    judged.map_err(|error| refusal_of(&error))
}

fn cause(declared: &[ClientAuthority], names: &[&str], now: u64) -> (&'static str, String) {
    let refusal = judge(declared, names, now)
        .map(|it| it.workload)
        .unwrap_err();
    (
        refusal.cause.outcome().1,
        refusal.detail.unwrap_or_default().into_owned(),
    )
}

#[test]
fn a_spiffe_certificate_proves_its_id_for_as_long_as_its_chain_lives() {
    let vouched = judge(&[spiffe()], &["spiffe", "between"], NOW).unwrap();
    assert_eq!(vouched.workload.principal(), ID);
    assert_eq!(vouched.workload.authority, "mesh");
    assert_eq!(vouched.workload.serial, "a1f");
    assert_eq!(vouched.workload.fingerprint.len(), 64);
    // The intermediate ends five years before the certificate.
    assert_eq!(vouched.expires_at, read(&der("between")).unwrap().not_after);
    assert!(vouched.expires_at < read(&der("spiffe")).unwrap().not_after);
}

#[test]
fn a_certificate_of_any_authority_is_known_by_its_subject() {
    let vouched = judge(&[authority("corp", "ca")], &["plain"], NOW).unwrap();
    assert_eq!(
        vouched.workload.principal(),
        r"x509:corp#CN=client,O=Acme\, Inc."
    );
    assert_eq!(vouched.workload.spiffe_id, None);
}

#[test]
fn each_thing_wrong_with_a_certificate_has_its_cause() {
    let corp = [authority("corp", "ca")];
    for (names, expected, detail) in [
        (
            vec!["foreign"],
            "certificate_invalid",
            "no authority vouches for it",
        ),
        (
            vec!["spiffe"],
            "certificate_invalid",
            "no authority vouches for it",
        ),
        (vec!["server-only"], "certificate_invalid", "clientAuth"),
        (vec!["any-purpose"], "certificate_invalid", "clientAuth"),
        (vec!["ca-as-leaf"], "certificate_invalid", "authority's own"),
        (vec!["ca"], "certificate_invalid", ""),
        (vec!["encrypts"], "certificate_invalid", "digitalSignature"),
        (
            vec!["spiffe", "between"],
            "certificate_invalid",
            "no subject",
        ),
    ] {
        let (found, why) = cause(&corp, &names, NOW);
        assert_eq!(found, expected, "{names:?}");
        assert!(why.contains(detail), "{names:?}: {why}");
    }
    assert_eq!(
        cause(&corp, &["plain"], 40 * YEAR).0,
        "certificate_not_yet_valid"
    );
    assert_eq!(
        cause(&[spiffe()], &["spiffe", "between"], 63 * YEAR).0,
        "certificate_expired"
    );
    let long = [&["plain"][..], &["between"; 8]].concat();
    assert!(cause(&corp, &long, NOW).1.contains("longer than 8"));
}

#[test]
fn a_spiffe_certificate_has_one_uri_of_its_trust_domain_and_signs_no_certificates() {
    for (name, detail) in [
        ("two-uris", "exactly one URI"),
        ("no-uri", "exactly one URI"),
        ("no-usage", "digitalSignature"),
        ("certifies", "keyCertSign"),
        ("other-domain", "another trust domain"),
    ] {
        let (found, why) = cause(&[spiffe()], &[name, "between"], NOW);
        assert_eq!(found, "certificate_invalid", "{name}");
        assert!(why.contains(detail), "{name}: {why}");
    }
}

#[test]
fn a_revoked_serial_of_any_certificate_of_the_chain_ends_it() {
    for serial in ["a1f", "b"] {
        let revoked = ClientAuthority {
            revoked: vec![serial.into()],
            ..spiffe()
        };
        assert_eq!(
            cause(&[revoked], &["spiffe", "between"], NOW).0,
            "certificate_revoked"
        );
    }
    let other = ClientAuthority {
        revoked: vec!["a1".into(), "1f".into()],
        ..spiffe()
    };
    assert!(judge(&[other], &["spiffe", "between"], NOW).is_ok());
}

#[test]
fn a_pin_admits_its_key_only() {
    let pin = read(&der("plain")).unwrap().pin;
    let pinned = ClientAuthority {
        pins: vec![pin],
        ..authority("corp", "ca")
    };
    assert!(judge(std::slice::from_ref(&pinned), &["plain"], NOW).is_ok());
    let other = ClientAuthority {
        pins: vec!["0".repeat(64)],
        ..pinned
    };
    assert!(cause(&[other], &["plain"], NOW).1.contains("pinned"));
}

#[test]
fn the_first_authority_that_vouches_is_the_one_and_the_closest_says_why_not() {
    let declared = [
        authority("a", "other-ca"),
        authority("b", "ca"),
        authority("c", "ca"),
    ];
    assert_eq!(
        judge(&declared, &["plain"], NOW)
            .unwrap()
            .workload
            .authority,
        "b"
    );
    assert!(
        cause(&declared, &["server-only"], NOW)
            .1
            .contains("clientAuth")
    );
}

#[test]
fn authorities_that_did_not_change_are_the_same_ones() {
    let first = Authorities::compile(vec![spiffe()], None).unwrap().unwrap();
    let same = Authorities::compile(vec![spiffe()], Some(&first))
        .unwrap()
        .unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    let revoked = ClientAuthority {
        revoked: vec!["1".into()],
        ..spiffe()
    };
    let other = Authorities::compile(vec![revoked], Some(&first))
        .unwrap()
        .unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert!(
        Authorities::compile(vec![], Some(&first))
            .unwrap()
            .is_none()
    );
    let broken = ClientAuthority {
        certificates: "x".into(),
        ..spiffe()
    };
    assert_eq!(
        Authorities::compile(vec![broken], None).unwrap_err().code,
        "authority_invalid"
    );
}

#[test]
fn only_a_well_formed_id_of_a_workload_is_a_spiffe_id() {
    assert_eq!(spiffe_id(ID), Ok("example.org"));
    assert_eq!(spiffe_id("spiffe://a-b_c.d/x.y/..z"), Ok("a-b_c.d"));
    for wrong in [
        "",
        "spiffe://",
        "spiffe:///x",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org//x",
        "spiffe://example.org/x/",
        "spiffe://example.org/./x",
        "spiffe://example.org/../x",
        "spiffe://Example.org/x",
        "SPIFFE://example.org/x",
        "spiffe://example.org:443/x",
        "spiffe://user@example.org/x",
        "spiffe://example.org/x?y",
        "spiffe://example.org/x#y",
        "spiffe://example.org/%41",
        "spiffe://example.org/x y",
        "spiffe://exämple.org/x",
        "https://example.org/x",
    ] {
        assert!(spiffe_id(wrong).is_err(), "{wrong}");
    }
    assert!(spiffe_id(&format!("spiffe://a/{}", "x".repeat(2048))).is_err());
    assert!(spiffe_id(&format!("spiffe://{}/x", "a".repeat(256))).is_err());
}

#[test]
fn hostile_bytes_are_read_as_no_certificate_and_never_panic() {
    let good = der("spiffe");
    assert!(read(b"").is_err());
    for end in 0..good.len() {
        assert!(read(&good[..end]).is_err(), "cut at {end}");
    }
    // Every single byte changed: whatever comes out, it comes out.
    for at in 0..good.len() {
        for with in [0x00, 0x7f, 0x80, 0xff] {
            let mut bytes = good.to_vec();
            bytes[at] = with;
            let _ = read(&bytes);
        }
    }
}

#[test]
fn a_serial_is_hex_without_leading_zeros() {
    assert_eq!(serial_of(&[0x00, 0x8f, 0x01]), "8f01");
    assert_eq!(serial_of(&[0x0a]), "a");
    assert_eq!(serial_of(&[0]), "0");
    assert_eq!(serial_of(&[]), "0");
}
