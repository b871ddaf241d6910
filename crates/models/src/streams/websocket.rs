//! Events as messages of a WebSocket (RFC 6455), one each: texts, or the bytes of a model's elements.
//!
//! Owns: the agreement to change the protocol (section 4.2.2), and the messages behind it. Frames are the library's.
//!
//! Must not: offer an extension or a protocol below this one.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as Broken, Message, Utf8Bytes};

use super::event::MAX_LINE;
use super::{Conversation, last_words};
use crate::oip::Refusal;

/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of results that wait to be written at most.
const WAITING: usize = 64 * 1024;
/// How long the other side has for its goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket.
pub fn is_asked_for<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && says(request.headers(), &UPGRADE, "websocket")
}

fn says(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|it| it.to_str().ok());
    let mut words = values.flat_map(|it| it.split(','));
    words.any(|it| it.trim().eq_ignore_ascii_case(word))
}

/// Agrees to the WebSocket; `open` has the stream that it is for.
///
/// # Errors
/// 400: it is not asked for as RFC 6455 says. Those of `open`.
pub fn switch(
    mut request: Request<Incoming>,
    open: impl FnOnce(&Request<Incoming>) -> Result<Conversation, Refusal>,
) -> Result<Response<()>, Refusal> {
    let headers = request.headers();
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|it| it != "13")
    {
        return Err(Refusal::bad("sec-websocket-version is 13 here"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|it| STANDARD.decode(it).is_ok_and(|it| it.len() == 16));
    let accept = key
        .map(accept)
        .filter(|_| says(headers, &CONNECTION, "upgrade"));
    let accept = accept
        .ok_or_else(|| Refusal::bad("that is no opening of a WebSocket (RFC 6455, section 4.1)"))?;
    let conversation = open(&request)?;
    tokio::spawn(talk(hyper::upgrade::on(&mut request), conversation));
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let accept = HeaderValue::from_str(&accept).map_err(|error| Refusal::new(500, error))?;
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn accept(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    STANDARD.encode(digest)
}

async fn talk(upgrade: OnUpgrade, mut conversation: Conversation) {
    let Ok(upgraded) = upgrade.await else {
        return;
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_LINE))
        .max_frame_size(Some(MAX_LINE))
        .max_write_buffer_size(WAITING * 2)
        .write_buffer_size(0);
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let _ = exchange(&mut socket, &mut conversation).await;
}

/// Answers messages until one side ends; an error when the other has gone or breaks the protocol.
async fn exchange(socket: &mut Socket, conversation: &mut Conversation) -> Result<(), Broken> {
    let mut out = vec![];
    loop {
        let message = tokio::select! {
            biased;
            () = conversation.left() => return say_goodbye(socket).await,
            message = socket.next() => message,
        };
        let event = match message {
            None => return Ok(()),
            Some(Err(error)) => return end(socket, code_of(&error), "").await,
            Some(Ok(Message::Text(text))) => Bytes::from(text),
            Some(Ok(Message::Binary(elements))) if conversation.takes_elements() => {
                out.clear();
                conversation.answer_elements(&elements, &mut out).await;
                socket.send(message_of(&out)).await?;
                continue;
            }
            // Pings are answered by the library, and a goodbye is when it is read on.
            Some(Ok(
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_),
            )) => continue,
            Some(Ok(Message::Binary(_))) => {
                return end(socket, CloseCode::Unsupported, "an event is a text message").await;
            }
        };
        out.clear();
        conversation.answer(&event, &mut out).await;
        socket.send(message_of(&out)).await?;
    }
}

fn message_of(line: &[u8]) -> Message {
    let text = Bytes::copy_from_slice(line.trim_ascii_end());
    // What was read as JSON is UTF-8, and so is what is made here.
    Message::Text(Utf8Bytes::try_from(text).unwrap_or_default())
}

async fn say_goodbye(socket: &mut Socket) -> Result<(), Broken> {
    socket.send(message_of(&last_words())).await?;
    end(socket, CloseCode::Away, "the model is being replaced").await
}

/// What a broken rule is called (RFC 6455, section 7.4.1).
fn code_of(error: &Broken) -> CloseCode {
    match error {
        Broken::Capacity(_) => CloseCode::Size,
        Broken::Utf8(_) => CloseCode::Invalid,
        _ => CloseCode::Protocol,
    }
}

/// Says goodbye, and waits a moment for the other side to say it (section 7.1.1): it may find the connection closed
/// before it has read what came before, otherwise.
async fn end(socket: &mut Socket, code: CloseCode, reason: &'static str) -> Result<(), Broken> {
    let reason = Utf8Bytes::from_static(reason);
    socket.close(Some(CloseFrame { code, reason })).await?;
    let answered = async { while let Some(Ok(_)) = socket.next().await {} };
    let _ = timeout(GOODBYE, answered).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_the_key_of_the_rfc_is_the_one_of_the_rfc() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
