//! Fuzz targets of the engine: each takes whatever bytes come and panics only over a defect.
//!
//! Owns: what must hold for every input, beside "it ends and does not panic". Compiled for `make
//! fuzz` and for the tests, which replay every seed; never part of the engine that runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)]

mod connection;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use vedette_upstream::{EgressRule, EgressRules};

use crate::broker::socks_request;
use crate::call::messages::{Found, Named, named};
use crate::certificate::{Authorities, read, spiffe_id};
use crate::changes::Redirect;
use crate::conditions::Conditions;
use crate::files::{Part, part};
use crate::jwt::Issuers;
use crate::load::EngineDir;
use crate::path::normalize;
use crate::plan::{Before, Plan};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::snapshot::Snapshot;
use crate::stages::admit;
use crate::trace::Ids;

/// Takes whatever comes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("path", path),
    ("head", head),
    ("token", token),
    ("certificate", certificate),
    ("conditions", conditions),
    ("range", range),
    ("redirect", redirect),
    ("snapshot", snapshot),
    ("envelope", envelope),
    ("record", record),
    ("traceparent", traceparent),
    ("socks", socks),
    ("call", call),
    ("http1", connection::http1),
    ("http2", connection::http2),
];

pub(crate) const SNAPSHOT: &str = include_str!("fuzz/snapshot.json");
const AUTHORITY: &str = include_str!("fuzz/authority.pem");

/// The snapshot that targets are run under; its policy lets everybody in everywhere but `/closed`.
fn served() -> Snapshot {
    serde_json::from_str(SNAPSHOT).unwrap()
}

fn is_clean(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f && byte != b'\\'
}

/// What a program in a box asks for over SOCKS: once whole it stays the same, and no spelling of a host leads where no
/// rule is.
fn socks(data: &[u8]) {
    static RULES: LazyLock<EgressRules> = LazyLock::new(|| {
        let listed = [
            "https://api.example.com",
            "https://*.example.org",
            "tcp://10.0.0.7:22",
        ];
        EgressRules::compile(listed.map(EgressRule::to)).unwrap()
    });
    let Ok(Some((request, length))) = socks_request(data) else {
        return;
    };
    assert!(length <= data.len());
    let more = [data, b"more"].concat();
    let again = socks_request(&more).unwrap().expect("it is whole");
    assert_eq!(again.0, request, "what follows changes it");
    if let Ok((_, is_secure)) = RULES.tunnel(&request.host, request.port) {
        let host = request.host.to_ascii_lowercase();
        let is_listed = host == "api.example.com" || host.ends_with(".example.org");
        let address = host.parse::<std::net::IpAddr>().ok();
        let is_address = address.is_some_and(|it| it.to_canonical().to_string() == "10.0.0.7");
        let fits = match is_secure {
            true => is_listed && request.port == 443,
            false => is_address && request.port == 22,
        };
        assert!(fits, "{request:?}");
    }
}

/// The beginning of a message, cut where the first byte says: what it names is named whatever follows, and is in it.
fn call(data: &[u8]) {
    let Some((cut, message)) = data.split_first() else {
        return;
    };
    let cut = usize::from(*cut).min(message.len());
    let whole = named(message, true);
    match named(&message[..cut], false) {
        Found::More => {}
        found => {
            assert_eq!(found, named(message, false), "what follows changes it");
            assert_eq!(found, whole);
        }
    }
    if let Found::Named(Named { model, version }) = whole {
        for text in [model.as_bytes(), version.as_bytes()] {
            assert!(text.len() <= 256);
            assert!(text.is_empty() || message.windows(text.len()).any(|it| it == text));
        }
        assert!(!model.is_empty());
    } else {
        assert_eq!(whole, Found::Nothing, "it has no more");
    }
}

/// The normal form is normal, has no way up, and nothing in it that two servers read in two ways.
fn path(data: &[u8]) {
    let Ok(raw) = str::from_utf8(data) else {
        return;
    };
    let Ok(normal) = normalize(raw) else {
        return;
    };
    let again = normalize(&normal.wire).expect("the normal form has a normal form");
    assert_eq!(again, normal, "it is its own");
    for text in [&normal.wire, &normal.decoded] {
        assert!(
            text.starts_with('/') && text.bytes().all(is_clean),
            "{text:?}"
        );
        assert!(!text.contains("//"), "{text:?}");
        assert!(
            !text.split('/').any(|it| it == "." || it == ".."),
            "{text:?}"
        );
    }
    assert!(normal.wire.is_ascii());
}

/// The first line is a method and a target, the others are header fields.
fn head_of(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(&first[..space]).ok()?;
    parts.uri = Uri::try_from(&first[space + 1..]).ok()?;
    for line in lines.take(64) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        parts.headers.append(name, value);
    }
    Some(parts)
}

/// What `admit` makes of a head: one host in one spelling, no field that only the node may set.
fn head(data: &[u8]) {
    let Some(mut parts) = head_of(data) else {
        return;
    };
    let _ = admit::require_method(&parts.method);
    let _ = admit::require_one_length(&parts.headers);
    admit::strip_reserved(&mut parts.headers);
    for name in parts.headers.keys() {
        let folded = name.as_str().replace('_', "-");
        assert!(!folded.starts_with("x-vedette-"), "{name}");
        assert!(!folded.starts_with("x-edge-"), "{name}");
        assert!(!folded.starts_with("x-spiffe-"), "{name}");
        assert!(!folded.starts_with("client-cert"), "{name}");
    }
    let Ok(authority) = admit::authority(&parts) else {
        return;
    };
    let Ok(host) = admit::host_of(&authority) else {
        return;
    };
    assert!(
        !host.contains(['@', '/', '?', '#', '[', ']', '%']),
        "{host}"
    );
    assert_eq!(*host, *host.to_ascii_lowercase());
    let spelt = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_string()
    };
    if let Ok(authority) = Authority::try_from(spelt.as_str())
        && let Ok(again) = admit::host_of(&authority)
        && !host.ends_with('.')
    {
        assert_eq!(again, host, "one spelling");
    }
}

/// Nobody has the key, so no token is ever believed.
fn token(data: &[u8]) {
    static ISSUERS: LazyLock<Issuers> = LazyLock::new(|| {
        let issuers = served().identity.issuers;
        Issuers::compile(issuers, vec!["spiffe://t#gone".into()]).unwrap()
    });
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    assert!(ISSUERS.verify(text).is_err(), "forged: {text}");
}

/// A certificate, and a chain of two split in the middle: neither is of the authority.
fn certificate(data: &[u8]) {
    static TRUSTED: LazyLock<Arc<Authorities>> = LazyLock::new(|| {
        let authority = serde_json::json!({
            "name": "mesh", "certificates": AUTHORITY, "trustDomain": "example.org",
            "pins": [], "revoked": [],
        });
        let authority = serde_json::from_value(authority).unwrap();
        Authorities::compile(vec![authority], None)
            .unwrap()
            .unwrap()
    });
    if let Ok(leaf) = read(data) {
        for uri in &leaf.uris {
            if let Ok(domain) = spiffe_id(uri) {
                assert!(uri.starts_with(&format!("spiffe://{domain}/")), "{uri}");
                assert!(
                    !uri.contains("//.") && !uri.contains(['?', '#', '%', '@']),
                    "{uri}"
                );
            }
        }
    }
    let (own, other) = data.split_at(data.len() / 2);
    for chain in [vec![data.into()], vec![own.into(), other.into()]] {
        let judged = TRUSTED.verify(&chain, 1_800_000_000, crate::tls::algorithms());
        assert!(judged.is_err(), "vouched for");
    }
}

/// Conditions on header fields, query and cookies, against heads of every kind.
fn conditions(data: &[u8]) {
    static ALL: LazyLock<Vec<Conditions>> = LazyLock::new(|| {
        let routes = served().routes;
        let made = routes.iter().map(|route| Conditions::of(route).unwrap());
        made.flatten().collect()
    });
    let Some(parts) = head_of(data) else {
        return;
    };
    for conditions in ALL.iter() {
        if conditions.hold(&parts) {
            assert_eq!(parts.method, "POST");
            assert!(parts.headers.contains_key("x-version"));
            assert!(parts.uri.query().is_some() && parts.headers.contains_key("cookie"));
        }
    }
}

/// The first two bytes are the size of the file. What is sent lies within it.
fn range(data: &[u8]) {
    let Some((size, asked)) = data.split_first_chunk::<2>() else {
        return;
    };
    let size = usize::from(u16::from_le_bytes(*size));
    let Ok(asked) = HeaderValue::from_bytes(asked) else {
        return;
    };
    if let Part::Range(first, last) = part(Some(&asked), size) {
        assert!(first <= last && last < size, "{first}-{last} of {size}");
    }
}

/// Three lines: what replaces, what matched, the path. The new location leads to the same host.
fn redirect(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let (Some(value), Some(matched), Some(raw)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let (Ok(matched), Ok(raw)) = (normalize(matched), normalize(raw)) else {
        return;
    };
    for kind in ["ReplaceFullPath", "ReplacePrefixMatch"] {
        let backend = serde_json::json!({
            "status": 302, "path": {"type": kind, "value": value},
        });
        let Ok(backend) = serde_json::from_value(backend) else {
            return;
        };
        let Ok(redirect) = Redirect::new("r", &backend) else {
            continue;
        };
        let authority = Authority::from_static("a.example");
        let location =
            redirect.location("https", &authority, &matched.decoded, &raw.wire, Some("q"));
        if let Some(location) = location {
            let location = location.to_str().expect("a location is ASCII");
            assert!(location.starts_with("https://a.example/"), "{location}");
        }
    }
}

/// JSON of any shape, compiled against an empty folder.
fn snapshot(data: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(data) else {
        return;
    };
    let dir = EngineDir::new(Path::new("/nonexistent"), "none");
    let _ = Plan::compile(snapshot, "sha256:none".into(), &dir, Before::Nothing);
}

/// Nobody has the key, so no envelope is ever opened.
fn envelope(data: &[u8]) {
    let pem = "-----BEGIN PUBLIC KEY-----\n\
               MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
               -----END PUBLIC KEY-----\n";
    let key = crate::envelope::VerifyingKey::from_pem(pem).unwrap();
    assert!(crate::envelope::verify(data, &key).is_err());
    let _ = crate::envelope::VerifyingKey::from_pem(&String::from_utf8_lossy(data));
}

/// Whatever a caller says, its record is one line of JSON that says the same.
fn record(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let middle = text.floor_char_boundary(text.len() / 2);
    let (path, detail) = text.split_at(middle);
    let connection = connection::connection();
    let mut record = Record::open(&connection, &Request::new(()).into_parts().0);
    record.path = path.into();
    record.host = detail.into();
    record.refusal = Some(Refusal::with(Cause::MalformedPath, detail.to_owned()));
    let mut line = Vec::new();
    record.write(std::time::Duration::ZERO, &mut line);
    let (last, rest) = line.split_last().unwrap();
    assert!(*last == b'\n' && !rest.contains(&b'\n') && !rest.contains(&0));
    let told: serde_json::Value = serde_json::from_slice(rest).unwrap();
    assert_eq!(
        (told["path"].as_str(), told["detail"].as_str()),
        (Some(path), Some(detail))
    );
}

/// Each line is a `traceparent`. What goes on is one that every reader takes.
fn traceparent(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(4) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("traceparent", value);
        }
    }
    let ids = Ids::new(&headers);
    let parts: Vec<_> = ids.traceparent().split('-').collect();
    assert_eq!(
        parts.iter().map(|it| it.len()).collect::<Vec<_>>(),
        [2, 32, 16, 2]
    );
    assert!(
        parts
            .iter()
            .all(|it| it.bytes().all(|b| b"0123456789abcdef".contains(&b)))
    );
    assert!(parts[1] != "0".repeat(32) && parts[2] != "0".repeat(16));
}

/// Somebody at an address of this machine.
pub(crate) fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

#[cfg(test)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn every_seed_of_the_engine_passes_its_target() {
    replay::all(TARGETS);
}
