//! HTTP/1.1 over the socket: paths, bodies, headers.
//!
//! Owns: one thread that reads and writes for all connections, and what lies in memory of requests. A body is read into
//! one piece of memory in which the elements of the first binary tensor lie as the runtime wants them, so that it can
//! take them from there; what came in one piece already is not touched.
//!
//! Must not: run a model; or hold more of bodies than [`Serving::new`] allows, whatever is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::config::Served;
use crate::oip::answer::{Answer, encode, metadata};
use crate::oip::{Refusal, request};
use crate::pool::Pool;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const DEADLINE: HeaderName = HeaderName::from_static("x-vedette-deadline-ms");
const QUEUE: HeaderName = HeaderName::from_static("x-vedette-queue-us");
const RUN: HeaderName = HeaderName::from_static("x-vedette-run-us");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// How long a body may stand still.
const STANDSTILL: Duration = Duration::from_secs(30);
/// What tensors are laid at multiples of: a cache line, and the widest vector of a processor.
const ALIGNMENT: usize = 64;
/// Room that is made for a body before it is there.
const ROOM_AT_FIRST: usize = 1 << 20;

/// What answers for one model.
pub struct Serving {
    model: Served,
    pool: Arc<Pool>,
    metadata: Bytes,
    ready: Bytes,
    /// Bytes of bodies that are in memory, and how many may be.
    held: AtomicUsize,
    most_held: usize,
}

/// The pieces of an answer.
#[derive(Default)]
pub struct Pieces(std::collections::VecDeque<Bytes>);

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self([bytes].into())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|it| Ok(Frame::data(it))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|it| it.len() as u64).sum())
    }
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
}

impl Serving {
    /// Serves `model` with `pool`. Bodies may take a quarter of the model's memory together, or twice the largest.
    pub fn new(model: Served, pool: Arc<Pool>) -> Self {
        let quarter = usize::try_from(model.limits.memory_bytes / 4).unwrap_or(usize::MAX);
        let ready = serde_json::json!({"name": model.name, "ready": true});
        Self {
            metadata: metadata(&model),
            ready: ready.to_string().into(),
            held: AtomicUsize::new(0),
            most_held: quarter.max(model.limits.request_bytes.saturating_mul(2)),
            pool,
            model,
        }
    }

    /// How long what has come may still take.
    pub fn longest(&self) -> Duration {
        self.model.limits.run_time()
    }

    /// Takes no request any more.
    pub fn leave(&self) {
        self.pool.leave();
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Pieces> {
        let (head, mut body) = request.into_parts();
        let response = self.answer_to(&head, &mut body).await;
        if response.status() != StatusCode::OK {
            read_away(&mut body).await;
        }
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
            Target::Infer => Method::POST,
            _ => Method::GET,
        };
        if request.method != wanted {
            let refusal = Refusal::new(405, format_args!("{wanted} is the method here"));
            let mut response = error(&refusal);
            if let Ok(value) = HeaderValue::from_str(wanted.as_str()) {
                response.headers_mut().insert(ALLOW, value);
            }
            return response;
        }
        match target {
            Target::Metadata => json(StatusCode::OK, self.metadata.clone()),
            Target::Ready => json(StatusCode::OK, self.ready.clone()),
            Target::Infer => {
                let answered = self.infer(&request.headers, body, came).await;
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
            _ => None,
        }
    }

    async fn infer(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
        came: Instant,
    ) -> Result<Response<Pieces>, Refusal> {
        self.pool.require_room()?;
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
        let asked = request::decode(&self.model, &body, json_length)?;
        drop(body); // what inputs need of it they hold
        let places = asked.outputs.iter().map(|it| it.place).collect();
        let outcome = self.pool.submit(asked.inputs, places, deadline)?;
        let ran = match outcome.await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(Refusal::new(500, "the run ended without an answer")),
        };
        drop(held);
        let answer = encode(
            &self.model,
            asked.id.as_deref(),
            &asked.outputs,
            ran.outputs,
        )?;
        let mut response = answered(answer);
        let micros = |it: Duration| HeaderValue::from(u64::try_from(it.as_micros()).unwrap_or(0));
        response.headers_mut().insert(QUEUE, micros(ran.waited));
        response.headers_mut().insert(RUN, micros(ran.ran));
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
                format_args!("the body is larger than {most} bytes (limits.requestBytes)"),
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

/// A body in one piece.
struct Whole {
    bytes: Vec<u8>,
    /// Bytes before it, so that what follows the JSON is aligned.
    before: usize,
    json_length: usize,
}

impl Whole {
    fn new(json_length: Option<usize>) -> Self {
        Self {
            bytes: vec![],
            before: 0,
            json_length: json_length.unwrap_or(0),
        }
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.before
    }

    /// Adds a piece. What was said to come has its room once more than [`ROOM_AT_FIRST`] of it is there.
    fn add(&mut self, piece: &[u8], said: Option<usize>) -> Result<(), Refusal> {
        let needed = self.len() + piece.len();
        if self.before + needed > self.bytes.capacity() {
            let said = said.unwrap_or(needed.saturating_mul(2));
            let room = match needed > ROOM_AT_FIRST {
                true => said,
                false => said.min(ROOM_AT_FIRST),
            };
            self.lay_out(room.max(needed))?;
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn lay_out(&mut self, room: usize) -> Result<(), Refusal> {
        let mut bytes: Vec<u8> = vec![];
        let made = bytes.try_reserve_exact(room.saturating_add(ALIGNMENT));
        made.map_err(|_| Refusal {
            retry_after: Some(1),
            ..Refusal::new(503, "there is no memory for the body")
        })?;
        let binary = bytes.as_ptr().addr().wrapping_add(self.json_length);
        let before = binary.wrapping_neg() % ALIGNMENT;
        bytes.resize(before, 0);
        bytes.extend_from_slice(self.bytes.get(self.before..).unwrap_or_default());
        (self.bytes, self.before) = (bytes, before);
        Ok(())
    }

    fn bytes(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.before..)
    }
}

async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = match timeout(STANDSTILL, body.frame()).await {
            Err(_) => return Err(Refusal::new(408, "the body stands still")),
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame,
        };
        let frame = frame.map_err(|_| Refusal::bad("the body ends early"))?;
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
}

/// Takes the rest of a small body that is not wanted: who sends it would otherwise find the connection closed, perhaps
/// before it has read why. A large one is not worth it.
async fn read_away(body: &mut Incoming) {
    const MOST: u64 = 1 << 20;
    const LONGEST: Duration = Duration::from_secs(1);
    if body.size_hint().upper().is_some_and(|it| it > MOST) {
        return;
    }
    let reading = async {
        let mut seen = 0;
        while let Ok(Some(piece)) = piece(body).await {
            seen += piece.len() as u64;
            if seen > MOST {
                return;
            }
        }
    };
    let _ = timeout(LONGEST, reading).await;
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|it| it.parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::bad(format_args!("{name} is no whole number"))),
    }
}

fn json(status: StatusCode, body: Bytes) -> Response<Pieces> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn answered(answer: Answer) -> Response<Pieces> {
    let mut response = Response::new(Pieces(answer.parts.into()));
    let headers = response.headers_mut();
    match answer.json_length {
        None => drop(headers.insert(CONTENT_TYPE, JSON)),
        Some(length) => {
            headers.insert(CONTENT_TYPE, BINARY);
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
    }
    response
}

fn error(refusal: &Refusal) -> Response<Pieces> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::json!({"error": refusal.message}).to_string();
    let mut response = json(status, body.into());
    if let Some(seconds) = refusal.retry_after {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
