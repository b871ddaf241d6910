//! How much of a head hyper reads: at least what the stage admit allows.
//!
//! Beyond that hyper refuses; the answer is still ours (`Answering::unreadable`), and the connection ends.

use crate::node::Node;

/// What is read however little is allowed, so that most heads beyond are refused by the stage, which ends
/// no connection.
const HTTP1: usize = 256 << 10;
const HTTP2: u32 = 128 << 10;
/// The request line, less its target.
const LINE: usize = 128;
/// What a field counts in HTTP/2 beside its bytes (RFC 9113 §6.5.2); the four pseudo-fields too.
const OF_A_FIELD: u64 = 32;
/// hyper keeps room for so many fields on the stack, and takes 2 µs to make room for more.
const WITHOUT_ASKING: u64 = 100;

/// What the plan in force allows of a head; nothing where there is no plan.
#[derive(Default)]
pub struct HeadRoom {
    bytes: u64,
    target: u64,
    fields: u64,
}

impl HeadRoom {
    pub fn of(node: &Node) -> Self {
        let Some(plan) = node.plan() else {
            return Self::default();
        };
        let limits = &plan.admit.limits;
        Self {
            bytes: limits.max_header_bytes,
            target: limits.max_uri_bytes,
            fields: limits.max_headers,
        }
    }

    /// Bytes of a head in HTTP/1.1.
    pub fn bytes_of_http1(&self) -> usize {
        let allowed = usize::try_from(self.bytes + self.target).unwrap_or(usize::MAX);
        HTTP1.max(allowed.saturating_add(LINE))
    }

    /// Fields of a head in HTTP/1.1; nothing where hyper's own number does.
    pub fn fields_of_http1(&self) -> Option<usize> {
        let fields = usize::try_from(self.fields).ok()?;
        (self.fields > WITHOUT_ASKING).then_some(fields)
    }

    /// The size of a list of fields in HTTP/2.
    pub fn list_of_http2(&self) -> u32 {
        let allowed = self.bytes + self.target + (self.fields + 4) * OF_A_FIELD;
        HTTP2.max(u32::try_from(allowed).unwrap_or(u32::MAX))
    }
}
