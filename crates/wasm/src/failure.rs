//! Why a call of a function did not end in a response.

use std::fmt;

use wasmtime::{PoolConcurrencyLimitError, Trap};

/// The reasons a guest can fail, one per cause that the record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The guest used up its CPU time.
    CpuTime,
    /// The guest did not finish within its wall time.
    WallTime,
    /// The guest asked for more memory than it may have, and ended because of it.
    Memory,
    /// The guest ran out of stack.
    Stack,
    /// The guest trapped: the wasm trap, as wasmtime words it.
    Trap(String),
    /// The guest returned without having set a response.
    NoResponse,
    /// No slot is free in the instance pool.
    PoolExhausted,
    /// The guest's response broke HTTP (for example a false content-length).
    ResponseInvalid(String),
    /// The guest's response body is larger than the function may send.
    ResponseTooLarge,
    /// The compiled code is missing or does not load.
    Unavailable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CpuTime => f.write_str("the function used up its CPU time"),
            Self::WallTime => f.write_str("the function did not finish in time"),
            Self::Memory => f.write_str("the function asked for more memory than it may have"),
            Self::Stack => f.write_str("the function ran out of stack"),
            Self::Trap(what) => write!(f, "the function trapped: {what}"),
            Self::NoResponse => f.write_str("the function returned without a response"),
            Self::PoolExhausted => f.write_str("no free instance slot"),
            Self::ResponseInvalid(what) => write!(f, "the function's response is invalid: {what}"),
            Self::ResponseTooLarge => f.write_str("the function's response is too large"),
            Self::Unavailable(what) => write!(f, "the function cannot be loaded: {what}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Raised inside the guest by the epoch callback when the CPU time is used up.
#[derive(Debug)]
pub(crate) struct CpuTimeExceeded;

impl fmt::Display for CpuTimeExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CPU time exceeded")
    }
}

impl std::error::Error for CpuTimeExceeded {}

/// Says why a guest ended with `error`. `memory_denied` is whether a growth of its memory was
/// refused: a guest's allocator answers that with a trap of its own, so the trap alone misleads.
pub(crate) fn classify(error: &wasmtime::Error, memory_denied: bool) -> Failure {
    if error.is::<CpuTimeExceeded>() {
        return Failure::CpuTime;
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Failure::PoolExhausted;
    }
    if memory_denied {
        return Failure::Memory;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Failure::Stack,
        Some(trap) => Failure::Trap(trap.to_string()),
        None => Failure::Trap(format!("{error:#}")),
    }
}
