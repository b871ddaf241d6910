//! Request ids and W3C Trace Context.
//!
//! `traceparent` is honoured when it is well-formed (W3C Trace Context §3.2, version 00) and
//! replaced when it is not; each request gets a span id of its own.

use std::cell::Cell;
use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// A number for ids: different each time, not secret.
pub fn next_random() -> u64 {
    STATE.with(|state| {
        let mut seed = state.get();
        if seed == 0 {
            seed = crate::sys::random_u64() | 1;
        }
        // SplitMix64 (Steele, Lea, Flood 2014): a full period over 64 bits.
        let next = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// The ids of one request.
#[derive(Debug, Clone)]
pub struct Ids {
    /// 32 hex digits, ours alone.
    pub request: HeaderValue,
    /// The `traceparent` that goes on with the request.
    pub traceparent: HeaderValue,
}

impl Ids {
    /// The ids for a request with these header fields.
    pub fn new(headers: &HeaderMap) -> Self {
        let mut request = String::with_capacity(32);
        let _ = write!(request, "{:016x}{:016x}", next_random(), next_random());
        let span = next_random().max(1);
        let mut traceparent = String::with_capacity(55);
        match parent(headers) {
            Some((trace, flags)) => {
                let _ = write!(traceparent, "00-{trace}-{span:016x}-{flags}");
            }
            None => {
                let _ = write!(traceparent, "00-{request}-{span:016x}-00");
            }
        }
        Self {
            request: shared(request),
            traceparent: shared(traceparent),
        }
    }

    /// The request id as text.
    pub fn request(&self) -> &str {
        self.request.to_str().unwrap_or_default()
    }

    /// The `traceparent` as text.
    pub fn traceparent(&self) -> &str {
        self.traceparent.to_str().unwrap_or_default()
    }
}

/// A header value that is not copied when it is used again. Ids are hex and hyphens, so it is one.
fn shared(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The trace id and flags of a valid `traceparent`, of which there must be one.
fn parent(headers: &HeaderMap) -> Option<(&str, &str)> {
    let mut values = headers.get_all("traceparent").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let mut parts = value.to_str().ok()?.split('-');
    let version = parts.next().filter(|it| is_hex(it, 2) && *it != "ff")?;
    let trace = parts.next().filter(|it| is_hex(it, 32) && !is_zero(it))?;
    parts.next().filter(|it| is_hex(it, 16) && !is_zero(it))?;
    let flags = parts.next().filter(|it| is_hex(it, 2))?;
    // Version 00 ends here; a later one may go on (§3.2.4).
    (version != "00" || parts.next().is_none()).then_some((trace, flags))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn emitted(values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", HeaderValue::from_str(value).unwrap());
        }
        Ids::new(&headers).traceparent().to_owned()
    }

    #[test]
    fn a_valid_parent_keeps_its_trace_and_flags_and_gets_a_new_span() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let out = emitted(&[&parent]);
        assert!(out.starts_with(&format!("00-{TRACE}-")) && out.ends_with("-01"));
        assert_ne!(out, parent);
    }

    #[test]
    fn an_invalid_parent_starts_a_new_trace() {
        let zero = "0".repeat(32);
        for bad in [
            "",
            "00",
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{zero}-00f067aa0ba902b7-01"),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-extra"),
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
        ] {
            let out = emitted(&[bad]);
            assert!(!out.contains(TRACE) && out.len() == 55, "{bad}: {out}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert!(!emitted(&[&parent, &parent]).contains(TRACE));
    }

    #[test]
    fn request_ids_differ() {
        let none = HeaderMap::new();
        assert_ne!(Ids::new(&none).request, Ids::new(&none).request);
    }
}
