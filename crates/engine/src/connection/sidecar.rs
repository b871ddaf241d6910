//! A connection of a sidecar: mTLS from others in the mesh, plain HTTP from the program.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::{ListenerShared, Seen, Task, connection};
use crate::mesh::Sidecar;
use crate::node::{Connection, Node};
use crate::snapshot::SidecarMode;

/// How long the rest of a first word is waited for.
const MOMENT: Duration = Duration::from_millis(1);

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
enum Opening {
    Tls,
    Http1,
    /// With prior knowledge (RFC 9113 §3.3), as gRPC has it.
    Http2,
}

/// A connection of a program that comes over no socket of ours.
pub fn of_program(node: &Node, sidecar: &Arc<Sidecar>, peer: SocketAddr) -> Arc<Connection> {
    let shared = ListenerShared::of_sidecar(sidecar, None);
    connection(node, &shared, "http", peer, Seen::default())
}

impl Task {
    /// Serves it as its sidecar's mode says; one whose sidecar is gone is closed.
    pub(super) async fn run_sidecar(self, stream: TcpStream, peer: SocketAddr) {
        let (timers, _) = self.terms();
        let Some((mode, of)) = self.mode().zip(self.shared.sidecar.as_ref()) else {
            return;
        };
        let patience = Instant::now() + Duration::from_millis(timers.handshake_millis);
        let Ok(Ok(opening)) = timeout_at(patience, opening(&stream)).await else {
            return;
        };
        let tls = of.tls.as_ref();
        if opening == Opening::Tls {
            let Some(config) = tls.map(|it| it.of(mode)) else {
                return;
            };
            let secured = Box::pin(self.shake_hands(stream, peer, config, patience)).await;
            if let Some(secured) = secured {
                self.serve_secured(secured, &timers).await;
            }
            return;
        }
        if tls.is_some() && mode == SidecarMode::Strict {
            return self.refuse_plain(peer, stream).await;
        }
        let connection = self.connection("http", peer, Seen::default());
        match opening {
            Opening::Http2 => Box::pin(self.serve_http2(stream, connection, &timers)).await,
            Opening::Http1 | Opening::Tls => self.serve_http1(stream, connection, &timers).await,
        }
    }

    fn mode(&self) -> Option<SidecarMode> {
        let of = self.shared.sidecar.as_ref()?;
        self.node.plan()?.sidecar(&of.sidecar.name)
    }
}

async fn opening(stream: &TcpStream) -> io::Result<Opening> {
    const PREFACE: &[u8] = b"PRI ";
    const HANDSHAKE: u8 = 22;
    loop {
        let mut first = [0; PREFACE.len()];
        let count = stream.peek(&mut first).await?;
        match first.get(..count).unwrap_or_default() {
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            [HANDSHAKE, ..] => return Ok(Opening::Tls),
            PREFACE => return Ok(Opening::Http2),
            some if PREFACE.starts_with(some) => sleep(MOMENT).await,
            _ => return Ok(Opening::Http1),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of bytes that come in these parts.
    async fn made_of(parts: &[&[u8]]) -> io::Result<Opening> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (server, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let sending = async {
            for part in parts {
                client.write_all(part).await?;
                sleep(Duration::from_millis(5)).await;
            }
            match parts.is_empty() {
                true => client.shutdown().await,
                false => Ok(()),
            }
        };
        let (opening, sent) = tokio::join!(opening(&server), sending);
        sent.and(opening)
    }

    #[tokio::test]
    async fn the_first_bytes_say_what_is_spoken() {
        for (parts, expected) in [
            (&[&b"\x16\x03\x01"[..]][..], Opening::Tls),
            (&[b"GET / HTTP/1.1"], Opening::Http1),
            (&[b"P", b"RI * HTTP/2.0"], Opening::Http2),
            (&[b"PRI", b" "], Opening::Http2),
            (&[b"PR", b"OPFIND"], Opening::Http1),
            (&[b"POST"], Opening::Http1),
            (&[b"\x00\xff"], Opening::Http1),
        ] {
            assert_eq!(made_of(parts).await.unwrap(), expected, "{parts:?}");
        }
        assert!(made_of(&[]).await.is_err());
    }
}
