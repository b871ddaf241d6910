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
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::Sleep;
use wasmtime::component::Accessor;
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{WasiBody, WasiHttpView, p2, p3};

use crate::RequestBody;
use crate::body::{GuestBody, Whole};
use crate::failure::{Failure, classify};
use crate::guest::{Context as CallContext, Guest};
use crate::instance::{Instance, Proxy};
use crate::load::{Function, Loaded, Pre};
use crate::log::LogSink;
use crate::meter;
use crate::outbound::Outbound;
use crate::ticker::Ticker;

/// What is gathered of a body that a guest writes after its head, before it is streamed.
const AT_ONCE: usize = 64 << 10;

type GuestFuture = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;
/// The head, or the guest's own error in words.
type HeadResult = Result<http::Response<WasiBody>, String>;
type Head = oneshot::Sender<HeadResult>;
/// Whether the body of a request came whole, as the guest is told.
type Received = Pin<Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>>;

/// What the caller brings to one call.
pub struct Call {
    /// The request: an absolute URI whose authority is the host asked for.
    pub request: http::Request<RequestBody>,
    /// Where the guest's output goes.
    pub log: Arc<dyn LogSink>,
    /// Makes the guest's outbound calls, or refuses them.
    pub outbound: Arc<dyn Outbound>,
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
        let response = head.map_err(Failure::ResponseInvalid)?;
        let (parts, mut inner) = response.into_parts();
        let mut whole = Whole::default();
        if run.has_ended() || run.may_pass_on {
            let taken =
                poll_fn(|cx| Poll::Ready(run.take(&mut whole, &mut inner, response_bytes, cx)));
            if taken.await? {
                require_honest_length(&parts, is_head, whole.len())?;
                drop(inner);
                // What the guest does now can still fail the call: nothing has been sent.
                if let Poll::Ready(ended) = poll_fn(|cx| Poll::Ready(run.poll(cx))).await {
                    ended?;
                }
                run.go_on();
                return Ok(http::Response::from_parts(parts, GuestBody::whole(whole)));
            }
            if !run.may_pass_on {
                return Err(Failure::ResponseInvalid("the body was not finished".into()));
            }
        }
        let promised = stated_length(&parts).filter(|_| !is_head);
        let body = GuestBody::streaming(run, whole, inner, response_bytes, promised);
        Ok(http::Response::from_parts(parts, body))
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
    /// Whether the answer may be a body that comes from elsewhere and outlives the guest: WASI 0.3
    /// can pass on what it was sent without touching it.
    pub(crate) may_pass_on: bool,
}

impl Run {
    fn start(function: &Function, call: Call, head: Head) -> Self {
        let limits = &function.0.spec.limits;
        let wall_end = Instant::now() + limits.wall;
        let context = CallContext {
            log: call.log,
            outbound: call.outbound,
            request_id: call.request_id,
            until: wall_end,
        };
        let loaded = Arc::clone(&function.0);
        let may_pass_on = matches!(loaded.pre, Pre::P3(_));
        // Boxed apart, so that the one does not pay for the size of the other.
        let guest: GuestFuture = if may_pass_on {
            Box::pin(run_concurrent(loaded, call.request, context, head))
        } else {
            Box::pin(run_serial(loaded, call.request, context, head))
        };
        Self {
            guest: Some(guest),
            ticker: Arc::clone(&function.0.ticker),
            cpu_left: limits.cpu,
            wall_end,
            alarm: None,
            permit: Some(call.permit),
            may_pass_on,
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

    /// Takes the body as far as it comes without waiting; a component of WASI 0.3 writes it after the
    /// head. Says whether that is all.
    fn take(
        &mut self,
        whole: &mut Whole,
        inner: &mut WasiBody,
        limit: u64,
        cx: &mut Context<'_>,
    ) -> Result<bool, Failure> {
        let mut before = None;
        loop {
            if whole.take(inner, limit, cx)? {
                return Ok(true);
            }
            let is_stuck = before.replace(whole.len()) == Some(whole.len());
            if self.has_ended() || is_stuck || whole.len() > AT_ONCE {
                return Ok(false);
            }
            if let Poll::Ready(ended) = self.poll(cx) {
                ended?;
            }
        }
    }

    /// The answer is complete. A guest that is not (it logs, say) goes on within its limits.
    pub(crate) fn go_on(mut self) {
        if !self.has_ended() {
            tokio::spawn(async move { poll_fn(|cx| self.poll(cx)).await });
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

/// Runs a component of WASI 0.2.
async fn run_serial(
    function: Arc<Loaded>,
    request: http::Request<RequestBody>,
    context: CallContext,
    head: Head,
) -> Result<(), Failure> {
    let mut instance = instance_for(&function, context).await?;
    let result = match &instance.proxy {
        Proxy::P2(proxy) => handle(proxy, &mut instance.store, request, head).await,
        Proxy::P3(_) => Ok(()),
    };
    end(instance, &function, result)
}

/// Runs a component of WASI 0.3.
async fn run_concurrent(
    function: Arc<Loaded>,
    request: http::Request<RequestBody>,
    context: CallContext,
    head: Head,
) -> Result<(), Failure> {
    let mut instance = instance_for(&function, context).await?;
    let result = match &instance.proxy {
        Proxy::P3(service) => serve(service, &mut instance.store, request, head).await,
        Proxy::P2(_) => Ok(()),
    };
    end(instance, &function, result)
}

async fn instance_for(function: &Loaded, context: CallContext) -> Result<Instance, Failure> {
    Instance::for_request(function, context)
        .await
        .map_err(|(error, memory_denied)| classify(&error, memory_denied))
}

fn end(
    instance: Instance,
    function: &Arc<Loaded>,
    result: wasmtime::Result<()>,
) -> Result<(), Failure> {
    match result {
        Ok(()) => {
            instance.end(function);
            Ok(())
        }
        Err(error) => Err(classify(&error, instance.store.data().memory.denied)),
    }
}

async fn handle(
    proxy: &p2::bindings::Proxy,
    store: &mut Store<Guest>,
    request: http::Request<RequestBody>,
    head: Head,
) -> wasmtime::Result<()> {
    let scheme = match request.uri().scheme_str() {
        Some("http") => Scheme::Http,
        _ => Scheme::Https,
    };
    let mut http = store.data_mut().http();
    let incoming = http.new_incoming_request(scheme, request)?;
    let outparam = http.new_response_outparam_from_callback(|answer| {
        // Nobody waits any more when the call was dropped.
        let _ = head.send(answer.map_err(|code| code.to_string()));
    })?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, incoming, outparam)
        .await
}

/// Answers with what the guest returns, and goes on until the guest is done.
async fn serve(
    service: &p3::bindings::Service,
    store: &mut Store<Guest>,
    request: http::Request<RequestBody>,
    head: Head,
) -> wasmtime::Result<()> {
    let served = store.run_concurrent(async |accessor| {
        let (request, received) = accessor.with(|mut access| {
            let (request, received) = p3::Request::from_http(access.get().http().hooks, request);
            (request, Box::pin(received) as Received)
        });
        let answered = service.handle(accessor, request).await?;
        let mut sent = match answered {
            Err(code) => {
                let _ = head.send(Err(code.to_string()));
                None
            }
            Ok(response) => {
                let response = accessor.with(|access| response.into_http(access, received))?;
                let (response, sent) = watched(response);
                let _ = head.send(Ok(response));
                Some(sent)
            }
        };
        poll_fn(|cx| {
            if accessor.poll_no_interesting_tasks(cx).is_pending() {
                return Poll::Pending;
            }
            match &mut sent {
                // Something of the host's still feeds the body through this store.
                Some(sent) if !is_quiet(accessor) => Pin::new(sent).poll(cx).map(|_| ()),
                _ => Poll::Ready(()),
            }
        })
        .await;
        Ok(())
    });
    served.await?
}

/// Whether no stream or future is left in the store.
fn is_quiet(accessor: &Accessor<Guest>) -> bool {
    accessor.with(|mut access| {
        access
            .as_context_mut()
            .concurrent_resource_table()
            .is_none_or(|table| table.is_empty())
    })
}

/// The response, and what ends once its body has ended or was dropped.
fn watched(
    response: http::Response<WasiBody>,
) -> (http::Response<WasiBody>, oneshot::Receiver<()>) {
    let (ended, sent) = oneshot::channel::<()>();
    let response = response.map(|body| {
        Watched {
            body,
            _ended: ended,
        }
        .boxed_unsync()
    });
    (response, sent)
}

struct Watched {
    body: WasiBody,
    _ended: oneshot::Sender<()>,
}

impl http_body::Body for Watched {
    type Data = bytes::Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
