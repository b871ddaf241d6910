//! Start, listen, serve, drain, stop.
//!
//! A single-threaded runtime per core, each with a listening socket of its own (`SO_REUSEPORT`):
//! 10–15 % more requests than one runtime over all cores, and no lock on the path. The sockets are
//! the supervisor's; connections that arrive while no engine runs wait in its queues.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use vedette_upstream::DialSocket;
use vedette_wasm::{Runtime, RuntimeOptions};

use crate::confine::{confine, refuse_system_calls};
use crate::connection::{ListenerShared, accept};
use crate::control::{self, Control};
use crate::handover::{self, Charge, Counted, Phase};
use crate::load::EngineDir;
use crate::models::Dialler;
use crate::node::Node;
use crate::record::log::FunctionLog;
use crate::services::Watches;
use crate::spool::{self, Spool};
use crate::tls::{Tls, TlsVersion};
use crate::{broker, clock, lease, mesh, posture, presence, pressure, sys, worker};

/// How long requests under way may take to end when the engine is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long connections without a request may take to send their last bytes and close, when the
/// engine stops.
const LINGER: Duration = Duration::from_millis(250);

/// How soon an engine that hands over notices another snapshot.
const FOLLOW_EVERY: Duration = Duration::from_millis(50);

/// What the engine is started with.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The folder that control writes and the engine reads.
    pub engine_dir: PathBuf,
    /// The folder with `requests` and `logs`.
    pub spool_dir: PathBuf,
    /// Where this node stands.
    pub location: String,
    /// How many worker threads; each listener has as many sockets.
    pub workers: usize,
    /// The folder in which the sockets of models are; absent: there are none.
    pub models_dir: Option<PathBuf>,
    /// The oldest TLS spoken.
    pub tls_min_version: TlsVersion,
    /// What to listen on.
    pub listeners: Vec<Listener>,
    /// The socket that control speaks to, listening.
    pub control_fd: RawFd,
    /// Given to an engine that replaces another: where it says that it is ready.
    pub ready_fd: Option<RawFd>,
}

/// One address, with a listening socket per worker.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Its name in records and policies.
    pub name: String,
    /// Host and port.
    pub address: String,
    /// `https` or `http`.
    pub scheme: String,
    /// The sockets.
    pub fds: Vec<RawFd>,
}

/// A listener as `status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerInfo {
    name: String,
    address: String,
    scheme: String,
}

/// Runs an engine until it is told to stop (SIGTERM) or to hand over (SIGUSR1), then drains it. `engine_key` names the folder
/// of the code it can run ([`vedette_wasm::engine_key`], asked in another process).
///
/// # Errors
/// When the configuration cannot be used, or a thread or socket cannot be had.
pub fn run(config: &[u8], engine_key: &str) -> anyhow::Result<()> {
    let config: Config = serde_json::from_slice(config).context("the engine's configuration")?;
    let location = HeaderValue::from_str(&config.location).context("location")?;
    // While there is one thread, and nothing in memory that is worth a copy.
    let dialler = config.models_dir.as_deref().map(dialler_for).transpose()?;
    let sockets = Sockets::inherit(&config)?;
    sys::raise_open_files();
    sys::grow_descriptor_table();
    spool::tidy(&config.spool_dir.join("requests")).context("spool/requests")?;
    // Name servers, hosts and the machine's trusted certificates lie where it can look no more soon.
    let dialling = dialler.clone().map(|it| it as Arc<dyn DialSocket>);
    crate::services::machine_with(dialling)?;
    let confinement = confine(&config.engine_dir, &config.spool_dir);
    let system_calls = refuse_system_calls();
    let dir = EngineDir::new(&config.engine_dir, engine_key)
        .with_models(config.models_dir.clone().unwrap_or_default());
    let prefix = format!(
        "{:013}-{}",
        clock::since_epoch().as_millis(),
        std::process::id()
    );
    let log = FunctionLog::start(&config.spool_dir.join("logs"), &prefix)?;
    let runtime = Runtime::new(&RuntimeOptions::default())?;
    // After the pool: a process that cannot be dumped may not open its own page map.
    sys::forbid_dumps();
    let tls = load_tls(&config, &dir)?;
    let counted = Counted::in_folder(&config.spool_dir);
    let node = Arc::new(Node::new(location, dir, runtime, log));
    node.offenders.take_over(counted.blocks());
    if let Err(error) = node.dir.reload_svids() {
        sys::say(&format_args!("{error}"));
    }
    node.start_with_active(counted.quotas());
    node.presence.go_on_from(&config.spool_dir);
    let charge = Charge::open(&config.spool_dir)?;
    take_charge(&charge, sockets.ready, &node, tls.as_deref(), &counted)?;

    let (leave, phase) = watch::channel(Phase::Serving);
    let control = Control {
        node: Arc::clone(&node),
        tls: tls.clone(),
        listeners: config.listeners.iter().map(ListenerInfo::of).collect(),
        confinement,
        system_calls,
        engine_key: engine_key.to_owned(),
        watches: Watches::default(),
        phase: phase.clone(),
        applying: tokio::sync::Mutex::default(),
    };
    let mut threads = Vec::new();
    for (index, sockets) in sockets.per_worker.into_iter().enumerate() {
        let worker = Worker {
            node: Arc::clone(&node),
            spool: Spool::open(
                &config.spool_dir.join("requests"),
                &format!("{prefix}-{index}"),
            )?,
            listeners: shared(&config, tls.as_ref(), sockets),
            phase: phase.clone(),
            workers: config.workers,
            index,
        };
        let name = format!("worker-{index}");
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || worker.run())?;
        threads.push(thread);
    }
    let keeping = Keeping {
        counted: counted.clone(),
        spool_dir: config.spool_dir,
        dialler,
    };
    serve_control(control, sockets.control, &leave, keeping, &charge)?;
    for thread in threads {
        if thread.join().is_err() {
            bail!("a worker thread panicked");
        }
    }
    // What was counted while it drained; the counts of an engine that took over are newer.
    if charge.try_take()? {
        counted.write(&node);
    }
    Ok(())
}

/// Who connects to the models, whose sockets are in `folder`.
fn dialler_for(folder: &Path) -> anyhow::Result<Arc<Dialler>> {
    Dialler::start(folder).context("modelsDir")
}

/// Returns once this engine is in charge, with what may have changed while it waited for that.
fn take_charge(
    charge: &Charge,
    ready: Option<File>,
    node: &Node,
    tls: Option<&Tls>,
    counted: &Counted,
) -> anyhow::Result<()> {
    if let Some(supervisor) = ready {
        let refused = node.refused().map(|error| error.to_string());
        handover::report_ready(supervisor, refused.as_deref()).context("readyFd")?;
        if let Some(refused) = refused {
            bail!("no snapshot could be served: {refused}");
        }
    }
    if charge.try_take()? {
        return Ok(());
    }
    charge.take()?;
    node.take_over(counted.quotas());
    node.offenders.take_over(counted.blocks());
    if let Some(tls) = tls {
        tls.reload(&node.dir)?;
    }
    Ok(())
}

impl ListenerInfo {
    fn of(listener: &Listener) -> Self {
        Self {
            name: listener.name.clone(),
            address: listener.address.clone(),
            scheme: listener.scheme.clone(),
        }
    }
}

struct Sockets {
    /// For each worker, its socket of each listener.
    per_worker: Vec<Vec<OwnedFd>>,
    control: OwnedFd,
    ready: Option<File>,
}

impl Sockets {
    fn inherit(config: &Config) -> anyhow::Result<Self> {
        ensure!(config.workers > 0, "workers must be at least 1");
        let mut seen: HashSet<_> = config.ready_fd.into_iter().collect();
        ensure!(
            seen.insert(config.control_fd),
            "the descriptor {} is named twice",
            config.control_fd
        );
        let mut per_worker: Vec<_> = (0..config.workers).map(|_| Vec::new()).collect();
        for listener in &config.listeners {
            ensure!(
                listener.fds.len() == config.workers,
                "{}: one socket per worker",
                listener.name
            );
            for (fd, sockets) in listener.fds.iter().zip(&mut per_worker) {
                ensure!(seen.insert(*fd), "the descriptor {fd} is named twice");
                let socket = sys::inherit(*fd).with_context(|| listener.address.clone())?;
                sockets.push(socket);
            }
        }
        let control = sys::inherit(config.control_fd).context("controlFd")?;
        let ready = config.ready_fd.map(sys::inherit).transpose();
        Ok(Self {
            per_worker,
            control,
            ready: ready.context("readyFd")?.map(File::from),
        })
    }
}

fn load_tls(config: &Config, dir: &EngineDir) -> anyhow::Result<Option<Arc<Tls>>> {
    let wants_tls = config.listeners.iter().any(|it| it.scheme == "https");
    wants_tls
        .then(|| Tls::load(dir, config.tls_min_version).map(Arc::new))
        .transpose()
        .map_err(anyhow::Error::from)
}

fn shared(
    config: &Config,
    tls: Option<&Arc<Tls>>,
    sockets: Vec<OwnedFd>,
) -> Vec<(OwnedFd, Arc<ListenerShared>)> {
    let listeners = config.listeners.iter().map(|listener| {
        let is_tls = listener.scheme == "https";
        Arc::new(ListenerShared {
            name: listener.name.as_str().into(),
            tls: tls.filter(|_| is_tls).cloned(),
            sidecar: None,
        })
    });
    sockets.into_iter().zip(listeners).collect()
}

struct Worker {
    node: Arc<Node>,
    spool: Spool,
    listeners: Vec<(OwnedFd, Arc<ListenerShared>)>,
    phase: watch::Receiver<Phase>,
    workers: usize,
    index: usize,
}

impl Worker {
    fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return crate::sys::say(&format_args!("a worker cannot start: {error}")),
        };
        worker::install(self.spool, self.node.shards.add());
        runtime.block_on(async {
            for (socket, shared) in self.listeners {
                let socket = std::net::TcpListener::from(socket);
                let listener = socket
                    .set_nonblocking(true)
                    .and_then(|()| TcpListener::from_std(socket));
                match listener {
                    Ok(listener) => {
                        let node = Arc::clone(&self.node);
                        tokio::spawn(accept(node, listener, shared, self.phase.clone()));
                    }
                    Err(error) => crate::sys::say(&format_args!("cannot listen: {error}")),
                }
            }
            let watching = pressure::watch(Arc::clone(&self.node), self.workers, self.index == 0);
            tokio::spawn(watching);
            tokio::spawn(lease::keep(Arc::clone(&self.node)));
            tokio::spawn(broker::serve(Arc::clone(&self.node), self.node.runs.join()));
            tokio::spawn(mesh::serve(
                Arc::clone(&self.node),
                self.node.sidecars.join(),
            ));
            tokio::spawn(lease::end_revoked(Arc::clone(&self.node)));
            drained(&self.node, self.phase).await;
        });
        // Connections still open end with the runtime; their records close before the spool does.
        drop(runtime);
        worker::uninstall();
    }
}

/// Returns once the engine is told to leave and is idle, or has taken too long over it.
///
/// Idle is when no request is under way. An engine that stops does not wait for connections whose
/// client does not read (an idle HTTP/2 one never acknowledges the GOAWAY). One that hands over
/// does: nobody waits for it, and a connection closed under a client is a request that may fail.
async fn drained(node: &Node, mut phase: watch::Receiver<Phase>) {
    handover::leaving(&mut phase).await;
    let idle = async {
        until(|| node.in_flight.count() == 0).await;
        tokio::select! {
            () = until(|| node.connections.count() == 0) => {}
            () = handover::stopping(&mut phase) => until(|| node.in_flight.count() == 0).await,
        }
    };
    let _ = tokio::time::timeout(DRAIN, idle).await;
    let closed = until(|| node.connections.count() == 0);
    let _ = tokio::time::timeout(LINGER, closed).await;
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What is kept for the engine after this one.
struct Keeping {
    counted: Counted,
    spool_dir: PathBuf,
    dialler: Option<Arc<Dialler>>,
}

fn serve_control(
    control: Control,
    socket: OwnedFd,
    leave: &watch::Sender<Phase>,
    kept: Keeping,
    charge: &Charge,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = std::os::unix::net::UnixListener::from(socket);
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket)?;
        let mut told = Told::listen(kept.dialler)?;
        let (phase, node) = (control.phase.clone(), Arc::clone(&control.node));
        control.watch_services();
        let serving = tokio::spawn(control::serve(Arc::new(control), listener));
        let keeping = tokio::spawn(kept.counted.keep(Arc::clone(&node), phase.clone()));
        let watching = tokio::spawn(presence::watch(Arc::clone(&node), kept.spool_dir));
        let first = told.next().await;
        // From here on control reaches the engine that takes over, with all that it has written.
        serving.abort();
        watching.abort();
        node.leave();
        leave.send_replace(first);
        let _ = keeping.await;
        charge.give_up();
        tokio::select! {
            () = drained(&node, phase) => {}
            () = stop_when_told(told, leave) => {}
            () = follow_active(&node) => {}
        }
        let left = node.in_flight.count();
        if left > 0 {
            sys::say(&format_args!(
                "{left} requests are broken off: they took too long to end"
            ));
        }
        Ok(())
    })
}

/// What the supervisor tells an engine by signals.
struct Told {
    terminate: Signal,
    hand_over: Signal,
    /// Ctrl-C reaches the whole process group; the supervisor decides what ends when.
    _interrupt: Signal,
    dialler: Option<Arc<Dialler>>,
}

impl Told {
    fn listen(dialler: Option<Arc<Dialler>>) -> std::io::Result<Self> {
        Ok(Self {
            dialler,
            terminate: signal(SignalKind::terminate())?,
            hand_over: signal(SignalKind::user_defined1())?,
            _interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Phase {
        tokio::select! {
            _ = self.terminate.recv() => Phase::Stopping,
            _ = self.hand_over.recv() => Phase::HandingOver,
            () = gone(self.dialler.as_deref()) => {
                sys::say(&"who connects to models has ended; ending, to be started again with another");
                Phase::Stopping
            }
        }
    }
}

async fn gone(dialler: Option<&Dialler>) {
    match dialler {
        Some(dialler) => dialler.gone().await,
        None => std::future::pending().await,
    }
}

/// An engine that hands over may still be told to stop. Never returns.
async fn stop_when_told(mut told: Told, leave: &watch::Sender<Phase>) {
    loop {
        told.terminate.recv().await;
        leave.send_replace(Phase::Stopping);
    }
}

/// Control speaks to the engine in charge only; what it revokes counts here as well. Never returns.
async fn follow_active(node: &Node) {
    let mut has_said = false;
    let mut known = posture::written(node.dir.root());
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let written = posture::written(node.dir.root());
        if written != known && node.posture.load(&node.dir).is_ok() {
            known = written;
        }
        if let Err(error) = node.follow_active()
            && !has_said
        {
            has_said = true;
            sys::say(&format_args!(
                "the active snapshot is not followed: {error}"
            ));
        }
    }
}
