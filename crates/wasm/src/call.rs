//! One call of a function: instantiate, run, hand over the head of the response.
//!
//! The guest is not spawned as a task of its own until its answer is complete. It lives inside the
//! future of the request and then inside the body ([`GuestBody`]), so a client that leaves drops it
//! and there is nothing to cancel. Most guests end in their first poll: their whole body is then taken at once, which
//! spares a timer, a chunked encoding and a second wake-up.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::RequestBody;
use crate::body::{GuestBody, Whole};
use crate::failure::{CpuTimeExceeded, Failure, classify};
use crate::guest::Guest;
use crate::load::{Function, Loaded};
use crate::log::{GuestLog, LogSink};
use crate::meter;
use crate::ticker::Ticker;

type GuestFuture = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;
type HeadResult = Result<http::Response<HyperOutgoingBody>, ErrorCode>;

/// What the caller brings to one call.
pub struct Call {
    /// The request: an absolute URI whose authority is the host asked for.
    pub request: http::Request<RequestBody>,
    /// Where the guest's output goes.
    pub log: Arc<dyn LogSink>,
    /// What the lines of this call's output are marked with.
    pub request_id: HeaderValue,
    /// Held until the guest has ended, for example a place among the concurrent calls.
    pub permit: Box<dyn Send>,
}

impl Function {
    /// Runs the function on `call` until the head of its response is there. The guest has not
    /// necessarily ended then: the body of the response drives it on.
    ///
    /// # Errors
    /// [`Failure`] when the guest ended, or was ended, before there was a response. A guest that
    /// traps after its head, but before anything can have been sent, counts as one without.
    pub async fn call(&self, call: Call) -> Result<http::Response<GuestBody>, Failure> {
        let is_head = call.request.method() == http::Method::HEAD;
        let response_bytes = self.0.spec.limits.response_bytes;
        let (send_head, mut head) = oneshot::channel();
        let mut run = Run::start(self, call, send_head);
        let head = poll_fn(|cx| run.poll_head(&mut head, cx)).await?;
        let response = head.map_err(|code| Failure::ResponseInvalid(code.to_string()))?;
        let (parts, mut inner) = response.into_parts();
        if !run.has_ended() {
            let promised = stated_length(&parts).filter(|_| !is_head);
            let body = GuestBody::streaming(run, inner, response_bytes, promised);
            return Ok(http::Response::from_parts(parts, body));
        }
        let whole = poll_fn(|cx| Poll::Ready(Whole::take(&mut inner, response_bytes, cx))).await?;
        require_honest_length(&parts, is_head, whole.len())?;
        Ok(http::Response::from_parts(parts, GuestBody::whole(whole)))
    }
}

/// RFC 9110 §8.6: a length that is not that of the content would let the next response on the
/// connection be read as part of this one.
fn require_honest_length(
    parts: &http::response::Parts,
    is_head: bool,
    actual: usize,
) -> Result<(), Failure> {
    let is_stated = parts.headers.contains_key(CONTENT_LENGTH);
    if is_head || !is_stated || stated_length(parts) == Some(actual as u64) {
        return Ok(());
    }
    Err(Failure::ResponseInvalid(format!(
        "content-length does not agree with the body of {actual} bytes"
    )))
}

fn stated_length(parts: &http::response::Parts) -> Option<u64> {
    let stated = parts.headers.get(CONTENT_LENGTH)?;
    stated.to_str().ok()?.parse().ok()
}

/// A guest that is running: its future, what it may still use, and what it holds.
pub(crate) struct Run {
    guest: Option<GuestFuture>,
    ticker: Arc<Ticker>,
    cpu_left: Duration,
    wall_end: Instant,
    /// Made on the first pending poll: most guests never wait.
    alarm: Option<Pin<Box<Sleep>>>,
    permit: Option<Box<dyn Send>>,
}

impl Run {
    fn start(function: &Function, call: Call, head: oneshot::Sender<HeadResult>) -> Self {
        let limits = &function.0.spec.limits;
        let log = GuestLog {
            sink: call.log,
            request_id: call.request_id,
        };
        let guest = run_guest(Arc::clone(&function.0), call.request, log, head);
        Self {
            guest: Some(Box::pin(guest)),
            ticker: Arc::clone(&function.0.ticker),
            cpu_left: limits.cpu,
            wall_end: Instant::now() + limits.wall,
            alarm: None,
            permit: Some(call.permit),
        }
    }

    pub(crate) fn wall_end(&self) -> Instant {
        self.wall_end
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.guest.is_none()
    }

    /// Ready when the head is there or the guest has ended without one.
    fn poll_head(
        &mut self,
        head: &mut oneshot::Receiver<HeadResult>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<HeadResult, Failure>> {
        match self.poll(cx) {
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
            Poll::Ready(Ok(())) => Poll::Ready(head.try_recv().map_err(|_| Failure::NoResponse)),
            // Only the guest sends it, so there is nothing to be woken for beside the guest.
            Poll::Pending => head
                .try_recv()
                .map_or(Poll::Pending, |it| Poll::Ready(Ok(it))),
        }
    }

    /// Lets the guest run until it waits, has ended, or has used up what it may use.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(guest) = &mut self.guest else {
            return Poll::Ready(Ok(()));
        };
        self.ticker.guest_runs();
        let (polled, cpu_left) = meter::metered(self.cpu_left, || guest.as_mut().poll(cx));
        self.cpu_left = cpu_left;
        match polled {
            Poll::Ready(result) => self.end(result),
            Poll::Pending if cpu_left.is_zero() => self.end(Err(Failure::CpuTime)),
            Poll::Pending => self.poll_alarm(cx),
        }
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let wall_end = self.wall_end;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wall_end.into())));
        match alarm.as_mut().poll(cx) {
            Poll::Ready(()) => self.end(Err(Failure::WallTime)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn end(&mut self, result: Result<(), Failure>) -> Poll<Result<(), Failure>> {
        self.guest = None;
        self.alarm = None;
        self.permit = None;
        Poll::Ready(result)
    }
}

async fn run_guest(
    function: Arc<Loaded>,
    request: http::Request<RequestBody>,
    log: GuestLog,
    head: oneshot::Sender<HeadResult>,
) -> Result<(), Failure> {
    let guest = Guest::new(Arc::clone(&function.spec), log);
    let mut store = Store::new(function.pre.engine(), guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| yield_or_stop());
    let result = handle(&function, &mut store, request, head).await;
    result.map_err(|error| classify(&error, store.data().memory.denied))
}

async fn handle(
    function: &Loaded,
    store: &mut Store<Guest>,
    request: http::Request<RequestBody>,
    head: oneshot::Sender<HeadResult>,
) -> wasmtime::Result<()> {
    let scheme = match request.uri().scheme_str() {
        Some("http") => Scheme::Http,
        _ => Scheme::Https,
    };
    let incoming = store
        .data_mut()
        .http()
        .new_incoming_request(scheme, request)?;
    let outparam = store.data_mut().http().new_response_outparam(head)?;
    let proxy = function.pre.instantiate_async(&mut *store).await?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, incoming, outparam)
        .await
}

/// What happens when a guest has run for a tick: let others run, or stop it for good.
///
/// The yield is tokio's own, which queues the task behind the others; a bare yield is polled again
/// first (wasmtime #10667).
fn yield_or_stop() -> wasmtime::Result<UpdateDeadline> {
    if meter::is_spent() {
        return Err(CpuTimeExceeded.into());
    }
    Ok(UpdateDeadline::YieldCustom(
        1,
        Box::pin(tokio::task::yield_now()),
    ))
}
