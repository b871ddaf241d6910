//! What one instance holds: its resource table, its limits, and a WASI context made on first use.
//!
//! Most requests of most functions never ask for a clock, a random number or an environment
//! variable, so the context (two seeded generators, three boxed streams) is built only when asked
//! for. There is no filesystem, no socket and no outbound HTTP in it: nothing is granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};
use wasmtime_wasi_io::IoView;

use crate::log::{GuestLog, GuestStream, Stream};

/// The most handles an instance may hold at once; `GHSA-q554-3cjc-rx7p` is about tables without one.
const MAX_HANDLES: usize = 4096;
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
    /// Response body, in bytes.
    pub response_bytes: u64,
}

/// A function as deployed: what each instance of it is given.
pub struct FunctionSpec {
    /// Environment variables, as `wasi:cli/environment` shows them.
    pub env: Vec<(String, String)>,
    /// What `wasi:config/store` shows.
    pub config: WasiConfigVariables,
    /// What a request may use.
    pub limits: Limits,
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
            peak_memory: AtomicU64::new(0),
        }
    }
}

/// The data of one instance's store.
pub(crate) struct Guest {
    pub(crate) spec: Arc<FunctionSpec>,
    pub(crate) memory: MemoryLimit,
    log: Option<GuestLog>,
    table: ResourceTable,
    wasi: Option<Box<WasiCtx>>,
    http: WasiHttpCtx,
    hooks: Hooks,
}

impl Guest {
    pub(crate) fn new(spec: Arc<FunctionSpec>, log: GuestLog) -> Self {
        let mut table = ResourceTable::with_capacity(16);
        table.set_max_capacity(MAX_HANDLES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELDS);
        let memory = MemoryLimit {
            limit: spec.limits.memory_bytes,
            used: 0,
            denied: false,
        };
        Self {
            spec,
            memory,
            log: Some(log),
            table,
            wasi: None,
            http,
            hooks: Hooks,
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let peak = &self.spec.peak_memory;
        if self.memory.used > peak.load(Ordering::Relaxed) {
            peak.fetch_max(self.memory.used, Ordering::Relaxed);
        }
    }
}

fn build_wasi(spec: &FunctionSpec, log: Option<GuestLog>) -> Box<WasiCtx> {
    let mut builder = WasiCtxBuilder::new();
    builder.envs(&spec.env).max_random_size(MAX_RANDOM);
    builder.allow_tcp(false).allow_udp(false);
    if let Some(log) = log {
        builder.stdout(GuestStream::new(Stream::Stdout, log.clone()));
        builder.stderr(GuestStream::new(Stream::Stderr, log));
    }
    Box::new(builder.build())
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (spec, log) = (&self.spec, &mut self.log);
        let ctx = self
            .wasi
            .get_or_insert_with(|| build_wasi(spec, log.take()));
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

/// The embedder's part of `wasi:http`: nothing goes out.
struct Hooks;

static FORBIDDEN: std::sync::LazyLock<ForbiddenHeaderFilter> =
    std::sync::LazyLock::new(|| Arc::new(is_forbidden));

fn is_forbidden(name: &http::HeaderName) -> bool {
    wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS.contains(name)
}

type Sent = (
    http::Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &http::HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&FORBIDDEN)
    }

    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

/// Counts linear memory over all memories of one instance and refuses what goes past the limit.
pub(crate) struct MemoryLimit {
    limit: u64,
    used: u64,
    pub(crate) denied: bool,
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
