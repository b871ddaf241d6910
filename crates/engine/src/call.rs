//! A call of the Open Inference Protocol over gRPC: which method, of which model.
//!
//! Owns: finding that out, once it is known who calls, and leading the call to the route of the model. The model's name is
//! in the message, so that the first bytes of one are read before policy is asked, [`MOST_READ`] at most. What is found
//! decides where the call leads, and whether the caller may `predict` there; the message goes on as it came, and the
//! model's process takes none that names another.
//! Must not: read tensors.

pub mod messages;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;

use crate::body::{BodyMeter, LimitedBody, Unread};
use crate::grpc::{PREFIX, length_of, says_encoding};
use crate::node::Node;
use crate::plan::{Backend, Plan};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::authenticate::Authenticated;
use messages::{Found, Named, named};

/// Where calls go: the service of `open_inference_grpc.proto`.
pub const SERVICE: &str = "/inference.GRPCInferenceService";
/// Bytes of a message that are looked at: the model's name and version are its first fields, as every encoder writes them.
const MOST_READ: usize = 1 << 10;
/// Bytes of such beginnings that the node keeps, all calls together.
const KEPT_BACK: usize = 256 << 20;

/// What may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Whether the node is there.
    ServerLive,
    /// Whether all models are.
    ServerReady,
    /// What the node is.
    ServerMetadata,
    /// Whether a model is there.
    ModelReady,
    /// What it takes and gives.
    ModelMetadata,
    /// A prediction.
    ModelInfer,
}

/// A call.
#[derive(Debug)]
pub struct Rpc {
    /// What is called.
    pub method: Method,
    /// Bytes of its message.
    pub length: u32,
    /// The version that it names, as digits.
    pub version: Option<Box<str>>,
}

impl Method {
    fn of(path: &str) -> Option<Self> {
        let name = path.strip_prefix(SERVICE)?.strip_prefix('/')?;
        Some(match name {
            "ServerLive" => Self::ServerLive,
            "ServerReady" => Self::ServerReady,
            "ServerMetadata" => Self::ServerMetadata,
            "ModelReady" => Self::ModelReady,
            "ModelMetadata" => Self::ModelMetadata,
            "ModelInfer" => Self::ModelInfer,
            _ => return None,
        })
    }

    fn is_of_a_model(self) -> bool {
        matches!(
            self,
            Self::ModelReady | Self::ModelMetadata | Self::ModelInfer
        )
    }
}

/// Leads a call to the route of the model that its message names. Any other request stays as it is.
pub async fn lead(
    node: &Node,
    plan: &Plan,
    record: &mut Record,
    mut authenticated: Authenticated,
    body: &mut Unread,
) -> Result<Authenticated, Refusal> {
    let routed = authenticated.routed();
    if !matches!(routed.target().backend, Backend::Calls) {
        return Ok(authenticated);
    }
    if !record.is_grpc {
        let what = "gRPC comes over HTTP/2, as application/grpc";
        return Err(Refusal::with(Cause::CallMalformed, what));
    }
    let Some(method) = Method::of(routed.admitted().path()) else {
        return Err(Refusal::with(Cause::CallUnsupported, "no such method"));
    };
    let pace = plan.admit.limits.timers.body_bytes_per_second;
    // On the heap: what few requests need is no part of every request.
    let opened = Box::pin(opening(node, record, body, pace, method)).await;
    let headers = &routed.admitted().parts().headers;
    let (length, named) = opened.map_err(|it| of_encoding(it, says_encoding(headers)))?;
    let mut call = Rpc {
        method,
        length,
        version: None,
    };
    if let Some(Named { model, version }) = named {
        call.version = Some(version).filter(|it| !it.is_empty());
        if let Some(version) = &call.version {
            require_version(version)?;
        }
        let host = routed.host(record);
        let found = plan.find_model(host, &model, routed.admitted().parts());
        let target = found.ok_or(Cause::ModelNotFound)?;
        record.target = Some(Arc::clone(target));
        authenticated.routed_mut().lead(Arc::clone(target));
    }
    authenticated.routed_mut().calls(call);
    Ok(authenticated)
}

/// What is compressed by nothing that was named is no message (gRPC's `compression.md`).
fn of_encoding(refusal: Refusal, is_named: bool) -> Refusal {
    match refusal.cause {
        Cause::CallCompressed if !is_named => {
            Refusal::with(Cause::CallMalformed, "compressed, without grpc-encoding")
        }
        _ => refusal,
    }
}

/// It becomes a part of a path.
fn require_version(version: &str) -> Result<(), Refusal> {
    let is_number = version.len() <= 19 && version.bytes().all(|it| it.is_ascii_digit());
    match is_number {
        true => Ok(()),
        false => Err(Refusal::with(Cause::ModelNotFound, "no such version")),
    }
}

/// Reads so much of the message that the model is known, where the method is of one; all of it is read again later.
async fn opening(
    node: &Node,
    record: &mut Record,
    body: &mut Unread,
    pace: u64,
    method: Method,
) -> Result<(u32, Option<Named>), Refusal> {
    let meter = Arc::new(BodyMeter::default());
    record.bytes_in = Some(Arc::clone(&meter));
    let whole = std::mem::take(body);
    let mut reading = LimitedBody::new(whole, u64::MAX, pace, Arc::clone(&meter));
    let (mut kept, mut room) = (VecDeque::new(), node.kept_back.room());
    let mut seen = Vec::new();
    let found = loop {
        if let Some(found) = look(&seen, method)? {
            break found;
        }
        let frame = match reading.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                let cause = meter.cut_off().unwrap_or(Cause::RequestBroken);
                return Err(Refusal::with(cause, error.to_string()));
            }
            None => {
                let what = "the message ends early";
                return Err(Refusal::with(Cause::CallMalformed, what));
            }
        };
        let data = frame.data_ref().map_or(&[][..], Bytes::as_ref);
        if !room.grow(data.len(), KEPT_BACK) {
            return Err(Refusal::with(Cause::Overloaded, "too much is kept back"));
        }
        let more = (MOST_READ + PREFIX).saturating_sub(seen.len());
        seen.extend_from_slice(data.get(..more).unwrap_or(data));
        kept.push_back(frame);
    };
    *body = reading.into_inner();
    body.put_back(kept, room);
    Ok(found)
}

/// What the beginning of a body says; `None`: more of it has to be read.
fn look(seen: &[u8], method: Method) -> Result<Option<(u32, Option<Named>)>, Refusal> {
    let Some((prefix, message)) = seen.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = length_of(*prefix)?;
    if !method.is_of_a_model() {
        return Ok(Some((length, None)));
    }
    let whole = usize::try_from(length).unwrap_or(usize::MAX);
    let message = message.get(..whole).unwrap_or(message);
    match named(message, message.len() == whole) {
        Found::Named(named) => Ok(Some((length, Some(named)))),
        Found::More if message.len() < MOST_READ => Ok(None),
        Found::More | Found::Nothing => {
            let what = "the name of a model is not its first field";
            Err(Refusal::with(Cause::CallMalformed, what))
        }
    }
}

#[cfg(test)]
#[path = "call_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
