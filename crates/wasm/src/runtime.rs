//! The wasmtime engines of a process, with what every guest is linked to.
//!
//! WASI 0.3 needs an engine that can run calls of one instance side by side, and what that takes
//! makes WASI 0.2 slower. So there are two: the plain one, and another from the first component of
//! WASI 0.3 on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};
use wasmtime_wasi_config::WasiConfig;

use crate::guest::Guest;
use crate::instance::Total;
use crate::nn;
use crate::ticker::Ticker;

/// Kept mapped between two instances of a slot: what most guests touch, measured in the notes as
/// 2.6 × the requests/s together with the page-map scan.
const MEMORY_KEEP_RESIDENT: usize = 1 << 20;
const TABLE_KEEP_RESIDENT: usize = 64 << 10;
/// Address space each memory slot reserves: 4 GiB and guards, so that no bounds check is compiled.
const MAX_MEMORY: usize = 1 << 32;

/// Core instances that an instance may be made of: componentize-py makes fourteen.
const CORES_OF_A_COMPONENT: u32 = 16;
/// At most one in so many of the pool's slots is held by an instance kept for another request.
const KEPT_PART: usize = 4;

/// How instances get their memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allocator {
    /// Slots mapped in advance; `pagemap_scan` is whether the kernel can tell which pages a guest
    /// dirtied (Linux 6.7), which makes handing a slot back cheap.
    Pooling {
        /// Whether `PAGEMAP_SCAN` is used.
        pagemap_scan: bool,
    },
    /// Memory mapped for each instance, with the reason why pooling was not possible.
    OnDemand {
        /// What stood in the way.
        reason: String,
    },
}

/// What a [`Runtime`] is made with.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// How many instances may live at once.
    pub max_instances: u32,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            max_instances: 1000,
        }
    }
}

/// The engines, their linkers and the epoch ticker. One per process.
pub struct Runtime {
    pub(crate) plain: Host,
    concurrent: OnceLock<Host>,
    making: Mutex<()>,
    options: RuntimeOptions,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) kept: Arc<Total>,
    allocator: Allocator,
}

/// An engine and what its guests are linked to.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Guest>,
}

/// Which WASI an engine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wasi {
    /// 0.2: calls never overlap within an instance.
    P2,
    /// 0.3, and what its components import of 0.2.
    P3,
}

impl Runtime {
    /// Starts the engine: pooled when address space and kernel allow, else on demand.
    ///
    /// # Errors
    /// When not even an engine without pooling can be made, or the ticker's thread cannot start.
    pub fn new(options: &RuntimeOptions) -> anyhow::Result<Self> {
        let (engine, allocator) = start_engine(options, Wasi::P2)?;
        let linker = link(&engine, Wasi::P2)?;
        let ticker = Ticker::start(engine.clone()).context("cannot start the epoch ticker")?;
        Ok(Self {
            plain: Host { engine, linker },
            concurrent: OnceLock::new(),
            making: Mutex::new(()),
            options: options.clone(),
            ticker,
            kept: Total::new(options.max_instances as usize / KEPT_PART),
            allocator,
        })
    }

    /// The engine for WASI 0.3, made when it is first asked for.
    pub(crate) fn concurrent(&self) -> anyhow::Result<&Host> {
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = self.concurrent.get() {
            return Ok(host);
        }
        let (engine, _) = start_engine(&self.options, Wasi::P3)?;
        let linker = link(&engine, Wasi::P3)?;
        self.ticker.add(engine.clone());
        Ok(self.concurrent.get_or_init(|| Host { engine, linker }))
    }

    /// How instances get their memory here.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }
}

/// What compiled code depends on: the wasmtime version, its settings and this processor. Settings
/// of allocation are not part of it, so pooled and on-demand engines share compiled code.
///
/// Found out once in a process; it takes a compiler, some megabytes that then stay.
pub fn engine_key() -> anyhow::Result<&'static str> {
    static KEY: OnceLock<String> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key);
    }
    let mut hasher = DefaultHasher::new();
    for wasi in [Wasi::P2, Wasi::P3] {
        let engine = Engine::new(&compiler_config(wasi)).map_err(anyhow::Error::from)?;
        engine.precompile_compatibility_hash().hash(&mut hasher);
    }
    std::env::consts::ARCH.hash(&mut hasher);
    Ok(KEY.get_or_init(|| format!("wasmtime-48-{:016x}", hasher.finish())))
}

/// The settings of a process that compiles.
pub(crate) fn compiler_config(wasi: Wasi) -> Config {
    let mut config = code_config(wasi);
    config.cranelift_opt_level(wasmtime::OptLevel::Speed);
    config
}

/// The settings of a process that runs what another compiled: there is no compiler in it.
fn runner_config(wasi: Wasi) -> Config {
    let mut config = code_config(wasi);
    config.enable_compiler(false);
    config
}

/// The settings that compiled code depends on.
fn code_config(wasi: Wasi) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.epoch_interruption(true);
    // Nothing here reads native backtraces, and registering frames makes loading slower.
    config.native_unwind_info(false);
    config.memory_reservation(MAX_MEMORY as u64);
    config.concurrency_support(wasi == Wasi::P3);
    config
}

fn start_engine(options: &RuntimeOptions, wasi: Wasi) -> anyhow::Result<(Engine, Allocator)> {
    let scan = PoolingAllocationConfig::is_pagemap_scan_available();
    match Engine::new(&pooled_config(options, wasi, scan)) {
        Ok(engine) => Ok((engine, Allocator::Pooling { pagemap_scan: scan })),
        Err(error) => {
            let engine = Engine::new(&runner_config(wasi)).map_err(anyhow::Error::from)?;
            let reason = format!("{error:#}");
            Ok((engine, Allocator::OnDemand { reason }))
        }
    }
}

fn pooled_config(options: &RuntimeOptions, wasi: Wasi, scan: bool) -> Config {
    let count = options.max_instances;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count)
        .total_core_instances(count.saturating_mul(CORES_OF_A_COMPONENT))
        .total_memories(count)
        .total_tables(count.saturating_mul(2))
        .total_stacks(count)
        .max_memories_per_component(16)
        .max_core_instance_size(10 << 20)
        .max_component_instance_size(10 << 20)
        .table_elements(100_000)
        .max_memory_size(MAX_MEMORY)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT)
        .table_keep_resident(TABLE_KEEP_RESIDENT)
        .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No });
    let mut config = runner_config(wasi);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Everything a guest may import. One linker for all functions of an engine, filled once.
pub(crate) fn link(engine: &Engine, wasi: Wasi) -> anyhow::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    fill(&mut linker).map_err(anyhow::Error::from)?;
    if wasi == Wasi::P3 {
        wasmtime_wasi::p3::add_to_linker(&mut linker).map_err(anyhow::Error::from)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker).map_err(anyhow::Error::from)?;
    }
    Ok(linker)
}

fn fill(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi_config::add_to_linker(linker, |guest: &mut Guest| {
        WasiConfig::new(&guest.spec.config)
    })?;
    nn::add_to_linker(linker)?;
    // Again, over the ones above: these reach the table without making a WASI context first.
    linker.allow_shadowing(true);
    wasmtime_wasi_io::add_to_linker_async(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}
