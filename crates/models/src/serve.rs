//! HTTP/1.1 over the socket: paths, bodies, headers.
//!
//! Owns: one thread that reads and writes for all connections, and what lies in memory of requests.
//!
//! Must not: run a model; or hold more of bodies than [`Serving::new`] allows, whatever is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::timeout_at;

use crate::body::{Whole, piece, read_away};
use crate::config::{Format, Served};
use crate::fields::{JSON_LENGTH, criticality, number, tenant};
use crate::idle::{Asking, Idle};
use crate::media::{Desk, Reply, Time};
use crate::oip::Refusal;
use crate::oip::answer::{Answer, metadata};
use crate::pool::Pool;
use crate::queue::Ask;
use crate::replies::{Pieces, answered, error, json, message, not_allowed};
use crate::samples::Sampler;
use crate::seen::{self, Seen};
use crate::streams::{self, Content, Flow, Streams};

const DEADLINE: HeaderName = HeaderName::from_static("x-vedette-deadline-ms");
const QUEUE: HeaderName = HeaderName::from_static("x-vedette-queue-us");
const RUN: HeaderName = HeaderName::from_static("x-vedette-run-us");
const BATCH: HeaderName = HeaderName::from_static("x-vedette-batch");
/// Whether what is asked and answered is as it was: `learning`, `steady` or `drifted`.
const DRIFT: HeaderName = HeaderName::from_static("x-vedette-drift");
/// Where the node asks that, and hands on what an earlier process knew. Not below the model's paths: no caller gets here.
const DRIFT_PATH: &str = "/drift";
/// Where control fetches samples, likewise: the next one at each `POST`, and 204 where there is none.
const SAMPLES_PATH: &str = "/samples";
/// How many samples were left out since the last one was asked for.
const LEFT_OUT: HeaderName = HeaderName::from_static("x-vedette-left-out");

/// Of an engine, to ask what a model is, and to be refused.
const SPARE_CONNECTIONS: usize = 16;
/// Connections that are always taken.
const LEAST_CONNECTIONS: usize = 512;
/// Of two engines, at 8,192 each.
const MOST_CONNECTIONS: usize = 16_384;

const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// What answers for one model.
pub struct Serving {
    model: Served,
    pool: Arc<Pool>,
    desk: Desk,
    /// Of a model that takes streams.
    streams: Option<Arc<Streams>>,
    seen: Seen,
    /// Where the manifest asks for samples.
    sampler: Option<Arc<Sampler>>,
    metadata: Bytes,
    ready: Bytes,
    idle: Arc<Idle>,
    /// Bytes of bodies that are in memory, and how many may be.
    held: AtomicUsize,
    most_held: usize,
}

/// Bytes of a body that count as held.
struct Held<'a> {
    serving: &'a Serving,
    bytes: usize,
}

impl Held<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.serving.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        match before + bytes <= self.serving.most_held {
            true => Ok(()),
            false => Err(Refusal {
                retry_after: Some(1),
                ..Refusal::new(503, "the bodies of other requests fill the memory for them")
            }),
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.serving.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What is asked for, by its path.
enum Target {
    Metadata,
    Ready,
    Infer,
    /// The same as a message of gRPC.
    Call,
    Stream,
}

impl Serving {
    /// Serves `model` with `pool`. Bodies may take a quarter of the model's memory together, or twice the largest.
    pub fn new(model: Served, pool: Arc<Pool>, desk: Desk, streams: Option<Arc<Streams>>) -> Self {
        let quarter = usize::try_from(model.limits.memory_bytes / 4).unwrap_or(usize::MAX);
        let ready = serde_json::json!({"name": model.name, "ready": true});
        Self {
            metadata: metadata(&model),
            seen: Seen::of(&model),
            sampler: Sampler::of(&model),
            ready: ready.to_string().into(),
            held: AtomicUsize::new(0),
            most_held: quarter.max(model.limits.request_bytes.saturating_mul(2)),
            idle: Arc::new(Idle::new(model.idle_millis)),
            pool,
            desk,
            streams,
            model,
        }
    }

    /// Somebody asks, or is about to.
    pub fn asking(&self) -> Asking {
        self.idle.asking()
    }

    /// Returns when nobody has asked for as long as the model says.
    pub async fn idle(&self) {
        self.idle.over().await;
    }

    /// How long what has come may still take.
    pub fn longest(&self) -> Duration {
        self.model.limits.run_time()
    }

    /// Connections at once; further ones wait in the kernel. An engine makes one for each request that runs or waits, and a
    /// few more (`vedette_engine::models`), and keeps them; when another takes over there are two.
    pub fn connections(&self) -> usize {
        let limits = &self.model.limits;
        let streams = self.streams.as_ref().map_or(0, |_| limits.streams);
        let under_way = limits
            .queue
            .saturating_add(self.model.sessions + SPARE_CONNECTIONS);
        let of_engines = under_way
            .saturating_mul(2)
            .clamp(LEAST_CONNECTIONS, MOST_CONNECTIONS);
        of_engines.saturating_add(streams)
    }

    /// Ends all streams.
    pub async fn end_streams(&self) {
        if let Some(streams) = &self.streams {
            streams.end().await;
        }
    }

    /// Takes no request any more.
    pub fn leave(&self) {
        self.pool.leave();
    }

    /// Answers a request.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        mut asking: Asking,
    ) -> Response<Content<Pieces>> {
        if let Some(Target::Stream) = self.target(request.uri().path()) {
            return self.stream(request, asking).await;
        }
        let (head, mut body) = request.into_parts();
        if head.uri.path() == DRIFT_PATH {
            let answered = self.drift(&head.method, &mut body).await;
            return answered.map(Content::Whole);
        }
        if head.uri.path() == SAMPLES_PATH {
            return self.sample(&head.method).map(Content::Whole);
        }
        asking.counts = head.method == Method::POST;
        let response = self.answer_to(&head, &mut body).await;
        if response.status() != StatusCode::OK {
            read_away(&mut body).await;
        }
        response.map(Content::Whole)
    }

    /// Opens a stream: as a WebSocket where that is asked for, else as the lines of a body.
    async fn stream(
        &self,
        request: Request<Incoming>,
        asking: Asking,
    ) -> Response<Content<Pieces>> {
        let no_streams = || Refusal::bad("this model takes no streams; POST …/infer asks it");
        let streams = self.streams.as_ref().ok_or_else(no_streams);
        let refusal = match streams {
            Err(refusal) => refusal,
            Ok(streams) if streams::is_asked_for(&request) => {
                match streams::switch(request, |it| streams.open(it, asking)) {
                    Ok(response) => return response.map(|()| Content::Whole(Pieces::default())),
                    Err(refusal) => return error(&refusal).map(Content::Whole),
                }
            }
            Ok(_) if request.method() != Method::POST => {
                return not_allowed(&Method::POST).map(Content::Whole);
            }
            Ok(streams) => match streams.open(&request, asking) {
                Ok(conversation) => {
                    let flow = Flow::new(conversation, request.into_body());
                    let mut response = Response::new(Content::Flow(flow));
                    response.headers_mut().insert(CONTENT_TYPE, LINES);
                    return response;
                }
                Err(refusal) => refusal,
            },
        };
        read_away(&mut request.into_body()).await;
        error(&refusal).map(Content::Whole)
    }

    /// What is known of drift; a `POST` has that of an earlier process go on. Neither keeps an idle process.
    async fn drift(&self, method: &Method, body: &mut Incoming) -> Response<Pieces> {
        if method == Method::POST {
            let read = Limited::new(body, seen::MOST_KEPT).collect().await;
            let kept = read
                .ok()
                .and_then(|it| serde_json::from_slice(&it.to_bytes()).ok());
            match kept {
                Some(kept) => self.seen.go_on(kept),
                None => return error(&Refusal::bad("this is not what was kept of drift")),
            }
        } else if method != Method::GET {
            return not_allowed(&Method::GET);
        }
        match serde_json::to_vec(&self.seen.report()) {
            Ok(report) => json(StatusCode::OK, report.into()),
            Err(_) => error(&Refusal::new(500, "drift has no form in JSON")),
        }
    }

    /// The next sample, as a request of the protocol.
    fn sample(&self, method: &Method) -> Response<Pieces> {
        let Some(sampler) = &self.sampler else {
            return error(&Refusal::new(404, "no samples are kept of this model"));
        };
        if method != Method::POST {
            return not_allowed(&Method::POST);
        }
        let (sample, left_out) = sampler.fetch();
        let mut response = match sample {
            None => json(StatusCode::NO_CONTENT, Bytes::new()),
            Some(sample) => answered(Answer {
                json_length: Some(sample.json.len()),
                parts: [vec![sample.json], sample.elements].concat(),
            }),
        };
        let headers = response.headers_mut();
        headers.insert(LEFT_OUT, HeaderValue::from(left_out));
        response
    }

    async fn answer_to(&self, request: &Parts, body: &mut Incoming) -> Response<Pieces> {
        let came = Instant::now();
        let Some(target) = self.target(request.uri.path()) else {
            return error(&Refusal::new(
                404,
                format_args!(
                    "there is nothing here; this is version {} of the model {:?}",
                    self.model.version, self.model.name
                ),
            ));
        };
        let wanted = match target {
            Target::Infer | Target::Call | Target::Stream => Method::POST,
            Target::Metadata | Target::Ready => Method::GET,
        };
        if request.method != wanted {
            return not_allowed(&wanted);
        }
        match target {
            Target::Metadata => json(StatusCode::OK, self.metadata.clone()),
            Target::Ready => json(StatusCode::OK, self.ready.clone()),
            // Answered before.
            Target::Stream => error(&Refusal::new(500, "a stream has no whole answer")),
            Target::Infer | Target::Call => {
                let is_call = matches!(target, Target::Call);
                let answered = self.infer(&request.headers, body, is_call, came).await;
                answered.unwrap_or_else(|refusal| error(&refusal))
            }
        }
    }

    fn target(&self, path: &str) -> Option<Target> {
        let rest = path
            .strip_prefix("/v2/models/")?
            .strip_prefix(self.model.name.as_str())?;
        let rest = match rest.strip_prefix("/versions/") {
            None => rest,
            Some(rest) => {
                let (version, _) = rest.split_once('/').unwrap_or((rest, ""));
                let is_this = version.parse() == Ok(self.model.version);
                rest.strip_prefix(version).filter(|_| is_this)?
            }
        };
        match rest {
            "" => Some(Target::Metadata),
            "/ready" => Some(Target::Ready),
            "/infer" => Some(Target::Infer),
            "/grpc" => Some(Target::Call),
            "/stream" => Some(Target::Stream),
            _ => None,
        }
    }

    async fn infer(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
        is_call: bool,
        came: Instant,
    ) -> Result<Response<Pieces>, Refusal> {
        if self.model.format == Format::Detector {
            let what =
                "a detector judges events by those before: POST them to …/stream, a line each";
            return Err(Refusal::bad(what));
        }
        let criticality = criticality(headers)?;
        self.pool.require_room(criticality)?;
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(Refusal::bad("compressed bodies are not read"));
        }
        let json_length = number(headers, &JSON_LENGTH)?;
        let deadline = number(headers, &DEADLINE)?
            .and_then(|millis| came.checked_add(Duration::from_millis(millis as u64)));
        let mut held = Held {
            serving: self,
            bytes: 0,
        };
        let body = self.read(body, headers, json_length, &mut held).await?;
        let (model, desk) = (&self.model, &self.desk);
        let tenant = tenant(headers);
        // What the node asks by itself, such as golden answers, says nothing of what is asked.
        let sampler = self.sampler.as_ref();
        let drawn = sampler.filter(|it| tenant.is_some() && it.draw());
        let text = drawn.and_then(|_| desk.text(headers, &body, json_length));
        let (inputs, question) = if is_call {
            let asked = desk.call(model, &body, Time { came, deadline })?;
            drop(body); // what inputs need of it they hold
            asked
        } else {
            let body = (body, json_length);
            let time = Time { came, deadline };
            desk.question(model, headers, body, time).await?
        };
        let deadline = question.deadline;
        held.add(question.made)?;
        let caught = drawn.and_then(|it| Some((it, it.caught(&inputs, text)?)));
        let glimpse = tenant.as_ref().map(|_| self.seen.glimpse(&inputs));
        let ask = Ask {
            inputs,
            outputs: question.runs.clone(),
            deadline,
            tenant,
            criticality,
        };
        // Dropped when the caller leaves or its time is over, which ends the run.
        let mut waiting = self.pool.submit(ask)?;
        let outcome = match deadline {
            None => waiting.outcome().await,
            Some(deadline) => {
                let answered = timeout_at(deadline.into(), waiting.outcome()).await;
                answered.map_err(|_| Refusal::new(504, "there is no answer by the deadline"))?
            }
        };
        let gone = || Refusal::new(500, "the run ended without an answer");
        let ran = outcome.ok_or_else(gone)??;
        let bytes = held.bytes;
        drop(held);
        if let Some(glimpse) = glimpse {
            self.seen.ran(glimpse, &question.runs, &ran.outputs);
        }
        let (waited, before) = (question.waited, question.took);
        let (reply, after) = desk.answer(model, question, ran.outputs).await?;
        let mut response = match reply {
            Reply::Json(answer) => answered(answer),
            Reply::Message(pieces) => message(pieces),
        };
        if let Some((sampler, caught)) = caught {
            sampler.keep(caught, bytes);
        }
        let micros = |it: Duration| HeaderValue::from(u64::try_from(it.as_micros()).unwrap_or(0));
        response
            .headers_mut()
            .insert(QUEUE, micros(waited + ran.waited));
        let headers = response.headers_mut();
        headers.insert(RUN, micros(before + ran.ran + after));
        headers.insert(BATCH, HeaderValue::from(ran.together));
        if let Some(state) = self.seen.state() {
            headers.insert(DRIFT, HeaderValue::from_static(state.as_str()));
        }
        Ok(response)
    }

    async fn read(
        &self,
        body: &mut Incoming,
        headers: &HeaderMap,
        json_length: Option<usize>,
        held: &mut Held<'_>,
    ) -> Result<Bytes, Refusal> {
        let most = self.model.limits.request_bytes;
        let too_large = || {
            Refusal::new(
                413,
                format_args!("the body is larger than {most} bytes (limits.requestSize)"),
            )
        };
        let said = number(headers, &CONTENT_LENGTH)?;
        if said.is_some_and(|said| said > most) {
            return Err(too_large());
        }
        let Some(first) = piece(body).await? else {
            return Ok(Bytes::new());
        };
        held.add(said.unwrap_or(first.len()))?;
        if said == Some(first.len()) {
            return Ok(first);
        }
        let mut whole = Whole::new(json_length);
        whole.add(&first, said)?;
        while let Some(piece) = piece(body).await? {
            if whole.len() + piece.len() > most {
                return Err(too_large());
            }
            if said.is_none() {
                held.add(piece.len())?;
            }
            whole.add(&piece, said)?;
        }
        Ok(whole.bytes())
    }
}
