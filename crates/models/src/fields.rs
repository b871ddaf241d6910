//! The fields of a request, read: each once at most.
//!
//! Must not: know what is answered.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::oip::Refusal;
use crate::queue::Criticality;

/// Binary tensor data extension: how many bytes of a body are JSON.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Of a request: requests with the same value may run together. Of an answer: how many did.
const TENANT: HeaderName = HeaderName::from_static("x-vedette-tenant");
/// Whose turn is first: `critical` or `sheddable`; absent: as most are.
const CRITICALITY: HeaderName = HeaderName::from_static("x-vedette-criticality");

/// A whole number; `None`: it is not there.
///
/// # Errors
/// 400.
pub fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<usize>, Refusal> {
    let Some(value) = only(headers, name)? else {
        return Ok(None);
    };
    let digits = value
        .to_str()
        .ok()
        .filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|it| it.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::bad(format_args!("{name} is no whole number"))),
    }
}

/// The value of a header that is there once at most: whoever reads another one of two reads another request.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::bad(format_args!("{name} is there twice"))),
    }
}

/// Who asks; none where that is not said, or not once.
pub fn tenant(headers: &HeaderMap) -> Option<Bytes> {
    let value = only(headers, &TENANT).ok().flatten()?;
    (!value.is_empty()).then(|| Bytes::copy_from_slice(value.as_bytes()))
}

/// Whose turn is first.
///
/// # Errors
/// 400.
pub fn criticality(headers: &HeaderMap) -> Result<Criticality, Refusal> {
    match only(headers, &CRITICALITY)?.map(HeaderValue::as_bytes) {
        None => Ok(Criticality::Standard),
        Some(b"critical") => Ok(Criticality::Critical),
        Some(b"sheddable") => Ok(Criticality::Sheddable),
        Some(_) => Err(Refusal::bad(format_args!("{CRITICALITY} is none"))),
    }
}
