//! Sidecars: programs of this machine that the engine speaks for in the mesh ([`Sidecar`] of the snapshot).
//!
//! Owns: serving the sockets that `vedette sidecar` hands over ([`serve`]), as connections of the usual path. What comes
//! to an inbound one shows an SVID and is answered by the program; what comes to an outbound one is the program, and is
//! answered by a host below `.mesh`, where the sidecar shows its own.
//!
//! Must not: decide who may call whom; the stages do.

mod program;
mod tls;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use crate::connection::{ListenerShared, accept};
use crate::handover::Phase;
use crate::node::Node;

pub use program::call;
pub use tls::MeshTls;

/// Hosts below it are for sidecars alone.
const SUFFIX: &str = ".mesh";

/// Whether a host (lower case, no port) is one of the mesh.
pub fn is_mesh(host: &str) -> bool {
    host.len() > SUFFIX.len() && host.ends_with(SUFFIX)
}

/// Which way a sidecar's connection leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// To the program.
    Inbound,
    /// From it.
    Outbound,
}

/// Whose connection it is: one side, as long as somebody serves it.
#[derive(Debug)]
pub struct Sidecar {
    /// Its name.
    pub name: Arc<str>,
    /// Which way it leads.
    pub side: Side,
    /// What it answers to: `NAME.mesh`.
    pub host: Box<str>,
    is_over: AtomicBool,
}

impl Sidecar {
    /// One side of the sidecar of that name.
    pub fn new(name: &str, side: Side) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            side,
            host: format!("{name}{SUFFIX}").into(),
            is_over: AtomicBool::new(false),
        })
    }

    /// Whoever had it served has gone: what is under way ends with its lease.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The name of its listener, in records and policies.
    pub fn listener(&self) -> String {
        let side = match self.side {
            Side::Inbound => "inbound",
            Side::Outbound => "outbound",
        };
        format!("{}.{side}", self.name)
    }

    /// Whether who connects is the program.
    pub fn is_outbound(&self) -> bool {
        self.side == Side::Outbound
    }
}

/// The name under which a plan has the service that a sidecar shows its own SVID to.
pub fn service_of(service: &str, sidecar: &str) -> String {
    // No name has an @.
    format!("{service}@{sidecar}")
}

/// A socket of a sidecar, for one worker.
pub struct Open {
    listener: TcpListener,
    shared: Arc<ListenerShared>,
    phase: watch::Receiver<Phase>,
}

/// Hands sockets to all workers.
#[derive(Default)]
pub struct Sidecars(Mutex<Vec<mpsc::UnboundedSender<Open>>>);

impl Sidecars {
    /// A worker's share.
    pub fn join(&self) -> mpsc::UnboundedReceiver<Open> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.workers().push(sender);
        receiver
    }

    /// Has every worker accept connections from this socket, until the phase is another.
    ///
    /// # Errors
    /// When it cannot be shared between them, or there is none.
    pub fn open(
        &self,
        node: &Node,
        sidecar: &Arc<Sidecar>,
        listener: &TcpListener,
        phase: &watch::Receiver<Phase>,
    ) -> Result<(), &'static str> {
        let tls = match sidecar.side {
            Side::Inbound => Some(MeshTls::new(node.dir.svids(), &sidecar.name)?),
            Side::Outbound => None,
        };
        let shared = Arc::new(ListenerShared::of_sidecar(sidecar, tls));
        let workers = self.workers();
        if workers.is_empty() {
            return Err("no worker takes it");
        }
        for worker in workers.iter() {
            let listener = listener
                .try_clone()
                .map_err(|_| "its socket is not shared")?;
            let open = Open {
                listener,
                shared: Arc::clone(&shared),
                phase: phase.clone(),
            };
            // A worker that has ended takes nothing; the others do.
            let _ = worker.send(open);
        }
        Ok(())
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::UnboundedSender<Open>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the sockets that this worker is given. Never returns.
pub async fn serve(node: Arc<Node>, mut sockets: mpsc::UnboundedReceiver<Open>) {
    while let Some(open) = sockets.recv().await {
        match tokio::net::TcpListener::from_std(open.listener) {
            Ok(listener) => {
                tokio::spawn(accept(Arc::clone(&node), listener, open.shared, open.phase));
            }
            Err(error) => crate::sys::say(&format_args!("a sidecar's socket: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_the_mesh_has_a_name_before_the_suffix() {
        for host in ["shop.mesh", "a.b.mesh"] {
            assert!(is_mesh(host));
        }
        for host in [".mesh", "mesh", "shop.mesh.example.com", "shopmesh"] {
            assert!(!is_mesh(host));
        }
    }

    #[test]
    fn a_sidecar_has_a_host_and_a_listener_for_each_side() {
        let inbound = Sidecar::new("shop", Side::Inbound);
        assert_eq!(
            (&*inbound.host, inbound.listener()),
            ("shop.mesh", "shop.inbound".into())
        );
        assert!(!inbound.is_outbound());
        let outbound = Sidecar::new("shop", Side::Outbound);
        assert_eq!(outbound.listener(), "shop.outbound");
        assert!(outbound.is_outbound());
    }
}
