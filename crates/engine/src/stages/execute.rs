//! Execute: the function, the model, or the fixed answer, behind a route.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use vedette_wasm::{BodyError, Call, RequestBody};

use crate::body::{BodyMeter, Content, LimitedBody, Unread, refusal_of};
use crate::call::{Method, Rpc};
use crate::caller::{Caller, PRINCIPAL, Proof};
use crate::changes::Redirect;
use crate::grpc::Message;
use crate::inference;
use crate::models::nothing;
use crate::node::Node;
use crate::plan::{Backend, Deployed, Fixed, Plan, Target};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::Admitted;
use crate::stages::escalate;
use crate::stages::forward::forward;
use crate::stages::inspect::Inspected;
use crate::stages::predict::{Asking, answer_call};
use crate::stages::stream::{is_for_stream, stream};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-vedette-request-id");
const CLIENT_IP: HeaderName = HeaderName::from_static("x-vedette-client-ip");
const COUNTRY: HeaderName = HeaderName::from_static("x-edge-country");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Bytes of a message that only says whom it asks.
const MOST_ASKED: u64 = 64 << 10;
/// Of a body that rests as long as its sender likes.
const ANY_PACE: u64 = 0;

/// Has the request answered.
pub async fn execute(
    node: &Arc<Node>,
    plan: &Plan,
    record: &mut Record,
    inspected: Inspected,
) -> Result<Response<Content>, Refusal> {
    let (permitted, body) = inspected.into_inner();
    let (mut routed, caller) = permitted.into_inner();
    let rpc = routed.take_call();
    let (mut admitted, target, stay) = routed.into_inner();
    let changes = target.changes.as_ref();
    let speaks =
        matches!(target.backend, Backend::Upstream(_)) || is_for_stream(&target, &admitted);
    if admitted.is_websocket() && !speaks {
        // Over HTTP/2 any success would be taken for an open tunnel.
        return Err(Cause::NoTunnel.into());
    }
    if let Some(fault) = &target.fault {
        // On the heap: few routes have it, and its wait is larger than what else is kept here.
        Box::pin(fault.inject(record)).await?;
    }
    let pace = plan.admit.limits.timers.body_bytes_per_second;
    let mut response = match &target.backend {
        Backend::Static(fixed) => answer_fixed(fixed),
        Backend::Redirect(redirect) => answer_redirect(redirect, &target, record, &admitted)?,
        Backend::Files(files) => {
            let parts = admitted.parts();
            let (path, wire) = (admitted.path(), admitted.wire_path());
            files
                .answer(&parts.method, &parts.headers, &target.path, path, wire)
                .await?
        }
        Backend::Upstream(service) => {
            let asked = admitted.authority().clone();
            if record.connection.is_of_a_program() && service.upstream.shows_svids() {
                // Who is there learns from the SVID who calls, and takes nobody's word for it.
                let trace = record.ids.traceparent.clone();
                admitted.headers_mut().insert(TRACEPARENT, trace);
                change(&mut admitted, &target)?;
            } else {
                introduce(&mut admitted, &target, caller.as_deref(), record)?;
            }
            let body = metered(record, body, u64::MAX, pace);
            // On the heap: it is three times the size of all else, and requests are moved when they begin.
            Box::pin(forward(plan, record, service, &asked, admitted, body)).await?
        }
        Backend::Model(model, _) if is_for_stream(&target, &admitted) => {
            change(&mut admitted, &target)?;
            // However long it rests; what its process does not answer ends it.
            let body = limited(record, &admitted, body, u64::MAX, ANY_PACE)?;
            let events = (admitted, body);
            Box::pin(stream(
                plan,
                record,
                (&target, model),
                caller.as_deref(),
                events,
            ))
            .await?
        }
        Backend::Model(model, terms) => {
            let asking = Asking {
                model,
                terms: *terms,
                caller: caller.as_deref(),
            };
            // On the heap, as forwarding is.
            if let Some(rpc) = rpc {
                let limit = model.declared.limits.request_bytes;
                let message = message(record, limit, &rpc, body, pace)?;
                let message = Box::pin(asked(record, &rpc, message)).await?;
                let called = (&*target, &*rpc);
                Box::pin(answer_call(record, called, asking, admitted, message)).await?
            } else {
                change(&mut admitted, &target)?;
                let limit = model.declared.limits.request_bytes;
                let body = limited(record, &admitted, body, limit, pace)?;
                Box::pin(escalate::answer(
                    node, record, &target, asking, admitted, body,
                ))
                .await?
            }
        }
        Backend::Inference(asked) => Box::pin(inference::answer(plan, *asked)).await?,
        Backend::Calls => {
            let rpc = rpc.ok_or(Cause::CallMalformed)?;
            let message = message(record, MOST_ASKED, &rpc, body, pace)?;
            Box::pin(asked(record, &rpc, message)).await?;
            Box::pin(inference::called(plan, rpc.method)).await?
        }
        Backend::Function(function) => {
            introduce(&mut admitted, &target, caller.as_deref(), record)?;
            let limit = function.declared.limits.request_bytes;
            let body = limited(record, &admitted, body, limit, pace)?;
            let request = request_of(admitted, record, body)?;
            call(node, record, &target, function, request).await?
        }
    };
    if let Some(changes) = changes {
        changes.response.apply(response.headers_mut());
    }
    if let Some(stay) = stay {
        response.headers_mut().append(SET_COOKIE, *stay);
    }
    Ok(response)
}

fn answer_redirect(
    redirect: &Redirect,
    target: &Target,
    record: &Record,
    admitted: &Admitted,
) -> Result<Response<Content>, Refusal> {
    let location = redirect
        .location(
            record.connection.scheme,
            admitted.authority(),
            &target.path,
            admitted.wire_path(),
            admitted.parts().uri.query(),
        )
        .ok_or_else(|| Refusal::with(Cause::MalformedPath, "the new location is none"))?;
    let mut response = Response::new(Content::Fixed(None));
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn answer_fixed(fixed: &Fixed) -> Response<Content> {
    let mut response = Response::new(Content::Fixed(Some(fixed.body.clone())));
    *response.status_mut() = fixed.status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, fixed.content_type.clone());
    response
}

async fn call(
    node: &Arc<Node>,
    record: &mut Record,
    target: &Target,
    function: &Deployed,
    request: Request<RequestBody>,
) -> Result<Response<Content>, Refusal> {
    let permit = function
        .in_flight
        .enter(function.declared.limits.concurrency)
        .ok_or(Cause::ConcurrencyExceeded)?;
    let (loaded, is_cold) = function
        .load(&node.runtime)
        .map_err(|failure| refusal_of(&failure))?;
    record.is_cold = is_cold;
    let call = Call {
        request,
        log: function.log(node),
        outbound: target.outbound(node, function),
        request_id: record.ids.request.clone(),
        permit: Box::new(permit),
    };
    let result = loaded.call(call).await;
    // Whatever the guest made of a body that was cut off, nothing of it has been sent yet.
    if let Some(cut_off) = record.bytes_in.as_ref().and_then(|meter| meter.cut_off()) {
        return Err(cut_off.into());
    }
    let response = result.map_err(|failure| refusal_of(&failure))?;
    Ok(response.map(Content::Guest))
}

/// Makes the request what the backend is to see: who calls, and the route's changes.
fn introduce(
    admitted: &mut Admitted,
    target: &Target,
    caller: Option<&Caller>,
    record: &Record,
) -> Result<(), Refusal> {
    set_identity(admitted.headers_mut(), caller, record);
    change(admitted, target)
}

/// Makes the route's changes.
fn change(admitted: &mut Admitted, target: &Target) -> Result<(), Refusal> {
    if let Some(changes) = &target.changes {
        changes.request.apply(admitted.headers_mut());
        admitted.rewrite(changes, &target.path)?;
    }
    Ok(())
}

fn limited(
    record: &mut Record,
    admitted: &Admitted,
    body: Unread,
    limit: u64,
    pace: u64,
) -> Result<RequestBody, Refusal> {
    if body.is_end_stream() {
        let nothing = Empty::<Bytes>::new().map_err(|never| match never {});
        return Ok(nothing.map_err(|never: BodyError| never).boxed_unsync());
    }
    let declared = admitted
        .parts()
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > limit) {
        return Err(Refusal::with(Cause::RequestTooLarge, "as declared"));
    }
    Ok(metered(record, body, limit, pace).boxed_unsync())
}

/// The message of a call, as the model's process gets it.
fn message(
    record: &mut Record,
    limit: u64,
    rpc: &Rpc,
    body: Unread,
    pace: u64,
) -> Result<RequestBody, Refusal> {
    if u64::from(rpc.length) > limit {
        return Err(Refusal::with(Cause::RequestTooLarge, "as declared"));
    }
    let meter = Arc::new(BodyMeter::default());
    record.bytes_in = Some(Arc::clone(&meter));
    let body = LimitedBody::new(body, u64::MAX, pace, Arc::clone(&meter));
    Ok(Message::new(body, rpc.length, meter).boxed_unsync())
}

/// The message of a prediction as it comes. Any other says no more than whom it asks, which is known: it is read to its end,
/// which is that of the call.
async fn asked(record: &Record, rpc: &Rpc, message: RequestBody) -> Result<RequestBody, Refusal> {
    if rpc.method == Method::ModelInfer {
        return Ok(message);
    }
    if u64::from(rpc.length) > MOST_ASKED {
        return Err(Refusal::with(Cause::RequestTooLarge, "as declared"));
    }
    let read = message.collect().await;
    read.map_err(|error| {
        let cut_off = record.bytes_in.as_ref().and_then(|meter| meter.cut_off());
        Refusal::with(cut_off.unwrap_or(Cause::RequestBroken), error.to_string())
    })?;
    Ok(nothing())
}

fn metered(record: &mut Record, body: Unread, limit: u64, pace: u64) -> LimitedBody {
    let meter = Arc::new(BodyMeter::default());
    record.bytes_in = Some(Arc::clone(&meter));
    LimitedBody::new(body, limit, pace, meter)
}

/// The request as whoever answers sees it: absolute, in normal form.
pub fn request_of<B>(admitted: Admitted, record: &Record, body: B) -> Result<Request<B>, Refusal> {
    let malformed = |_| Refusal::with(Cause::MalformedPath, "the normal form is no target");
    let query = admitted.parts().uri.query();
    let path_and_query = match (admitted.is_as_it_came(), query) {
        (true, _) => admitted.parts().uri.path_and_query().cloned(),
        (false, None) => Some(PathAndQuery::try_from(admitted.wire_path()).map_err(malformed)?),
        (false, Some(query)) => {
            let target = format!("{}?{query}", admitted.wire_path());
            Some(PathAndQuery::try_from(target).map_err(malformed)?)
        }
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(match record.connection.scheme {
        "http" => Scheme::HTTP,
        _ => Scheme::HTTPS,
    });
    uri.authority = Some(admitted.authority().clone());
    uri.path_and_query = path_and_query.or_else(|| Some(PathAndQuery::from_static("/")));
    let uri = Uri::from_parts(uri)
        .map_err(|_| Refusal::with(Cause::MalformedPath, "the normal form is no target"))?;
    let mut parts = admitted.into_parts();
    parts.uri = uri;
    Ok(Request::from_parts(parts, body))
}

/// Tells the function who is calling. Callers cannot set these: `admit` took theirs away.
fn set_identity(headers: &mut HeaderMap, caller: Option<&Caller>, record: &Record) {
    headers.reserve(12);
    headers.insert(PRINCIPAL, HeaderValue::from_static("anonymous"));
    // The certificate first: when a token came as well, the token says who the principal is.
    for proved in record.certificate.as_deref().into_iter().chain(caller) {
        for (name, value) in &proved.headers {
            headers.insert(name, value.clone());
        }
        if matches!(proved.proof, Proof::Token(_)) {
            // The credential stays with the node: a function has no use for it but misuse.
            headers.remove(AUTHORIZATION);
        }
    }
    headers.insert(REQUEST_ID, record.ids.request.clone());
    headers.insert(CLIENT_IP, record.connection.client_ip_value.clone());
    headers.insert(TRACEPARENT, record.ids.traceparent.clone());
    if let Some(Ok(country)) = record.country.map(|it| HeaderValue::from_str(it.as_str())) {
        headers.insert(COUNTRY, country);
    }
}
