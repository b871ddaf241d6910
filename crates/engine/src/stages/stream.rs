//! Stream: a model answers events as they come, for as long as both ends like and the caller may.
//!
//! Nothing is kept back: lines of the request go on as they come, and so do those of the answer; or both become messages
//! of a WebSocket, which no stage looks into. A stream may rest as long as a tunnel may. Its process learns a number that
//! tells callers apart, so that none is given what another's stream has seen.

use std::time::Duration;

use http::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use vedette_upstream::{SendOptions, Tunnel, UpstreamBody};
use vedette_wasm::RequestBody;

use crate::body::Content;
use crate::caller::Caller;
use crate::models::{Served, TENANT, tenant_of};
use crate::plan::{Plan, Target};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::Admitted;
use crate::stages::forward::agree;
use crate::stages::predict::refusal_of;
use crate::tunnel::{Client, Ends};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What a process is told of a request for a stream.
const ASKED: [HeaderName; 2] = [CONTENT_TYPE, ACCEPT];
/// And of one for a WebSocket.
const ASKED_TO_SWITCH: [HeaderName; 4] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION,
];
/// What of its answer goes on.
const ANSWERED: [HeaderName; 7] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    RETRY_AFTER,
    ALLOW,
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_ACCEPT,
];

/// Whether the request is for a stream of the model behind `target`.
pub fn is_for_stream(target: &Target, admitted: &Admitted) -> bool {
    let model = target.model().filter(|it| it.takes_streams());
    model.is_some_and(|it| path_of(target, it, admitted).ends_with("/stream"))
}

fn path_of(target: &Target, model: &Served, admitted: &Admitted) -> String {
    let rewritten = target.changes.as_ref().is_some_and(|it| it.path.is_some());
    let matched = if rewritten { "/" } else { &target.path };
    model.path(matched, admitted.wire_path())
}

/// Whether it asks for a WebSocket (RFC 6455); other protocols are none that a model speaks.
fn asks_for_websocket(admitted: &Admitted) -> bool {
    let wanted = admitted.parts().headers.get(UPGRADE);
    wanted.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Has a model answer a stream.
pub async fn stream(
    plan: &Plan,
    record: &mut Record,
    (target, model): (&Target, &Served),
    caller: Option<&Caller>,
    (mut admitted, body): (Admitted, RequestBody),
) -> Result<Response<Content>, Refusal> {
    let silence = Duration::from_millis(plan.admit.limits.timers.tunnel_millis);
    let process = model.process.as_ref().ok_or(Cause::ModelUnavailable)?;
    let options = SendOptions {
        timeout: None,
        body_idle: Some(silence),
        ..process.options.clone()
    };
    let on_upgrade = admitted.take_upgrade();
    let websocket = admitted.take_websocket();
    let request = request_of(record, (target, model), caller, &admitted, body)?;
    let Some(client) = on_upgrade.filter(|_| asks_for_websocket(&admitted)) else {
        let sent = process.upstream.send(request, &options).await;
        let response = sent.map_err(|error| refusal_of(record, &error))?;
        return Ok(passed_on(response).map(Content::Upstream));
    };
    let sent = process.upstream.send_upgrade(request, &options).await;
    let (response, tunnel) = sent.map_err(|error| refusal_of(record, &error))?;
    let mut response = passed_on(response);
    if let Some(key) = &websocket {
        agree(key, &mut response, tunnel.is_some())?;
    }
    let Some(tunnel) = tunnel else {
        return Ok(response.map(Content::Upstream));
    };
    let client = match websocket {
        Some(_) => Client::Stream(client),
        None => Client::Connection,
    };
    Ok(response.map(|_| tunnel_of(client, tunnel, silence)))
}

fn tunnel_of(client: Client, service: Tunnel, silence: Duration) -> Content {
    Content::Tunnel(Box::new(Ends {
        client,
        service,
        silence,
    }))
}

fn passed_on(response: Response<UpstreamBody>) -> Response<UpstreamBody> {
    let (mut parts, body) = response.into_parts();
    let said = std::mem::take(&mut parts.headers);
    for name in ANSWERED {
        let is_of_hop = matches!(name, CONNECTION | UPGRADE);
        if is_of_hop && parts.status != StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        if let Some(value) = said.get(&name) {
            parts.headers.insert(name, value.clone());
        }
    }
    Response::from_parts(parts, body)
}

/// The request as the process of the model sees it.
fn request_of(
    record: &Record,
    (target, model): (&Target, &Served),
    caller: Option<&Caller>,
    admitted: &Admitted,
    body: RequestBody,
) -> Result<Request<RequestBody>, Refusal> {
    let mut path = path_of(target, model, admitted);
    if let Some(query) = admitted.parts().uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let path = PathAndQuery::try_from(path)
        .map_err(|_| Refusal::with(Cause::MalformedPath, "the normal form is no target"))?;
    let mut request = Request::new(body);
    *request.uri_mut() = Uri::from(path);
    *request.method_mut() = admitted.parts().method.clone();
    let switches = asks_for_websocket(admitted).then_some(ASKED_TO_SWITCH);
    let headers = request.headers_mut();
    for name in ASKED.into_iter().chain(switches.into_iter().flatten()) {
        if let Some(value) = admitted.parts().headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if asks_for_websocket(admitted) {
        // Of what the caller's connection has, only this is asked for on the next.
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    headers.insert(TRACEPARENT, record.ids.traceparent.clone());
    headers.insert(TENANT, tenant_of(caller));
    Ok(request)
}
