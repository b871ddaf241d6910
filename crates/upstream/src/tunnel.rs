//! Connections that have changed their protocol (RFC 9110 §7.8), WebSocket above all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Response, request};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::active::Active;
use crate::body::UpstreamBody;
use crate::error::{SendError, before_head};
use crate::exchange::Lease;
use crate::fields::clean_answer;

/// The two directions of an upgraded connection. It counts as a request under way, and as an open
/// connection, until it is dropped.
pub struct Tunnel {
    io: TokioIo<Upgraded>,
    _active: Active,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The head of a 101, with the two fields that make it one, and the tunnel behind it.
pub(crate) async fn upgraded(
    mut response: Response<Incoming>,
    lease: Lease,
    active: Active,
    wanted: &HeaderValue,
) -> Result<(Response<UpstreamBody>, Option<Tunnel>), SendError> {
    let agreed = response.headers().get(UPGRADE).cloned();
    let asked = wanted.as_bytes().split(|byte| *byte == b',');
    let is_asked = |agreed: &HeaderValue| {
        let mut asked = asked;
        asked.any(|it| {
            it.trim_ascii()
                .eq_ignore_ascii_case(agreed.as_bytes().trim_ascii())
        })
    };
    let Some(agreed) = agreed.filter(is_asked) else {
        let what = "it changes to a protocol not asked for";
        return Err(SendError::MalformedResponse(what.into()));
    };
    let upgraded = hyper::upgrade::on(&mut response).await;
    let upgraded = upgraded.map_err(|error| before_head(&error))?;
    clean_answer(&mut response)?;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, agreed);
    let tunnel = Tunnel {
        io: TokioIo::new(upgraded),
        _active: active,
    };
    let (head, incoming) = response.into_parts();
    let response = Response::from_parts(head, UpstreamBody::of_upgrade(incoming));
    lease.let_go();
    Ok((response, Some(tunnel)))
}

/// The key of a WebSocket handshake that the gateway makes itself, where the caller came over HTTP/2
/// (RFC 8441 has no key).
pub struct WebSocketKey(String);

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

impl WebSocketKey {
    /// Makes an extended CONNECT a request for an upgrade over HTTP/1.1 (RFC 6455 §4.1).
    pub fn ask(head: &mut request::Parts) -> Self {
        let mut nonce = [0; 16];
        fastrand::fill(&mut nonce);
        let key = BASE64_STANDARD.encode(nonce);
        head.method = Method::GET;
        let headers = &mut head.headers;
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if let Ok(value) = HeaderValue::from_str(&key) {
            headers.insert(SEC_WEBSOCKET_KEY, value);
        }
        Self(key)
    }

    /// Whether a 101 answers this key. Takes out of it what HTTP/2 has no use for: what is left is
    /// the head of a 200.
    pub fn accepts(&self, headers: &mut HeaderMap) -> bool {
        let spoken = digest(
            &SHA1_FOR_LEGACY_USE_ONLY,
            format!("{}{GUID}", self.0).as_bytes(),
        );
        let expected = BASE64_STANDARD.encode(spoken);
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
        let said = headers.remove(SEC_WEBSOCKET_ACCEPT);
        said.is_some_and(|it| it.as_bytes() == expected.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::WebSocketKey;
    use http::HeaderMap;
    use http::header::SEC_WEBSOCKET_ACCEPT;

    #[test]
    fn the_key_of_the_rfc_is_answered_as_in_the_rfc() {
        let key = WebSocketKey("dGhlIHNhbXBsZSBub25jZQ==".into());
        let mut headers = HeaderMap::new();
        assert!(!key.accepts(&mut headers));
        headers.insert(
            SEC_WEBSOCKET_ACCEPT,
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".parse().unwrap(),
        );
        assert!(key.accepts(&mut headers));
        assert!(headers.is_empty());
    }
}
