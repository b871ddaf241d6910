//! Calls of functions to models: `http://NAME.model` is the model of that name on this node.
//!
//! No name is looked up and nothing leaves the node: the model's process is asked as for any other caller. The principal
//! is `Function::"name"`, as long as its SPIFFE ID is not revoked and the component that calls is the one that is
//! deployed now. Lists of destinations are not asked: which models a function may ask is for policy to say, and without
//! a policy it is none.
//!
//! Must not: tell a model who asks (but apart from others), or pass on what its process says beside the answer.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::header::{ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body;
use vedette_upstream::{SendError, SendOptions};
use vedette_wasm::{BodyError, Interface, OutboundBody, OutboundCall};

use super::counted::Recorded;
use super::prediction::Prediction;
use super::record::CallRecord;
use super::{Failed, cause_of_failure, failed, options, why};
use crate::caller::Caller;
use crate::models::{Served, TENANT, answer, tenant_of};
use crate::node::Node;
use crate::path::normalize;
use crate::plan::Plan;
use crate::policy::{Attributes, Decision, Slice};
use crate::stages::predict::{DEADLINE, DRIFT, INFERENCE_HEADER};
use crate::worker;

/// The domain of models in URIs of functions; nobody else can have it, since no name below it is looked up.
const DOMAIN: &str = "model";
/// What policies are told of where such a call comes from: this machine, by no listener.
const SOURCE: &str = "127.0.0.1";
const LISTENER: &str = "function";

/// What a process is told of a call.
const ASKED: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, INFERENCE_HEADER, ACCEPT];
/// What of its answer goes on.
const ANSWERED: [HeaderName; 5] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    INFERENCE_HEADER,
    RETRY_AFTER,
    ALLOW,
];
const QUEUE_TIME: HeaderName = HeaderName::from_static("x-vedette-queue-us");
const RUN_TIME: HeaderName = HeaderName::from_static("x-vedette-run-us");

/// The model that a URI names, in lower case.
pub fn model_of(uri: &Uri) -> Option<String> {
    let (name, domain) = uri.host()?.rsplit_once('.')?;
    domain
        .eq_ignore_ascii_case(DOMAIN)
        .then(|| name.to_ascii_lowercase())
}

/// Where the infer requests of a model go; none for what can be no name of one.
pub fn infer(model: &str) -> Option<Uri> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_name = model.bytes().all(is_plain) && !model.is_empty();
    let uri = is_name.then(|| format!("http://{model}.{DOMAIN}/v2/models/{model}/infer"))?;
    uri.parse().ok()
}

/// On whose behalf models are asked: a component that answers requests of a node.
#[derive(Clone)]
pub struct Asking {
    node: Weak<Node>,
    component: Box<str>,
}

/// A call that policy permits.
pub struct Permitted {
    model: Arc<Served>,
    path: PathAndQuery,
    tenant: HeaderValue,
}

impl Asking {
    /// For the component with this digest.
    pub fn of(node: &Arc<Node>, component: &str) -> Self {
        Self {
            node: Arc::downgrade(node),
            component: component.into(),
        }
    }

    /// Whether the function may ask this of the model `name`; what is found out is said in `record`.
    pub(super) fn permit(
        &self,
        (function, name): (&str, &str),
        (method, uri): (&Method, &Uri),
        interface: Interface,
        record: &mut CallRecord,
    ) -> Result<Permitted, Failed> {
        let denied = |cause| failed(cause, BodyError::HttpRequestDenied);
        let said = record.predicts(Prediction::of(&self.component, name, interface));
        let is_plain =
            uri.scheme() == Some(&Scheme::HTTP) && matches!(uri.port_u16(), None | Some(80));
        if !is_plain {
            return Err(denied("destination_not_allowed"));
        }
        let node = self.node.upgrade().ok_or_else(|| denied("no_snapshot"))?;
        // In this order: what leaves the one is in the other by then.
        let ahead = node.ahead.known();
        let plan = node.plan().ok_or_else(|| denied("no_snapshot"))?;
        said.snapshot = Some(Arc::clone(&plan.digest));
        if node.presence.is_away() {
            return Err(denied("control_away"));
        }
        let function = plan.function(function, &self.component);
        let caller = &function
            .ok_or_else(|| denied("function_replaced"))?
            .identity;
        said.principal = Some(Arc::clone(&caller.principal));
        let revoked = ahead
            .revoked
            .iter()
            .map(AsRef::as_ref)
            .chain([&plan.revoked]);
        if revoked
            .into_iter()
            .any(|it| it.cause(Some(caller), None).is_some())
        {
            return Err(denied("identity_revoked"));
        }
        let unknown = || failed("model_unknown", BodyError::DestinationNotFound);
        let (model, slice) = plan.asked(name).ok_or_else(unknown)?;
        said.is_of(model);
        let malformed = || failed("malformed_path", BodyError::HttpRequestUriInvalid);
        let normal = normalize(uri.path()).map_err(|_| malformed())?;
        let path = below(model, &normal.decoded);
        said.path.clone_from(&path);
        let decision = decide(&node, &plan, slice, caller, (model, method, &path));
        said.decided(&decision, model, caller);
        if !decision.is_allowed {
            let cause = if decision.has_errors {
                "policy_error"
            } else {
                "policy_denied"
            };
            return Err(denied(cause));
        }
        if model.process.is_none() {
            // Its route has the limits, the firewall and the tiers; what a function sends leaves by its own ways.
            return Err(failed("model_is_remote", BodyError::DestinationNotFound));
        }
        let wire = below(model, &normal.wire);
        Ok(Permitted {
            model: Arc::clone(model),
            path: PathAndQuery::try_from(wire).map_err(|_| malformed())?,
            tenant: tenant_of(Some(caller)),
        })
    }
}

/// The path of a model's process that is meant by this one, of which the root is the model itself.
fn below(model: &Served, path: &str) -> String {
    model.path("/", if path == "/" { "" } else { path })
}

/// What policies say, which a worker remembers as it does for requests.
fn decide(
    node: &Node,
    plan: &Plan,
    slice: &Slice,
    caller: &Caller,
    (model, method, path): (&Served, &Method, &str),
) -> Decision {
    let name = &model.declared.name;
    let known = slice
        .reads_posture()
        .then(|| node.posture.of(Some(caller), None));
    let host = format!("{name}.{DOMAIN}");
    let attributes = Attributes {
        method: method.as_str(),
        path,
        host: &host,
        scheme: "http",
        source_ip: SOURCE,
        listener: LISTENER,
        certificate: None,
        version: Some(&model.version),
        posture: known.as_ref(),
    };
    let remembered = worker::with(|worker| {
        let memory = worker.memory(plan.serial);
        let key = &mut memory.key;
        key.clear();
        key.extend_from_slice(&caller.id.to_ne_bytes());
        // No kind of resource that a request leads to begins so.
        key.push(b'f');
        key.extend_from_slice(name.as_bytes());
        for (value, is_read) in attributes.values().into_iter().zip(slice.mentions()) {
            key.push(0);
            if is_read {
                key.extend_from_slice(value.as_bytes());
            }
        }
        memory.decision(|| slice.decide(Some(caller), &attributes))
    });
    remembered.unwrap_or_else(|| slice.decide(Some(caller), &attributes))
}

impl Permitted {
    /// Has the model's process answer. What the call ends as is said in `record`, which the answer takes along.
    pub async fn send(
        self,
        call: OutboundCall,
        mut record: CallRecord,
    ) -> Result<Response<OutboundBody>, (BodyError, CallRecord)> {
        let model = Arc::clone(&self.model);
        let Some(process) = &model.process else {
            record.fail("model_is_remote");
            return Err((BodyError::DestinationNotFound, record));
        };
        let limit = self.model.declared.limits.request_bytes;
        let least = call.request.body().size_hint().lower();
        if least > limit {
            record.fail("request_too_large");
            return Err((BodyError::HttpRequestBodySize(Some(least)), record));
        }
        let left = call.until.saturating_duration_since(Instant::now());
        let waits = call.timeouts.first_byte.map_or(left, |it| it.min(left));
        let said = options(call.timeouts);
        let options = SendOptions {
            timeout: Some(left),
            body_idle: said.body_idle.or(process.options.body_idle),
            host: process.options.host.clone(),
            ..said
        };
        let request = self.request(call.request, waits, limit, &record);
        match process.upstream.send(request, &options).await {
            Ok(response) => {
                process.hearing.heard();
                let (mut parts, body) = response.into_parts();
                let said = std::mem::take(&mut parts.headers);
                parts.headers = only(&said, &ANSWERED);
                record.answered(parts.status);
                let times = (micros(&said, &QUEUE_TIME), micros(&said, &RUN_TIME));
                record.ran(times.0, times.1, answer::drift(&said, &DRIFT));
                Ok(Response::from_parts(parts, Recorded::wrap(body, record)))
            }
            Err(SendError::RequestBody(_)) if record.sent() > limit => {
                record.fail("request_too_large");
                let sent = Some(record.sent());
                Err((BodyError::HttpRequestBodySize(sent), record))
            }
            Err(error) => {
                record.fail(cause_of_failure(&error));
                Err((why(&error), record))
            }
        }
    }

    /// The call as the model's process sees it.
    fn request(
        &self,
        asked: Request<OutboundBody>,
        waits: Duration,
        limit: u64,
        record: &CallRecord,
    ) -> Request<OutboundBody> {
        let (parts, body) = asked.into_parts();
        let mut request = Request::new(record.count_sent(body, limit));
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.method_mut() = parts.method;
        *request.headers_mut() = only(&parts.headers, &ASKED);
        // Not rounded down to nothing, which is no deadline.
        let millis = u64::try_from(waits.as_millis()).unwrap_or(u64::MAX).max(1);
        let headers = request.headers_mut();
        headers.insert(DEADLINE, millis.into());
        headers.insert(TENANT, self.tenant.clone());
        request
    }
}

/// These fields, each as often as it is there.
fn only(fields: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(names.len() + 2);
    for name in names {
        for value in fields.get_all(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn micros(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
#[path = "models_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
