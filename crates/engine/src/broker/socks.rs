//! SOCKS5 (RFC 1928) without authentication, CONNECT alone: who connects is known by the namespace it is in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use vedette_upstream::SendError;

use super::tunnel::{self, NotOpened, Wanted};
use super::{Client, PATIENCE};

/// The first byte of all that is said.
pub const VERSION: u8 = 5;
const CONNECT: u8 = 1;
/// A greeting names at most 255 methods, a request a name of at most 255 bytes.
const LONGEST: usize = 2 + 255 + 4 + 1 + 255 + 2;

const SUCCEEDED: u8 = 0;
const FAILED: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const CLOSED: u8 = 5;
const COMMAND_UNKNOWN: u8 = 7;
const ADDRESS_UNKNOWN: u8 = 8;
const NO_METHOD: u8 = 0xff;

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// A name or an address.
    pub host: String,
    /// A port.
    pub port: u16,
}

/// The length of a greeting and whether it offers to do without authentication; `None`: it goes on.
fn greeting(bytes: &[u8]) -> Option<(usize, bool)> {
    let (_version, rest) = bytes.split_first()?;
    let (count, rest) = rest.split_first()?;
    let methods = rest.get(..usize::from(*count))?;
    Some((2 + methods.len(), methods.contains(&0)))
}

/// Reads a request and how long it is; `None`: it goes on.
///
/// # Errors
/// What it is answered with, where it is not one that is served.
pub fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, u8> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let [VERSION, command, 0, kind] = *head else {
        return Err(FAILED);
    };
    if command != CONNECT {
        return Err(COMMAND_UNKNOWN);
    }
    let address = match kind {
        1 => rest.split_first_chunk::<4>().map(|(it, rest)| {
            let address = IpAddr::V4(Ipv4Addr::from(*it));
            (address.to_string(), rest)
        }),
        4 => rest.split_first_chunk::<16>().map(|(it, rest)| {
            let address = IpAddr::V6(Ipv6Addr::from(*it));
            (address.to_string(), rest)
        }),
        3 => match named(rest) {
            Some((name, rest)) => {
                let name = str::from_utf8(name).map_err(|_| ADDRESS_UNKNOWN)?;
                Some((name.to_owned(), rest))
            }
            None => None,
        },
        _ => return Err(ADDRESS_UNKNOWN),
    };
    let Some((host, rest)) = address else {
        return Ok(None);
    };
    Ok(rest.split_first_chunk::<2>().map(|(port, rest)| {
        let port = u16::from_be_bytes(*port);
        (Request { host, port }, bytes.len() - rest.len())
    }))
}

fn named(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// Serves one connection.
pub async fn serve(client: &Client, mut stream: TcpStream) {
    let asked = timeout(PATIENCE, asked(&mut stream)).await;
    let Ok(Some(wanted)) = asked else {
        return;
    };
    match tunnel::open(client, &wanted.host, wanted.port).await {
        Ok(opened) => {
            if answer(&mut stream, SUCCEEDED).await.is_some() {
                tunnel::carry(client, stream, opened).await;
            }
        }
        Err(refused) => {
            let code = match &refused {
                NotOpened::Refused(_) | NotOpened::Failed(SendError::NotAllowed(_)) => NOT_ALLOWED,
                NotOpened::Failed(SendError::DnsFailed(_)) => HOST_UNREACHABLE,
                NotOpened::Failed(SendError::ConnectFailed(_)) => CLOSED,
                NotOpened::Failed(_) => FAILED,
            };
            answer(&mut stream, code).await;
        }
    }
}

/// What the client asks for; `None`: nothing that is served, and it was told so.
async fn asked(stream: &mut TcpStream) -> Option<Wanted> {
    let mut bytes = Vec::with_capacity(64);
    let (length, is_open) = loop {
        if let Some(whole) = greeting(&bytes) {
            break whole;
        }
        more(stream, &mut bytes).await?;
    };
    let method = if is_open { 0 } else { NO_METHOD };
    stream.write_all(&[VERSION, method]).await.ok()?;
    if !is_open {
        return None;
    }
    bytes.drain(..length);
    loop {
        match request(&bytes) {
            Ok(Some((request, length))) if length == bytes.len() => {
                return Some(Wanted {
                    host: request.host,
                    port: request.port,
                });
            }
            Ok(None) => more(stream, &mut bytes).await?,
            // It goes on before it was answered: nobody does.
            Ok(Some(_)) => {
                answer(stream, FAILED).await;
                return None;
            }
            Err(code) => {
                answer(stream, code).await;
                return None;
            }
        }
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    if bytes.len() >= LONGEST {
        return None;
    }
    let read = stream.read_buf(bytes).await.ok()?;
    (read > 0).then_some(())
}

async fn answer(stream: &mut TcpStream, code: u8) -> Option<()> {
    // The address it is bound to is nobody's business.
    let answer = [VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0];
    stream.write_all(&answer).await.ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_once_it_is_whole() {
        let whole = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb";
        for length in 0..whole.len() {
            assert_eq!(request(&whole[..length]), Ok(None), "{length}");
        }
        let read = Request {
            host: "example.com".into(),
            port: 443,
        };
        assert_eq!(request(whole), Ok(Some((read, whole.len()))));
        let (four, _) = request(b"\x05\x01\x00\x01\x0a\x00\x00\x07\x00\x50")
            .unwrap()
            .unwrap();
        assert_eq!((four.host.as_str(), four.port), ("10.0.0.7", 80));
        let six = b"\x05\x01\x00\x04\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\x00\x16";
        assert_eq!(request(six).unwrap().unwrap().0.host, "fd00::7");
    }

    #[test]
    fn what_is_not_served_is_answered_as_the_rfc_says() {
        assert_eq!(
            request(b"\x05\x02\x00\x01\0\0\0\0\0\0"),
            Err(COMMAND_UNKNOWN)
        );
        assert_eq!(
            request(b"\x05\x03\x00\x01\0\0\0\0\0\0"),
            Err(COMMAND_UNKNOWN)
        );
        assert_eq!(request(b"\x05\x01\x00\x02\0\0"), Err(ADDRESS_UNKNOWN));
        assert_eq!(
            request(b"\x05\x01\x00\x03\x01\xff\0\x50"),
            Err(ADDRESS_UNKNOWN)
        );
        assert_eq!(request(b"\x04\x01\x00\x01"), Err(FAILED));
        assert_eq!(request(b"\x05\x01\x01\x01"), Err(FAILED));
    }

    #[test]
    fn a_greeting_offers_methods() {
        assert_eq!(greeting(b"\x05"), None);
        assert_eq!(greeting(b"\x05\x02\x00"), None);
        assert_eq!(greeting(b"\x05\x02\x02\x00more"), Some((4, true)));
        assert_eq!(greeting(b"\x05\x01\x02"), Some((3, false)));
        assert_eq!(greeting(b"\x05\x00"), Some((2, false)));
    }
}
