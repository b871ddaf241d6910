//! The framing of gRPC: a message with its length before it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use vedette_wasm::{BodyError, Failure};

use super::trailers;
use crate::body::{BodyMeter, Content};
use crate::refusal::{Cause, Refusal};

/// Bytes before a message: whether it is compressed, and its length.
pub const PREFIX: usize = 5;

/// The length of the message behind `prefix`.
///
/// # Errors
/// `call_compressed`; `call_malformed`.
pub fn length_of(prefix: [u8; PREFIX]) -> Result<u32, Refusal> {
    let [flag, length @ ..] = prefix;
    match flag {
        0 => Ok(u32::from_be_bytes(length)),
        1 => Err(Cause::CallCompressed.into()),
        _ => Err(Refusal::with(
            Cause::CallMalformed,
            "no prefix of a message",
        )),
    }
}

/// The one message of a call, without its prefix. The end of it goes on when the end of the call has come: what has more
/// than one message is answered by nobody.
pub struct Message<B> {
    body: B,
    meter: Arc<BodyMeter>,
    /// Bytes of the prefix that are still to come.
    prefix: usize,
    left: u64,
    /// The end of it.
    last: Option<Bytes>,
    is_over: bool,
}

impl<B> Message<B> {
    /// The message in `body`, which is so long.
    pub fn new(body: B, length: u32, meter: Arc<BodyMeter>) -> Self {
        Self {
            body,
            meter,
            prefix: PREFIX,
            left: u64::from(length),
            last: None,
            is_over: false,
        }
    }

    /// Takes what came; what of it goes on now.
    fn take(&mut self, mut data: Bytes) -> Result<Option<Bytes>, BodyError> {
        let skipped = self.prefix.min(data.len());
        data.advance(skipped);
        self.prefix -= skipped;
        let left = self.left.checked_sub(data.len() as u64);
        self.left = left.ok_or_else(|| {
            self.meter.has_surplus();
            BodyError::HttpRequestBodySize(None)
        })?;
        if data.is_empty() {
            return Ok(None);
        }
        if self.left == 0 {
            self.last = Some(data);
            return Ok(None);
        }
        Ok(Some(data))
    }
}

impl<B> Body for Message<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.is_over {
                return Poll::Ready(None);
            }
            let data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.left == 0 && self.prefix == 0 => {
                    self.is_over = true;
                    let last = self.last.take();
                    return Poll::Ready(last.map(|it| Ok(Frame::data(it))));
                }
                // It ended within the message.
                None => return Poll::Ready(Some(Err(BodyError::HttpRequestBodySize(None)))),
            };
            match self.take(data) {
                Ok(None) => {}
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        let last = self.last.as_ref().map_or(0, |it| it.len() as u64);
        SizeHint::with_exact(self.left + last)
    }
}

/// The answer to a call: one message, and that all is well.
pub struct Reply {
    prefix: Option<Bytes>,
    message: Option<Content>,
    trailers: Option<HeaderMap>,
}

/// The answer whose message is `message`, which has so many bytes.
///
/// # Errors
/// `upstream_invalid`: gRPC has no number for so many.
pub fn reply(message: Content, length: u64) -> Result<Content, Refusal> {
    let too_long = |_| Refusal::with(Cause::UpstreamInvalid, "4 GiB or more in one message");
    let length = u32::try_from(length).map_err(too_long)?;
    let mut prefix = vec![0];
    prefix.extend_from_slice(&length.to_be_bytes());
    Ok(Content::Reply(Box::new(Reply {
        prefix: Some(prefix.into()),
        message: Some(message),
        trailers: Some(trailers()),
    })))
}

impl Reply {
    /// The next part of it.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(prefix) = self.prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        while let Some(message) = &mut self.message {
            match ready!(message.poll_frame(cx)) {
                Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
                Some(Ok(_)) => {}
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
                None => self.message = None,
            }
        }
        let trailers = self.trailers.take();
        Poll::Ready(trailers.map(|it| Ok(Frame::trailers(it))))
    }

    /// Where its message comes from, while it does.
    pub fn message(&self) -> Option<&Content> {
        self.message.as_ref()
    }

    /// Whether nothing of it is left.
    pub fn is_end(&self) -> bool {
        self.trailers.is_none()
    }
}
