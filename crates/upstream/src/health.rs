//! Active health: a task asks each endpoint now and then whether it is well.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::balance::Endpoint;
use crate::body::OutBody;
use crate::config::{HealthConfig, Host};
use crate::connect::Need;
use crate::error::SendError;
use crate::exchange::{Limits, exchange, plain_answer};
use crate::fields::Outgoing;
use crate::upstream::Upstream;

/// What of an answer to a probe is read.
const ANSWER_BYTES: usize = 64 << 10;

impl Upstream {
    /// Asks every endpoint, until the last other owner of this upstream is gone. Returns at once
    /// when there is nothing to ask. One worker runs it for all.
    pub async fn watch(self: Arc<Self>) {
        let Some(health) = self.config().health.clone() else {
            return;
        };
        let mut asking = JoinSet::new();
        for endpoint in &self.endpoints {
            let upstream = Arc::downgrade(&self);
            asking.spawn(watch_one(upstream, Arc::clone(endpoint), health.clone()));
        }
        drop(self);
        while asking.join_next().await.is_some() {}
    }
}

async fn watch_one(upstream: Weak<Upstream>, endpoint: Arc<Endpoint>, health: HealthConfig) {
    // Not all endpoints of all upstreams at the same moment.
    sleep(
        health
            .interval
            .min(Duration::from_secs(1))
            .mul_f64(fastrand::f64()),
    )
    .await;
    while upstream.strong_count() > 0 {
        let answer = match timeout(health.timeout, ask(&endpoint, &health)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", health.timeout)),
        };
        let told = answer.map_err(|why| format!("health check {}: {why}", health.path));
        endpoint.note_probe(&told, &health);
        sleep(health.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// An error when it does not answer with 2xx or 3xx.
async fn ask(endpoint: &Endpoint, health: &HealthConfig) -> Result<(), String> {
    let mut request = Request::new(OutBody::Empty);
    let path = health.path.parse();
    *request.uri_mut() = path.map_err(|_| "it is no path".to_owned())?;
    let agent = HeaderValue::from_static("vedette-health");
    request.headers_mut().insert(USER_AGENT, agent);
    let told = |error: SendError| error.to_string();
    let outgoing = Outgoing::new(request, &Host::Endpoint, None).map_err(told)?;
    let limits = Limits {
        connect: health.timeout.min(endpoint.target.connect_timeout),
        response: health.timeout,
        need: Need::Any,
    };
    let answer = exchange(&endpoint.target, outgoing, limits).await;
    let response = plain_answer(answer.map_err(|none| told(none.error))?).map_err(told)?;
    let status = response.status();
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > ANSWER_BYTES {
            break;
        }
    }
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!("it answered {}", status.as_u16()))
}
