//! The data plane: listeners, the request path, and the plan it follows. Knows nothing of Python.
//!
//! A request reads downwards through one function, [`mod@pipeline`]; a stage takes the proof that
//! the stage before it left. What the engine serves is a [`mod@plan`], compiled whole from a signed
//! snapshot and swapped whole.
//!
//! Must not: hold a signing key, write anything but its spool, read anything but its own folder,
//! connect to anything but the services, models and listed hosts of its plan, or wait for control.

mod addresses;
mod body;
mod broker;
mod call;
mod caller;
mod certificate;
mod challenge;
mod changes;
mod clients;
mod clock;
mod conditions;
mod confine;
mod connection;
mod control;
mod egress;
mod envelope;
mod explain;
mod fault;
mod files;
mod first_words;
mod frames;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod grpc;
mod handover;
mod inference;
mod judge;
mod jwt;
mod lease;
mod load;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod measure_tests;
mod mesh;
mod metrics;
mod models;
mod node;
mod offenders;
mod outline;
mod pace;
mod path;
mod pipeline;
mod plain;
mod plan;
mod policy;
mod posture;
mod presence;
mod pressure;
mod record;
mod refusal;
mod remembered;
mod revoked;
mod routes;
mod server;
mod services;
// Generated; words of the Open Inference Protocol are written as it writes them.
#[allow(clippy::upper_case_acronyms)]
mod snapshot;
mod sources;
#[allow(unsafe_code)]
mod spool;
mod stages;
mod streams;
mod svids;
#[allow(unsafe_code)]
mod sys;
mod tiers;
mod tls;
mod trace;
mod tunnel;
mod waf;
mod wire;
mod worker;

pub use explain::explain;
pub use judge::judge;
pub use load::{LoadError, check_snapshot, error_json};
pub use policy::check_policies;
pub use server::{Config, Listener, run};
pub use waf::analyse_rules;

/// The version of this engine.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
