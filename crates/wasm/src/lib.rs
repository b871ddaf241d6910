//! Runs `wasi:http` components of WASI 0.2 and 0.3 within limits: a fresh instance per request, or
//! one that is used again where its function says so.
//!
//! Owns everything that names a wasmtime type, so that the crates above rebuild quickly. It knows
//! nothing of routes, callers or policy: it is handed a request and gives back a response whose
//! body goes on driving the guest. Dropping that body (or the call) stops the guest at once.
//!
//! Must not: open a socket, read a file other than the compiled code it is told to load, or accept
//! compiled code that this node did not make itself (see [`mod@load`]).

mod body;
mod call;
mod compile;
mod failure;
mod guest;
mod instance;
#[allow(unsafe_code)]
mod load;
mod log;
mod meter;
mod nn;
mod outbound;
mod runtime;
mod ticker;

pub use body::GuestBody;
pub use call::Call;
pub use compile::{AdmitError, AdmitErrorCode, precompile};
pub use failure::Failure;
pub use guest::{FunctionSpec, Limits, Reuse};
pub use load::Function;
pub use log::{LogSink, Stream};
pub use outbound::{Interface, Outbound, OutboundAnswer, OutboundCall, OutboundTimeouts};
pub use runtime::{Allocator, Runtime, RuntimeOptions, engine_key};
pub use wasmtime_wasi_http::{Error as BodyError, WasiBody as OutboundBody};

/// The body a guest reads: boxed, not shared between threads, erring with [`BodyError`].
pub type RequestBody = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BodyError>;
