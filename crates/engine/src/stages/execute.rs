//! Execute: the function, or the fixed answer, behind a route.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use vedette_wasm::{BodyError, Call, RequestBody};

use crate::body::{BodyMeter, Content, LimitedBody, Unread, refusal_of};
use crate::jwt::{Caller, PRINCIPAL};
use crate::node::Node;
use crate::plan::{Backend, Deployed, Fixed};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::Admitted;
use crate::stages::authorize::Permitted;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-vedette-request-id");
const CLIENT_IP: HeaderName = HeaderName::from_static("x-vedette-client-ip");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Has the request answered.
pub async fn execute(
    node: &Node,
    record: &mut Record,
    permitted: Permitted,
    body: Unread,
) -> Result<Response<Content>, Refusal> {
    let (routed, caller) = permitted.into_inner();
    let (mut admitted, target) = routed.into_inner();
    match &target.backend {
        Backend::Static(fixed) => Ok(answer_fixed(fixed)),
        Backend::Function(function) => {
            set_identity(admitted.headers_mut(), caller.as_deref(), record);
            call(node, record, function, admitted, body).await
        }
    }
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
    node: &Node,
    record: &mut Record,
    function: &Arc<Deployed>,
    admitted: Admitted,
    body: Unread,
) -> Result<Response<Content>, Refusal> {
    let permit = function
        .in_flight
        .enter(function.declared.limits.concurrency)
        .ok_or(Cause::ConcurrencyExceeded)?;
    let limit = function.declared.limits.request_bytes;
    let body = limited(record, &admitted, body, limit)?;
    let (loaded, is_cold) = function
        .load(&node.runtime)
        .map_err(|failure| refusal_of(&failure))?;
    record.is_cold = is_cold;
    let call = Call {
        request: request_of(admitted, record, body)?,
        log: function.log(node),
        outbound: function.outbound(),
        request_id: record.ids.request.clone(),
        permit: Box::new(permit),
    };
    let result = loaded.call(call).await;
    // Whatever the guest made of a body that was cut off, nothing of it has been sent yet.
    if record
        .bytes_in
        .as_ref()
        .is_some_and(|meter| meter.is_exceeded())
    {
        return Err(Cause::RequestTooLarge.into());
    }
    let response = result.map_err(|failure| refusal_of(&failure))?;
    Ok(response.map(Content::Guest))
}

fn limited(
    record: &mut Record,
    admitted: &Admitted,
    body: Unread,
    limit: u64,
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
    let meter = Arc::new(BodyMeter::default());
    record.bytes_in = Some(Arc::clone(&meter));
    Ok(LimitedBody::new(body, limit, meter).boxed_unsync())
}

/// The request as the guest sees it: absolute, in normal form.
fn request_of(
    admitted: Admitted,
    record: &Record,
    body: RequestBody,
) -> Result<Request<RequestBody>, Refusal> {
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
    headers.reserve(8);
    match caller {
        Some(caller) => {
            // The credential stays with the node: a function has no use for it but misuse.
            headers.remove(AUTHORIZATION);
            for (name, value) in &caller.headers {
                headers.insert(name, value.clone());
            }
        }
        None => drop(headers.insert(PRINCIPAL, HeaderValue::from_static("anonymous"))),
    }
    headers.insert(REQUEST_ID, record.ids.request.clone());
    headers.insert(CLIENT_IP, record.connection.client_ip_value.clone());
    headers.insert(TRACEPARENT, record.ids.traceparent.clone());
}
