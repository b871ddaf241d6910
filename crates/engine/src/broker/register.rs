//! How a launcher registers the program it is about to start, or one side of a sidecar: a zero byte, a line of JSON and one
//! listening socket, over `engine.sock`. The answer is a line of JSON; the connection then stays open until either side
//! ends.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg, sockopt};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::{Run, Stage};
use crate::handover::{self, Phase};
use crate::mesh::{Side, Sidecar};
use crate::node::Node;

/// The first byte of a registration; HTTP begins with a letter.
const MARK: u8 = 0;
const LONGEST: usize = 4096;
/// Lines about refusals that wait to be read.
const TOLD: usize = 256;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(untagged)]
enum Registration {
    Program(Program),
    Sidecar(OneSide),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Program {
    workload: String,
    report: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OneSide {
    sidecar: String,
    side: Side,
}

/// Whether a new connection of `engine.sock` is no HTTP but a registration.
pub async fn is_registration(stream: &UnixStream) -> bool {
    let peeked = stream.async_io(Interest::READABLE, || {
        let mut byte = [0_u8];
        let (_, count) = recv(stream, &mut byte, RecvFlags::PEEK)?;
        Ok((count, byte))
    });
    matches!(
        tokio::time::timeout(PATIENCE, peeked).await,
        Ok(Ok((1, [MARK])))
    )
}

/// Serves a registration: the socket is the engine's to serve until the launcher goes or the engine does.
pub async fn register(node: &Node, mut stream: UnixStream, phase: watch::Receiver<Phase>) {
    let read = match tokio::time::timeout(PATIENCE, read(&stream)).await {
        Ok(read) => read,
        Err(_) => Err("it did not come in time"),
    };
    match read {
        Ok((Registration::Program(program), listener)) => {
            run(node, program, listener, stream, phase).await;
        }
        Ok((Registration::Sidecar(side), listener)) => {
            serve_side(node, &side, listener, stream, phase).await;
        }
        Err(why) => {
            answer(&mut stream, Err(why)).await;
        }
    }
}

/// Whether what was asked for goes on.
async fn answer(stream: &mut UnixStream, taken: Result<(), &'static str>) -> bool {
    let answer = match taken {
        Ok(()) => serde_json::json!({}),
        Err(why) => serde_json::json!({"error": why}),
    };
    let answered = stream.write_all(format!("{answer}\n").as_bytes()).await;
    taken.is_ok() && answered.is_ok()
}

/// One side of a sidecar is served until the launcher goes, which ends what is under way.
async fn serve_side(
    node: &Node,
    wish: &OneSide,
    listener: TcpListener,
    mut stream: UnixStream,
    mut phase: watch::Receiver<Phase>,
) {
    let (told, serving) = watch::channel(Phase::Serving);
    let sidecar = Sidecar::new(&wish.sidecar, wish.side);
    let mut plans = node.plans();
    let is_there = || {
        let plan = node.plan();
        plan.is_some_and(|plan| plan.sidecar(&sidecar.name).is_some())
    };
    let opened = if !is_there() {
        Err("there is no sidecar of that name")
    } else if sidecar.is_outbound() && !is_loopback(&listener) {
        Err("its socket does not listen on loopback")
    } else {
        node.sidecars.open(node, &sidecar, &listener, &serving)
    };
    // Only those who accept keep it: once they do not, nobody waits at a closed door.
    drop((serving, listener));
    if !answer(&mut stream, opened).await {
        return;
    }
    let mut nothing = [0];
    tokio::select! {
        // Whatever it sends, or its end.
        _ = stream.read(&mut nothing) => sidecar.end(),
        () = async { while is_there() && plans.changed().await.is_ok() {} } => sidecar.end(),
        () = handover::leaving(&mut phase) => {
            let _ = told.send(*phase.borrow());
            // The launcher sees this end, and registers with the engine that takes over.
            drop(stream);
            handover::stopping(&mut phase).await;
        }
    }
    let _ = told.send(Phase::Stopping);
}

async fn run(
    node: &Node,
    program: Program,
    listener: TcpListener,
    mut stream: UnixStream,
    mut phase: watch::Receiver<Phase>,
) {
    let (stage, staged) = watch::channel(Stage::Open);
    let (told, mut refusals) = mpsc::channel(TOLD);
    let taken = match is_loopback(&listener) {
        true => node.runs.hand_out(Run {
            workload: program.workload.into(),
            reports: program.report,
            listener,
            stage: staged,
            told,
        }),
        false => Err("its socket does not listen on loopback"),
    };
    if !answer(&mut stream, taken).await {
        return;
    }
    let (mut said, mut answers) = stream.into_split();
    let mut nothing = [0];
    let telling = async {
        while let Some(line) = refusals.recv().await {
            if answers.write_all(&line).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // Whatever it sends, or its end.
        _ = said.read(&mut nothing) => {
            let _ = stage.send(Stage::Over);
            // What was refused last.
            while let Ok(line) = refusals.try_recv() {
                let _ = answers.write_all(&line).await;
            }
            return;
        }
        () = telling => {}
        () = handover::leaving(&mut phase) => {}
    }
    let _ = stage.send(Stage::Leaving);
    // The launcher sees this end, and registers with the engine that takes over.
    drop((said, answers));
    stage.closed().await;
}

async fn read(stream: &UnixStream) -> Result<(Registration, TcpListener), &'static str> {
    let received = stream.async_io(Interest::READABLE, || {
        let mut bytes = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut sockets = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        let socket: Option<OwnedFd> = sockets.next();
        let said = bytes.get(..got.bytes).unwrap_or_default().to_vec();
        Ok((said, socket))
    });
    let (said, socket) = received.await.map_err(|_| "it could not be read")?;
    let line = said
        .strip_prefix(&[MARK])
        .and_then(|it| it.strip_suffix(b"\n"));
    let registration = line.and_then(|line| serde_json::from_slice::<Registration>(line).ok());
    let registration = registration.ok_or("it is no registration")?;
    let socket = socket.ok_or("it brings no socket")?;
    Ok((registration, listening(socket)?))
}

/// A socket that takes connections.
fn listening(socket: OwnedFd) -> Result<TcpListener, &'static str> {
    let listens = sockopt::socket_acceptconn(&socket).unwrap_or(false);
    let is_stream = sockopt::socket_type(&socket) == Ok(rustix::net::SocketType::STREAM);
    let listener = TcpListener::from(socket);
    let is_tcp = listener.local_addr().is_ok();
    if !(listens && is_stream && is_tcp && listener.set_nonblocking(true).is_ok()) {
        return Err("its socket does not listen");
    }
    Ok(listener)
}

/// What listens elsewhere is no program's own.
fn is_loopback(listener: &TcpListener) -> bool {
    listener.local_addr().is_ok_and(|it| it.ip().is_loopback())
}
