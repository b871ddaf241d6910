//! What one instance holds: its resource table, its limits, and a WASI context made on first use.
//!
//! Most requests of most functions never ask for a clock, a random number or an environment
//! variable, so the context (two seeded generators, three boxed streams) is built only when asked
//! for. There is no filesystem and no socket in it: nothing is granted. Outbound HTTP goes through
//! [`crate::outbound`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{FieldMap, WasiHttpCtx, WasiHttpCtxView, WasiHttpView, p2, p3};
use wasmtime_wasi_io::IoView;

use crate::log::{GuestLog, GuestStream, LogSink, Stream};
use crate::nn::Nn;
use crate::outbound::{Hooks, Outbound, Sizes};

/// The most handles an instance may hold at once; `GHSA-q554-3cjc-rx7p` is about tables without one.
pub(crate) const MAX_HANDLES: usize = 4096;
/// The most random bytes one call may ask for.
const MAX_RANDOM: u64 = 1 << 20;
/// The most bytes one headers resource may hold, Rust-side overhead included.
const MAX_FIELDS: usize = 128 * 1024;
/// The most elements a table of a guest may have.
const MAX_TABLE_ELEMENTS: usize = 100_000;

/// What a function may use, per request.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time on the processor.
    pub cpu: Duration,
    /// Time from the start of the call to the last byte of the body.
    pub wall: Duration,
    /// Linear memory over all memories of the instance, in bytes.
    pub memory_bytes: u64,
    /// Response body, in bytes; also of the answer to an outbound call.
    pub response_bytes: u64,
    /// Request body of an outbound call, in bytes. Whoever calls the function limits its own.
    pub request_bytes: u64,
}

/// How often and how long an instance is used.
#[derive(Debug, Clone, Copy)]
pub struct Reuse {
    /// Requests it answers at most.
    pub max_requests: u64,
    /// Age at which it takes no more.
    pub max_age: Duration,
}

/// A function as deployed: what each instance of it is given.
pub struct FunctionSpec {
    /// Environment variables, as `wasi:cli/environment` shows them.
    pub env: Vec<(String, String)>,
    /// What `wasi:config/store` shows.
    pub config: WasiConfigVariables,
    /// What a request may use.
    pub limits: Limits,
    /// Whether instances are used again; none: a fresh one for each request.
    pub reuse: Option<Reuse>,
    /// The most linear memory an instance was seen to use, in bytes.
    pub peak_memory: AtomicU64,
}

impl FunctionSpec {
    /// A function with the given environment, configuration and limits.
    pub fn new(
        env: impl IntoIterator<Item = (String, String)>,
        config: impl IntoIterator<Item = (String, String)>,
        limits: Limits,
    ) -> Self {
        Self {
            env: env.into_iter().collect(),
            config: config.into_iter().collect(),
            limits,
            reuse: None,
            peak_memory: AtomicU64::new(0),
        }
    }
}

/// What one call brings along for its guest.
pub(crate) struct Context {
    pub(crate) log: Arc<dyn LogSink>,
    pub(crate) outbound: Arc<dyn Outbound>,
    pub(crate) request_id: HeaderValue,
    /// When it is ended, whatever it waits for.
    pub(crate) until: Instant,
}

/// The data of one instance's store.
pub(crate) struct Guest {
    pub(crate) spec: Arc<FunctionSpec>,
    pub(crate) memory: MemoryLimit,
    log: GuestLog,
    /// Stdout and stderr, once the guest has asked for them.
    streams: Option<[GuestStream; 2]>,
    table: ResourceTable,
    wasi: Option<Box<WasiCtx>>,
    http: WasiHttpCtx,
    hooks: Hooks,
}

impl Guest {
    pub(crate) fn new(spec: Arc<FunctionSpec>, context: Context, is_concurrent: bool) -> Self {
        let mut table = ResourceTable::with_capacity(16);
        table.set_max_capacity(MAX_HANDLES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELDS);
        let memory = MemoryLimit {
            limit: spec.limits.memory_bytes,
            used: 0,
            denied: false,
        };
        let sizes = Sizes {
            request: spec.limits.request_bytes,
            response: spec.limits.response_bytes,
        };
        let hooks = Hooks::new(&context, sizes, is_concurrent);
        Self {
            spec,
            memory,
            log: GuestLog {
                sink: context.log,
                request_id: context.request_id,
            },
            streams: None,
            table,
            wasi: None,
            http,
            hooks,
        }
    }

    /// Begins another request of the same instance: nothing of the host's still names the last.
    pub(crate) fn begin(&mut self, context: Context) {
        self.hooks.begin(&context);
        self.log = GuestLog {
            sink: context.log,
            request_id: context.request_id,
        };
        for stream in self.streams.iter().flatten() {
            stream.hand_to(self.log.clone());
        }
    }

    /// Hands over what the request has printed without a line end.
    pub(crate) fn end(&mut self) {
        for stream in self.streams.iter().flatten() {
            stream.finish_line();
        }
    }

    /// Whether the guest has kept a handle of the request it has answered: its head, its body, its
    /// fields, an outbound call. An instance that did is not used again.
    pub(crate) fn keeps_request(&mut self) -> bool {
        self.table.iter_mut().any(|entry| {
            entry.is::<FieldMap>()
                || entry.is::<p2::types::HostIncomingRequest>()
                || entry.is::<p2::types::HostIncomingResponse>()
                || entry.is::<p2::types::HostOutgoingRequest>()
                || entry.is::<p2::types::HostOutgoingResponse>()
                || entry.is::<p2::types::HostResponseOutparam>()
                || entry.is::<p2::types::HostFutureIncomingResponse>()
                || entry.is::<p2::body::HostIncomingBody>()
                || entry.is::<p2::body::HostOutgoingBody>()
                || entry.is::<p2::body::HostFutureTrailers>()
                || entry.is::<p3::Request>()
                || entry.is::<p3::Response>()
        })
    }

    fn note_peak(&self) {
        let peak = &self.spec.peak_memory;
        if self.memory.used > peak.load(Ordering::Relaxed) {
            peak.fetch_max(self.memory.used, Ordering::Relaxed);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.note_peak();
    }
}

fn build_wasi(spec: &FunctionSpec, [out, err]: [GuestStream; 2]) -> Box<WasiCtx> {
    let mut builder = WasiCtxBuilder::new();
    builder.envs(&spec.env).max_random_size(MAX_RANDOM);
    builder.allow_tcp(false).allow_udp(false);
    builder.stdout(out).stderr(err);
    Box::new(builder.build())
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (spec, log, streams) = (&self.spec, &self.log, &mut self.streams);
        let ctx = self.wasi.get_or_insert_with(|| {
            let made = [Stream::Stdout, Stream::Stderr]
                .map(|stream| GuestStream::new(stream, log.clone()));
            build_wasi(spec, streams.insert(made).clone())
        });
        WasiCtxView {
            ctx,
            table: &mut self.table,
        }
    }
}

impl IoView for Guest {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl Guest {
    pub(crate) fn nn(&mut self) -> Nn<'_> {
        Nn {
            table: &mut self.table,
            memory: &mut self.memory,
            hooks: &mut self.hooks,
        }
    }
}

/// Counts linear memory over all memories of one instance, and what the host holds for it, and refuses what goes past
/// the limit.
pub(crate) struct MemoryLimit {
    limit: u64,
    used: u64,
    pub(crate) denied: bool,
}

impl MemoryLimit {
    /// Counts what the host holds for the guest, if there is room for it.
    pub(crate) fn hold(&mut self, bytes: u64) -> bool {
        self.denied |= bytes > self.left();
        if !self.denied {
            self.used += bytes;
        }
        !self.denied
    }

    /// The host holds it no more.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// What there still is room for, in bytes.
    pub(crate) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.used + (desired.saturating_sub(current)) as u64;
        if wanted > self.limit {
            self.denied = true;
            return Ok(false);
        }
        self.used = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        128
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}
