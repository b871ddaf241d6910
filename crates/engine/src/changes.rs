//! What a route changes on the way: path, host and header fields, and where a redirect leads.
//!
//! Semantics of the Gateway API (`HTTPURLRewriteFilter`, `HTTPRequestRedirectFilter`,
//! `HTTPHeaderFilter`). Fields that frame the message or say who is calling are nobody's to change.

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::load::LoadError;
use crate::snapshot::{self, PathModifierType, RedirectBackendScheme};

/// The changes of one route.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The host that the service sees.
    pub hostname: Option<Authority>,
    /// The path that the service sees.
    pub path: Option<PathChange>,
    /// Header fields of the request.
    pub request: HeaderChanges,
    /// Header fields of the answer.
    pub response: HeaderChanges,
}

/// How a path is changed.
#[derive(Debug, Clone)]
pub enum PathChange {
    /// The whole of it.
    Full(Box<str>),
    /// The part that the route matched.
    Prefix(Box<str>),
}

/// How header fields are changed.
#[derive(Debug, Clone, Default)]
pub struct HeaderChanges {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Changes {
    /// The changes of `route`; none when it has none.
    pub fn of(route: &snapshot::Route) -> Result<Option<Self>, LoadError> {
        let invalid =
            |what: String| LoadError::new("route_invalid", format!("{}: {what}", route.name));
        if route.rewrite.is_none()
            && route.request_headers.is_none()
            && route.response_headers.is_none()
        {
            return Ok(None);
        }
        let rewrite = route.rewrite.as_ref();
        let hostname = rewrite
            .and_then(|it| it.hostname.as_deref())
            .map(Authority::try_from)
            .transpose()
            .map_err(|error| invalid(error.to_string()))?;
        let headers = |modifier: Option<&snapshot::HeaderModifier>| {
            modifier.map_or_else(|| Ok(HeaderChanges::default()), HeaderChanges::new)
        };
        Ok(Some(Self {
            hostname,
            path: rewrite
                .and_then(|it| it.path.as_ref())
                .map(PathChange::new)
                .transpose()
                .map_err(invalid)?,
            request: headers(route.request_headers.as_ref()).map_err(invalid)?,
            response: headers(route.response_headers.as_ref()).map_err(invalid)?,
        }))
    }
}

impl PathChange {
    fn new(modifier: &snapshot::PathModifier) -> Result<Self, String> {
        let value = modifier.value.as_str();
        if !value
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"?#\\\"<>{}|^`".contains(&b))
        {
            return Err(format!("{value:?} is no path"));
        }
        Ok(match modifier.kind {
            PathModifierType::ReplaceFullPath => Self::Full(rooted(value).into()),
            PathModifierType::ReplacePrefixMatch => Self::Prefix(value.trim_matches('/').into()),
        })
    }

    /// The new path for `path` (escaped normal form), of which the route matched `matched`.
    pub fn apply(&self, matched: &str, path: &str) -> String {
        match self {
            Self::Full(whole) => whole.to_string(),
            Self::Prefix(prefix) => {
                // Escapes make lengths differ, segments stay as many.
                let segments = matched
                    .trim_matches('/')
                    .split('/')
                    .filter(|it| !it.is_empty());
                let mut rest = path.strip_prefix('/').unwrap_or(path);
                for _ in segments {
                    rest = rest.split_once('/').map_or("", |(_, rest)| rest);
                }
                let slash = if prefix.is_empty() || rest.is_empty() {
                    ""
                } else {
                    "/"
                };
                let kept = path.ends_with('/') && rest.is_empty() && !prefix.is_empty();
                format!("/{prefix}{slash}{rest}{}", if kept { "/" } else { "" })
            }
        }
    }
}

fn rooted(path: &str) -> String {
    format!("/{}", path.strip_prefix('/').unwrap_or(path))
}

impl HeaderChanges {
    fn new(modifier: &snapshot::HeaderModifier) -> Result<Self, String> {
        let pairs = |fields: &[snapshot::HeaderField]| {
            fields
                .iter()
                .map(|field| {
                    let value = HeaderValue::from_str(&field.value)
                        .map_err(|_| format!("the value of {} is no field value", field.name))?;
                    Ok((changeable(&field.name)?, value))
                })
                .collect::<Result<Vec<_>, String>>()
        };
        Ok(Self {
            set: pairs(&modifier.set)?,
            add: pairs(&modifier.add)?,
            remove: modifier
                .remove
                .iter()
                .map(|name| changeable(name))
                .collect::<Result<_, String>>()?,
        })
    }

    /// Makes the changes: takes away, sets, adds.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

fn changeable(name: &str) -> Result<HeaderName, String> {
    const FRAMING: [HeaderName; 8] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::PROXY_AUTHORIZATION,
    ];
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{name:?} is no header field"))?;
    let is_ours = parsed.as_str().starts_with("x-vedette-")
        || parsed.as_str().starts_with("x-edge-")
        || matches!(parsed.as_str(), "x-request-id" | "traceparent");
    if is_ours || FRAMING.contains(&parsed) {
        return Err(format!(
            "the header field {name} is not a route's to change"
        ));
    }
    Ok(parsed)
}

/// Where callers are sent.
#[derive(Debug)]
pub struct Redirect {
    /// The status it is said with.
    pub status: StatusCode,
    scheme: Option<&'static str>,
    hostname: Option<String>,
    port: Option<u64>,
    path: Option<PathChange>,
}

impl Redirect {
    /// The redirect of the route `name`.
    pub fn new(name: &str, backend: &snapshot::RedirectBackend) -> Result<Self, LoadError> {
        let invalid = |what: String| LoadError::new("route_invalid", format!("{name}: {what}"));
        Ok(Self {
            status: u16::try_from(backend.status)
                .ok()
                .and_then(|status| StatusCode::from_u16(status).ok())
                .ok_or_else(|| invalid(format!("status {}", backend.status)))?,
            scheme: backend.scheme.map(|scheme| match scheme {
                RedirectBackendScheme::Http => "http",
                RedirectBackendScheme::Https => "https",
            }),
            hostname: backend.hostname.clone(),
            port: backend.port,
            path: backend
                .path
                .as_ref()
                .map(PathChange::new)
                .transpose()
                .map_err(invalid)?,
        })
    }

    /// The new location of a request for `path` (escaped normal form) and `query`.
    pub fn location(
        &self,
        scheme: &'static str,
        authority: &Authority,
        matched: &str,
        path: &str,
        query: Option<&str>,
    ) -> Option<HeaderValue> {
        let new_scheme = self.scheme.unwrap_or(scheme);
        let host = self.hostname.as_deref().unwrap_or(authority.host());
        // Another scheme has a port of its own; the same one stays where it is.
        let port = match self.port {
            Some(port) => Some(port),
            None if self.scheme.is_some() => None,
            None => authority.port_u16().map(u64::from),
        };
        let is_usual = matches!(
            (new_scheme, port),
            ("http", Some(80)) | ("https", Some(443))
        );
        let path = self
            .path
            .as_ref()
            .map_or_else(|| path.to_owned(), |it| it.apply(matched, path));
        let mut location = format!("{new_scheme}://{host}");
        if let Some(port) = port.filter(|_| !is_usual) {
            location.push(':');
            location.push_str(&port.to_string());
        }
        location.push_str(&path);
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::from_str(&location).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The table of the Gateway API's documentation of `ReplacePrefixMatch`.
    #[test]
    fn a_prefix_is_replaced_by_segments() {
        for (matched, new, path, expected) in [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/", "/"),
            ("/foo", "", "/foo", "/"),
            ("/foo", "/", "/foo/bar", "/bar"),
            ("/", "/x", "/a/b", "/x/a/b"),
            ("/", "/x", "/", "/x/"),
            ("/a b", "/x", "/a%20b/c", "/x/c"),
        ] {
            let change = PathChange::Prefix(new.trim_matches('/').into());
            assert_eq!(
                change.apply(matched, path),
                expected,
                "{matched} {new} {path}"
            );
        }
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        let redirect = |scheme, hostname: Option<&str>, port| Redirect {
            status: StatusCode::FOUND,
            scheme,
            hostname: hostname.map(str::to_owned),
            port,
            path: None,
        };
        let authority: Authority = "a.example:8443".parse().unwrap();
        let told = |it: &Redirect| {
            let value = it
                .location("https", &authority, "/", "/p", Some("q=1"))
                .unwrap();
            value.to_str().unwrap().to_owned()
        };
        assert_eq!(
            told(&redirect(None, None, None)),
            "https://a.example:8443/p?q=1"
        );
        assert_eq!(
            told(&redirect(Some("http"), None, None)),
            "http://a.example/p?q=1"
        );
        assert_eq!(
            told(&redirect(None, Some("b"), Some(443))),
            "https://b/p?q=1"
        );
        assert_eq!(
            told(&redirect(None, Some("b"), Some(9))),
            "https://b:9/p?q=1"
        );
    }

    #[test]
    fn framing_and_identity_are_not_a_routes_to_change() {
        for name in ["Host", "content-length", "x-vedette-principal", "te", "a b"] {
            assert!(changeable(name).is_err(), "{name}");
        }
        assert!(changeable("x-canary").is_ok());
    }
}
