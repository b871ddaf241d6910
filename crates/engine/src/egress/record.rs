//! The record of one outbound call or tunnel: opened before it is decided on, closed after its last byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderValue, Uri};
use serde::Serialize;
use tokio::sync::mpsc;
use vedette_upstream::Denied;
use vedette_wasm::{OutboundBody, OutboundCall};

use super::counted::Sent;
use super::prediction::Prediction;
use crate::{clock, worker};

/// The most bytes of a host that are kept; whoever calls may spell it as long as it likes.
const MAX_HOST: usize = 255;

/// Who calls.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A function.
    Function(Arc<str>),
    /// A program that `vedette run` has started, by the name it was given.
    Workload(Arc<str>),
    /// The node itself, which asks a tier of this name.
    Tier(Arc<str>),
}

impl Subject {
    /// The name of the function, program or tier.
    pub fn name(&self) -> &str {
        let (Self::Function(name) | Self::Workload(name) | Self::Tier(name)) = self;
        name
    }
}

/// What is known of a call or tunnel so far. Dropping it writes it.
pub struct CallRecord {
    subject: Subject,
    /// The route whose request a function answers meanwhile.
    route: Option<Arc<str>>,
    /// That request.
    request_id: Option<HeaderValue>,
    method: http::Method,
    to: Destination,
    status: Option<u16>,
    /// Why there is no answer, or why it broke off.
    pub(super) cause: Option<&'static str>,
    /// The rule that it needed and that was not there.
    would_allow: Option<String>,
    /// Whether it was let go without that rule, so that somebody learns of it.
    is_reported: bool,
    sent: Arc<AtomicU64>,
    pub(super) received: u64,
    opened: Instant,
    /// Whether it was no call, only a question whether one would be allowed.
    is_question: bool,
    /// Of a call to a model: which one.
    prediction: Option<Box<Prediction>>,
    /// Who wants to know at once what is refused.
    told: Option<Told>,
}

/// Where lines about what is refused are told as they happen; a reader who is slow misses some.
pub type Told = mpsc::Sender<Vec<u8>>;

/// Where a call was to go, as far as it says: no path, no query, nothing before an `@`.
struct Destination {
    scheme: &'static str,
    host: String,
    port: Option<u16>,
}

impl Destination {
    fn of(uri: &Uri) -> Self {
        let (scheme, usual) = match uri.scheme_str() {
            Some("http") => ("http", Some(80)),
            Some("https") => ("https", Some(443)),
            _ => ("other", None),
        };
        Self {
            scheme,
            host: kept(uri.host().unwrap_or_default()),
            port: uri.port_u16().or(usual),
        }
    }
}

fn kept(host: &str) -> String {
    let mut host = host.to_ascii_lowercase();
    // Hosts are ASCII, but cutting a string must not depend on it.
    let cut = (0..=MAX_HOST).rev().find(|at| host.is_char_boundary(*at));
    host.truncate(cut.unwrap_or(0));
    host
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    method: &'a str,
    scheme: &'a str,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_allow: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reported: bool,
    bytes_out: u64,
    bytes_in: u64,
    total_us: u64,
    #[serde(flatten)]
    prediction: Option<&'a Prediction>,
}

impl CallRecord {
    /// Opens the record of a call that somebody wants to make.
    pub fn of_call(subject: Subject, method: &http::Method, uri: &Uri) -> Self {
        Self::open(subject, method.clone(), Destination::of(uri))
    }

    /// The same for a call of a function that answers this request of this route.
    pub fn of_function(subject: Subject, route: &Arc<str>, call: &OutboundCall) -> Self {
        let mut record = Self::of_call(subject, call.request.method(), call.request.uri());
        record.route = Some(Arc::clone(route));
        record.request_id = Some(call.request_id.clone());
        record
    }

    /// The same for a request of this route that a tier is asked to answer.
    pub fn of_tier(tier: Arc<str>, route: &Arc<str>, request_id: &HeaderValue, uri: &Uri) -> Self {
        Self::of_question(Subject::Tier(tier), route, request_id, uri)
    }

    /// The same for a question whether such a function may ask a model.
    pub fn of_question(
        subject: Subject,
        route: &Arc<str>,
        request_id: &HeaderValue,
        uri: &Uri,
    ) -> Self {
        let mut record = Self::of_call(subject, &http::Method::POST, uri);
        record.route = Some(Arc::clone(route));
        record.request_id = Some(request_id.clone());
        record
    }

    /// The same for a tunnel.
    pub fn of_tunnel(subject: Subject, host: &str, port: u16) -> Self {
        let to = Destination {
            scheme: "tcp",
            host: kept(host),
            port: Some(port),
        };
        Self::open(subject, http::Method::CONNECT, to)
    }

    fn open(subject: Subject, method: http::Method, to: Destination) -> Self {
        Self {
            subject,
            route: None,
            request_id: None,
            method,
            to,
            status: None,
            cause: Some("abandoned"),
            would_allow: None,
            is_reported: false,
            sent: Arc::default(),
            received: 0,
            opened: Instant::now(),
            is_question: false,
            prediction: None,
            told: None,
        }
    }

    /// The record, which is told to somebody as well when it is one of a refusal.
    pub fn told_to(mut self, told: &Told) -> Self {
        self.told = Some(told.clone());
        self
    }

    /// Tells whoever wants to know, if there is a rule missing.
    pub fn tell(&self) {
        if let Some(told) = self
            .told
            .as_ref()
            .filter(|_| self.is_refused() || self.is_reported)
        {
            let mut line = Vec::new();
            self.write(&mut line);
            let _ = told.try_send(line);
        }
    }

    /// Says which rule would have allowed it.
    pub fn needs(&mut self, denied: &Denied) {
        self.would_allow = match denied {
            Denied::Destination(rule) => rule.clone(),
            Denied::Method(rule) => Some(rule.clone()),
            Denied::Rate(_) | Denied::Token => None,
        };
    }

    /// Says that it goes without the rule it needs.
    pub fn report(&mut self, denied: &Denied) {
        self.is_reported = true;
        self.needs(denied);
    }

    /// Says that a tunnel speaks TLS.
    pub fn speaks_tls(&mut self) {
        self.to.scheme = "https";
    }

    /// Whether it goes without the rule it needs.
    pub fn is_reported(&self) -> bool {
        self.is_reported
    }

    /// Says what a tunnel has carried so far.
    pub fn count(&mut self, out: u64, back: u64) {
        self.sent.store(out, Ordering::Relaxed);
        self.received = back;
    }

    /// Says that a tunnel has ended as it should.
    pub fn done(&mut self) {
        self.cause = None;
    }

    /// The body of the request, counted as it is sent, and cut off beyond `limit` bytes.
    pub fn count_sent(&self, body: OutboundBody, limit: u64) -> OutboundBody {
        let sent = Arc::clone(&self.sent);
        Sent::wrap(body, sent, limit)
    }

    /// Ends it unwritten: it was asked whether a call would be allowed, and it would.
    pub fn was_a_question(mut self) {
        self.is_question = true;
    }

    /// How much of the request's body was read so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Says that a model is asked, not somebody elsewhere.
    pub fn predicts(&mut self, prediction: Prediction) -> &mut Prediction {
        self.prediction.insert(Box::new(prediction))
    }

    /// Says how long a model took, in microseconds, and whether it is asked as it was, as its process says.
    pub fn ran(&mut self, queue: Option<u64>, run: Option<u64>, drift: Option<&'static str>) {
        if let Some(prediction) = &mut self.prediction {
            prediction.ran(queue, run);
            prediction.drift = drift;
        }
    }

    /// Says why there is no answer.
    pub fn fail(&mut self, cause: &'static str) {
        self.cause = Some(cause);
    }

    /// Says that the head of the answer is there.
    pub fn answered(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
    }

    /// Whether it was not let out.
    pub fn is_refused(&self) -> bool {
        matches!(
            self.cause,
            Some(
                "address_not_allowed"
                    | "destination_not_allowed"
                    | "control_away"
                    | "function_replaced"
                    | "identity_revoked"
                    | "malformed_path"
                    | "method_not_allowed"
                    | "model_is_remote"
                    | "model_unknown"
                    | "name_not_allowed"
                    | "no_snapshot"
                    | "policy_denied"
                    | "policy_error"
                    | "rate_limited"
                    | "request_too_large"
                    | "svid_missing"
                    | "too_many_calls"
            )
        )
    }

    /// The refusal in words, for the one who wrote the function or program.
    pub fn refusal_line(&self) -> String {
        let Destination { scheme, host, port } = &self.to;
        let port = port.map(|it| format!(":{it}")).unwrap_or_default();
        let cause = self.cause.unwrap_or_default();
        let subject = self.subject.name();
        let method = &self.method;
        let what = self.prediction.as_ref().map_or("rule", |_| "policy");
        let rule = self.missing();
        let rule = rule.map_or_else(String::new, |it| {
            format!("; the {what} {it} would allow it")
        });
        format!("vedette: {subject} may not call {method} {scheme}://{host}{port}: {cause}{rule}")
    }

    /// What would have allowed it.
    fn missing(&self) -> Option<&str> {
        let policy = self.prediction.as_ref().map(|it| &it.would_allow);
        policy.unwrap_or(&self.would_allow).as_deref()
    }

    fn outcome(&self) -> &'static str {
        match self.cause {
            None => "served",
            Some("abandoned") => "aborted",
            Some(_) if self.is_refused() => "refused",
            Some(_) => "failed",
        }
    }

    fn write(&self, into: &mut Vec<u8>) {
        let total = self.opened.elapsed();
        let (function, workload, tier) = match &self.subject {
            Subject::Function(name) => (Some(&**name), None, None),
            Subject::Workload(name) => (None, Some(&**name), None),
            Subject::Tier(name) => (None, None, Some(&**name)),
        };
        let request_id = self.request_id.as_ref();
        let line = Line {
            kind: self.prediction.as_ref().map_or("egress", |_| "predict"),
            time: clock::rfc3339(clock::since_epoch().saturating_sub(total)),
            function,
            workload,
            tier,
            route: self.route.as_deref(),
            request_id: request_id.map(|it| it.to_str().unwrap_or_default()),
            method: self.method.as_str(),
            scheme: self.to.scheme,
            host: &self.to.host,
            port: self.to.port,
            outcome: self.outcome(),
            status: self.status,
            cause: self.cause,
            would_allow: self.missing(),
            reported: self.is_reported,
            bytes_out: self.sent.load(Ordering::Relaxed),
            bytes_in: self.received,
            total_us: u64::try_from(total.as_micros()).unwrap_or(u64::MAX),
            prediction: self.prediction.as_deref(),
        };
        // Writing to memory and plain types: it cannot fail.
        let _ = serde_json::to_writer(&mut *into, &line);
        into.push(b'\n');
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if self.is_question {
            return;
        }
        let counted = self.prediction.as_ref().and_then(|it| it.counted());
        worker::with(|worker| {
            worker.keep(|line| self.write(line));
            if let Some((model, [queue, run])) = counted {
                worker.count_prediction(model, queue, run);
            }
        });
    }
}
