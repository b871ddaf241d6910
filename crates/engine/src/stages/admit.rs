//! Admit: the address, sizes, method, host, and one spelling for the path. Looks at nothing but the head.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use vedette_admit::hello::Ja4;
use vedette_admit::ranges::Listing;
use vedette_upstream::WebSocketKey;

use crate::challenge::{Passes, take_passes};
use crate::changes::Changes;
use crate::mesh::{Sidecar, is_mesh};
use crate::node::{Held, Node};
use crate::offenders::whole_seconds;
use crate::path::normalize;
use crate::plan::Plan;
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::predict::DEADLINE;
use crate::worker;

/// A request whose head is within bounds and means one thing.
pub struct Admitted {
    parts: Parts,
    authority: Authority,
    host: Box<str>,
    path: AdmittedPath,
    websocket: Option<WebSocketKey>,
    /// Boxed where they are rare: what is admitted passes through every stage.
    passes: Option<Box<Passes>>,
    deadline: Option<Box<HeaderValue>>,
}

/// The path in its two forms; most are their own normal form.
#[derive(Clone)]
enum AdmittedPath {
    AsItCame,
    Changed { wire: String, decoded: String },
}

impl Admitted {
    /// A request that somebody describes: what the path would make of its head, but for sizes.
    pub fn described(plan: &Plan, mut parts: Parts) -> Result<Self, Refusal> {
        let authority = authority(&parts)?;
        let host = host_of(&authority)?;
        require_method(&parts.method)?;
        if !plan.admit.allows(&host) {
            return Err(Cause::HostNotAllowed.into());
        }
        require_one_length(&parts.headers)?;
        let deadline = take_deadline(&mut parts.headers);
        strip_reserved(&mut parts.headers);
        join_cookies(&mut parts.headers);
        let passes = take_passes(&mut parts.headers);
        let path = normal_path(&parts)?;
        Ok(Self {
            parts,
            authority,
            host,
            path,
            websocket: None,
            passes,
            deadline,
        })
    }

    /// The head of the request.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The header fields, to be changed for who answers.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.parts.headers
    }

    /// The host, lower case, without port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The cookies that are passes of the challenge; the header fields have them no more.
    pub fn passes(&self) -> Option<&Passes> {
        self.passes.as_deref()
    }

    /// How long the caller waits, as it said; the header fields have it no more.
    pub fn deadline(&self) -> Option<&HeaderValue> {
        self.deadline.as_deref()
    }

    /// Host and port as the caller named them.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The normal form of the path, escaped.
    pub fn wire_path(&self) -> &str {
        match &self.path {
            AdmittedPath::AsItCame => self.parts.uri.path(),
            AdmittedPath::Changed { wire, .. } => wire,
        }
    }

    /// The normal form of the path, decoded: what routes and policies see.
    pub fn path(&self) -> &str {
        match &self.path {
            AdmittedPath::AsItCame => self.parts.uri.path(),
            AdmittedPath::Changed { decoded, .. } => decoded,
        }
    }

    /// Whether the path of the request target already is in normal form.
    pub fn is_as_it_came(&self) -> bool {
        matches!(self.path, AdmittedPath::AsItCame)
    }

    /// Changes host and path as the route of the request, which matched `matched`, wants it.
    pub fn rewrite(&mut self, changes: &Changes, matched: &str) -> Result<(), Refusal> {
        if let Some(authority) = &changes.hostname {
            self.authority = authority.clone();
        }
        let Some(change) = &changes.path else {
            return Ok(());
        };
        let path = change.apply(matched, self.wire_path());
        let normal = normalize(&path)
            .map_err(|error| Refusal::with(Cause::MalformedPath, error.as_str()))?;
        self.path = AdmittedPath::Changed {
            decoded: normal.decoded.into_owned(),
            wire: normal.wire.into_owned(),
        };
        Ok(())
    }

    /// Whether an extended CONNECT asked for a WebSocket (RFC 8441). It is admitted as the GET that it
    /// stands for over HTTP/1.1.
    pub fn is_websocket(&self) -> bool {
        self.websocket.is_some()
    }

    /// The key of that WebSocket.
    pub fn take_websocket(&mut self) -> Option<WebSocketKey> {
        self.websocket.take()
    }

    /// What the connection becomes if whoever answers agrees to change the protocol.
    pub fn take_upgrade(&mut self) -> Option<OnUpgrade> {
        self.parts.extensions.remove()
    }

    /// The same head once more.
    pub fn copy(&self) -> Self {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = self.parts.method.clone();
        parts.uri = self.parts.uri.clone();
        parts.version = self.parts.version;
        parts.headers = self.parts.headers.clone();
        Self {
            parts,
            authority: self.authority.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            websocket: None,
            passes: None,
            deadline: None,
        }
    }

    /// Gives up the head.
    pub fn into_parts(self) -> Parts {
        self.parts
    }
}

/// Lets a request in, or says why not.
pub fn admit(
    node: &Node,
    plan: &Plan,
    record: &mut Record,
    held: &mut Held,
    mut parts: Parts,
) -> Result<Admitted, Refusal> {
    let authority = authority(&parts)?;
    let host = host_of(&authority)?;
    record.host.clone_from(&host);

    let limits = &plan.admit.limits;
    held.in_flight = node.in_flight.enter(limits.max_requests);
    if held.in_flight.is_none() {
        return Err(Cause::Overloaded.into());
    }
    if !worker::with(worker::Worker::has_room).unwrap_or(false) {
        return Err(Cause::RecordUnavailable.into());
    }
    if !record.connection.is_of_a_program() {
        require_address(node, plan, record)?;
    }
    require_sizes(&parts, limits)?;
    let websocket = websocket(&mut parts);
    record.method.clone_from(&parts.method);
    require_method(&parts.method)?;
    require_host(plan, record, &host)?;
    require_one_length(&parts.headers)?;
    let deadline = take_deadline(&mut parts.headers);
    record.spoofed = strip_reserved(&mut parts.headers);
    join_cookies(&mut parts.headers);
    let passes = take_passes(&mut parts.headers);

    let path = normal_path(&parts)?;
    let admitted = Admitted {
        parts,
        authority,
        host,
        path,
        websocket,
        passes,
        deadline,
    };
    if !admitted.is_as_it_came() {
        record.path = admitted.wire_path().into();
    }
    Ok(admitted)
}

/// A connection that was there before its address was blocked ends at its next request.
fn require_address(node: &Node, plan: &Plan, record: &mut Record) -> Result<(), Refusal> {
    let address = record.connection.client_address;
    record.country = plan.addresses.country(address);
    let ja4 = record.connection.ja4.as_ref();
    refusal_of_address(node, plan, address)
        .or_else(|| refusal_of_client(plan, address, ja4))
        .map_or(Ok(()), Err)
}

/// Why a TLS client is not let in, if it is not: its fingerprint. An allow list of addresses wins.
pub fn refusal_of_client(plan: &Plan, address: IpAddr, ja4: Option<&Ja4>) -> Option<Refusal> {
    let rule = plan.clients.as_ref()?;
    let is_let_in = rule.permits(ja4) || plan.addresses.judge(address) == Listing::Allowed;
    (!is_let_in).then(|| Cause::ClientNotAllowed.into())
}

/// Why an address is not let in: a list has it, or it keeps offending. An allow list wins over both.
pub fn refusal_of_address(node: &Node, plan: &Plan, address: IpAddr) -> Option<Refusal> {
    match plan.addresses.judge(address) {
        Listing::Allowed => None,
        Listing::Blocked(list) => {
            let detail = format!("the list {list}");
            Some(Refusal::with(Cause::AddressBlocked, detail))
        }
        Listing::Unlisted => {
            let (block, left) = node.offenders.block(address)?;
            let detail = format!("it kept offending: block {}", block.strike);
            Some(Refusal::with(Cause::AddressBlocked, detail).after(whole_seconds(left)))
        }
    }
}

/// RFC 9112 §3.2, RFC 9113 §8.3.1: one authority, from the target or the one Host field; when both
/// are there they agree.
pub fn authority(parts: &Parts) -> Result<Authority, Refusal> {
    let malformed = |what: &'static str| Refusal::with(Cause::MalformedHost, what);
    let mut hosts = parts.headers.get_all(HOST).iter();
    let field = hosts.next();
    if hosts.next().is_some() {
        return Err(malformed("more than one Host field"));
    }
    let field = field
        .map(|value| Authority::try_from(value.as_bytes()))
        .transpose()
        .map_err(|_| malformed("the Host field is no host"))?;
    let authority = match (parts.uri.authority(), field) {
        (Some(target), Some(field)) if *target != field => {
            return Err(malformed("the target and the Host field disagree"));
        }
        (Some(target), _) => target.clone(),
        (None, Some(field)) => field,
        (None, None) => return Err(malformed("there is no host")),
    };
    if authority.as_str().contains('@') {
        return Err(malformed("a host has no user"));
    }
    let after_host = authority.as_str().get(authority.host().len()..);
    if after_host.is_some_and(|port| !port.is_empty()) && authority.port_u16().is_none() {
        return Err(malformed("the port is no port"));
    }
    Ok(authority)
}

/// The host as it is looked up: lower case, no port, no closing dot, IPv6 in its short form.
pub fn host_of(authority: &Authority) -> Result<Box<str>, Refusal> {
    let host = authority.host();
    let host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(inner) => inner
            .parse::<Ipv6Addr>()
            .map_err(|_| Refusal::with(Cause::MalformedHost, "the host is no IPv6 address"))?
            .to_string(),
        None => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
    };
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b".-_:".contains(&b);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(Refusal::with(
            Cause::MalformedHost,
            "the host is no host name",
        ));
    }
    Ok(host.into())
}

fn require_sizes(parts: &Parts, limits: &crate::snapshot::Admit) -> Result<(), Refusal> {
    let target = parts.uri.path_and_query().map_or(0, |it| it.as_str().len());
    if target as u64 > limits.max_uri_bytes {
        return Err(Cause::UriTooLong.into());
    }
    let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + 4
    };
    let bytes: usize = parts.headers.iter().map(size).sum();
    let is_within =
        bytes as u64 <= limits.max_header_bytes && parts.headers.len() as u64 <= limits.max_headers;
    if is_within {
        return Ok(());
    }
    Err(Cause::HeadersTooLarge.into())
}

/// Makes an extended CONNECT for a WebSocket the GET that it stands for; any other CONNECT stays one.
fn websocket(parts: &mut Parts) -> Option<WebSocketKey> {
    let asked = parts.extensions.get::<Protocol>()?;
    let is_websocket = parts.method == Method::CONNECT && asked.as_str() == "websocket";
    is_websocket.then(|| WebSocketKey::ask(parts))
}

/// RFC 9110 §9.3 less CONNECT and TRACE, and PATCH (RFC 5789). Methods are case-sensitive: `get` is
/// not GET, and a policy that names GET must not be walked round with it.
pub fn require_method(method: &Method) -> Result<(), Refusal> {
    const ALLOWED: [Method; 7] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if ALLOWED.contains(method) {
        return Ok(());
    }
    Err(Cause::MethodNotAllowed.into())
}

fn require_host(plan: &Plan, record: &Record, host: &str) -> Result<(), Refusal> {
    if let Some(sidecar) = &record.connection.sidecar {
        return require_mesh_host(plan, sidecar, host);
    }
    if record
        .connection
        .sni
        .as_deref()
        .is_some_and(|sni| sni != host)
    {
        return Err(Cause::HostSniMismatch.into());
    }
    if plan.admit.allows(host) && !is_mesh(host) {
        return Ok(());
    }
    Err(Cause::HostNotAllowed.into())
}

/// A program may ask for hosts of the mesh and no others. Who comes to it may call it as they like: identity leads there.
fn require_mesh_host(plan: &Plan, sidecar: &Sidecar, host: &str) -> Result<(), Refusal> {
    if plan.sidecar(&sidecar.name).is_none() {
        let gone = format!("there is no sidecar {}", sidecar.name);
        return Err(Refusal::with(Cause::HostNotAllowed, gone));
    }
    let is_allowed = !sidecar.is_outbound() || (is_mesh(host) && plan.admit.allows(host));
    is_allowed
        .then_some(())
        .ok_or_else(|| Cause::HostNotAllowed.into())
}

/// RFC 9112 §6.3: lengths that disagree are an attack on whoever reads next.
pub fn require_one_length(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next();
    if first.is_none() || lengths.all(|other| Some(other) == first) {
        return Ok(());
    }
    Err(Refusal::with(
        Cause::MalformedRequest,
        "content-length differs",
    ))
}

/// Whether only this node may set the field, each `_` read as `-`, since much software folds the two: its own names, and
/// those by which other gateways tell a service who was proved to them (RFC 9440 §4 for `client-cert`).
fn is_reserved(name: &str) -> bool {
    const PREFIXES: [&[u8]; 5] = [
        b"x-vedette-",
        b"x-edge-",
        b"x-spiffe-",
        b"x-forwarded-client-cert",
        b"client-cert",
    ];
    // Few fields begin so.
    if !matches!(name.as_bytes().first(), Some(b'x' | b'c')) {
        return false;
    }
    let folded = || {
        name.bytes()
            .map(|byte| if byte == b'_' { b'-' } else { byte })
    };
    PREFIXES.iter().any(|prefix| {
        name.len() >= prefix.len() && folded().take(prefix.len()).eq(prefix.iter().copied())
    })
}

/// Takes out the one field of ours that is the caller's to say, since it only makes things stricter: how long it waits.
/// Said twice, it says nothing that can be read.
fn take_deadline(headers: &mut HeaderMap) -> Option<Box<HeaderValue>> {
    let is_doubled = headers.get_all(DEADLINE).iter().nth(1).is_some();
    let said = headers.remove(DEADLINE)?;
    let unreadable = HeaderValue::from_static("");
    Some(Box::new(if is_doubled { unreadable } else { said }))
}

/// HTTP/2 may have cut one cookie field into several (RFC 9113 §8.2.3): they are one again, for whoever judges the request
/// and whoever answers it.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let fields: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Takes away header fields that only this node may set; returns how many there were.
pub fn strip_reserved(headers: &mut HeaderMap) -> u32 {
    let found: Vec<_> = headers
        .keys()
        .filter(|name| is_reserved(name.as_str()))
        .cloned()
        .collect();
    for name in &found {
        headers.remove(name);
    }
    u32::try_from(found.len()).unwrap_or(u32::MAX)
}

fn normal_path(parts: &Parts) -> Result<AdmittedPath, Refusal> {
    let raw = parts.uri.path();
    let normal =
        normalize(raw).map_err(|error| Refusal::with(Cause::MalformedPath, error.as_str()))?;
    if normal.wire == raw && normal.decoded == raw {
        return Ok(AdmittedPath::AsItCame);
    }
    Ok(AdmittedPath::Changed {
        wire: normal.wire.into_owned(),
        decoded: normal.decoded.into_owned(),
    })
}
