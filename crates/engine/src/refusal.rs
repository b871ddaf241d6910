//! A refusal is a value; [`Cause::outcome`] is the one table that turns it into an answer.
//!
//! The caller gets a status, one sentence and the request id. The record gets the stage, the cause
//! and the detail.

use std::borrow::Cow;
use std::num::NonZeroU32;

use http::{HeaderValue, StatusCode};

/// The stages of the path, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Sizes, host, normal form.
    Admit,
    /// Host and path to a route.
    Route,
    /// Who is calling.
    Authenticate,
    /// How much they may still ask for.
    Limit,
    /// May they.
    Authorize,
    /// What the firewall says of it.
    Inspect,
    /// The function or what else answers.
    Execute,
    /// The way back.
    Respond,
}

impl Stage {
    /// The stage's name in records, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Route => "route",
            Self::Authenticate => "authenticate",
            Self::Limit => "limit",
            Self::Authorize => "authorize",
            Self::Inspect => "inspect",
            Self::Execute => "execute",
            Self::Respond => "respond",
        }
    }
}

/// Declares the causes with their stage, name, status and sentence: the whole table in one place.
macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident $stage:ident $name:literal $status:literal $sentence:literal;)*) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Cause { $($(#[$doc])* $cause,)* }

        impl Cause {
            /// Every cause.
            #[cfg(test)]
            pub const ALL: &'static [Cause] = &[$(Cause::$cause,)*];

            /// Stage, name, status and the sentence that the caller gets.
            pub fn outcome(self) -> (Stage, &'static str, u16, &'static str) {
                match self { $(Cause::$cause => (Stage::$stage, $name, $status, $sentence),)* }
            }
        }
    };
}

causes! {
    /// The path has no normal form.
    MalformedPath Admit "malformed_path" 400 "The path is malformed";
    /// The host is missing, doubled or no host.
    MalformedHost Admit "malformed_host" 400 "The host is malformed";
    /// The request is no HTTP that we read.
    MalformedRequest Admit "malformed_request" 400 "The request is malformed";
    /// Plain HTTP came where TLS is spoken.
    PlainHttp Admit "plain_http" 400 "This is an https port: ask with https://";
    /// The request target is too long.
    UriTooLong Admit "uri_too_long" 414 "The request target is too long";
    /// The head is too large or has too many fields.
    HeadersTooLarge Admit "headers_too_large" 431 "The request header fields are too large";
    /// The head did not come to its end in time; the connection is closed without an answer.
    HeadTooSlow Admit "head_too_slow" 408 "The request took too long";
    /// More frames than are paid for by time and work; the connection is closed.
    Flooded Admit "flooded" 429 "There are too many frames";
    /// The host is not one of ours.
    HostNotAllowed Admit "host_not_allowed" 421 "This host is not served here";
    /// The host is not the one the TLS connection was opened for.
    HostSniMismatch Admit "host_sni_mismatch" 421 "The connection was opened for another host";
    /// CONNECT, TRACE and methods unknown to RFC 9110 and RFC 5789.
    MethodNotAllowed Admit "method_not_allowed" 405 "This method is not allowed";
    /// What came to the path of answers to the challenge is no good one.
    ChallengeFailed Admit "challenge_failed" 403 "The check has failed: open the page again";
    /// There is no verified snapshot to serve.
    NoSnapshot Admit "no_snapshot" 503 "The node is not ready";
    /// Too many requests at once on this node.
    Overloaded Admit "overloaded" 503 "The node is overloaded";
    /// A list of addresses that are not let in has the client's.
    AddressBlocked Admit "address_blocked" 403 "This address is not let in";
    /// The source of a connection has as many open as it may; it is closed before its handshake.
    TooManyConnections Admit "too_many_connections" 429 "There are too many connections";
    /// The source of a connection opens them too fast; it is closed before its handshake.
    ConnectingTooOften Admit "connecting_too_often" 429 "There are too many new connections";
    /// The node's rule for TLS clients does not let in one with this fingerprint.
    ClientNotAllowed Admit "client_not_allowed" 403 "This client is not let in";
    /// The record of this request could not be kept.
    RecordUnavailable Admit "record_unavailable" 503 "The node cannot record requests";
    /// Nothing is deployed at this host and path.
    NotFound Route "not_found" 404 "There is nothing here";
    /// A call names a model that is not served there, or no version.
    ModelNotFound Route "model_not_found" 404 "There is no such model here";
    /// Policy wants to know who is calling.
    CredentialsRequired Authenticate "credentials_required" 401 "Credentials are required";
    /// Not a JWT, or a header that is no bearer token.
    TokenMalformed Authenticate "token_malformed" 401 "The token is not valid";
    /// `exp` has passed.
    TokenExpired Authenticate "token_expired" 401 "The token has expired";
    /// `nbf` has not come.
    TokenNotYetValid Authenticate "token_not_yet_valid" 401 "The token is not valid yet";
    /// The signature is not the key's.
    TokenSignature Authenticate "token_signature" 401 "The token is not valid";
    /// `iss` is nobody we believe.
    TokenIssuer Authenticate "token_issuer" 401 "The token is not valid";
    /// `aud` is not us.
    TokenAudience Authenticate "token_audience" 401 "The token is for somebody else";
    /// `alg` is not the one algorithm of the key.
    TokenAlgorithm Authenticate "token_algorithm" 401 "The token is not valid";
    /// `kid` names no key we have.
    TokenKeyUnknown Authenticate "token_key_unknown" 401 "The token is not valid";
    /// A claim is missing or of the wrong kind.
    TokenClaims Authenticate "token_claims" 401 "The token is not valid";
    /// `<iss>#<jti>` is on the list of revoked tokens.
    TokenRevoked Authenticate "token_revoked" 401 "The token has been revoked";
    /// The token is bound to a certificate that did not come with it.
    TokenBinding Authenticate "token_binding" 401 "The token is not valid";
    /// No authority vouches for the client's certificate.
    CertificateInvalid Authenticate "certificate_invalid" 401 "The certificate is not valid";
    /// The client's certificate, or one that vouches for it, has ended.
    CertificateExpired Authenticate "certificate_expired" 401 "The certificate has expired";
    /// The client's certificate, or one that vouches for it, has not begun.
    CertificateNotYetValid Authenticate "certificate_not_yet_valid" 401 "The certificate is not valid yet";
    /// A certificate of the client's chain is on its authority's list of revoked ones.
    CertificateRevoked Authenticate "certificate_revoked" 401 "The certificate has been revoked";
    /// The SPIFFE ID of the caller, or all of its trust domain, counts no more.
    IdentityRevoked Authenticate "identity_revoked" 401 "The identity has been revoked";
    /// Too many requests in a time.
    RateLimited Limit "rate_limited" 429 "There are too many requests";
    /// Too many requests in a calendar period.
    QuotaExceeded Limit "quota_exceeded" 429 "The quota is used up";
    /// Too many requests at once of this caller, route or source.
    TooManyAtOnce Limit "too_many_at_once" 503 "There are too many requests at once";
    /// The node has more to do than it can, and this request is not among what goes first.
    UnderPressure Limit "under_pressure" 503 "The node is busy";
    /// A browser that is to do a little work first; its answer is the page that says so.
    ChallengeRequired Limit "challenge_required" 403 "This site checks its visitors";
    /// The route is not for the country of the client's address.
    CountryNotAllowed Limit "country_not_allowed" 403 "This is not offered in your country";
    /// Control was away for so long that its last policy holds no more.
    ControlAway Authorize "control_away" 503 "The node is not ready";
    /// No policy permits it, or one forbids it.
    PolicyDenied Authorize "policy_denied" 403 "This is not allowed";
    /// A policy could not be evaluated.
    PolicyError Authorize "policy_error" 403 "This is not allowed";
    /// The rules of the firewall say that it is an attack.
    WafBlocked Inspect "waf_blocked" 403 "Request blocked by WAF";
    /// The rules of the firewall say that the answer tells too much.
    WafAnswerBlocked Inspect "waf_answer_blocked" 403 "Response blocked by WAF";
    /// The body is not what its content type says.
    BodyMalformed Inspect "body_malformed" 400 "The request body is malformed";
    /// The body is larger than the firewall looks into.
    BodyBeyondInspection Inspect "body_beyond_inspection" 413 "The request body is too large to be inspected";
    /// This thread has nothing to inspect with.
    InspectionUnavailable Inspect "inspection_unavailable" 503 "The node cannot inspect requests";
    /// The function is already answering as many requests as it may.
    ConcurrencyExceeded Execute "concurrency_exceeded" 503 "The function is busy";
    /// No instance slot is free.
    PoolExhausted Execute "pool_exhausted" 503 "The node is busy";
    /// The function's code does not load.
    FunctionUnavailable Execute "function_unavailable" 503 "The function is not available";
    /// Wall time is up.
    WallTimeExceeded Execute "wall_time_exceeded" 504 "The function did not answer in time";
    /// CPU time is up.
    CpuTimeExceeded Execute "cpu_time_exceeded" 504 "The function did not answer in time";
    /// The guest trapped.
    FunctionTrap Execute "function_trap" 500 "The function failed";
    /// The guest wanted more memory than it may have.
    MemoryExceeded Execute "memory_exceeded" 500 "The function failed";
    /// The guest's stack is used up.
    StackExhausted Execute "stack_exhausted" 500 "The function failed";
    /// The guest returned without an answer.
    NoResponse Execute "no_response" 500 "The function gave no answer";
    /// The answer is larger than the function may send.
    ResponseTooLarge Execute "response_too_large" 502 "The function's answer is too large";
    /// The answer breaks HTTP.
    ResponseInvalid Execute "response_invalid" 502 "The function's answer is invalid";
    /// A tree of files is asked for something else than GET or HEAD.
    FilesReadOnly Execute "files_read_only" 405 "This can only be read";
    /// The tree of files has no such file.
    FileNotFound Execute "file_not_found" 404 "There is nothing here";
    /// The file of a tree cannot be read, or is not the one that was deployed.
    FileUnavailable Execute "file_unavailable" 503 "The file is not available";
    /// No endpoint of the service accepts a connection, TLS and name included.
    UpstreamUnreachable Execute "upstream_unreachable" 502 "The service cannot be reached";
    /// No endpoint of the service is to be used now.
    UpstreamUnhealthy Execute "upstream_unhealthy" 503 "The service is not available";
    /// The service has as many connections as it may.
    UpstreamBusy Execute "upstream_busy" 503 "The service is busy";
    /// The service broke the connection before or while answering.
    UpstreamReset Execute "upstream_reset" 502 "The service broke off";
    /// The service did not answer in time.
    UpstreamTimeout Execute "upstream_timeout" 504 "The service did not answer in time";
    /// The service's answer is no HTTP, or lies.
    UpstreamInvalid Execute "upstream_invalid" 502 "The service's answer is invalid";
    /// The service failed too often: its breaker is open, and nothing is sent.
    CircuitOpen Execute "circuit_open" 503 "The service is not available";
    /// The route injects this error on purpose.
    FaultInjected Execute "fault_injected" 503 "The service is not available";
    /// The process of the model is not there, or ended before it answered.
    ModelUnavailable Execute "model_unavailable" 503 "The model is not available";
    /// Only tiers have the model, and none of them has answered in a way that counts.
    TiersUnavailable Execute "tiers_unavailable" 503 "Nobody who has the model has answered";
    /// What was asked does not fit the model, as its process says.
    ModelRequestInvalid Execute "model_request_invalid" 400 "The request does not fit the model";
    /// The model's process has nothing at this path, or is another version.
    ModelPathUnknown Execute "model_path_unknown" 404 "There is nothing here";
    /// The model's process is asked this with another method.
    ModelMethod Execute "model_method" 405 "This method is not allowed";
    /// The model takes no body of this type of content.
    ModelMedium Execute "model_medium" 415 "The model does not take this type of content";
    /// The model's run failed.
    ModelFailed Execute "model_failed" 500 "The model failed";
    /// The model's process takes no more now, or could not keep the deadline.
    ModelBusy Execute "model_busy" 503 "The model is busy";
    /// The model did not answer by the deadline, or ran for longer than it may.
    ModelTimeout Execute "model_timeout" 504 "The model did not answer in time";
    /// Nothing comes of the model's process, which answers every run: it is stopped or stuck.
    ModelSilent Execute "model_silent" 504 "The model did not answer in time";
    /// No call of gRPC, or one whose message is none.
    CallMalformed Route "call_malformed" 400 "The call is malformed";
    /// A message that is compressed, by what the node never said to understand.
    CallCompressed Route "call_compressed" 501 "Compressed messages are not read here: send them without grpc-encoding";
    /// More than one message in a call that has one.
    CallSurplus Execute "call_surplus" 400 "The call has more than one message";
    /// A method that nobody has.
    CallUnsupported Route "call_unsupported" 501 "This cannot be called here";
    /// What the caller says of its patience is no number of milliseconds.
    DeadlineMalformed Execute "deadline_malformed" 400 "The deadline is malformed";
    /// The request cannot be sent on as it is.
    UpstreamUnsupported Execute "upstream_unsupported" 502 "The service cannot be asked this";
    /// What answers cannot speak WebSocket.
    NoTunnel Execute "no_tunnel" 501 "There is no tunnel here";
    /// The request's body ended early.
    RequestBroken Execute "request_broken" 400 "The request body ended early";
    /// The body comes more slowly than the node waits for.
    BodyTooSlow Execute "body_too_slow" 408 "The request body took too long";
    /// The body is, or turned out, larger than the function takes.
    RequestTooLarge Execute "request_too_large" 413 "The request body is too large";
    /// The client does not take its answer; what was sent of it is all it gets.
    AnswerNotTaken Respond "answer_not_taken" 408 "The answer was not taken";
    /// Both ends of a tunnel were silent for too long; it closes.
    TunnelSilent Respond "tunnel_silent" 408 "The tunnel was silent";
    /// The token or certificate that an exchange was begun with has expired; it ends.
    ProofExpired Respond "proof_expired" 401 "The caller's proof has expired";
    /// Whoever had a sidecar served has gone, or it was taken away; what is under way ends.
    SidecarEnded Respond "sidecar_ended" 503 "The service has gone";
}

/// A refusal: the cause, and what only the record is told.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub cause: Cause,
    /// For the record only.
    pub detail: Option<Cow<'static, str>>,
    /// Seconds after which trying again may help, where that is known.
    pub retry_after: Option<NonZeroU32>,
    /// In place of the cause's own status.
    pub status: Option<StatusCode>,
    /// A page for a person, in place of the sentence.
    pub page: Option<Box<Page>>,
    /// What the model's process says, in place of the sentence.
    pub said: Option<Box<Said>>,
}

/// A document of HTML. Boxed where it is rare: a refusal passes through every stage.
#[derive(Debug)]
pub struct Page(pub String);

/// What the process of a model says to the caller. Boxed as pages are.
#[derive(Debug)]
pub struct Said {
    /// Its sentence.
    pub sentence: String,
    /// The methods that it allows, where the one it was asked with was not.
    pub allow: Option<HeaderValue>,
}

impl Refusal {
    /// A refusal with a detail for the record.
    pub fn with(cause: Cause, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            cause,
            detail: Some(detail.into()),
            retry_after: None,
            status: None,
            page: None,
            said: None,
        }
    }

    /// The same, with a status that the operator chose.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The status the caller gets.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.cause.status())
    }

    /// The same, with the seconds after which trying again may help; at least one.
    pub fn after(mut self, seconds: u64) -> Self {
        self.retry_after = NonZeroU32::new(u32::try_from(seconds).unwrap_or(u32::MAX).max(1));
        self
    }
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            detail: None,
            retry_after: None,
            status: None,
            page: None,
            said: None,
        }
    }
}

impl Cause {
    /// The status the caller gets.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.outcome().2).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the client is refused and not what it asked for: its connection ends with the answer.
    pub fn ends_connection(self) -> bool {
        matches!(self, Self::AddressBlocked | Self::ClientNotAllowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_answers_with_an_error_status_of_its_own_name() {
        let mut seen = std::collections::HashSet::new();
        for cause in Cause::ALL {
            let (stage, name, status, sentence) = cause.outcome();
            assert!((400..600).contains(&status), "{name}");
            assert_eq!(cause.status().as_u16(), status);
            assert!(!sentence.is_empty());
            assert!(seen.insert((stage.as_str(), name)), "{name} twice");
        }
    }
}
