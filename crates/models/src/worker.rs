//! A model's process: loads it, says whether it is ready, answers until it is told to stop or nobody asks any more.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use vedette_quiet::Quiet;

use crate::config::{self, Datatype, Format, Tensor, WorkerConfig};
use crate::error::Error;
use crate::idle::Asking;
use crate::media::{self, Files};
use crate::place::{Place, agree, confine};
use crate::pool::{Pool, Terms};
use crate::serve::Serving;
use crate::streams::{Streams, spec};
use crate::warm::warm_up;
use crate::{sys, watchdog};

/// Longest time that loading may take; less than the keeper waits (`vedette.models.keeper_worker`), so that it is told why.
const LOADING: Duration = Duration::from_secs(110);

/// Runs a worker (`VEDETTE_MODEL` as JSON) until SIGTERM, and what it has under way to its end. The process must have
/// one thread.
///
/// # Errors
/// What kept it from starting; said on the descriptor for it as well.
pub fn run(config: &str) -> Result<(), Error> {
    let config: WorkerConfig = config::parse(config)?;
    if config.listen_fd == config.ready_fd {
        return Err(Error::new(
            "config_invalid",
            "one descriptor for two purposes",
        ));
    }
    let inherited = |fd| {
        sys::inherit(fd)
            .map_err(|error| Error::new("config_invalid", format_args!("descriptor {fd}: {error}")))
    };
    let listener = StdListener::from(inherited(config.listen_fd)?);
    let mut ready = File::from(inherited(config.ready_fd)?);
    let started = Instant::now();
    sys::keep_freed_memory();
    // Asked before the box, from within which the machine is not seen.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let loaded = load(config, &ready, cores == 1);
    // The runtime of requests is there before it says so; who waits for it may ask at once.
    let loaded = loaded.and_then(|serving| {
        listener.set_nonblocking(true).map_err(failed)?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(failed)?;
        // Before anybody is told that it is ready: who then tells it to stop would end it as a crash does.
        let terminate = {
            let _within = runtime.enter();
            signal(SignalKind::terminate()).map_err(failed)?
        };
        Ok((serving, runtime, terminate))
    });
    say(
        &mut ready,
        &match &loaded {
            Ok(_) => {
                let millis = started.elapsed().as_secs_f64() * 1e3;
                json!({"ready": true, "loadMillis": millis})
            }
            Err(error) => not_ready(error),
        },
    );
    drop(ready);
    let (serving, runtime, terminate) = loaded?;
    let served = runtime.block_on(serve(serving, listener, terminate));
    // Threads of the runtime are not waited for: one may be within a run that does not end.
    runtime.shutdown_background();
    served.map_err(failed)
}

fn failed(error: std::io::Error) -> Error {
    Error::new("worker_failed", error)
}

fn not_ready(error: &Error) -> Value {
    json!({"ready": false, "error": error.to_json()})
}

fn say(ready: &mut File, what: &Value) {
    // Nobody may be there any more to hear it.
    let _ = ready.write_all(format!("{what}\n").as_bytes());
}

fn load(config: WorkerConfig, ready: &File, is_one_core: bool) -> Result<Serving, Error> {
    let WorkerConfig {
        model,
        file,
        library,
        files,
        ..
    } = config;
    let mut model = model;
    let files = Files::open(&files)?;
    if model.format == Format::Detector {
        let bytes = spec::bytes(&file)?;
        confine(Path::new(""), model.limits.memory_bytes)?;
        let desk = media::prepare(&mut model, files)?;
        let streams = Streams::load(&model, &bytes)?;
        let pool = Pool::start(vec![], Terms::of(&model)).map_err(failed)?;
        return Ok(Serving::new(model, pool, desk, Some(streams)));
    }
    let place = Place::enter(&file, model.format, &library, model.limits.memory_bytes)?;
    let outline = &place.outline;
    if !agree(&model.inputs, &outline.inputs) || !agree(&model.outputs, &outline.outputs) {
        return Err(Error::new(
            "model_mismatch",
            "the file takes or gives other tensors than the model was registered with",
        ));
    }
    let desk = media::prepare(&mut model, files)?;
    let mut told = ready.try_clone().map_err(failed)?;
    let loading = watchdog::within(LOADING, move || {
        say(&mut told, &not_ready(&too_slow(LOADING)));
        sys::end(watchdog::STUCK);
    });
    let loading = loading.map_err(failed)?;
    let sessions = (0..model.sessions.max(1)).map(|_| place.session(model.threads.max(1)));
    let mut sessions = sessions.collect::<Result<Vec<_>, _>>()?;
    if !place.outline.keeps_state {
        warm_up(&model, &mut sessions)?;
    }
    drop(loading);
    let mut terms = Terms::of(&model);
    if place.outline.is_straight && !says_sizes(&model.inputs) {
        terms = terms.with_short_runs_here(is_one_core);
    }
    drop(place); // the file's pages; sessions have their own, or keep them
    let pool = Pool::start(sessions, terms).map_err(failed)?;
    watchdog::start(&pool).map_err(failed)?;
    let streams = Streams::of_sessions(&model, &pool)?;
    Ok(Serving::new(model, pool, desk, streams))
}

/// Whether elements of inputs may be sizes, which say how long a run takes.
fn says_sizes(inputs: &[Tensor]) -> bool {
    let is_number = |it: &Tensor| {
        use Datatype::{Fp16, Fp32, Fp64, Int8, Uint8};
        matches!(it.datatype, Fp16 | Fp32 | Fp64 | Int8 | Uint8)
    };
    !inputs.iter().all(is_number)
}

/// Loading took longer than it may.
pub fn too_slow(limit: Duration) -> Error {
    let seconds = limit.as_secs_f64();
    Error::new(
        "model_too_slow",
        format_args!("loading it takes longer than {seconds} s"),
    )
}

/// How long a connection without a request is kept when the process is to end. Somebody may just have begun to send one:
/// it is answered, with `connection: close`.
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// Accepts connections until SIGTERM, or until nobody has asked for as long as the model says; then answers what has come,
/// no longer than a run may take.
async fn serve(
    serving: Serving,
    listener: StdListener,
    mut terminate: Signal,
) -> std::io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let serving = Arc::new(serving);
    let places = Arc::new(Semaphore::new(serving.connections()));
    let (leave, leaving) = watch::channel(false);
    loop {
        let place = tokio::select! {
            _ = terminate.recv() => break,
            place = Arc::clone(&places).acquire_owned() => place.map_err(std::io::Error::other)?,
        };
        let accepted = tokio::select! {
            _ = terminate.recv() => break,
            accepted = listener.accept() => accepted,
            () = serving.idle() => break,
        };
        let accepted = accepted.and_then(|(stream, _)| Quiet::new(stream.into_std()?));
        let Ok(stream) = accepted else {
            // Out of descriptors or memory for a moment; the kernel keeps who waits.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (serving, leaving) = (Arc::clone(&serving), leaving.clone());
        // From here, and not from its first word: who has connected is about to ask.
        let asking = serving.asking();
        tokio::spawn(async move {
            connection(&serving, stream, leaving, asking).await;
            drop(place);
        });
    }
    drop(listener);
    drop(leaving);
    let _ = leave.send(true);
    let ended = async {
        serving.end_streams().await;
        leave.closed().await;
    };
    let _ = timeout(LAST_REQUEST + serving.longest(), ended).await;
    serving.leave();
    Ok(())
}

async fn connection(
    serving: &Serving,
    stream: Quiet,
    mut leaving: watch::Receiver<bool>,
    first: Asking,
) {
    let first = Mutex::new(Some(first));
    let is_leaving = leaving.clone();
    let service = service_fn(|request| {
        let first = first.lock().ok().and_then(|mut it| it.take());
        let asking = first.unwrap_or_else(|| serving.asking());
        let is_leaving = &is_leaving;
        async move {
            let mut response = serving.answer(request, asking).await;
            if *is_leaving.borrow() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut builder = Builder::new();
    // The engine keeps idle connections; it has its own time for them.
    builder.header_read_timeout(None).auto_date_header(false);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    let served = served.with_upgrades();
    let mut served = std::pin::pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        _ = leaving.wait_for(|it| *it) => {}
    }
    if timeout(LAST_REQUEST, served.as_mut()).await.is_ok() {
        return;
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}
