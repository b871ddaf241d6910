//! Authenticate: who is calling, proved now or remembered from when it was.
//!
//! A certificate belongs to the connection and is judged under the plan of the request, so that what
//! a new plan revokes ends with the next request. A token, when there is one, names the principal.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::caller::Caller;
use crate::certificate::{Presented, Vouched, refusal_of};
use crate::clock;
use crate::jwt::MAX_TOKEN;
use crate::node::Connection;
use crate::plan::Plan;
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::revoked::Known;
use crate::snapshot::SidecarMode;
use crate::stages::route::Routed;
use crate::svids::Svids;
use crate::tls::algorithms;
use crate::worker::{self, ProofDigest};

/// A request, and who makes it: somebody proved, or nobody in particular.
pub struct Authenticated {
    routed: Routed,
    caller: Option<Arc<Caller>>,
}

impl Authenticated {
    /// The request as routed.
    pub fn routed(&self) -> &Routed {
        &self.routed
    }

    /// The same, for what its body says of where it leads.
    pub fn routed_mut(&mut self) -> &mut Routed {
        &mut self.routed
    }

    /// Who makes it; nobody when it carries no credentials.
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        self.caller.as_ref()
    }

    /// Both.
    pub fn into_inner(self) -> (Routed, Option<Arc<Caller>>) {
        (self.routed, self.caller)
    }
}

/// Finds out who is calling. A proof that does not verify is refused even where none is needed.
pub fn authenticate(
    plan: &Plan,
    svids: &Svids,
    ahead: &Known,
    record: &mut Record,
    routed: Routed,
) -> Result<Authenticated, Refusal> {
    let (certificate, would_break) = certificate_of(plan, svids, &record.connection)?;
    record.certificate.clone_from(&certificate);
    record.would_break = would_break;
    // Between programs a token is theirs: it goes on as it came.
    let token = match record.connection.sidecar {
        None => bearer(&routed.admitted().parts().headers)?,
        Some(_) => None,
    };
    let caller = match token {
        Some(token) => Some(verified(plan, token)?),
        None => certificate,
    };
    if let Some(caller) = &caller {
        caller.require_binding(record.workload())?;
    }
    if let Some(revoked) = &ahead.revoked
        && let Some(cause) = revoked.cause(caller.as_deref(), record.certificate.as_deref())
    {
        return Err(cause.into());
    }
    record.principal = Some(match &caller {
        Some(caller) => Arc::clone(&caller.principal),
        None => "anonymous".into(),
    });
    Ok(Authenticated { routed, caller })
}

/// The bearer token (RFC 6750 §2.1). Another scheme is not ours to judge and counts as none.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let malformed = |what: &'static str| Refusal::with(Cause::TokenMalformed, what);
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(malformed("more than one Authorization field"));
    }
    let value = value
        .to_str()
        .map_err(|_| malformed("the Authorization field is no text"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    match token.trim() {
        "" => Err(malformed("the token is empty")),
        token if token.len() > MAX_TOKEN => Err(malformed("the token is longer than 8 KiB")),
        token => Ok(Some(token)),
    }
}

fn verified(plan: &Plan, token: &str) -> Result<Arc<Caller>, Refusal> {
    let (proof, known) = recall(plan.serial, token);
    if let Some(caller) = known {
        return Ok(caller);
    }
    let token = plan.issuers.verify(token)?;
    // The library that verifies asks a clock that can go back.
    if token.expires_at <= clock::onward_seconds() {
        return Err(Cause::TokenExpired.into());
    }
    if let Some(cause) = plan.revoked.of_token(&token) {
        return Err(cause.into());
    }
    let caller = Arc::new(Caller::new(token)?);
    remember(plan.serial, proof, &caller);
    Ok(caller)
}

/// Who came with this token before, under the plan with this serial number.
pub fn recall(plan: u64, token: &str) -> (ProofDigest, Option<Arc<Caller>>) {
    let mut proof: ProofDigest = [0; 32];
    proof.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    let known = worker::with(|worker| worker.memory(plan).tokens.find(&proof)).flatten();
    (proof, known)
}

/// Has [`recall`] find the caller.
pub fn remember(plan: u64, proof: ProofDigest, caller: &Arc<Caller>) {
    worker::with(|worker| worker.memory(plan).tokens.remember(proof, caller));
}

/// Whose certificate a connection has, and what of it a strict sidecar would refuse.
pub fn certificate_of(
    plan: &Plan,
    svids: &Svids,
    connection: &Connection,
) -> Result<(Option<Arc<Caller>>, Option<&'static str>), Refusal> {
    let presented = connection.certificate.as_ref();
    let Some(sidecar) = &connection.sidecar else {
        return Ok((presented.map(|it| vouched(plan, it)).transpose()?, None));
    };
    // Without one nobody is it: neither is it called, nor does it call.
    let own = svids.presented(&sidecar.name).ok_or_else(|| {
        let missing = format!("the sidecar {} has no SVID", sidecar.name);
        Refusal::with(Cause::HostNotAllowed, missing)
    })?;
    if sidecar.is_outbound() {
        return Ok((Some(believed(plan, svids, &own)?), None));
    }
    if let Some(presented) = presented {
        return Ok((Some(believed(plan, svids, presented)?), None));
    }
    if plan.sidecar(&sidecar.name) != Some(SidecarMode::Permissive) {
        return Err(Cause::CredentialsRequired.into());
    }
    let what = match connection.scheme {
        "http" => "plain_http",
        _ => "no_certificate",
    };
    Ok((None, Some(what)))
}

/// Whose SVID it is, if the node knows its trust domain.
fn believed(plan: &Plan, svids: &Svids, presented: &Presented) -> Result<Arc<Caller>, Refusal> {
    // Another place for each state of what is believed, and none that `vouched` has.
    let mut key = presented.digest;
    let state = (svids.number() + 1).to_be_bytes();
    key.iter_mut().zip(state).for_each(|(it, by)| *it ^= by);
    let known = worker::with(|worker| worker.memory(plan.serial).certificates.find(&key)).flatten();
    if let Some(caller) = known {
        return Ok(caller);
    }
    let vouched = svids
        .vouch(&presented.chain, clock::onward_seconds())
        .map_err(|error| refusal_of(&error))?;
    accept(plan, key, vouched)
}

/// Whose certificate it is, if the plan vouches for it.
pub fn vouched(plan: &Plan, presented: &Presented) -> Result<Arc<Caller>, Refusal> {
    let key = presented.digest;
    let known = worker::with(|worker| worker.memory(plan.serial).certificates.find(&key)).flatten();
    if let Some(caller) = known {
        return Ok(caller);
    }
    let authorities = plan.authorities.as_deref().ok_or_else(|| {
        Refusal::with(
            Cause::CertificateInvalid,
            "certificates are not accepted any more",
        )
    })?;
    let vouched = authorities
        .verify(&presented.chain, clock::onward_seconds(), algorithms())
        .map_err(|error| refusal_of(&error))?;
    accept(plan, key, vouched)
}

fn accept(plan: &Plan, key: ProofDigest, vouched: Vouched) -> Result<Arc<Caller>, Refusal> {
    if let Some(cause) = plan.revoked.of_certificate(&vouched.workload) {
        return Err(cause.into());
    }
    let caller = Arc::new(Caller::of_certificate(vouched)?);
    worker::with(|worker| {
        let memory = worker.memory(plan.serial);
        memory.certificates.remember(key, &caller);
    });
    Ok(caller)
}
