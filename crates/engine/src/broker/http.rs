//! The broker as an HTTP/1.1 proxy (RFC 9110 §7.6.2, RFC 9112 §3.2.2): CONNECT, and calls with an absolute target.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, PROXY_AUTHORIZATION, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use vedette_upstream::{Allowed, Denied, SendError, SendOptions};
use vedette_wasm::{BodyError, OutboundBody};

use super::tunnel::{self, NotOpened};
use super::{Client, PATIENCE, Refused};
use crate::egress::{CallRecord, Recorded, cause_of_failure};
use crate::mesh;

/// What the node says to functions; a program does not say it to others.
const OWN_PREFIX: &str = "x-vedette-";

/// Serves one connection.
pub async fn serve(client: Arc<Client>, stream: TcpStream) {
    let service = service_fn(|request| {
        let client = Arc::clone(&client);
        async move { Ok::<_, Infallible>(answer(client, request).await) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(client: Arc<Client>, request: Request<Incoming>) -> Response<OutboundBody> {
    let uri = request.uri();
    if *request.method() == Method::CONNECT {
        let place = uri
            .authority()
            .filter(|it| !it.as_str().contains('@'))
            .and_then(|it| Some((it.host(), it.port()?)))
            .filter(|(_, port)| port.as_str().bytes().all(|it| it.is_ascii_digit()))
            .map(|(host, port)| (host, port.as_u16()));
        return match place {
            Some((host, port)) => {
                let host = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                connect(client, request, host, port).await
            }
            None => refusal(StatusCode::BAD_REQUEST, "malformed", None),
        };
    }
    if uri.authority().is_none() {
        // Somebody takes the broker for a server.
        return refusal(StatusCode::BAD_REQUEST, "not_a_proxy_request", None);
    }
    if is_in_mesh(uri) {
        let answered = mesh::call(&client.node, &client.workload, request).await;
        let broken = |error| BodyError::InternalError(Some(format!("{error:?}")));
        return answered.map(|body| body.map_err(broken).boxed_unsync());
    }
    call(&client, request).await
}

/// Whether a call is for a host of the mesh: those are answered as a sidecar's.
fn is_in_mesh(uri: &http::Uri) -> bool {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    uri.scheme() == Some(&http::uri::Scheme::HTTP)
        && mesh::is_mesh(host.strip_suffix('.').unwrap_or(&host))
}

async fn connect(
    client: Arc<Client>,
    mut request: Request<Incoming>,
    host: String,
    port: u16,
) -> Response<OutboundBody> {
    match tunnel::open(&client, &host, port).await {
        Ok(opened) => {
            tokio::spawn(async move {
                if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
                    tunnel::carry(&client, TokioIo::new(upgraded), opened).await;
                }
            });
            Response::new(body(Bytes::new()))
        }
        Err(NotOpened::Refused(refused)) => refused_answer(&refused),
        Err(NotOpened::Failed(error)) => failed_answer(&error),
    }
}

async fn call(client: &Client, request: Request<Incoming>) -> Response<OutboundBody> {
    let egress = client.egress();
    let (method, uri) = (request.method(), request.uri());
    let record = CallRecord::of_call(client.subject.clone(), method, uri);
    let mut record = record.told_to(&client.told);
    let unlisted = || Allowed::unlisted_call(uri);
    let decided = client.decide(&mut record, egress.rules().call(uri, method), unlisted);
    let allowed = match decided {
        Ok(allowed) => allowed,
        Err(refused) => return refused_answer(&refused),
    };
    let (mut parts, incoming) = request.into_parts();
    parts.headers.remove(PROXY_AUTHORIZATION);
    let own = |name: &http::HeaderName| name.as_str().starts_with(OWN_PREFIX);
    let names: Vec<_> = parts.headers.keys().filter(|it| own(it)).cloned().collect();
    for name in names {
        parts.headers.remove(name);
    }
    let incoming = incoming.map_err(|error| BodyError::InternalError(Some(error.to_string())));
    let body = record.count_sent(incoming.boxed_unsync(), u64::MAX);
    let call = Request::from_parts(parts, body);
    match egress.send(allowed, call, &SendOptions::default()).await {
        Ok(response) => {
            record.answered(response.status());
            response.map(|body| Recorded::wrap(body, record))
        }
        Err(error) => {
            record.fail(cause_of_failure(&error));
            record.tell();
            failed_answer(&error)
        }
    }
}

fn refused_answer(refused: &Refused) -> Response<OutboundBody> {
    let (status, rule) = match refused {
        Refused::ControlAway | Refused::Denied(Denied::Token) => {
            (StatusCode::SERVICE_UNAVAILABLE, None)
        }
        Refused::Denied(Denied::Destination(rule)) => (StatusCode::FORBIDDEN, rule.as_deref()),
        Refused::Denied(Denied::Method(rule)) => (StatusCode::FORBIDDEN, Some(rule.as_str())),
        Refused::Denied(Denied::Rate(wait)) => {
            let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, refused.cause(), None);
            let seconds = HeaderValue::from(wait.as_secs().saturating_add(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
            return response;
        }
    };
    refusal(status, refused.cause(), rule)
}

fn failed_answer(error: &SendError) -> Response<OutboundBody> {
    let status = match error {
        SendError::NotAllowed(_) => StatusCode::FORBIDDEN,
        _ => StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY),
    };
    refusal(status, cause_of_failure(error), None)
}

/// The program belongs to whoever reads this: it is told the rule that it needs.
fn refusal(status: StatusCode, cause: &str, rule: Option<&str>) -> Response<OutboundBody> {
    let value = serde_json::json!({"error": cause, "wouldAllow": rule});
    let mut response = Response::new(body(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn body(bytes: Bytes) -> OutboundBody {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
