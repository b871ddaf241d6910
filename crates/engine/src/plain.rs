//! Plain HTTP that comes to a TLS port: it gets an answer in clear that says so, and a record.
//!
//! Only the first byte of other connections is looked at, and none of it taken. Must not: read a body,
//! or wait for more of a request than the word it begins with.

use std::future::poll_fn;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::refusal::Cause;
use crate::stages::respond;
use crate::trace::Ids;
use crate::wire::Lingering;

/// The longest method that is known by its capitals; `OPTIONS ` has eight bytes, PROPPATCH nine.
const LONGEST_METHOD: usize = 16;

/// What a connection to a TLS port begins with.
pub enum Begins {
    /// What may be TLS.
    Tls,
    /// The method of a request.
    PlainHttp,
    /// A letter, and then nothing that is HTTP.
    Unknown,
}

/// Looks at how a connection begins. A TLS record never begins with a letter (RFC 8446 §5.1).
///
/// # Errors
/// Of the connection.
pub async fn begins(stream: &mut TcpStream) -> io::Result<Begins> {
    let mut first = [0; 1];
    if stream.peek(&mut first).await? == 0 || !first.iter().all(u8::is_ascii_uppercase) {
        return Ok(Begins::Tls);
    }
    for _ in 0..LONGEST_METHOD {
        match stream.read_u8().await? {
            b'A'..=b'Z' => {}
            b' ' => return Ok(Begins::PlainHttp),
            _ => break,
        }
    }
    Ok(Begins::Unknown)
}

/// Answers in clear, and listens for a while to what the client goes on sending, so that the answer
/// arrives.
pub async fn refuse(mut stream: TcpStream, ids: &Ids, location: &http::HeaderValue) {
    let answer = respond::refuse_unreadable(Cause::PlainHttp, ids, location);
    if stream.write_all(&answer).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    let mut lingering = Lingering::new();
    poll_fn(|cx| lingering.poll(&mut stream, cx)).await;
}
