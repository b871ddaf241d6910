//! Egress: the only way out of a function. Where it may call, what it is told, a record of each call.
//!
//! A call goes out when scheme, host and port of the URI that is sent are on the function's list.
//! Redirects are not followed: the guest sees them and calls again, past the same list.
//!
//! Must not: let a call go unrecorded, or connect by itself: [`vedette_upstream::Egress`] does.

mod record;

use std::sync::{Arc, OnceLock};

use http::{Method, Request, Response};
use vedette_upstream::{EgressConfig, EgressRules, SendError, SendOptions, UpstreamBody};
use vedette_wasm::{
    BodyError, LogSink, Outbound, OutboundAnswer, OutboundBody, OutboundCall, OutboundTimeouts,
    Stream,
};

use crate::body::discard;
use crate::load::LoadError;
use crate::services::machine;
use crate::snapshot;
use record::{CallRecord, Recorded};

/// Where one function may call, and its connections once it has.
pub struct Egress {
    function: Arc<str>,
    rules: EgressRules,
    /// Made with its first call: most functions make none.
    client: OnceLock<Arc<vedette_upstream::Egress>>,
}

/// Why a call has no answer: the word for the record, and the error for the guest.
struct Failed {
    cause: &'static str,
    error: BodyError,
}

impl Egress {
    /// The way out of `function`.
    ///
    /// # Errors
    /// A list that names no destination.
    pub fn compile(function: &snapshot::Function) -> Result<Arc<Self>, LoadError> {
        let rules = EgressRules::compile(&function.allowed_hosts).map_err(|error| {
            let what = format!("{}: allowedHosts: {error}", function.name);
            LoadError::new("allowed_host_invalid", what)
        })?;
        Ok(Arc::new(Self {
            function: function.name.as_str().into(),
            rules,
            client: OnceLock::new(),
        }))
    }

    /// The calls of one function, which are told to `log` when they are refused.
    pub fn with_log(self: &Arc<Self>, log: Arc<dyn LogSink>) -> Arc<dyn Outbound> {
        Arc::new(Calls {
            egress: Arc::clone(self),
            log,
        })
    }

    fn client(&self) -> Result<&vedette_upstream::Egress, LoadError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let config = EgressConfig::new(self.rules.clone());
        let made = vedette_upstream::Egress::new(config, machine()?)
            .map_err(|error| LoadError::new("egress_invalid", error.0))?;
        Ok(self.client.get_or_init(|| made))
    }

    /// The cause for which a call is refused before anything is looked up.
    fn refusal(&self, call: &OutboundCall) -> Option<Failed> {
        if call.is_one_too_many {
            return Some(failed("too_many_calls", BodyError::HttpRequestDenied));
        }
        if call.request.method() == Method::CONNECT {
            let error = BodyError::HttpRequestMethodInvalid;
            return Some(failed("method_not_allowed", error));
        }
        let is_allowed = self.rules.allows(call.request.uri());
        (!is_allowed).then(|| failed("destination_not_allowed", BodyError::HttpRequestDenied))
    }

    async fn send(
        &self,
        request: Request<OutboundBody>,
        timeouts: OutboundTimeouts,
    ) -> Result<Response<UpstreamBody>, Failed> {
        let options = SendOptions {
            connect_timeout: timeouts.connect,
            response_timeout: timeouts.first_byte,
            body_idle: timeouts.between_bytes,
            ..SendOptions::default()
        };
        let client = self.client().map_err(|error| {
            let error = BodyError::InternalError(Some(error.to_string()));
            failed("egress_invalid", error)
        })?;
        let answered = client.send(request, &options).await;
        answered.map_err(|error| why(&error))
    }
}

/// The outbound calls of one function, with the log it writes to.
struct Calls {
    egress: Arc<Egress>,
    log: Arc<dyn LogSink>,
}

impl Outbound for Calls {
    fn send(&self, call: OutboundCall) -> OutboundAnswer {
        let mut record = CallRecord::open(Arc::clone(&self.egress.function), &call);
        if let Some(refused) = self.egress.refusal(&call) {
            record.fail(refused.cause);
            self.tell(&record, &call.request_id);
            return Box::pin(async move {
                drop(record);
                discard(call.request.into_body()).await;
                Err(refused.error)
            });
        }
        let calls = Self {
            egress: Arc::clone(&self.egress),
            log: Arc::clone(&self.log),
        };
        Box::pin(async move {
            let request = call.request.map(|body| record.count_sent(body));
            match calls.egress.send(request, call.timeouts).await {
                Ok(response) => {
                    record.answered(response.status());
                    Ok(response.map(|body| Recorded::wrap(body, record)))
                }
                Err(failed) => {
                    record.fail(failed.cause);
                    if record.is_refused() {
                        calls.tell(&record, &call.request_id);
                    }
                    Err(failed.error)
                }
            }
        })
    }
}

impl Calls {
    /// Says in the function's own log what its author has to mend.
    fn tell(&self, record: &CallRecord, request_id: &http::HeaderValue) {
        let line = record.refusal_line();
        self.log.line(request_id, Stream::Stderr, line.as_bytes());
    }
}

fn failed(cause: &'static str, error: BodyError) -> Failed {
    Failed { cause, error }
}

/// What the guest is told of a call that failed on its way (`wasi:http/types`, `error-code`).
fn why(error: &SendError) -> Failed {
    let told = match error {
        // The list was asked before: it is the address that the name leads to.
        SendError::NotAllowed(_) => {
            return failed("address_not_allowed", BodyError::DestinationIpProhibited);
        }
        SendError::RequestBody(_) => BodyError::HttpRequestBodySize(None),
        SendError::ConnectFailed(_) => BodyError::ConnectionRefused,
        SendError::TlsFailed(detail) if detail.contains("certificate") => {
            BodyError::TlsCertificateError
        }
        SendError::TlsFailed(_) => BodyError::TlsProtocolError,
        SendError::DnsFailed(_) => BodyError::DnsError {
            rcode: None,
            info_code: None,
        },
        SendError::NoHealthyEndpoint => BodyError::DestinationUnavailable,
        SendError::Overloaded => BodyError::ConnectionLimitReached,
        SendError::Reset(_) => BodyError::ConnectionTerminated,
        SendError::TimeoutConnect => BodyError::ConnectionTimeout,
        SendError::TimeoutResponse | SendError::TimeoutWhole => BodyError::HttpResponseTimeout,
        SendError::HeadersTooLarge => BodyError::HttpResponseHeaderSectionSize(None),
        SendError::MalformedResponse(_) | SendError::Unsupported(_) => BodyError::HttpProtocolError,
    };
    failed(error.word(), told)
}

/// The same for an answer that breaks off.
fn broken(error: &vedette_upstream::BodyError) -> BodyError {
    use vedette_upstream::BodyError as Broken;
    match error {
        Broken::Reset(_) => BodyError::HttpResponseIncomplete,
        Broken::TimeoutIdle => BodyError::ConnectionReadTimeout,
        Broken::TimeoutWhole => BodyError::HttpResponseTimeout,
        Broken::Malformed(_) => BodyError::HttpProtocolError,
    }
}
