//! The body of a function's response, which drives the guest while it is read.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::task::coop::unconstrained;
use wasmtime_wasi_http::WasiBody;

use crate::call::Run;
use crate::failure::Failure;

/// A response body: all there already, or still being made by a running guest.
pub struct GuestBody(State);

enum State {
    Whole(Whole),
    Streaming(Box<Streaming>),
    Ended,
}

/// A body that the guest had finished before its head was passed on.
#[derive(Default)]
pub(crate) struct Whole {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

struct Streaming {
    run: Run,
    /// What had been taken when it turned out that the body outlives the guest.
    taken: Whole,
    inner: WasiBody,
    left: u64,
    /// What is left of the length that the head promised.
    promised: Option<u64>,
}

impl GuestBody {
    pub(crate) fn whole(whole: Whole) -> Self {
        Self(State::Whole(whole))
    }

    pub(crate) fn streaming(
        run: Run,
        taken: Whole,
        inner: WasiBody,
        response_bytes: u64,
        promised: Option<u64>,
    ) -> Self {
        Self(State::Streaming(Box::new(Streaming {
            run,
            taken,
            inner,
            left: response_bytes,
            promised,
        })))
    }

    /// When the guest must have ended; none when it has. A body that nobody polls cannot look at a
    /// clock, so whoever holds it drops it then.
    pub fn wall_end(&self) -> Option<Instant> {
        match &self.0 {
            State::Streaming(streaming) if streaming.may_go_on() => Some(streaming.run.wall_end()),
            _ => None,
        }
    }
}

impl Whole {
    /// Takes what an ended guest has left in `inner`, at most `limit` bytes. Says whether that is
    /// all; what is left open comes from elsewhere, or never.
    pub(crate) fn take(
        &mut self,
        inner: &mut WasiBody,
        limit: u64,
        cx: &mut Context<'_>,
    ) -> Result<bool, Failure> {
        loop {
            match poll_what_is_there(inner, cx) {
                Poll::Ready(None) => return Ok(true),
                Poll::Ready(Some(Ok(frame))) => self.push(frame),
                Poll::Ready(Some(Err(error))) => {
                    return Err(Failure::ResponseInvalid(format!("{error:?}")));
                }
                Poll::Pending => return Ok(false),
            }
            if self.len() as u64 > limit {
                return Err(Failure::ResponseTooLarge);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.data.as_ref().map_or(0, Bytes::len)
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => {
                self.data = Some(match self.data.take() {
                    None => data,
                    Some(before) => {
                        let mut both = BytesMut::with_capacity(before.len() + data.len());
                        both.extend_from_slice(&before);
                        both.extend_from_slice(&data);
                        both.freeze()
                    }
                });
            }
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        if let Some(data) = self.data.take().filter(|data| !data.is_empty()) {
            return Some(Frame::data(data));
        }
        self.trailers.take().map(Frame::trailers)
    }
}

impl Streaming {
    /// Whether the guest, or whoever it passes on, is still at work.
    fn may_go_on(&self) -> bool {
        !self.run.has_ended() || self.run.may_pass_on
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(frame) = self.taken.next() {
            return Poll::Ready(Some(self.count(frame)));
        }
        loop {
            let is_left_behind = !self.may_go_on();
            let polled = match is_left_behind {
                true => poll_what_is_there(&mut self.inner, cx),
                false => Pin::new(&mut self.inner).poll_frame(cx),
            };
            match polled {
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(self.count(frame))),
                Poll::Ready(Some(Err(error))) => return self.poll_cause(&error, cx),
                Poll::Ready(None) => return Poll::Ready(self.require_whole()),
                Poll::Pending if is_left_behind => {
                    let failure = Failure::ResponseInvalid("the body was not finished".into());
                    return Poll::Ready(Some(Err(failure)));
                }
                Poll::Pending if self.run.has_ended() => return Poll::Pending,
                Poll::Pending => {}
            }
            match self.run.poll(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                Poll::Pending => return self.poll_once_more(cx),
            }
        }
    }

    /// The guest may have written while it ran; its waker is then already spent on this poll.
    fn poll_once_more(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.count(frame))),
            Poll::Ready(Some(Err(error))) => self.poll_cause(&error, cx),
            Poll::Ready(None) => Poll::Ready(self.require_whole()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// At the end of the body, all that the head promised has been sent.
    fn require_whole(&self) -> Option<Result<Frame<Bytes>, Failure>> {
        let missing = self.promised.filter(|promised| *promised > 0)?;
        let what = format!("the body is {missing} bytes shorter than content-length says");
        Some(Err(Failure::ResponseInvalid(what)))
    }

    /// A broken body is most often the sign of a guest that trapped: say that instead.
    fn poll_cause(
        &mut self,
        error: &wasmtime_wasi_http::Error,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let failure = match self.run.poll(cx) {
            Poll::Ready(Err(failure)) => failure,
            _ => Failure::ResponseInvalid(format!("{error:?}")),
        };
        Poll::Ready(Some(Err(failure)))
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Failure> {
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        self.left = self
            .left
            .checked_sub(size)
            .ok_or(Failure::ResponseTooLarge)?;
        if frame.is_trailers() {
            // Nothing follows them, and hyper does not ask.
            self.promised = Some(0);
        } else if let Some(promised) = &mut self.promised {
            // RFC 9110 §8.6; over HTTP/2 nothing below this would hold the rest back.
            *promised = promised.checked_sub(size).ok_or_else(too_long)?;
        }
        Ok(frame)
    }
}

/// What is there of a body that nobody writes any more, or of which little is taken. Without tokio's
/// budget, which would say of a channel with something in it that there is nothing yet.
fn poll_what_is_there(
    body: &mut WasiBody,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, wasmtime_wasi_http::Error>>> {
    let next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
    pin!(unconstrained(next)).poll(cx)
}

fn too_long() -> Failure {
    Failure::ResponseInvalid("the body is longer than content-length says".into())
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let polled = match &mut self.0 {
            State::Whole(whole) => return Poll::Ready(whole.next().map(Ok)),
            State::Ended => return Poll::Ready(None),
            State::Streaming(streaming) => streaming.poll_frame(cx),
        };
        match &polled {
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Err(_))) => self.0 = State::Ended,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Whole(whole) => whole.len() == 0 && whole.trailers.is_none(),
            // hyper stops polling at the promised length.
            State::Streaming(streaming) => streaming.promised == Some(0),
            State::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Whole(whole) if whole.trailers.is_none() => {
                SizeHint::with_exact(whole.len() as u64)
            }
            State::Ended => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

impl GuestBody {
    fn finish(&mut self) {
        if let State::Streaming(streaming) = mem::replace(&mut self.0, State::Ended) {
            // The body it wrote goes first: a guest of WASI 0.3 may wait for that.
            let Streaming { run, inner, .. } = *streaming;
            drop(inner);
            run.go_on();
        }
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.finish();
        }
    }
}
