//! The header of a request and of an answer on its way through a gateway (RFC 9110 §7.6.1).

use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body;

use crate::body::{OutBody, Progress};
use crate::config::Host;
use crate::error::SendError;
use crate::target::Target;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// Takes out what is meant for one connection only: `Connection` and what it names, `Keep-Alive`,
/// `Proxy-*`, `TE` but for `trailers`, `Transfer-Encoding`, `Upgrade`.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_named(headers);
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &PROXY_AUTHENTICATE,
        &PROXY_AUTHORIZATION,
        &TRANSFER_ENCODING,
        &UPGRADE,
    ] {
        headers.remove(name);
    }
    if headers.contains_key(TE) {
        let wants_trailers = has_token(headers, &TE, "trailers");
        headers.remove(TE);
        if wants_trailers {
            headers.insert(TE, TRAILERS);
        }
    }
}

fn strip_named(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !is_ours(name))
        .collect();
    headers.remove(CONNECTION);
    for name in named {
        headers.remove(name);
    }
}

/// What a gateway itself says, which no caller may have taken out by naming it in `Connection`.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "te" | "host" | "content-length" | "forwarded" | "traceparent"
    ) || name.starts_with("x-vedette-")
        || name.starts_with("x-forwarded-")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|it| it.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

/// The protocol a request asks to change to, when it does (RFC 9110 §7.8).
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(UPGRADE)?;
    has_token(headers, &CONNECTION, "upgrade").then(|| wanted.clone())
}

/// A request ready for any connection.
pub(crate) struct Outgoing {
    request: Request<OutBody>,
    authority: Option<(Authority, HeaderValue)>,
    upgrade: Option<HeaderValue>,
}

impl Outgoing {
    /// Takes out what is not for the service, and settles whom it asks for.
    pub(crate) fn new(
        mut request: Request<OutBody>,
        host: &Host,
        upgrade: Option<HeaderValue>,
    ) -> Result<Self, SendError> {
        if request.method() == Method::CONNECT {
            return Err(SendError::Unsupported("CONNECT"));
        }
        let authority = authority_of(&request, host)?;
        let headers = request.headers_mut();
        strip_hop_by_hop(headers);
        // The body says how long it is; who waits for 100 is answered by the node.
        headers.remove(CONTENT_LENGTH);
        headers.remove(EXPECT);
        Ok(Self {
            request,
            authority,
            upgrade,
        })
    }

    /// A second one like it, of a request without a body.
    pub(crate) fn copy(&self) -> Option<Self> {
        if !self.request.body().is_end_stream() {
            return None;
        }
        let mut request = Request::new(OutBody::Empty);
        *request.method_mut() = self.request.method().clone();
        *request.uri_mut() = self.request.uri().clone();
        *request.headers_mut() = self.request.headers().clone();
        Some(Self {
            request,
            authority: self.authority.clone(),
            upgrade: self.upgrade.clone(),
        })
    }

    /// Has its body note when it ends. `None`: it has none that is still to come.
    pub(crate) fn time_body(&mut self) -> Option<Arc<Progress>> {
        self.request.body_mut().time()
    }

    pub(crate) fn method(&self) -> &Method {
        self.request.method()
    }

    /// As HTTP/1.1 has it: the target in origin form, `Host`, a length that is true.
    pub(crate) fn fit_http1(mut self, target: &Target) -> Fitted {
        let request = &mut self.request;
        *request.version_mut() = Version::HTTP_11;
        let path = path_of(request.uri());
        *request.uri_mut() = Uri::from(path);
        let host = match &self.authority {
            Some((_, value)) => value,
            None => &target.authority_value,
        };
        let method = request.method().clone();
        let (is_empty, exact) = {
            let body = request.body();
            (body.is_end_stream(), body.size_hint().exact())
        };
        let headers = request.headers_mut();
        headers.insert(HOST, host.clone());
        if let Some(upgrade) = &self.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, upgrade.clone());
        } else if headers.contains_key(TE) {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        // hyper says nothing of an empty body, and takes a GET of unknown length to have none.
        if is_empty && !has_no_body_by_nature(&method) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        } else if !is_empty && exact.is_none() {
            headers.insert(TRANSFER_ENCODING, CHUNKED);
        }
        Fitted(self)
    }

    /// As HTTP/2 has it: scheme and authority in the target.
    pub(crate) fn fit_http2(mut self, target: &Target) -> Result<Fitted, SendError> {
        let request = &mut self.request;
        *request.version_mut() = Version::HTTP_2;
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(target.scheme());
        uri.authority = Some(match &self.authority {
            Some((authority, _)) => authority.clone(),
            None => target.authority.clone(),
        });
        uri.path_and_query = Some(path_of(request.uri()));
        *request.uri_mut() =
            Uri::from_parts(uri).map_err(|_| SendError::Unsupported("target of the request"))?;
        let headers = request.headers_mut();
        headers.remove(HOST);
        headers.remove(CONNECTION);
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
        Ok(Fitted(self))
    }
}

/// A request in the shape of one version.
pub(crate) struct Fitted(Outgoing);

impl Fitted {
    /// The request for hyper, and what is needed to make an [`Outgoing`] of it again.
    pub(crate) fn split(self) -> (Request<OutBody>, Rest) {
        let Outgoing {
            request,
            authority,
            upgrade,
        } = self.0;
        (request, Rest { authority, upgrade })
    }
}

/// What a request that comes back from hyper lacks.
pub(crate) struct Rest {
    authority: Option<(Authority, HeaderValue)>,
    upgrade: Option<HeaderValue>,
}

impl Rest {
    pub(crate) fn join(self, mut request: Request<OutBody>) -> Outgoing {
        request.headers_mut().remove(CONNECTION);
        request.headers_mut().remove(UPGRADE);
        request.headers_mut().remove(TRANSFER_ENCODING);
        request.headers_mut().remove(CONTENT_LENGTH);
        Outgoing {
            request,
            authority: self.authority,
            upgrade: self.upgrade,
        }
    }
}

fn has_no_body_by_nature(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE | Method::TRACE
    )
}

fn path_of(uri: &Uri) -> PathAndQuery {
    let path = uri.path_and_query().cloned();
    path.unwrap_or_else(|| PathAndQuery::from_static("/"))
}

fn authority_of(
    request: &Request<OutBody>,
    host: &Host,
) -> Result<Option<(Authority, HeaderValue)>, SendError> {
    let malformed = |_| SendError::Unsupported("host of the request");
    match host {
        Host::Endpoint => Ok(None),
        Host::Named(value) => {
            let authority = Authority::try_from(value.as_bytes()).map_err(malformed)?;
            Ok(Some((authority, value.clone())))
        }
        Host::Keep => {
            if let Some(authority) = request.uri().authority() {
                let value = HeaderValue::from_str(authority.as_str())
                    .map_err(|_| SendError::Unsupported("host of the request"))?;
                return Ok(Some((authority.clone(), value)));
            }
            let Some(value) = request.headers().get(HOST) else {
                return Ok(None);
            };
            let authority = Authority::try_from(value.as_bytes()).map_err(malformed)?;
            Ok(Some((authority, value.clone())))
        }
    }
}

/// Takes out of an answer what was meant for our connection. An answer in a coding of transfer
/// that hyper does not undo would be passed on as something it is not.
pub(crate) fn clean_answer<B>(response: &mut Response<B>) -> Result<(), SendError> {
    let headers = response.headers_mut();
    if headers.contains_key(TRANSFER_ENCODING) {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let is_chunked = codings
            .next()
            .is_some_and(|it| it.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || codings.next().is_some() {
            let what = "a transfer coding other than chunked";
            return Err(SendError::MalformedResponse(what.into()));
        }
        // RFC 9112 §6.3: the length is not to be believed.
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    headers.remove(TE);
    Ok(())
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
