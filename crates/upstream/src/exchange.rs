//! One request to one target and the head of its answer.
//!
//! Owns: which connection is used, and the one silent second try that a connection which was closed
//! while it was idle is owed. Must not: choose the target, or retry for any other reason.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, timeout};

use crate::body::{OutBody, Progress, UpstreamBody};
use crate::connect::Need;
use crate::error::{SendError, before_head, is_of_one_stream, was_refused};
use crate::fields::{Outgoing, clean_answer};
use crate::pool::{self, Http1, Place, StreamPlace};
use crate::target::Target;

/// Time for the parts of one exchange.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) response: Duration,
    pub(crate) need: Need,
}

/// What an answer's body holds of its connection.
pub(crate) enum Lease {
    Http1(Box<Held>),
    Http2(#[expect(dead_code, reason = "held for its drop")] StreamPlace),
}

/// An HTTP/1.1 connection in use. Dropped, it is cut.
pub(crate) struct Held {
    connection: Option<Http1>,
    target: Arc<Target>,
}

impl Lease {
    /// The answer is over: the connection may serve the next request.
    pub(crate) fn end(self) {
        let Self::Http1(mut held) = self else {
            return;
        };
        // Not ready: it closes, or the request is still being sent and nobody wants the rest.
        if held
            .connection
            .as_ref()
            .is_some_and(|it| it.sender.is_ready())
            && let Some(connection) = held.connection.take()
        {
            pool::give_back(&held.target, connection);
        }
    }

    /// Leaves the connection to whom it was upgraded for.
    pub(crate) fn let_go(self) {
        if let Self::Http1(mut held) = self {
            held.connection.take();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.task.abort();
        }
    }
}

/// Why there was no answer, and the request where it was never written.
struct Failed {
    error: SendError,
    unsent: Option<Outgoing>,
    /// Whether no byte of an answer came.
    is_silent: bool,
}

impl Failed {
    fn new(error: SendError) -> Self {
        Self {
            error,
            unsent: None,
            is_silent: false,
        }
    }
}

/// What a failed exchange leaves.
pub(crate) struct NoAnswer {
    pub(crate) error: SendError,
    /// The request, where nothing of it was sent.
    pub(crate) unsent: Option<Outgoing>,
}

/// Sends and waits for the head of the answer.
pub(crate) async fn exchange(
    target: &Arc<Target>,
    outgoing: Outgoing,
    limits: Limits,
) -> Result<(Response<Incoming>, Lease), NoAnswer> {
    let mut outgoing = outgoing;
    if let Some(place) = pool::take(target, limits.need) {
        // RFC 9110 §9.2.2: what is idempotent may be sent again by itself; once.
        let spare = if outgoing.method().is_idempotent() {
            outgoing.copy()
        } else {
            None
        };
        match on(place, target, outgoing, limits).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => match (failed.unsent, spare) {
                (Some(unsent), _) => outgoing = unsent,
                (None, Some(spare)) if failed.is_silent => outgoing = spare,
                _ => return Err(NoAnswer::of(failed.error)),
            },
        }
    }
    let deadline = Instant::now() + limits.connect;
    let place = match pool::make(target, limits.need, deadline).await {
        Ok(place) => place,
        Err(error) => {
            let unsent = Some(outgoing);
            return Err(NoAnswer { error, unsent });
        }
    };
    let answer = on(place, target, outgoing, limits).await;
    answer.map_err(|failed| NoAnswer {
        error: failed.error,
        unsent: failed.unsent,
    })
}

impl NoAnswer {
    fn of(error: SendError) -> Self {
        Self {
            error,
            unsent: None,
        }
    }
}

async fn on(
    place: Place,
    target: &Arc<Target>,
    outgoing: Outgoing,
    limits: Limits,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let (mut response, lease) = match place {
        Place::Http1(connection) => on_http1(connection, target, outgoing, limits).await?,
        Place::Http2(connection, stream) => {
            let fitted = outgoing.fit_http2(target).map_err(Failed::new)?;
            let (request, rest) = fitted.split();
            let progress = request.body().progress();
            let mut sender = connection.sender;
            let sending = sender.try_send_request(request);
            let answered = head_within(sending, limits.response, progress.as_deref()).await;
            let response = answered
                .ok_or_else(|| Failed::new(SendError::TimeoutResponse))?
                .map_err(|error| failed(error, |request| rest.join(request), true))?;
            (response, Lease::Http2(stream))
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        clean_answer(&mut response).map_err(Failed::new)?;
    }
    Ok((response, lease))
}

async fn on_http1(
    connection: Http1,
    target: &Arc<Target>,
    outgoing: Outgoing,
    limits: Limits,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let wire = Arc::clone(&connection.wire);
    let mut held = Box::new(Held {
        connection: Some(connection),
        target: Arc::clone(target),
    });
    let (request, rest) = outgoing.fit_http1(target).split();
    let progress = request.body().progress();
    wire.begin();
    let Some(connection) = held.connection.as_mut() else {
        return Err(Failed::new(SendError::Overloaded));
    };
    let sending = connection.sender.try_send_request(request);
    let answered = head_within(sending, limits.response, progress.as_deref()).await;
    let response = answered
        .ok_or_else(|| Failed::new(SendError::TimeoutResponse))?
        .map_err(|error| failed(error, |request| rest.join(request), wire.is_silent()))?;
    wire.has_head();
    Ok((response, Lease::Http1(held)))
}

fn failed(
    mut error: TrySendError<Request<OutBody>>,
    join: impl FnOnce(Request<OutBody>) -> Outgoing,
    is_silent: bool,
) -> Failed {
    let unsent = error.take_message().map(join);
    let hyper = error.into_error();
    let error = before_head(&hyper);
    let has_died = matches!(error, SendError::Reset(_)) && !is_of_one_stream(&hyper);
    Failed {
        error,
        unsent,
        is_silent: (is_silent && has_died) || was_refused(&hyper),
    }
}

/// Waits for `sending`, as long as the request's body moves and then for `time`. `None`: too long.
async fn head_within<F: Future>(
    sending: F,
    time: Duration,
    progress: Option<&Progress>,
) -> Option<F::Output> {
    let mut sending = pin!(sending);
    let mut seen = (0, false);
    loop {
        if let Ok(answered) = timeout(time, sending.as_mut()).await {
            return Some(answered);
        }
        let progress = progress?;
        let now = (progress.frames(), progress.is_done());
        if now == seen {
            return None;
        }
        seen = now;
    }
}

/// An answer that is no change of protocol, with its body.
pub(crate) fn plain_answer(
    (response, lease): (Response<Incoming>, Lease),
) -> Result<Response<UpstreamBody>, SendError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let what = "it changes the protocol unasked";
        return Err(SendError::MalformedResponse(what.into()));
    }
    Ok(response.map(|incoming| UpstreamBody::new(incoming, lease)))
}

/// Whether a request may be sent again when something went wrong on the way.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}
