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
        let is_good = timeout(health.timeout, is_well(&endpoint, &health)).await;
        endpoint.note_probe(is_good.unwrap_or(false), &health);
        sleep(health.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Whether it answers with 2xx or 3xx.
async fn is_well(endpoint: &Endpoint, health: &HealthConfig) -> bool {
    let mut request = Request::new(OutBody::Empty);
    let Ok(path) = health.path.parse() else {
        return false;
    };
    *request.uri_mut() = path;
    let agent = HeaderValue::from_static("vedette-health");
    request.headers_mut().insert(USER_AGENT, agent);
    let Ok(outgoing) = Outgoing::new(request, &Host::Endpoint, None) else {
        return false;
    };
    let limits = Limits {
        connect: health.timeout.min(endpoint.target.connect_timeout),
        response: health.timeout,
        need: Need::Any,
    };
    let Ok(answer) = exchange(&endpoint.target, outgoing, limits).await else {
        return false;
    };
    let Ok(response) = plain_answer(answer) else {
        return false;
    };
    let is_good = response.status().is_success() || response.status().is_redirection();
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > ANSWER_BYTES {
            break;
        }
    }
    is_good
}
