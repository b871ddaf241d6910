//! gRPC over HTTP/2, as far as this node ends it: one message each way, its status, its deadline.
//!
//! Follows <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. A refusal of any stage reaches a caller of gRPC
//! as a status in trailers alone, whoever would have answered. Must not: know services; those of others pass as they come.

mod message;

use std::fmt::Write as _;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};

use crate::refusal::{Cause, Refusal};

pub use message::{Message, PREFIX, Reply, length_of, reply};

/// What a call and its answer are.
pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// How messages may be compressed.
pub const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// Not at all.
pub const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Characters of a sentence that is told.
const MOST_TOLD: usize = 2000;

/// A status code of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// It was answered.
    pub const OK: Self = Self(0);
    const UNKNOWN: Self = Self(2);
    const INVALID_ARGUMENT: Self = Self(3);
    const DEADLINE_EXCEEDED: Self = Self(4);
    const NOT_FOUND: Self = Self(5);
    const PERMISSION_DENIED: Self = Self(7);
    const RESOURCE_EXHAUSTED: Self = Self(8);
    const UNIMPLEMENTED: Self = Self(12);
    const INTERNAL: Self = Self(13);
    const UNAVAILABLE: Self = Self(14);
    const UNAUTHENTICATED: Self = Self(16);

    /// The status that a refusal amounts to. Where gRPC says what a client makes of a status of HTTP
    /// (`doc/http-grpc-status-mapping.md`), it is that, but where what happened here is known better: a request that does not
    /// fit (400, 415), a model that is not there (404), what came too late (504), or broke (500). A message too many is what
    /// the servers of gRPC in Go and Java make of it.
    pub fn of(cause: Cause, status: StatusCode) -> Self {
        match status.as_u16() {
            400 if cause == Cause::CallSurplus => Self::INTERNAL,
            400 | 415 => Self::INVALID_ARGUMENT,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            // Nothing is deployed there: to a client, a method that nobody has.
            404 if cause == Cause::NotFound => Self::UNIMPLEMENTED,
            404 => Self::NOT_FOUND,
            405 | 421 | 501 => Self::UNIMPLEMENTED,
            408 | 504 => Self::DEADLINE_EXCEEDED,
            413 | 414 | 431 => Self::RESOURCE_EXHAUSTED,
            429 | 502 | 503 => Self::UNAVAILABLE,
            500 => Self::INTERNAL,
            _ => Self::UNKNOWN,
        }
    }
}

/// Whether a request is a call of gRPC. Over HTTP/1.1 there are none, and what browsers send is another protocol.
pub fn is_call(parts: &Parts) -> bool {
    let media_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = media_type.and_then(|it| it.strip_prefix(b"application/grpc"));
    let is_grpc = rest.is_some_and(|rest| rest.first().is_none_or(|it| b"+; ".contains(it)));
    is_grpc && parts.version == Version::HTTP_2
}

/// Whether a caller says how its messages are compressed.
pub fn says_encoding(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_some_and(|it| it != IDENTITY)
}

/// Makes `headers` those of an answer that is a status alone.
pub fn set_status(headers: &mut HeaderMap, code: Code, sentence: &str) {
    headers.insert(CONTENT_TYPE, MEDIA_TYPE);
    headers.insert(STATUS, HeaderValue::from(u16::from(code.0)));
    if let Ok(message) = HeaderValue::from_str(&escaped(sentence)) {
        headers.insert(MESSAGE, message);
    }
}

/// The trailers of an answer.
pub fn trailers() -> HeaderMap {
    let ok = HeaderValue::from(u16::from(Code::OK.0));
    HeaderMap::from_iter([(STATUS, ok)])
}

/// A sentence as `grpc-message` has it: percent-encoded, but for printable ASCII.
fn escaped(sentence: &str) -> String {
    let mut out = String::with_capacity(sentence.len());
    for character in sentence.chars().take(MOST_TOLD) {
        let mut bytes = [0; 4];
        for byte in character.encode_utf8(&mut bytes).bytes() {
            match byte {
                b'%' | 0..0x20 | 0x7f.. => drop(write!(out, "%{byte:02X}")),
                _ => out.push(char::from(byte)),
            }
        }
    }
    out
}

/// How long the caller waits, where it says: at most eight digits and a unit.
///
/// # Errors
/// It says something else, or says it twice.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let mut said = headers.get_all(TIMEOUT).iter();
    let Some(value) = said.next() else {
        return Ok(None);
    };
    let refused = || Refusal::with(Cause::DeadlineMalformed, "grpc-timeout");
    if said.next().is_some() {
        return Err(refused());
    }
    let (unit, digits) = value.as_bytes().split_last().ok_or_else(refused)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number);
    let number: u64 = digits.and_then(|it| it.parse().ok()).ok_or_else(refused)?;
    let time = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(refused()),
    };
    Ok(Some(time))
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
