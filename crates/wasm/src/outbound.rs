//! What guests send out over `wasi:http`: bounded here, sent by whoever implements [`Outbound`].
//!
//! Owns how many calls a guest has under way and in all, how large their bodies get, how long they
//! wait, and which header fields never leave. Must not: decide where a guest may call, or open a
//! socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use wasmtime_wasi_http::{Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks};

use crate::guest::Context;

/// The most outbound calls of one instance at once.
const MAX_AT_ONCE: u32 = 8;
/// The most outbound calls of one request in all.
const MAX_PER_REQUEST: u32 = 64;
/// The most bytes of a body that wait in one write of a guest (GHSA-c9gc-w9vx-w86p).
const BODY_CHUNK: usize = 256 * 1024;
/// What the node says to functions; a function does not say it to others.
const OWN_PREFIX: &str = "x-vedette-";

/// One call that a guest wants to make.
pub struct OutboundCall {
    /// The request of the guest it belongs to.
    pub request_id: HeaderValue,
    /// What to send: an absolute URI, no hop-by-hop fields.
    pub request: http::Request<WasiBody>,
    /// How long the guest wants to wait.
    pub timeouts: OutboundTimeouts,
    /// When the guest is ended, whatever it waits for.
    pub until: Instant,
    /// By what the guest makes it.
    pub interface: Interface,
    /// Whether the guest has made too many calls: refuse it, and record that.
    pub is_one_too_many: bool,
}

/// What guests make calls by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// `wasi:http`.
    Http,
    /// `wasi:nn`.
    Nn,
}

/// How long a guest wants to wait, where it says so (`wasi:http/types`, `request-options`). Nothing
/// is a time like any other: over at once (GHSA-w4qr-p94g-mjhv).
#[derive(Debug, Clone, Copy, Default)]
pub struct OutboundTimeouts {
    /// For the connection.
    pub connect: Option<Duration>,
    /// For the head of the answer, once connected.
    pub first_byte: Option<Duration>,
    /// Between two parts of the answer's body.
    pub between_bytes: Option<Duration>,
}

/// The answer to a call, or why there is none.
pub type OutboundAnswer =
    Pin<Box<dyn Future<Output = Result<http::Response<WasiBody>, Error>> + Send>>;

/// Decides on and makes the outbound calls of one function. Dropping the answer, or the body it
/// gave, ends the call.
pub trait Outbound: Send + Sync {
    /// Makes a call, or refuses it with [`Error::HttpRequestDenied`].
    fn send(&self, call: OutboundCall) -> OutboundAnswer;

    /// Whether there is a model of this name that the function may ask now. Says nothing of later: each call is
    /// decided on for itself.
    ///
    /// # Errors
    /// Those of [`Outbound::send`].
    fn may_ask(&self, request_id: &HeaderValue, model: &str) -> Result<(), Error>;
}

/// The embedder's part of `wasi:http`, as one request of a guest has it.
pub(crate) struct Hooks {
    outbound: Arc<dyn Outbound>,
    request_id: HeaderValue,
    until: Instant,
    sizes: Sizes,
    /// Made with the first call: most guests make none.
    at_once: Option<Arc<AtomicU32>>,
    made: u32,
    /// Whether calls are tasks of their own, so that their work is not the guest's CPU time.
    spawns: bool,
}

/// How large bodies may get, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) request: u64,
    pub(crate) response: u64,
}

impl Hooks {
    pub(crate) fn new(context: &Context, sizes: Sizes, spawns: bool) -> Self {
        Self {
            outbound: Arc::clone(&context.outbound),
            request_id: context.request_id.clone(),
            until: context.until,
            sizes,
            at_once: None,
            made: 0,
            spawns,
        }
    }

    /// Begins another request of the same instance, which may be allowed other calls.
    pub(crate) fn begin(&mut self, context: &Context) {
        self.outbound = Arc::clone(&context.outbound);
        self.request_id = context.request_id.clone();
        self.until = context.until;
        self.made = 0;
    }

    /// Has a call made, within the limits of all of them.
    pub(crate) fn call(
        &mut self,
        request: http::Request<WasiBody>,
        timeouts: OutboundTimeouts,
        interface: Interface,
    ) -> OutboundAnswer {
        let place = self.enter();
        let sizes = self.sizes;
        let (mut parts, body) = request.into_parts();
        remove_own(&mut parts.headers);
        let body = Bounded::new(body, sizes.request, Error::HttpRequestBodySize).boxed_unsync();
        let answer = self.outbound.send(OutboundCall {
            request_id: self.request_id.clone(),
            request: http::Request::from_parts(parts, body),
            timeouts,
            until: self.until,
            interface,
            is_one_too_many: place.is_none(),
        });
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| {
                let mut body = Bounded::new(body, sizes.response, Error::HttpResponseBodySize);
                body.place = place;
                body.boxed_unsync()
            }))
        })
    }

    /// Whether the function may ask this model now.
    pub(crate) fn may_ask(&self, model: &str) -> Result<(), Error> {
        self.outbound.may_ask(&self.request_id, model)
    }

    /// A place among the calls under way, if one is free.
    fn enter(&mut self) -> Option<Place> {
        self.made = self.made.saturating_add(1);
        let count = Arc::clone(self.at_once.get_or_insert_default());
        let before = count.fetch_add(1, Ordering::Relaxed);
        let place = Place(count);
        (before < MAX_AT_ONCE && self.made <= MAX_PER_REQUEST).then_some(place)
    }
}

/// One of an instance's calls under way.
struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

static FORBIDDEN: std::sync::LazyLock<ForbiddenHeaderFilter> =
    std::sync::LazyLock::new(|| Arc::new(is_forbidden));

fn is_forbidden(name: &HeaderName) -> bool {
    wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS.contains(name)
}

/// Takes away what must not leave in header or trailer fields. Not part of [`is_forbidden`], which
/// also holds for the fields a guest is given.
fn remove_own(fields: &mut HeaderMap) {
    let own: Vec<HeaderName> = fields
        .keys()
        .filter(|name| name.as_str().starts_with(OWN_PREFIX))
        .cloned()
        .collect();
    for name in own {
        fields.remove(name);
    }
}

type Sent = (
    http::Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&FORBIDDEN)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let options = options.unwrap_or_default();
        let timeouts = OutboundTimeouts {
            connect: options.connect_timeout,
            first_byte: options.first_byte_timeout,
            between_bytes: options.between_bytes_timeout,
        };
        let spawns = self.spawns;
        let answer = self.call(request, timeouts, Interface::Http);
        Box::new(async move {
            let response = match spawns {
                true => Spawned::new(answer).await?,
                false => answer.await?,
            };
            let nothing_more = Box::new(async { Ok(()) });
            Ok((response, nothing_more as Box<_>))
        })
    }
}

/// A call that is a task of its own, and ends when nobody waits for it.
pub(crate) struct Spawned<T>(JoinHandle<Result<T, Error>>);

impl<T: Send + 'static> Spawned<T> {
    pub(crate) fn new(call: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self(tokio::spawn(call))
    }
}

impl<T> Future for Spawned<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|joined| joined.unwrap_or_else(|error| Err(internal(&error))))
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn internal(error: &dyn std::fmt::Display) -> Error {
    Error::InternalError(Some(error.to_string()))
}

/// A body of which at most so many bytes pass.
struct Bounded {
    inner: WasiBody,
    passed: u64,
    limit: u64,
    too_large: fn(Option<u64>) -> Error,
    place: Option<Place>,
}

impl Bounded {
    fn new(inner: WasiBody, limit: u64, too_large: fn(Option<u64>) -> Error) -> Self {
        Self {
            inner,
            passed: 0,
            limit,
            too_large,
            place: None,
        }
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Error> {
        let frame = match frame.into_data() {
            Ok(data) => {
                self.passed = self.passed.saturating_add(data.len() as u64);
                Frame::data(data)
            }
            Err(frame) => frame,
        };
        if self.passed > self.limit {
            return Err((self.too_large)(Some(self.passed)));
        }
        Ok(match frame.into_trailers() {
            Ok(mut trailers) => {
                filter_trailers(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        })
    }
}

/// Trailers pass the same filter as header fields (GHSA-jxcf-8qw5-5c33).
fn filter_trailers(trailers: &mut HeaderMap) {
    remove_own(trailers);
    for name in &wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS {
        trailers.remove(name);
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.pass(frame))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => {
                self.place = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
