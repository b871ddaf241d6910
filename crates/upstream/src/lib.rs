//! The way to other servers: a pooled HTTP client for the services behind the gateway, and for the
//! calls that functions make.
//!
//! Owns: connections, names, TLS towards servers, balancing, retries, health, what may pass from one
//! hop to the next. Must not: know routes, callers or policy, follow redirects, read a file after
//! [`Machine::read`].
//!
//! [`Upstream`] is a service with endpoints that the operator named; [`Egress`] is the way out of a
//! function, to where rules say. Both are shared by all workers, and so are their counters, which are
//! atomics. Connections are not shared: each thread has a pool of its own and is expected to run its
//! own single-threaded runtime. A request on a pooled HTTP/1.1 connection starts no task and takes no
//! lock.
//!
//! An answer's body is polled as it is needed, so memory stays flat however large it is. Dropping it,
//! or the future of a request, cuts the connection (HTTP/1.1) or stream (HTTP/2).

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::too_many_lines
    )
)]

mod active;
mod address;
mod balance;
mod body;
mod breaker;
mod budget;
mod config;
mod connect;
mod dns;
mod egress;
mod error;
mod exchange;
mod fields;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod health;
mod mirror;
mod pool;
mod socket;
mod tally;
mod target;
mod tls;
mod tries;
mod trouble;
mod tunnel;
mod upstream;
mod wire;

pub use address::{Network, is_public};
pub use balance::{EndpointHealth, EndpointState};
pub use body::UpstreamBody;
pub use breaker::{Circuit, CircuitState};
pub use config::{
    AddressRule, BreakerConfig, ClientCertificate, EndpointConfig, HealthConfig, Hedge, Host,
    OutlierConfig, Protocol, Retry, SendOptions, Shares, SlowShare, SpiffeConfig, SpiffeIdentity,
    TlsConfig, UpstreamConfig,
};
pub use dns::{Resolve, Resolving, SystemResolver};
pub use egress::{
    Allowed, Credential, CredentialValue, Denied, Dialled, Egress, EgressConfig, EgressRate,
    EgressRule, EgressRules, TokenSource,
};
pub use error::{BodyError, BoxError, ConfigError, SendError};
pub use fields::strip_hop_by_hop;
pub use socket::{DialSocket, DiallingSocket};
pub use tries::Tries;
pub use trouble::LastError;
pub use tunnel::{Tunnel, WebSocketKey};
pub use upstream::{Counters, Machine, Upstream};

#[cfg(test)]
mod tests;
