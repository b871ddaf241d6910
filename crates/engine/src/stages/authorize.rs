//! Authorize: may they. Cedar, default deny; the first stage after which a body is read.

use std::sync::Arc;

use crate::call::Rpc;
use crate::caller::Caller;
use crate::node::{Connection, Node};
use crate::plan::{Backend, Plan, Target};
use crate::policy::{Attributes, Decision, ResourceKind, Slice};
use crate::posture::Facts;
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::snapshot::SidecarMode;
use crate::stages::admit::Admitted;
use crate::stages::authenticate::Authenticated;
use crate::stages::limit::Limited;
use crate::stages::route::Routed;
use crate::worker::{self, Memory};

/// A request that policy permits.
pub struct Permitted {
    authenticated: Authenticated,
    until: Option<u64>,
    posture: u64,
}

impl Permitted {
    /// The request as admitted.
    pub fn admitted(&self) -> &Admitted {
        self.authenticated.routed().admitted()
    }

    /// Where it leads.
    pub fn target(&self) -> &Arc<Target> {
        self.authenticated.routed().target()
    }

    /// What it calls over gRPC, of the Open Inference Protocol.
    pub fn call(&self) -> Option<&Rpc> {
        self.authenticated.routed().call()
    }

    /// When a policy ends that permits it, in seconds since the epoch, if one does.
    pub fn until(&self) -> Option<u64> {
        self.until
    }

    /// The number of the table of facts that it was decided under.
    pub fn posture(&self) -> u64 {
        self.posture
    }

    /// Who makes it.
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        self.authenticated.caller()
    }

    /// The request, where it leads, and who makes it.
    pub fn into_inner(self) -> (Routed, Option<Arc<Caller>>) {
        self.authenticated.into_inner()
    }
}

/// Asks policy. A caller who has not shown who they are is asked to (401), the others are refused.
pub fn authorize(
    node: &Node,
    plan: &Plan,
    record: &mut Record,
    limited: Limited,
) -> Result<Permitted, Refusal> {
    let authenticated = limited.into_inner();
    // What the node itself says (its health) needs no policy of today.
    let is_fixed = matches!(authenticated.routed().target().backend, Backend::Static(_));
    if node.presence.is_away() && !is_fixed {
        return Err(Cause::ControlAway.into());
    }
    // Before what is known is looked at: a lease that was granted under less is asked again.
    let posture = node.posture.number();
    let decision = decide(node, plan, record, &authenticated);
    record.policies = Some(Arc::clone(&decision.policies));
    let refusal = refusal_of(&decision, authenticated.caller().map(Arc::as_ref));
    if let Some(refusal) = refusal {
        let target = authenticated.routed().target();
        if !lets_in(plan, &record.connection, target, &decision) {
            return Err(refusal);
        }
        record.would_break.get_or_insert("policy_denied");
    }
    Ok(Permitted {
        authenticated,
        until: decision.until,
        posture,
    })
}

/// Whether one whom no policy permits is let in all the same: to a permissive sidecar, unless a policy forbids it. One of
/// this node is called without a hop between, by the route that it has.
pub fn lets_in(plan: &Plan, connection: &Connection, target: &Target, decision: &Decision) -> bool {
    let called = match &connection.sidecar {
        None => None,
        Some(sidecar) if sidecar.is_outbound() => target.route.strip_prefix("sidecar-"),
        Some(sidecar) => Some(sidecar.name.as_ref()),
    };
    let is_permissive = called.and_then(|it| plan.sidecar(it)) == Some(SidecarMode::Permissive);
    is_permissive && !decision.has_errors && decision.policies.is_empty()
}

/// The refusal that the decision about a caller amounts to.
pub fn refusal_of(decision: &Decision, caller: Option<&Caller>) -> Option<Refusal> {
    if decision.is_allowed {
        return None;
    }
    Some(match (decision.has_errors, caller) {
        (true, _) => Cause::PolicyError.into(),
        (false, None) => Cause::CredentialsRequired.into(),
        (false, Some(_)) => Cause::PolicyDenied.into(),
    })
}

fn decide(node: &Node, plan: &Plan, record: &Record, authenticated: &Authenticated) -> Decision {
    let routed = authenticated.routed();
    let slice = &routed.target().slice;
    let caller = authenticated.caller().map(Arc::as_ref);
    let known = facts_of(node, slice, caller, record.certificate.as_deref());
    let attributes = Attributes {
        method: routed.admitted().parts().method.as_str(),
        path: routed.admitted().path(),
        host: routed.admitted().host(),
        scheme: record.connection.scheme,
        source_ip: &record.connection.client_ip,
        listener: &record.connection.listener,
        certificate: record.workload(),
        version: routed.target().version(),
        posture: known.as_ref(),
    };
    let remembered = worker::with(|worker| {
        let memory = worker.memory(plan.serial);
        let id = caller.map_or(0, |caller| caller.id);
        put_key(memory, id, routed.target(), &attributes);
        memory.decision(|| slice.decide(caller, &attributes))
    });
    remembered.unwrap_or_else(|| slice.decide(caller, &attributes))
}

/// What is known of a caller, where a policy of the slice reads it.
pub fn facts_of(
    node: &Node,
    slice: &Slice,
    caller: Option<&Caller>,
    certificate: Option<&Caller>,
) -> Option<Facts> {
    slice.reads_posture().then(|| {
        let beside = certificate.map(|it| it.principal.as_ref());
        node.posture.of(caller, beside)
    })
}

/// All that the decision depends on: caller, resource, and the attributes that policies read.
/// NUL cannot occur in any of them, so no two requests share a key that should not.
fn put_key(memory: &mut Memory, caller: u64, target: &Target, attributes: &Attributes<'_>) {
    let key = &mut memory.key;
    key.clear();
    key.extend_from_slice(&caller.to_ne_bytes());
    match target.slice.is_for_all() {
        Some(ResourceKind::Function) => key.push(b'F'),
        Some(ResourceKind::Route) => key.push(b'R'),
        Some(ResourceKind::Model) => key.push(b'M'),
        None => {
            key.push(b'=');
            key.extend_from_slice(&target.index.to_ne_bytes());
        }
    }
    for (value, is_read) in attributes.values().into_iter().zip(target.slice.mentions()) {
        if is_read {
            key.extend_from_slice(value.as_bytes());
        }
        key.push(0);
    }
}
