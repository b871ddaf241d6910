//! A request's body that is kept, so that it can be sent more than once.
//!
//! Owns: reading it, within a bound and within what the node keeps of bodies at all. Must not: look into it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use vedette_wasm::{BodyError, RequestBody};

use crate::node::{Node, Room};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::inspect::KEPT_BACK;

/// The largest body that is kept.
const MOST: usize = 16 << 20;

/// All of a body, and the room that it takes.
pub struct Kept {
    /// What it is.
    pub bytes: Bytes,
    _room: Room,
}

impl Kept {
    /// The same once more.
    pub fn body(&self) -> RequestBody {
        let full = Full::new(self.bytes.clone()).map_err(|never| match never {});
        full.map_err(|never: BodyError| never).boxed_unsync()
    }
}

/// Reads a body. One that is too large, or for which the node has no room, goes on as it is.
///
/// # Errors
/// It broke off.
pub async fn keep(
    node: &Node,
    record: &Record,
    mut body: RequestBody,
) -> Result<Result<Kept, RequestBody>, Refusal> {
    if body.size_hint().lower() > MOST as u64 {
        return Ok(Err(body));
    }
    let (mut frames, mut room, mut size) = (VecDeque::new(), node.kept_back.room(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let cut_off = record.bytes_in.as_ref().and_then(|meter| meter.cut_off());
            let cause = cut_off.unwrap_or(Cause::RequestBroken);
            Refusal::with(cause, error.to_string())
        })?;
        let more = frame.data_ref().map_or(0, Bytes::len);
        frames.push_back(frame);
        size += more;
        if size > MOST || !room.grow(more, KEPT_BACK) {
            let all = ReadAgain {
                frames,
                rest: body,
                _room: room,
            };
            return Ok(Err(all.boxed_unsync()));
        }
    }
    let mut bytes = BytesMut::with_capacity(size);
    for data in frames.iter().filter_map(Frame::data_ref) {
        bytes.extend_from_slice(data);
    }
    Ok(Ok(Kept {
        bytes: bytes.freeze(),
        _room: room,
    }))
}

/// What was read of a body, and the rest of it.
struct ReadAgain {
    frames: VecDeque<Frame<Bytes>>,
    rest: RequestBody,
    _room: Room,
}

impl Body for ReadAgain {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }
}
