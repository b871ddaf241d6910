//! What the node itself says by the Open Inference Protocol: that it is there, what it is, and whether its models answer.
//!
//! Owns: the places of that, which exist where there are models, unless a route of the operator has them. Who may ask is
//! policy's to say, of `Route::"open-inference"`. Must not: answer for a model.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use serde_json::json;
use tokio::task::JoinSet;

use crate::body::Content;
use crate::call::messages::{server, whether};
use crate::call::{Method, SERVICE};
use crate::grpc::{MEDIA_TYPE, reply};
use crate::load::LoadError;
use crate::models::Served;
use crate::plan::{Backend, Plan};
use crate::refusal::{Cause, Refusal};
use crate::snapshot::Route;

/// The name of its routes, in policies and records.
pub const NAME: &str = "open-inference";
const SERVER: &str = "vedette";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What of Triton's extensions models speak.
const EXTENSIONS: &[&str] = &["binary_tensor_data"];
/// Models that are asked at once whether they are ready, and how long each has.
const AT_ONCE: usize = 16;
const LONGEST: Duration = Duration::from_secs(5);

/// What can be asked with GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// What the node is.
    Metadata,
    /// Whether it is there.
    Live,
    /// Whether all its models answer, but those that may rest and those that only tiers have.
    Ready,
}

/// The routes of this, and who answers there.
pub fn routes() -> Result<Vec<(Route, Backend)>, LoadError> {
    let places = [
        ("GET", "Exact", "/v2", Backend::Inference(Asked::Metadata)),
        (
            "GET",
            "Exact",
            "/v2/health/live",
            Backend::Inference(Asked::Live),
        ),
        (
            "GET",
            "Exact",
            "/v2/health/ready",
            Backend::Inference(Asked::Ready),
        ),
        ("POST", "PathPrefix", SERVICE, Backend::Calls),
    ];
    let routes = places.into_iter().map(|(method, kind, path, backend)| {
        let route = json!({
            "name": NAME, "hosts": [], "path": {"type": kind, "value": path}, "method": method,
            "headers": [], "query": [], "cookies": [],
            "backend": {"type": "Static", "status": 404, "contentType": "text/plain", "body": ""},
        });
        let route = serde_json::from_value(route);
        let route = route.map_err(|it| LoadError::new("route_invalid", it.to_string()))?;
        Ok((route, backend))
    });
    routes.collect()
}

/// Answers what is asked with GET.
pub async fn answer(plan: &Plan, asked: Asked) -> Result<Response<Content>, Refusal> {
    let body = match asked {
        Asked::Metadata => json!({"name": SERVER, "version": VERSION, "extensions": EXTENSIONS}),
        Asked::Live => json!({"live": true}),
        Asked::Ready => match unready(plan).await {
            None => json!({"ready": true}),
            Some(model) => {
                let detail = format!("{model} is not ready");
                return Err(Refusal::with(Cause::ModelUnavailable, detail));
            }
        },
    };
    let body = Bytes::from(body.to_string());
    let mut response = Response::new(Content::Fixed(Some(body)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// Answers a call that is of no model.
pub async fn called(plan: &Plan, method: Method) -> Result<Response<Content>, Refusal> {
    let message = match method {
        Method::ServerLive => whether(true),
        Method::ServerReady => whether(unready(plan).await.is_none()),
        Method::ServerMetadata => server(SERVER, VERSION, EXTENSIONS),
        Method::ModelReady | Method::ModelMetadata | Method::ModelInfer => {
            return Err(Cause::ModelNotFound.into());
        }
    };
    message_of(message)
}

/// An answer to a call, of one message that is there.
pub fn message_of(message: Bytes) -> Result<Response<Content>, Refusal> {
    let length = message.len() as u64;
    let mut response = Response::new(reply(Content::Fixed(Some(message)), length)?);
    response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
    Ok(response)
}

/// A model that does not say that it is ready, if there is one.
async fn unready(plan: &Plan) -> Option<String> {
    let mut asking = JoinSet::new();
    let mut found = None;
    // One that rests until it is asked would be started by this.
    // Nor is somebody else's machine a reason to send nobody here.
    let stays = |it: &&Arc<Served>| it.declared.idle_millis.is_none() && it.process.is_some();
    for model in plan.models().filter(stays) {
        if asking.len() >= AT_ONCE {
            found = joined(&mut asking).await;
        }
        if found.is_some() {
            return found;
        }
        let model = Arc::clone(model);
        asking.spawn(async move {
            let is_ready = is_ready(&model).await;
            (!is_ready).then(|| model.declared.name.clone())
        });
    }
    while !asking.is_empty() && found.is_none() {
        found = joined(&mut asking).await;
    }
    found
}

async fn joined(asking: &mut JoinSet<Option<String>>) -> Option<String> {
    let ended = asking.join_next().await?;
    ended.unwrap_or_else(|_| Some("a model".to_owned()))
}

async fn is_ready(model: &Served) -> bool {
    let asked = model.ask_ready();
    let answered = tokio::time::timeout(LONGEST, asked).await;
    answered.unwrap_or(false)
}
