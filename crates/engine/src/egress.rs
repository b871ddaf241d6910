//! Egress: the only way out of a function, or of a program that `vedette run` has started. Where it may call, what
//! it is told, a record of each call.
//!
//! A call goes out when scheme, host and port of the URI that is sent are on the list of who calls.
//! Redirects are not followed: the caller sees them and calls again, past the same list.
//!
//! Must not: let a call go unrecorded, or connect by itself: [`vedette_upstream::Egress`] does.

mod counted;
mod models;
mod policies;
mod prediction;
mod record;

use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use vedette_upstream::{
    Allowed, BoxError, Denied, Dialled, EgressConfig, EgressRules, SendError, SendOptions,
    UpstreamBody,
};
use vedette_wasm::{
    BodyError, Interface, LogSink, Outbound, OutboundAnswer, OutboundCall, OutboundTimeouts, Stream,
};

use crate::body::{LINGER_TIME, discard};
use crate::services::machine;
use models::model_of;

pub use counted::Recorded;
pub use models::Asking;
pub use policies::{Ways, Workloads, answered, rule_of, ways_of_function, workloads};
pub use record::{CallRecord, Subject, Told};

/// Where somebody may call, and their connections once they have.
pub struct Egress {
    /// Who.
    pub subject: Subject,
    /// Where and how.
    pub ways: Ways,
    /// Made with the first call: most functions make none.
    client: OnceLock<Arc<vedette_upstream::Egress>>,
}

/// Why a call has no answer: the word for the record, and the error for the guest.
struct Failed {
    cause: &'static str,
    error: BodyError,
}

impl Egress {
    /// The way out of `subject`.
    pub fn new(subject: Subject, ways: Ways) -> Arc<Self> {
        Arc::new(Self {
            subject,
            ways,
            client: OnceLock::new(),
        })
    }

    /// Where it may call whatever it answers: a program answers nothing.
    pub fn rules(&self) -> &EgressRules {
        &self.ways.always
    }

    /// The calls of one function while it answers requests of `route`, which are told to `log` when they are refused.
    pub fn on_route(
        self: &Arc<Self>,
        route: &str,
        log: Arc<dyn LogSink>,
        asking: Asking,
    ) -> Arc<dyn Outbound> {
        Arc::new(Calls {
            egress: Arc::clone(self),
            route: route.into(),
            log,
            asking,
        })
    }

    fn client(&self) -> Result<&vedette_upstream::Egress, SendError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let unusable = |why: String| SendError::ConnectFailed(why);
        let machine = machine().map_err(|error| unusable(error.to_string()))?;
        let made = vedette_upstream::Egress::new(EgressConfig::default(), machine)
            .map_err(|error| unusable(error.0))?;
        Ok(self.client.get_or_init(|| made))
    }

    /// Whether a breaker keeps all calls back that have been made so far.
    pub fn is_left_alone(&self) -> bool {
        self.client.get().is_some_and(|it| it.is_left_alone())
    }

    /// Sends a call that is allowed.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send<B>(
        &self,
        allowed: Allowed,
        request: Request<B>,
        options: &SendOptions,
    ) -> Result<Response<UpstreamBody>, SendError>
    where
        B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        self.client()?.send(allowed, request, options).await
    }

    /// Opens a tunnel that is allowed.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn dial(&self, allowed: Allowed) -> Result<Dialled, SendError> {
        self.client()?.dial(allowed).await
    }
}

/// The word of a record for a call that may not go out.
pub fn cause_of(denied: &Denied) -> &'static str {
    match denied {
        Denied::Destination(_) => "destination_not_allowed",
        Denied::Method(_) => "method_not_allowed",
        Denied::Rate(_) => "rate_limited",
        Denied::Token => "svid_missing",
    }
}

/// The same for one that failed on its way.
pub fn cause_of_failure(error: &SendError) -> &'static str {
    match error {
        // The list was asked before: it is the address that the name leads to.
        SendError::NotAllowed(_) => "address_not_allowed",
        _ => error.word(),
    }
}

/// The outbound calls of one function on one route, with the log it writes to.
#[derive(Clone)]
struct Calls {
    egress: Arc<Egress>,
    route: Arc<str>,
    log: Arc<dyn LogSink>,
    asking: Asking,
}

impl Outbound for Calls {
    fn send(&self, call: OutboundCall) -> OutboundAnswer {
        let mut record = CallRecord::of_function(self.egress.subject.clone(), &self.route, &call);
        if let Some(model) = model_of(call.request.uri()) {
            return self.ask(&model, call, record);
        }
        let allowed = match self.decide(&call, &mut record) {
            Ok(allowed) => allowed,
            Err(refused) => return self.refuse(refused, call, record),
        };
        let calls = self.clone();
        Box::pin(async move {
            let request = call.request;
            let request = request.map(|body| record.count_sent(body, u64::MAX));
            let options = options(call.timeouts);
            match calls.egress.send(allowed, request, &options).await {
                Ok(response) => {
                    record.answered(response.status());
                    Ok(response.map(|body| Recorded::wrap(body, record)))
                }
                Err(error) => {
                    record.fail(cause_of_failure(&error));
                    if record.is_refused() {
                        calls.tell(&record, &call.request_id);
                    }
                    Err(why(&error))
                }
            }
        })
    }

    fn may_ask(&self, request_id: &HeaderValue, model: &str) -> Result<(), BodyError> {
        self.require_model(request_id, model)
    }
}

impl Calls {
    /// Whether a model may be asked; only a no is recorded.
    fn require_model(&self, request_id: &HeaderValue, model: &str) -> Result<(), BodyError> {
        let uri = models::infer(model).ok_or(BodyError::DestinationNotFound)?;
        let names = (self.egress.subject.name(), model);
        let subject = self.egress.subject.clone();
        let mut record = CallRecord::of_question(subject, &self.route, request_id, &uri);
        let asked = (&Method::POST, &uri);
        let permitted = self.asking.permit(names, asked, Interface::Nn, &mut record);
        match permitted {
            Ok(_) => {
                record.was_a_question();
                Ok(())
            }
            Err(refused) => {
                record.fail(refused.cause);
                self.tell(&record, request_id);
                Err(refused.error)
            }
        }
    }

    /// Asks a model of this node.
    fn ask(&self, model: &str, call: OutboundCall, mut record: CallRecord) -> OutboundAnswer {
        let names = (self.egress.subject.name(), model);
        let (method, uri) = (call.request.method(), call.request.uri());
        // Always, so that the record says of which model there was one call too many.
        let asked = (method, uri);
        let permitted = self
            .asking
            .permit(names, asked, call.interface, &mut record);
        let permitted = match require_call(&call).and(permitted) {
            Ok(permitted) => permitted,
            Err(refused) => return self.refuse(refused, call, record),
        };
        let calls = self.clone();
        Box::pin(async move {
            let request_id = call.request_id.clone();
            let sent = Box::pin(permitted.send(call, record)).await;
            sent.map_err(|(error, record)| {
                if record.is_refused() {
                    calls.tell(&record, &request_id);
                }
                error
            })
        })
    }

    /// Ends a call that is not made.
    fn refuse(
        &self,
        refused: Failed,
        call: OutboundCall,
        mut record: CallRecord,
    ) -> OutboundAnswer {
        record.fail(refused.cause);
        self.tell(&record, &call.request_id);
        Box::pin(async move {
            drop(record);
            discard(call.request.into_body(), LINGER_TIME).await;
            Err(refused.error)
        })
    }

    /// Whether a call may go out, before anything is looked up.
    fn decide(&self, call: &OutboundCall, record: &mut CallRecord) -> Result<Allowed, Failed> {
        require_call(call)?;
        let rules = self.egress.ways.on(&self.route);
        let decided = rules.call(call.request.uri(), call.request.method());
        decided.map_err(|denied| {
            record.needs(&denied);
            failed(cause_of(&denied), BodyError::HttpRequestDenied)
        })
    }

    /// Says in the function's own log what its author has to mend.
    fn tell(&self, record: &CallRecord, request_id: &http::HeaderValue) {
        let line = record.refusal_line();
        self.log.line(request_id, Stream::Stderr, line.as_bytes());
    }
}

/// Whether it is a call at all, and not one too many.
fn require_call(call: &OutboundCall) -> Result<(), Failed> {
    if call.is_one_too_many {
        return Err(failed("too_many_calls", BodyError::HttpRequestDenied));
    }
    if call.request.method() == Method::CONNECT {
        let error = BodyError::HttpRequestMethodInvalid;
        return Err(failed("method_not_allowed", error));
    }
    Ok(())
}

fn failed(cause: &'static str, error: BodyError) -> Failed {
    Failed { cause, error }
}

fn options(timeouts: OutboundTimeouts) -> SendOptions {
    SendOptions {
        connect_timeout: timeouts.connect,
        response_timeout: timeouts.first_byte,
        body_idle: timeouts.between_bytes,
        ..SendOptions::default()
    }
}

/// What the guest is told of a call that failed on its way (`wasi:http/types`, `error-code`).
fn why(error: &SendError) -> BodyError {
    match error {
        SendError::NotAllowed(_) => BodyError::DestinationIpProhibited,
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
        SendError::NoHealthyEndpoint | SendError::CircuitOpen(_) => {
            BodyError::DestinationUnavailable
        }
        SendError::Overloaded => BodyError::ConnectionLimitReached,
        SendError::Reset(_) => BodyError::ConnectionTerminated,
        SendError::TimeoutConnect => BodyError::ConnectionTimeout,
        SendError::TimeoutResponse | SendError::TimeoutWhole => BodyError::HttpResponseTimeout,
        SendError::HeadersTooLarge => BodyError::HttpResponseHeaderSectionSize(None),
        SendError::MalformedResponse(_) | SendError::Unsupported(_) => BodyError::HttpProtocolError,
    }
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
