//! Greets the caller by the name that the edge proved. Knows nothing of tokens: who is calling arrives as a header
//! that nobody outside the node can set.

use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

/// The identity header the edge sets when a token was verified.
const SUBJECT: &str = "x-vedette-subject";

struct Hello;

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let greeting = match subject(&request) {
            Some(name) => format!("Hello, {name}, from Vedette\n"),
            None => "Hello from Vedette\n".to_owned(),
        };
        respond(out, greeting.as_bytes());
    }
}

fn subject(request: &IncomingRequest) -> Option<String> {
    let values = request.headers().get(SUBJECT);
    let name = String::from_utf8(values.into_iter().next()?).ok()?;
    (!name.is_empty()).then_some(name)
}

fn respond(out: ResponseOutparam, body: &[u8]) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"text/plain; charset=utf-8");
    let response = OutgoingResponse::new(headers);
    let Ok(outgoing) = response.body() else {
        return;
    };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = outgoing.write() {
        // One call takes at most 4096 bytes (wasi:io/streams).
        for chunk in body.chunks(4096) {
            if stream.blocking_write_and_flush(chunk).is_err() {
                return;
            }
        }
    }
    let _ = OutgoingBody::finish(outgoing, None);
}

wasi::http::proxy::export!(Hello);
