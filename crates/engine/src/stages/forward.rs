//! Forward: a service behind the node answers.
//!
//! Nothing is kept: the body of the request goes on as it comes, and so does the answer's. The head
//! says who is calling, as to a function, and where the request came from (`x-forwarded-*`, whose
//! values of the caller count for nothing).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use vedette_upstream::{Host, SendError, SendOptions, Tries, Upstream, WebSocketKey};
use vedette_wasm::BodyError;

use crate::body::{Content, LimitedBody};
use crate::mesh::service_of;
use crate::offenders::whole_seconds;
use crate::plan::{Forward, Plan};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::Admitted;
use crate::stages::execute::request_of;
use crate::tunnel::{Client, Ends};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The largest body of which a mirror gets a copy; requests with a larger one are not mirrored.
const MIRRORED: u64 = 64 << 10;

type SentBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;

/// Sends a request on and hands over the head of its answer.
pub async fn forward(
    plan: &Plan,
    record: &mut Record,
    forward: &Forward,
    asked: &Authority,
    mut admitted: Admitted,
    body: LimitedBody,
) -> Result<Response<Content>, Refusal> {
    set_origin(admitted.headers_mut(), record, header(asked)?);
    let options = SendOptions {
        host: Host::Named(header(admitted.authority())?),
        ..forward.options.clone()
    };
    let on_upgrade = admitted.take_upgrade();
    let websocket = admitted.take_websocket();
    let is_stream = websocket.is_some();
    let (admitted, body) = mirrored(plan, record, forward, &options, admitted, body).await?;
    let request = request_of(admitted, record, body)?;
    let service = shown_to(plan, record, &forward.upstream)?;
    let Some(client) = on_upgrade.filter(|_| asks_for_tunnel(request.headers())) else {
        let mut tries = Tries::default();
        let sent = service.send_telling(request, &options, &mut tries).await;
        (record.tries, record.has_hedge_won) = (tries.number, tries.has_hedge_won);
        let response = sent.map_err(|error| refusal_of(&error))?;
        return Ok(response.map(Content::Upstream));
    };
    let sent = service.send_upgrade(request, &options).await;
    let (mut response, tunnel) = sent.map_err(|error| refusal_of(&error))?;
    if let Some(key) = websocket {
        agree(&key, &mut response, tunnel.is_some())?;
    }
    let silence = Duration::from_millis(plan.admit.limits.timers.tunnel_millis);
    Ok(match tunnel {
        Some(service) => response.map(|_| {
            Content::Tunnel(Box::new(Ends {
                client: if is_stream {
                    Client::Stream(client)
                } else {
                    Client::Connection
                },
                service,
                silence,
            }))
        }),
        None => response.map(Content::Upstream),
    })
}

/// The service, as it is spoken to in the name of who calls: a program's calls show its own SVID, and never another's.
fn shown_to<'p>(
    plan: &'p Plan,
    record: &Record,
    service: &'p Arc<Upstream>,
) -> Result<&'p Arc<Upstream>, Refusal> {
    let sidecar = record.connection.sidecar.as_ref();
    match sidecar.filter(|it| it.is_outbound() && service.shows_svids()) {
        None => Ok(service),
        Some(sidecar) => {
            let name = service_of(&service.config().name, &sidecar.name);
            let own = plan.services.get(&name);
            own.ok_or_else(|| Refusal::with(Cause::UpstreamUnsupported, "it has no such sidecar"))
        }
    }
}

/// Whether the protocol asked for may be changed to. HTTP and TLS may not: what followed would be
/// requests that no stage sees.
fn asks_for_tunnel(headers: &HeaderMap) -> bool {
    let is_ours = |protocol: &[u8]| {
        let name = protocol.split(|byte| *byte == b'/').next();
        let name = name.unwrap_or_default().trim_ascii();
        [&b"http"[..], b"h2", b"h2c", b"tls"]
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours))
    };
    let wanted = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    wanted.is_some_and(|wanted| !wanted.split(|byte| *byte == b',').any(is_ours))
}

/// Makes the service's answer one to an extended CONNECT (RFC 8441 §5), where a success of any kind
/// opens the tunnel.
pub fn agree<B>(
    key: &WebSocketKey,
    response: &mut Response<B>,
    is_tunnel: bool,
) -> Result<(), Refusal> {
    if is_tunnel && key.accepts(response.headers_mut()) {
        *response.status_mut() = StatusCode::OK;
        return Ok(());
    }
    if is_tunnel || response.status().is_success() {
        let what = "it did not agree to the WebSocket";
        return Err(Refusal::with(Cause::UpstreamInvalid, what));
    }
    Ok(())
}

/// Where the request came from, in the fields that services know. None of it is the caller's to say.
fn set_origin(headers: &mut HeaderMap, record: &Record, asked_host: HeaderValue) {
    headers.remove("forwarded");
    headers.insert(FORWARDED_FOR, record.connection.client_ip_value.clone());
    headers.insert(FORWARDED_HOST, asked_host);
    let scheme = HeaderValue::from_static(record.connection.scheme);
    headers.insert(FORWARDED_PROTO, scheme);
}

/// Sends the copy that the route's mirror is to get, if this request is drawn and small enough.
async fn mirrored(
    plan: &Plan,
    record: &Record,
    forward: &Forward,
    options: &SendOptions,
    admitted: Admitted,
    body: LimitedBody,
) -> Result<(Admitted, SentBody), Refusal> {
    let drawn = forward
        .mirror
        .as_ref()
        .filter(|(_, percent)| crate::trace::next_random() % 100 < *percent);
    let Some((mirror, _)) = drawn else {
        return Ok((admitted, body.boxed_unsync()));
    };
    let declared = admitted.parts().headers.get(CONTENT_LENGTH);
    let length = declared.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if !body.is_end_stream() && length.is_none_or(|length| length > MIRRORED) {
        return Ok((admitted, body.boxed_unsync()));
    }
    let limit = usize::try_from(MIRRORED).unwrap_or(usize::MAX);
    let whole = Limited::new(body, limit)
        .collect()
        .await
        .map_err(|error| Refusal::with(Cause::RequestBroken, error.to_string()))?
        .to_bytes();
    let copy = request_of(admitted.copy(), record, ())?.into_parts().0;
    shown_to(plan, record, mirror)?.mirror(copy, whole.clone(), options);
    let sent = Full::new(whole).map_err(|never| match never {});
    Ok((admitted, sent.boxed_unsync()))
}

fn header(authority: &Authority) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(authority.as_str())
        .map_err(|_| Refusal::with(Cause::MalformedHost, "the host is no field value"))
}

/// The refusal while a breaker is open, with the seconds after which it lets a trial go.
fn is_open(left: Duration) -> Refusal {
    Refusal::from(Cause::CircuitOpen).after(whole_seconds(left))
}

/// The refusal that a service's failure amounts to.
fn refusal_of(error: &SendError) -> Refusal {
    let cause = match error {
        SendError::ConnectFailed(_)
        | SendError::TlsFailed(_)
        | SendError::DnsFailed(_)
        | SendError::NotAllowed(_) => Cause::UpstreamUnreachable,
        SendError::NoHealthyEndpoint => Cause::UpstreamUnhealthy,
        SendError::CircuitOpen(left) => return is_open(*left),
        SendError::Overloaded => Cause::UpstreamBusy,
        SendError::Reset(_) => Cause::UpstreamReset,
        SendError::TimeoutConnect | SendError::TimeoutResponse | SendError::TimeoutWhole => {
            Cause::UpstreamTimeout
        }
        SendError::MalformedResponse(_) | SendError::HeadersTooLarge => Cause::UpstreamInvalid,
        SendError::RequestBody(_) => Cause::RequestBroken,
        SendError::Unsupported(_) => Cause::UpstreamUnsupported,
    };
    Refusal::with(cause, error.to_string())
}
