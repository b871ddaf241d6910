//! Why a request was not answered, as values that a caller can map to a status and a cause.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

/// Any error of a body that was handed in.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// No address accepted a connection.
    ConnectFailed(String),
    /// TLS was not agreed on, or the certificate is not trusted.
    TlsFailed(String),
    /// The name has no address, or nobody says.
    DnsFailed(String),
    /// The destination is not allowed.
    NotAllowed(String),
    /// Nothing to send to.
    NoHealthyEndpoint,
    /// Its breaker is open: nothing is sent, for this long at least.
    CircuitOpen(Duration),
    /// Too many connections or calls.
    Overloaded,
    /// The connection ended before the head of the answer.
    Reset(String),
    /// No connection in time.
    TimeoutConnect,
    /// No head of an answer in time.
    TimeoutResponse,
    /// The time for everything has passed.
    TimeoutWhole,
    /// What came is not HTTP, or lies.
    MalformedResponse(String),
    /// The head of the answer is too large.
    HeadersTooLarge,
    /// The body handed in failed: not the service's fault.
    RequestBody(String),
    /// The request cannot be sent to this service.
    Unsupported(&'static str),
}

impl SendError {
    /// The word for records and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ConnectFailed(_) => "connect_failed",
            Self::TlsFailed(_) => "tls_failed",
            Self::DnsFailed(_) => "dns_failed",
            Self::NotAllowed(_) => "not_allowed",
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::CircuitOpen(_) => "circuit_open",
            Self::Overloaded => "overloaded",
            Self::Reset(_) => "reset",
            Self::TimeoutConnect => "timeout_connect",
            Self::TimeoutResponse => "timeout_response",
            Self::TimeoutWhole => "timeout_whole",
            Self::MalformedResponse(_) => "malformed_response",
            Self::HeadersTooLarge => "headers_too_large",
            Self::RequestBody(_) => "request_body",
            Self::Unsupported(_) => "unsupported",
        }
    }

    /// The status a gateway answers with (RFC 9110 §15.6).
    pub fn status(&self) -> u16 {
        match self {
            Self::NoHealthyEndpoint | Self::CircuitOpen(_) | Self::Overloaded => 503,
            Self::TimeoutConnect | Self::TimeoutResponse | Self::TimeoutWhole => 504,
            Self::RequestBody(_) => 400,
            _ => 502,
        }
    }

    /// Whether a safe request is worth sending again.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        matches!(
            self,
            Self::ConnectFailed(_)
                | Self::DnsFailed(_)
                | Self::Reset(_)
                | Self::TimeoutConnect
                | Self::TimeoutResponse
        )
    }

    /// Whether it says something about the endpoint.
    pub(crate) fn is_the_endpoints(&self) -> bool {
        !matches!(
            self,
            Self::RequestBody(_)
                | Self::Overloaded
                | Self::NotAllowed(_)
                | Self::NoHealthyEndpoint
                | Self::CircuitOpen(_)
                | Self::Unsupported(_)
                | Self::TimeoutWhole
        )
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::ConnectFailed(detail)
            | Self::TlsFailed(detail)
            | Self::DnsFailed(detail)
            | Self::NotAllowed(detail)
            | Self::Reset(detail)
            | Self::MalformedResponse(detail)
            | Self::RequestBody(detail) => write!(f, ": {detail}"),
            Self::Unsupported(detail) => write!(f, ": {detail}"),
            _ => Ok(()),
        }
    }
}

impl Error for SendError {}

/// Why the body of an answer ended early. What was sent on must be cut off, never ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyError {
    /// The connection or stream ended before the body did.
    Reset(String),
    /// Nothing came for too long.
    TimeoutIdle,
    /// The time for everything has passed.
    TimeoutWhole,
    /// What came is not HTTP, or lies about its length.
    Malformed(String),
}

impl BodyError {
    /// The word for records and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Reset(_) => "reset",
            Self::TimeoutIdle => "timeout_body",
            Self::TimeoutWhole => "timeout_whole",
            Self::Malformed(_) => "malformed_response",
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::Reset(detail) | Self::Malformed(detail) => write!(f, ": {detail}"),
            Self::TimeoutIdle | Self::TimeoutWhole => Ok(()),
        }
    }
}

impl Error for BodyError {}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}

/// What hyper's error before the head of an answer amounts to.
pub(crate) fn before_head(error: &hyper::Error) -> SendError {
    if error.is_parse_too_large() {
        return SendError::HeadersTooLarge;
    }
    if error.is_user() {
        return SendError::RequestBody(said(error));
    }
    if error.is_parse() || is_a_lie(error) {
        return SendError::MalformedResponse(said(error));
    }
    SendError::Reset(said(error))
}

/// What hyper's error within a body amounts to.
pub(crate) fn within_body(error: &hyper::Error) -> BodyError {
    if error.is_parse() || error.is_parse_too_large() || is_a_lie(error) {
        return BodyError::Malformed(said(error));
    }
    BodyError::Reset(said(error))
}

/// Whether the service has done nothing with a request of HTTP/2 (RFC 9113 §8.7).
pub(crate) fn was_refused(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Whether the service ended one stream of HTTP/2, on a connection that lives.
pub(crate) fn is_of_one_stream(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(h2::Error::is_reset)
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref::<h2::Error>()
}

fn is_a_lie(error: &hyper::Error) -> bool {
    if h2_error(error).is_some_and(h2::Error::is_library) {
        return true;
    }
    let io = error.source().and_then(|it| it.downcast_ref::<io::Error>());
    io.is_some_and(|it| {
        matches!(
            it.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
    })
}

/// The error with its cause, which holds no bytes of the answer.
fn said(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
