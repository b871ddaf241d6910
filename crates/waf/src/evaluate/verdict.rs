//! What the rules said of a request.

use std::net::IpAddr;

/// Values told of one rule, at most.
pub(super) const MOST_PLACES: usize = 16;
/// Bytes told of one value, at most.
pub(super) const MOST_TOLD: usize = 256;

/// What is to be done instead of going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Refuse with the status.
    Deny,
    /// Close the connection.
    Drop,
    /// Send the client there.
    Redirect(String),
}

/// The rule that ended the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// The rule.
    pub rule: u64,
    /// Its phase, 1 to 5.
    pub phase: u8,
    /// What is to be done.
    pub answer: Answer,
    /// The status to answer with.
    pub status: u16,
    /// The rule's message.
    pub message: String,
}

/// Where a rule found what it looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The variable with its part, as `ARGS:q`.
    pub variable: String,
    /// The bytes that matched, or the value where the operator has no narrower ones; bounded.
    pub bytes: Vec<u8>,
}

/// A rule that matched and is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The rule.
    pub rule: u64,
    /// Its phase, 1 to 5.
    pub phase: u8,
    /// Its message.
    pub message: String,
    /// Its `logdata`.
    pub data: Vec<u8>,
    /// 0 (emergency) to 7 (debug).
    pub severity: Option<u8>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Where, the first few.
    pub found: Vec<Found>,
    /// The number of values that matched.
    pub values: u32,
}

/// The outcome of a transaction.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The rule that ended it.
    pub interruption: Option<Interruption>,
    /// The rules that matched, in order.
    pub matched: Vec<Matched>,
    /// Whether a rule asked for a record of it, and none forbade it.
    pub is_recorded: bool,
    /// Whether there were more texts than room, so that not all was judged.
    pub is_exhausted: bool,
}

/// Both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The client.
    pub client: (IpAddr, u16),
    /// The server.
    pub server: (IpAddr, u16),
}
