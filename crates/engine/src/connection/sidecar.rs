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
