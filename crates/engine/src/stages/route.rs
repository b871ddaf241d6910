//! Route: host, path and conditions to what is deployed there; of several services, one.

use std::sync::Arc;

use http::HeaderValue;

use crate::call::Rpc;
use crate::plan::{Plan, Target};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::Admitted;
use crate::stages::predict;

/// A request, and where it leads.
pub struct Routed {
    admitted: Admitted,
    target: Arc<Target>,
    // Boxed: few requests have it, and each would carry its room through the rest of the path.
    stay: Option<Box<HeaderValue>>,
    call: Option<Box<Rpc>>,
}

impl Routed {
    /// The request as admitted.
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// Where it leads.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The host that it is looked up by: who comes to a sidecar is led to its program, whatever they call it.
    pub fn host<'a>(&'a self, record: &'a Record) -> &'a str {
        host_of(record, &self.admitted)
    }

    /// What it calls over gRPC, of the Open Inference Protocol.
    pub fn call(&self) -> Option<&Rpc> {
        self.call.as_deref()
    }

    /// Says what it calls.
    pub fn calls(&mut self, call: Rpc) {
        self.call = Some(Box::new(call));
    }

    /// The same, to be kept.
    pub fn take_call(&mut self) -> Option<Box<Rpc>> {
        self.call.take()
    }

    /// Leads it elsewhere, by what it calls.
    pub fn lead(&mut self, target: Arc<Target>) {
        self.target = target;
    }

    /// Request, target, and the cookie that tells the caller to stay with it.
    pub fn into_inner(self) -> (Admitted, Arc<Target>, Option<Box<HeaderValue>>) {
        (self.admitted, self.target, self.stay)
    }
}

/// Finds where a request leads.
pub fn route(plan: &Plan, record: &mut Record, mut admitted: Admitted) -> Result<Routed, Refusal> {
    let parts = admitted.parts();
    let host = host_of(record, &admitted);
    let (service, cookie) = plan
        .find(host, admitted.path(), parts)
        .and_then(|rule| rule.choose(&parts.headers))
        .ok_or(Cause::NotFound)?;
    let stay = cookie.and_then(|name| {
        let secure = if record.connection.scheme == "https" {
            "; Secure"
        } else {
            ""
        };
        let value = &service.cookie;
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::from_str(&text).ok().map(Box::new)
    });
    let target = Arc::clone(&service.target);
    record.target = Some(Arc::clone(&target));
    if target.model().is_some() {
        predict::name_tensors(admitted.headers_mut());
    }
    Ok(Routed {
        admitted,
        target,
        stay,
        call: None,
    })
}

fn host_of<'a>(record: &'a Record, admitted: &'a Admitted) -> &'a str {
    let inbound = record.connection.sidecar.as_ref();
    let inbound = inbound.filter(|it| !it.is_outbound());
    inbound.map_or(admitted.host(), |it| &it.host)
}
