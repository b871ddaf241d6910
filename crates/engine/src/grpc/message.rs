//! The framing of gRPC: a message with its length before it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use vedette_wasm::{BodyError, Failure};

use super::trailers;
use crate::body::{Content, LimitedBody};
use crate::refusal::{Cause, Refusal};

/// Bytes before a message: whether it is compressed, and its length.
pub const PREFIX: usize = 5;

/// The length of the message behind `prefix`.
///
/// # Errors
/// `call_unsupported`: it is compressed, which was never said to be understood; `call_malformed`.
pub fn length_of(prefix: [u8; PREFIX]) -> Result<u32, Refusal> {
    let [flag, length @ ..] = prefix;
    match flag {
        0 => Ok(u32::from_be_bytes(length)),
        1 => Err(Refusal::with(
            Cause::CallUnsupported,
            "the message is compressed",
        )),
        _ => Err(Refusal::with(
            Cause::CallMalformed,
            "no prefix of a message",
        )),
    }
}

/// The one message of a call, without its prefix.
pub struct Message {
    body: LimitedBody,
    /// Bytes of the prefix that are still to come.
    prefix: usize,
    left: u64,
}

impl Message {
    /// The message in `body`, which is so long.
    pub fn new(body: LimitedBody, length: u32) -> Self {
        Self {
            body,
            prefix: PREFIX,
            left: u64::from(length),
        }
    }
}

impl Body for Message {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.left == 0 && self.prefix == 0 {
                return Poll::Ready(None);
            }
            let mut data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // It ended within the message.
                None => return Poll::Ready(Some(Err(BodyError::HttpRequestBodySize(None)))),
            };
            let skipped = self.prefix.min(data.len());
            data.advance(skipped);
            self.prefix -= skipped;
            // What follows the message is no part of a call with one; nobody gets it.
            data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if !data.is_empty() {
                self.left -= data.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
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
