//! That what is revoked is found by each of its names, and stays so until a plan refuses it.

use super::*;
use crate::certificate::{Leaf, Vouched};

fn token(issuer: &str, subject: &str, id: Option<&str>) -> Verified {
    Verified {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        audiences: Vec::new(),
        scopes: Vec::new(),
        expires_at: u64::MAX,
        bound_to: None,
        id: id.map(str::to_owned),
        key: "key".into(),
    }
}

fn workload(id: Option<&str>) -> Workload {
    let leaf = Leaf {
        serial: "a1".to_owned(),
        ..Leaf::default()
    };
    let mut workload = Workload::new("mesh", id.map(str::to_owned), &leaf);
    workload.issuers = vec!["b2".to_owned()];
    workload
}

fn of_token(issuer: &str, id: &str) -> Revocation {
    Revocation::Token {
        issuer: issuer.to_owned(),
        id: id.to_owned(),
    }
}

fn of_certificate(authority: &str, serial: &str) -> Revocation {
    Revocation::Certificate {
        authority: authority.to_owned(),
        serial: serial.to_owned(),
    }
}

fn of_id(id: &str) -> Revocation {
    Revocation::SpiffeId { id: id.to_owned() }
}

fn of_domain(name: &str) -> Revocation {
    Revocation::TrustDomain {
        name: name.to_owned(),
    }
}

fn only(one: Revocation) -> Revoked {
    [one].into_iter().collect()
}

#[test]
fn a_token_is_revoked_by_its_issuer_and_id_together() {
    let revoked = only(of_token("https://a.example", "1"));
    let cause = |issuer, id| revoked.of_token(&token(issuer, "me", id));
    assert_eq!(
        cause("https://a.example", Some("1")),
        Some(Cause::TokenRevoked)
    );
    assert_eq!(cause("https://a.example", Some("2")), None);
    assert_eq!(cause("https://b.example", Some("1")), None);
    assert_eq!(cause("https://a.example", None), None);
}

#[test]
fn a_certificate_is_revoked_by_its_serial_and_by_one_above_it() {
    let cause =
        |authority, serial| only(of_certificate(authority, serial)).of_certificate(&workload(None));
    assert_eq!(cause("mesh", "a1"), Some(Cause::CertificateRevoked));
    assert_eq!(cause("mesh", "b2"), Some(Cause::CertificateRevoked));
    assert_eq!(cause("mesh", "c3"), None);
    assert_eq!(cause("other", "a1"), None);
}

#[test]
fn an_id_is_revoked_however_it_is_proved_and_no_other_one_with_it() {
    let revoked = only(of_id("spiffe://edge/a"));
    let of_workload = |id| revoked.of_certificate(&workload(id));
    assert_eq!(
        of_workload(Some("spiffe://edge/a")),
        Some(Cause::IdentityRevoked)
    );
    assert_eq!(of_workload(Some("spiffe://edge/a/b")), None);
    assert_eq!(of_workload(None), None);
    let of_subject = |subject| revoked.of_token(&token("https://a.example", subject, None));
    assert_eq!(of_subject("spiffe://edge/a"), Some(Cause::IdentityRevoked));
    assert_eq!(of_subject("spiffe://edge/b"), None);
}

#[test]
fn a_trust_domain_is_revoked_with_its_identities_and_the_tokens_it_issues() {
    let revoked = only(of_domain("edge"));
    let of_workload = |id| revoked.of_certificate(&workload(Some(id)));
    assert_eq!(of_workload("spiffe://edge/a"), Some(Cause::IdentityRevoked));
    assert_eq!(of_workload("spiffe://edge.other/a"), None);
    let of = |issuer, subject| revoked.of_token(&token(issuer, subject, None));
    assert_eq!(of("spiffe://edge", "me"), Some(Cause::IdentityRevoked));
    assert_eq!(
        of("https://a.example", "spiffe://edge/a"),
        Some(Cause::IdentityRevoked)
    );
    assert_eq!(of("spiffe://other", "edge"), None);
}

#[test]
fn a_certificate_beside_a_token_counts_as_well() {
    let caller = Caller::new(token("https://a.example", "me", None)).unwrap();
    let beside = Caller::of_certificate(Vouched {
        workload: workload(Some("spiffe://edge/a")),
        expires_at: u64::MAX,
    });
    let beside = beside.unwrap();
    let revoked = only(of_id("spiffe://edge/a"));
    let cause = revoked.cause(Some(&caller), Some(&beside));
    assert_eq!(cause, Some(Cause::IdentityRevoked));
    assert_eq!(revoked.cause(Some(&caller), None), None);
    assert_eq!(revoked.cause(None, None), None);
}

#[test]
fn what_is_ahead_goes_when_a_plan_refuses_it_and_not_before() {
    let ahead = Ahead::default();
    let (first, second) = (of_id("spiffe://edge/a"), of_token("i", "1"));
    ahead
        .revoke(vec![first.clone(), second.clone(), first.clone()])
        .unwrap();
    assert_eq!(ahead.count(), 2);
    ahead.settle(|_| false);
    assert!(ahead.known().revoked.unwrap().has(&first));
    ahead.settle(|one| *one == first);
    let known = ahead.known().revoked.unwrap();
    assert!(!known.has(&first) && known.has(&second));
    ahead.settle(|_| true);
    assert!(ahead.known().revoked.is_none());
}

#[test]
fn each_state_of_what_is_ahead_has_a_number_of_its_own_and_is_told() {
    let ahead = Ahead::default();
    let mut changes = ahead.changes();
    let before = ahead.known().number;
    ahead.settle(|_| true);
    assert!(
        !changes.has_changed().unwrap(),
        "nothing was there to settle"
    );
    ahead.revoke(vec![of_domain("edge")]).unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), ahead.known().number);
    assert_ne!(ahead.known().number, before);
}

#[test]
fn no_more_is_kept_ahead_than_fits_into_a_snapshot() {
    let ahead = Ahead::default();
    let many = (0..MOST).map(|number| of_token("i", &number.to_string()));
    ahead.revoke(many.collect()).unwrap();
    let refused = ahead.revoke(vec![of_token("i", "one more")]);
    assert_eq!(refused.unwrap_err().code, "revocations_full");
    assert!(!ahead.list().contains(&of_token("i", "one more")));
    ahead.revoke(vec![of_token("i", "7")]).unwrap();
}
