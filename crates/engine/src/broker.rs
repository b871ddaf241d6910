//! The broker of programs that `vedette run` has started: each sits in a network namespace of its own, and what
//! listens there on its loopback is this engine.
//!
//! The program's launcher makes the listening socket inside the namespace and hands it to the engine, over
//! `engine.sock`, with the name of the program ([`register`]). As long as that connection lasts, whoever connects to
//! the socket is that program: nobody else is in the namespace. It speaks HTTP (CONNECT, or absolute targets) or
//! SOCKS5; where it may go, `plan.workload` says at each call.
//!
//! Must not: take anything for an address that was not resolved and checked by `vedette_upstream`, or let a call go
//! without a record.

mod http;
mod register;
mod socks;
mod tunnel;

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use vedette_upstream::{Allowed, Denied};

use crate::egress::{CallRecord, Egress, Subject, Told, Ways, cause_of};
use crate::node::Node;

pub use register::{is_registration, register};
#[cfg(any(test, fuzzing))]
pub use socks::request as socks_request;

/// The most connections of one program at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// How long a program may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(15);

/// A program that runs.
pub struct Run {
    /// The name it was given.
    workload: Arc<str>,
    /// Whether it may go where no rule lets it, so that somebody learns what it needs.
    reports: bool,
    listener: TcpListener,
    stage: watch::Receiver<Stage>,
    /// Where its launcher hears what is refused.
    told: Told,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The engine takes connections.
    Open,
    /// The next engine does; those that are here go on.
    Leaving,
    /// It has ended: whatever it left open is cut.
    Over,
}

/// Hands programs to the workers, in turns.
#[derive(Default)]
pub struct Runs(Mutex<Workers>);

#[derive(Default)]
struct Workers {
    senders: Vec<mpsc::UnboundedSender<Run>>,
    next: usize,
}

impl Runs {
    /// A worker's share of the programs.
    pub fn join(&self) -> mpsc::UnboundedReceiver<Run> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.workers().senders.push(sender);
        receiver
    }

    /// Hands it to a worker, if one takes it.
    fn hand_out(&self, run: Run) -> Result<(), &'static str> {
        let mut workers = self.workers();
        workers.next = workers.next.wrapping_add(1);
        let turn = workers.next.checked_rem(workers.senders.len());
        let sender = turn.and_then(|turn| workers.senders.get(turn));
        let taken = sender.and_then(|sender| sender.send(run).ok());
        taken.ok_or("no worker takes it")
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Workers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the programs that this worker is given. Never returns.
pub async fn serve(node: Arc<Node>, mut runs: mpsc::UnboundedReceiver<Run>) {
    while let Some(run) = runs.recv().await {
        tokio::spawn(one(Arc::clone(&node), run));
    }
}

async fn one(node: Arc<Node>, run: Run) {
    let Run {
        workload,
        reports,
        listener,
        mut stage,
        told,
    } = run;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return crate::sys::say(&format_args!("the broker of {workload}: {error}")),
    };
    let client = Arc::new(Client {
        node,
        subject: Subject::Workload(Arc::clone(&workload)),
        workload,
        reports,
        told,
    });
    let mut connections = JoinSet::new();
    let accepting = async {
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
            match listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(connection(Arc::clone(&client), stream));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stage.wait_for(|stage| *stage != Stage::Open) => {}
    }
    drop(listener);
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        _ = stage.wait_for(|stage| *stage == Stage::Over) => {}
    }
}

async fn connection(client: Arc<Client>, stream: TcpStream) {
    let mut first = [0];
    let _ = stream.set_nodelay(true);
    match timeout(PATIENCE, stream.peek(&mut first)).await {
        Ok(Ok(1..)) if first == [socks::VERSION] => socks::serve(&client, stream).await,
        Ok(Ok(1..)) => http::serve(client, stream).await,
        _ => {}
    }
}

/// Why a program may not go out.
enum Refused {
    /// Its rules say so.
    Denied(Denied),
    /// The last policy holds no more (ADR 0039).
    ControlAway,
}

impl Refused {
    /// The word of the record.
    fn cause(&self) -> &'static str {
        match self {
            Self::Denied(denied) => cause_of(denied),
            Self::ControlAway => "control_away",
        }
    }
}

/// The program, as its connections see it.
struct Client {
    node: Arc<Node>,
    workload: Arc<str>,
    subject: Subject,
    reports: bool,
    told: Told,
}

impl Client {
    /// Its way out under the plan of now; one that policies do not name has none.
    fn egress(&self) -> Arc<Egress> {
        let plan = self.node.plan();
        let known = plan.as_ref().and_then(|plan| plan.workload(&self.workload));
        known.cloned().unwrap_or_else(|| {
            // What a report lets go needs connections all the same.
            Egress::new(self.subject.clone(), Ways::default())
        })
    }

    /// What was decided, or what is let go to be reported.
    fn decide<T>(
        &self,
        record: &mut CallRecord,
        decided: Result<T, Denied>,
        unlisted: impl FnOnce() -> Option<T>,
    ) -> Result<T, Refused> {
        if self.node.presence.is_away() {
            record.fail(Refused::ControlAway.cause());
            record.tell();
            return Err(Refused::ControlAway);
        }
        let denied = match decided {
            Ok(allowed) => return Ok(allowed),
            Err(denied) => denied,
        };
        if self.reports
            && !matches!(denied, Denied::Rate(_) | Denied::Token)
            && let Some(let_go) = unlisted()
        {
            record.report(&denied);
            record.tell();
            return Ok(let_go);
        }
        record.needs(&denied);
        record.fail(cause_of(&denied));
        record.tell();
        Err(Refused::Denied(denied))
    }

    /// Why a tunnel that is open may not stay.
    fn forbids_tunnel(&self, host: &str, port: u16) -> Option<&'static str> {
        if self.node.presence.is_away() {
            return Some(Refused::ControlAway.cause());
        }
        let keeps = self.egress().rules().keeps_tunnel(host, port);
        (!keeps).then_some("destination_not_allowed")
    }

    /// Whether a tunnel may be opened, and whether it must begin with TLS for that host.
    fn decide_tunnel(
        &self,
        egress: &Egress,
        record: &mut CallRecord,
        host: &str,
        port: u16,
    ) -> Result<(Allowed, bool), Refused> {
        let unlisted = || Allowed::unlisted_tunnel(host, port).map(|it| (it, false));
        self.decide(record, egress.rules().tunnel(host, port), unlisted)
    }
}
