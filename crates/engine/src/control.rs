//! The engine's own socket: apply, revoke, status, services, metrics, renewed TLS. Control is its client, and whoever
//! has started a program with `vedette run` ([`mod@crate::broker`]).

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use vedette_wasm::Allocator;

use crate::addresses::Addresses;
use crate::broker::{is_registration, register};
use crate::confine::Confinement;
use crate::handover::Phase;
use crate::load::{Active, LoadError};
use crate::metrics;
use crate::node::Node;
use crate::revoked::Revocation;
use crate::server::ListenerInfo;
use crate::services::{self, ServiceRow, Watches};
use crate::sys::own_uid;
use crate::tls::Tls;

/// The most bytes of a request's body.
const MAX_BODY: usize = 64 * 1024;

/// What the socket answers from.
pub struct Control {
    /// The engine.
    pub node: Arc<Node>,
    /// Its TLS settings; none when no listener has TLS.
    pub tls: Option<Arc<Tls>>,
    /// What it listens on.
    pub listeners: Vec<ListenerInfo>,
    /// Whether Landlock keeps it to what it may touch.
    pub confinement: Confinement,
    /// Whether seccomp refuses the system calls it has no use for.
    pub system_calls: Confinement,
    /// The name of the folder that its compiled code is in.
    pub engine_key: String,
    /// Asks services whether they are well.
    pub watches: Watches,
    /// Whether it is on its way out.
    pub phase: watch::Receiver<Phase>,
    /// Held while a snapshot is loaded.
    pub applying: tokio::sync::Mutex<()>,
}

/// Serves the socket until the process ends.
pub async fn serve(control: Arc<Control>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_own(&stream) => {
                tokio::spawn(connection(Arc::clone(&control), stream));
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// Peer credentials: this user or root, nobody else.
fn is_own(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == own_uid() || peer.uid() == 0)
}

async fn connection(control: Arc<Control>, stream: UnixStream) {
    if is_registration(&stream).await {
        return register(&control.node, stream, control.phase.clone()).await;
    }
    let service = service_fn(|request| {
        let control = Arc::clone(&control);
        async move { Ok::<_, Infallible>(control.answer(request).await) }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apply {
    digest: String,
    generation: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    revoke: Vec<Revocation>,
}

async fn parsed<T: DeserializeOwned>(body: Incoming) -> Result<T, LoadError> {
    let malformed = |what: String| LoadError::new("request_malformed", what);
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(|error| malformed(error.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| malformed(error.to_string()))
}

impl Control {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        // Others ask for the status too; only control changes anything, or says that it is control.
        if parts.method == Method::POST || parts.uri.query() == Some("control") {
            self.node.presence.note();
        }
        let answered = match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/status") => Ok(self.status()),
            (&Method::GET, "/metrics") => Ok(json!(metrics::report(&self.node))),
            (&Method::GET, "/upstreams") => Ok(json!({"upstreams": self.upstreams()})),
            (&Method::POST, "/apply") => self.apply(body).await,
            (&Method::GET, "/revoked") => Ok(json!({"revoked": self.node.ahead.list()})),
            (&Method::POST, "/revoke") => self.revoke(body).await,
            (&Method::POST, "/posture") => {
                self.node.posture.load(&self.node.dir).map(|()| json!({}))
            }
            (&Method::POST, "/tls") => self.reload_tls(),
            (&Method::POST, "/svids") => self.node.dir.reload_svids().map(|()| json!({})),
            _ => return reply(StatusCode::NOT_FOUND, &json!({"error": "not_found"})),
        };
        match answered {
            Ok(value) => reply(StatusCode::OK, &value),
            Err(error) => reply(
                StatusCode::UNPROCESSABLE_ENTITY,
                &json!({"error": error.code, "message": error.message}),
            ),
        }
    }

    async fn apply(&self, body: Incoming) -> Result<Value, LoadError> {
        let apply: Apply = parsed(body).await?;
        // Not on this thread: what is to be revoked meanwhile must not wait for it.
        let _one_at_a_time = self.applying.lock().await;
        let (node, digest) = (Arc::clone(&self.node), apply.digest.clone());
        tokio::task::spawn_blocking(move || node.apply(&digest, apply.generation))
            .await
            .map_err(|error| LoadError::new("apply_failed", error.to_string()))??;
        self.watch_services();
        Ok(json!(Active {
            digest: apply.digest,
            generation: apply.generation,
        }))
    }

    async fn revoke(&self, body: Incoming) -> Result<Value, LoadError> {
        let wish: Revoke = parsed(body).await?;
        self.node.ahead.revoke(wish.revoke)?;
        Ok(json!({}))
    }

    /// Has the services of the plan asked whether they are well.
    pub fn watch_services(&self) {
        if let Some(plan) = self.node.plan() {
            self.watches.follow(&plan.services);
        }
    }

    fn reload_tls(&self) -> Result<Value, LoadError> {
        if let Some(tls) = &self.tls {
            tls.reload(&self.node.dir)?;
        }
        Ok(json!({}))
    }

    fn upstreams(&self) -> Vec<ServiceRow> {
        let plan = self.node.plan();
        plan.map_or_else(Vec::new, |plan| services::report(&plan.services))
    }

    fn status(&self) -> Value {
        let (allocator, reason, pagemap_scan) = match self.node.runtime.allocator() {
            Allocator::Pooling { pagemap_scan } => ("pooling", None, *pagemap_scan),
            Allocator::OnDemand { reason } => ("on-demand", Some(reason.as_str()), false),
        };
        let refused = self.node.refused().map(|error| error.to_string());
        let plan = self.node.plan();
        let unready = plan
            .as_ref()
            .map(|plan| services::without_ready_endpoint(&plan.services));
        let addresses = plan.as_ref().map(|plan| &plan.addresses);
        json!({
            "pid": std::process::id(),
            "version": crate::VERSION,
            "digest": plan.as_ref().map(|plan| plan.digest.to_string()),
            "generation": self.node.generation(),
            "error": refused,
            "engineKey": self.engine_key,
            "allocator": allocator,
            "allocatorReason": reason,
            "pagemapScan": pagemap_scan,
            "landlock": self.confinement.as_str(),
            "seccomp": self.system_calls.as_str(),
            "listeners": self.listeners,
            "addressLists": addresses.map_or(&[][..], Addresses::lists),
            "countries": addresses.and_then(Addresses::countries),
            "pressure": self.node.pressure.row(),
            "sources": self.node.sources.row(),
            "offenders": self.node.offenders.row(),
            "policyHolds": !self.node.presence.is_away(),
            "posture": self.node.posture.version(),
            "revokedAhead": self.node.ahead.count(),
            "unreadyUpstreams": unready.unwrap_or_default(),
            "inFlight": self.node.in_flight.count(),
            "draining": *self.phase.borrow() != Phase::Serving,
            "uptimeSeconds": self.node.started.elapsed().as_secs(),
        })
    }
}

fn reply(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    response
}
