//! The record of one request: opened before the first stage, closed after the last byte.
//!
//! Dropping it is what closes it, so there is no way to leave without one.

pub mod log;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use vedette_admit::country::Country;
use vedette_admit::hello::Ja4;

use crate::body::BodyMeter;
use crate::caller::Caller;
use crate::certificate::Workload;
use crate::clock;
use crate::grpc;
use crate::models;
use crate::node::Connection;
use crate::plan::Target;
use crate::refusal::{Refusal, Stage};
use crate::tiers::Tried;
use crate::trace::Ids;
use crate::worker;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Answered, to the last byte.
    Served,
    /// A stage said no.
    Refused,
    /// What answers broke, before or while answering.
    Failed,
    /// The client left before the end.
    Aborted,
}

/// Time spent in each stage.
#[derive(Debug, Default, Clone, Copy)]
pub struct Timings {
    nanos: [u64; 8],
}

/// What is known of a request so far.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Record {
    /// The ids that name it.
    pub ids: Ids,
    /// The connection it came on.
    pub connection: Arc<Connection>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: &'static str,
    /// The method as it came.
    pub method: http::Method,
    /// The host asked for.
    pub host: Box<str>,
    /// The path in normal form; raw when it has none.
    pub path: Box<str>,
    /// The digest of the snapshot it was served under.
    pub snapshot: Option<Arc<str>>,
    /// The route, its function and the function's component.
    pub target: Option<Arc<Target>>,
    /// Who calls, as [`Caller::principal`] names them, or anonymous.
    pub principal: Option<Arc<str>>,
    /// Whose certificate the connection has, once the plan vouches for it.
    pub certificate: Option<Arc<Caller>>,
    /// The policies that decided.
    pub policies: Option<Arc<[String]>>,
    /// The country of the client's address, where one is known.
    pub country: Option<Country>,
    /// The status sent; of a call of gRPC that is refused, the one that it would be without gRPC.
    pub status: u16,
    /// Whether it is a call of gRPC.
    pub is_grpc: bool,
    /// The status of gRPC, where it is the node's.
    pub grpc_status: Option<u8>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused or failed.
    pub refusal: Option<Refusal>,
    /// What of it a strict sidecar would have refused.
    pub would_break: Option<&'static str>,
    /// How many header fields tried to pass for ours.
    pub spoofed: u32,
    /// Whether the function had to be loaded first.
    pub is_cold: bool,
    /// How often a service was asked, hedges included.
    pub tries: u32,
    /// Whether a hedge answered.
    pub has_hedge_won: bool,
    /// How long it waited for a model, in microseconds, as the model's process says.
    pub queue_micros: Option<u64>,
    /// How long the model ran for it, in microseconds.
    pub run_micros: Option<u64>,
    /// How many requests the model ran together, as its process says.
    pub batch: Option<u64>,
    /// Whether what the model is asked and answers is as it was, as its process says.
    pub drift: Option<&'static str>,
    /// The tier that answered; none: the node itself.
    pub tier: Option<Arc<str>>,
    /// Who was asked, where that was not the node alone.
    pub tiers: Vec<Tried>,
    /// Whether the answer was remembered; none: nothing is.
    pub is_cached: Option<bool>,
    /// How long it was held back on purpose, in milliseconds.
    pub fault_delay_millis: u64,
    /// Whether it was not inspected because nothing was found when it came before.
    pub is_known: bool,
    /// Bytes of the request's body, or of what a tunnel carried from the client.
    pub bytes_in: Option<Arc<BodyMeter>>,
    /// Bytes of the response's body that were sent.
    pub bytes_out: u64,
    timings: Timings,
    opened: Instant,
    mark: Instant,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    time: String,
    request_id: &'a str,
    traceparent: &'a str,
    location: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<&'a str>,
    listener: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ja4: Option<&'a str>,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(flatten)]
    model: Option<ModelLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a Workload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<&'a [String]>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    timings_us: TimingsUs,
    total_us: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cold: bool,
    #[serde(skip_serializing_if = "is_one_or_none")]
    tries: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    hedge_won: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_delay_millis: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    spoofed: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_break: Option<&'a str>,
}

/// What is said of a request to a model.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelLine<'a> {
    model: &'a str,
    /// None: only tiers have the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<u64>,
    /// The file that answered, where it is one of this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_digest: Option<&'a str>,
    /// Who answered; none: nobody, of a model that only tiers have.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Tried]>::is_empty")]
    tiers: &'a [Tried],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<&'static str>,
}

#[derive(Serialize)]
struct TimingsUs {
    admit: f32,
    route: f32,
    authenticate: f32,
    limit: f32,
    authorize: f32,
    inspect: f32,
    execute: f32,
    respond: f32,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one_or_none(count: &u32) -> bool {
    *count <= 1
}

impl Record {
    /// Opens the record of a request.
    pub fn open(connection: &Arc<Connection>, parts: &http::request::Parts) -> Self {
        let now = Instant::now();
        Self {
            ids: Ids::new(&parts.headers),
            connection: Arc::clone(connection),
            protocol: match parts.version {
                http::Version::HTTP_2 => "HTTP/2.0",
                http::Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            method: parts.method.clone(),
            host: "".into(),
            // As it came, until `admit` has its normal form.
            path: parts.uri.path().into(),
            snapshot: None,
            target: None,
            principal: None,
            certificate: None,
            policies: None,
            country: None,
            status: 0,
            is_grpc: grpc::is_call(parts),
            grpc_status: None,
            outcome: Outcome::Aborted,
            refusal: None,
            would_break: None,
            spoofed: 0,
            is_cold: false,
            tries: 0,
            has_hedge_won: false,
            queue_micros: None,
            run_micros: None,
            batch: None,
            drift: None,
            tier: None,
            tiers: Vec::new(),
            is_cached: None,
            fault_delay_millis: 0,
            is_known: false,
            bytes_in: None,
            bytes_out: 0,
            timings: Timings::default(),
            opened: now,
            mark: now,
        }
    }

    /// Says that `stage` ends here.
    pub fn passed(&mut self, stage: Stage) {
        let now = Instant::now();
        let nanos = now.duration_since(self.mark).as_nanos();
        if let Some(slot) = self.timings.nanos.get_mut(stage as usize) {
            *slot = u64::try_from(nanos).unwrap_or(u64::MAX);
        }
        self.mark = now;
    }

    /// Time since the record was opened.
    pub fn elapsed(&self) -> Duration {
        self.opened.elapsed()
    }

    /// The stage that ended the request, when one did.
    pub fn stage(&self) -> Option<Stage> {
        self.refusal
            .as_ref()
            .map(|refusal| refusal.cause.outcome().0)
    }

    /// Whose certificate the connection has.
    pub fn workload(&self) -> Option<&Workload> {
        self.certificate.as_deref()?.workload()
    }

    fn timings_us(&self) -> TimingsUs {
        let us = |stage: Stage| {
            let nanos = self.timings.nanos.get(stage as usize).copied().unwrap_or(0);
            // To a tenth: four to five digits are plenty, and f32 prints them short.
            #[allow(clippy::cast_precision_loss)]
            let tenths = (nanos / 100) as f32;
            tenths / 10.0
        };
        TimingsUs {
            admit: us(Stage::Admit),
            route: us(Stage::Route),
            authenticate: us(Stage::Authenticate),
            limit: us(Stage::Limit),
            authorize: us(Stage::Authorize),
            inspect: us(Stage::Inspect),
            execute: us(Stage::Execute),
            respond: us(Stage::Respond),
        }
    }

    /// Says that a tier has answered, and not the model here.
    pub fn answered_by(&mut self, tier: &Arc<str>) {
        self.tier = Some(Arc::clone(tier));
        (self.queue_micros, self.run_micros, self.batch) = (None, None, None);
        self.drift = None;
    }

    fn model_line<'a>(&'a self, target: &'a Target) -> Option<ModelLine<'a>> {
        let model = target.model()?;
        let release = model.release();
        Some(ModelLine {
            model: &model.declared.name,
            model_version: release.map(|it| it.0),
            model_digest: release.map(|it| it.1).filter(|_| self.tier.is_none()),
            tier: self.tier.as_deref().or(release.map(|_| models::TIER)),
            tiers: &self.tiers,
            cached: self.is_cached == Some(true),
            queue_micros: self.queue_micros,
            run_micros: self.run_micros,
            batch: self.batch,
            drift: self.drift,
        })
    }

    /// Writes the record as one line.
    pub fn write(&self, total: Duration, into: &mut Vec<u8>) {
        let target = self.target.as_deref();
        let cause = self.refusal.as_ref().map(|it| it.cause.outcome());
        let line = Line {
            kind: "request",
            time: clock::rfc3339(clock::since_epoch().saturating_sub(total)),
            request_id: self.ids.request(),
            traceparent: self.ids.traceparent(),
            location: self.connection.location.to_str().unwrap_or_default(),
            snapshot: self.snapshot.as_deref(),
            listener: &self.connection.listener,
            client: &self.connection.client,
            country: self.country.as_ref().map(Country::as_str),
            protocol: self.protocol,
            sni: self.connection.sni.as_deref(),
            ja4: self.connection.ja4.as_ref().map(Ja4::as_str),
            method: self.method.as_str(),
            host: &self.host,
            path: &self.path,
            route: target.map(|it| it.route.as_str()),
            function: target.and_then(|it| it.function()),
            component: target.and_then(|it| it.component()),
            upstream: target.and_then(|it| it.upstream()),
            model: target.and_then(|it| self.model_line(it)),
            principal: self.principal.as_deref(),
            certificate: self.workload(),
            policies: self.policies.as_deref(),
            status: self.status,
            grpc_status: self.grpc_status,
            outcome: self.outcome,
            stage: cause.map(|it| it.0.as_str()),
            cause: cause.map(|it| it.1),
            detail: self.refusal.as_ref().and_then(|it| it.detail.as_deref()),
            bytes_in: self.bytes_in.as_ref().map_or(0, |meter| meter.read()),
            bytes_out: self.bytes_out,
            timings_us: self.timings_us(),
            total_us: u64::try_from(total.as_micros()).unwrap_or(u64::MAX),
            cold: self.is_cold,
            tries: self.tries,
            hedge_won: self.has_hedge_won,
            fault_delay_millis: Some(self.fault_delay_millis).filter(|it| *it > 0),
            spoofed: self.spoofed,
            would_break: self.would_break,
        };
        // Writing to memory and plain types: it cannot fail.
        let _ = serde_json::to_writer(&mut *into, &line);
        into.push(b'\n');
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let total = self.elapsed();
        worker::with(|worker| {
            worker.count(self, total);
            worker.keep(|line| self.write(total, line));
            if let Some(event) = self.connection.offenders.note(self) {
                worker.keep(event);
            }
        });
    }
}
