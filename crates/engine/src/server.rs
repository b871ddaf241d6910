//! Start, listen, serve, drain, stop.
//!
//! A single-threaded runtime per core, each with a listening socket of its own (`SO_REUSEPORT`):
//! 10–15 % more requests than one runtime over all cores, and no lock on the path. The sockets are
//! the supervisor's; connections that arrive while no engine runs wait in its queues.

use std::collections::HashSet;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use vedette_wasm::{Runtime, RuntimeOptions};

use crate::confine::{confine, refuse_system_calls};
use crate::connection::{ListenerShared, accept};
use crate::control::{self, Control};
use crate::load::EngineDir;
use crate::node::Node;
use crate::record::log::FunctionLog;
use crate::services::Watches;
use crate::spool::{self, Spool};
use crate::tls::{Tls, TlsVersion};
use crate::{clock, sys, worker};

/// How long requests under way may take to end when the engine is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long connections without a request may take to send their last bytes and close.
const LINGER: Duration = Duration::from_millis(250);

/// How often the quotas used so far are written.
const QUOTAS_EVERY: Duration = Duration::from_secs(5);

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
    /// The oldest TLS spoken.
    pub tls_min_version: TlsVersion,
    /// What to listen on.
    pub listeners: Vec<Listener>,
    /// The socket that control speaks to, listening.
    pub control_fd: RawFd,
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

/// Runs an engine until it is told to stop (SIGTERM), then drains it. `engine_key` names the folder
/// of the code it can run ([`vedette_wasm::engine_key`], asked in another process).
///
/// # Errors
/// When the configuration cannot be used, or a thread or socket cannot be had.
pub fn run(config: &[u8], engine_key: &str) -> anyhow::Result<()> {
    let config: Config = serde_json::from_slice(config).context("the engine's configuration")?;
    let location = HeaderValue::from_str(&config.location).context("location")?;
    let sockets = Sockets::inherit(&config)?;
    sys::raise_open_files();
    sys::grow_descriptor_table();
    spool::tidy(&config.spool_dir.join("requests")).context("spool/requests")?;
    // Name servers, hosts and the machine's trusted certificates lie where it can look no more soon.
    crate::services::machine()?;
    let confinement = confine(&config.engine_dir, &config.spool_dir);
    let system_calls = refuse_system_calls();
    let dir = EngineDir::new(&config.engine_dir, engine_key);
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
    let quotas = Quotas::in_folder(&config.spool_dir);
    let node = Arc::new(Node::new(location, dir, quotas.read(), runtime, log));
    node.start_with_active();

    let (drain, draining) = watch::channel(false);
    let control = Control {
        node: Arc::clone(&node),
        tls: tls.clone(),
        listeners: config.listeners.iter().map(ListenerInfo::of).collect(),
        confinement,
        system_calls,
        engine_key: engine_key.to_owned(),
        watches: Watches::default(),
        draining: draining.clone(),
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
            draining: draining.clone(),
        };
        let name = format!("worker-{index}");
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || worker.run())?;
        threads.push(thread);
    }
    let keeper = Arc::clone(&node);
    serve_control(control, sockets.control, &drain, quotas.clone())?;
    for thread in threads {
        if thread.join().is_err() {
            bail!("a worker thread panicked");
        }
    }
    quotas.write(&keeper);
    Ok(())
}

/// Where the quotas used so far are kept, for the engine after this one. A crash forgets what was
/// used since the last time they were written.
#[derive(Clone)]
struct Quotas(PathBuf);

impl Quotas {
    fn in_folder(spool_dir: &Path) -> Self {
        Self(spool_dir.join("quotas.bin"))
    }

    fn read(&self) -> Option<Vec<u8>> {
        std::fs::read(&self.0).ok()
    }

    fn write(&self, node: &Node) {
        let Some(image) = node.quotas() else {
            return;
        };
        let fresh = self.0.with_extension("new");
        let written = std::fs::write(&fresh, image).and_then(|()| std::fs::rename(&fresh, &self.0));
        if let Err(error) = written {
            crate::sys::say(&format_args!("quotas are not kept: {error}"));
        }
    }

    async fn keep(self, node: Arc<Node>) {
        loop {
            tokio::time::sleep(QUOTAS_EVERY).await;
            let (quotas, node) = (self.clone(), Arc::clone(&node));
            let _ = tokio::task::spawn_blocking(move || quotas.write(&node)).await;
        }
    }
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
}

impl Sockets {
    fn inherit(config: &Config) -> anyhow::Result<Self> {
        ensure!(config.workers > 0, "workers must be at least 1");
        let mut seen = HashSet::from([config.control_fd]);
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
        Ok(Self {
            per_worker,
            control,
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
        })
    });
    sockets.into_iter().zip(listeners).collect()
}

struct Worker {
    node: Arc<Node>,
    spool: Spool,
    listeners: Vec<(OwnedFd, Arc<ListenerShared>)>,
    draining: watch::Receiver<bool>,
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
                        tokio::spawn(accept(node, listener, shared, self.draining.clone()));
                    }
                    Err(error) => crate::sys::say(&format_args!("cannot listen: {error}")),
                }
            }
            drained(&self.node, self.draining).await;
        });
        // Connections still open end with the runtime; their records close before the spool does.
        drop(runtime);
        worker::uninstall();
    }
}

/// Returns once the engine is told to stop and is idle, or has taken too long over it.
///
/// Idle is when no request is under way. Connections are asked to close as well, but one whose
/// client does not read (an idle HTTP/2 one never acknowledges the GOAWAY) is not waited for.
async fn drained(node: &Node, mut draining: watch::Receiver<bool>) {
    let _ = draining.wait_for(|is_draining| *is_draining).await;
    let idle = async {
        while node.in_flight.count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, idle).await;
    let closed = async {
        while node.connections.count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, closed).await;
}

fn serve_control(
    control: Control,
    socket: OwnedFd,
    drain: &watch::Sender<bool>,
    quotas: Quotas,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = std::os::unix::net::UnixListener::from(socket);
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket)?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Ctrl-C reaches the whole process group; the supervisor decides what ends when.
        let _interrupt = signal(SignalKind::interrupt())?;
        let draining = control.draining.clone();
        let node = Arc::clone(&control.node);
        control.watch_services();
        tokio::spawn(control::serve(Arc::new(control), listener));
        tokio::spawn(quotas.keep(Arc::clone(&node)));
        terminate.recv().await;
        drain.send_replace(true);
        drained(&node, draining).await;
        Ok(())
    })
}
