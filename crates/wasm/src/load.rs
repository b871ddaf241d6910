//! Loads compiled code. The only file of this crate with `unsafe` in it.
//!
//! wasmtime maps compiled code and runs it: whoever writes it owns the process. So it is taken only
//! from the folder that control writes to after compiling the component itself, on this node, and
//! that the engine can only read. Code that came from outside is refused at deploy
//! ([`crate::precompile`] takes components only).

use std::path::Path;
use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::{p2, p3};

use crate::failure::Failure;
use crate::guest::{FunctionSpec, Guest};
use crate::instance::Kept;
use crate::runtime::{Host, Runtime};
use crate::ticker::Ticker;

/// A function ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct Function(pub(crate) Arc<Loaded>);

/// Compiled code, linked, with what its instances are given.
pub(crate) struct Loaded {
    pub(crate) pre: Pre,
    pub(crate) spec: Arc<FunctionSpec>,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) kept: Kept,
}

/// A linked component, by the world it exports.
pub(crate) enum Pre {
    /// `wasi:http/proxy` of WASI 0.2.
    P2(p2::bindings::ProxyPre<Guest>),
    /// `wasi:http/service` of WASI 0.3.
    P3(p3::bindings::ServicePre<Guest>),
}

impl Pre {
    /// Binds `linked` to the world it exports, 0.3 before 0.2.
    pub(crate) fn new(linked: InstancePre<Guest>) -> wasmtime::Result<Self> {
        match p3::bindings::ServicePre::new(linked.clone()) {
            Ok(pre) => Ok(Self::P3(pre)),
            Err(_) => p2::bindings::ProxyPre::new(linked).map(Self::P2),
        }
    }
}

impl Loaded {
    pub(crate) fn engine(&self) -> &Engine {
        match &self.pre {
            Pre::P2(pre) => pre.engine(),
            Pre::P3(pre) => pre.engine(),
        }
    }
}

impl Runtime {
    /// Maps the compiled code at `path` and links it.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the file is missing, was made by another engine version, or
    /// does not link.
    pub fn load(&self, path: &Path, spec: Arc<FunctionSpec>) -> Result<Function, Failure> {
        let pre = self
            .link(path)
            .map_err(|error| Failure::Unavailable(format!("{error:#}")))?;
        Ok(Function(Arc::new(Loaded {
            pre,
            spec,
            ticker: Arc::clone(&self.ticker),
            kept: Kept::new(Arc::clone(&self.kept)),
        })))
    }

    /// Code knows the settings it was compiled with: what the plain engine refuses is WASI 0.3's.
    fn link(&self, path: &Path) -> anyhow::Result<Pre> {
        match load_into(&self.plain, path) {
            Err(_) if path.is_file() => load_into(self.concurrent()?, path),
            loaded => loaded,
        }
    }
}

fn load_into(host: &Host, path: &Path) -> anyhow::Result<Pre> {
    // SAFETY: the file was written by this node's own compile step into a folder that only
    // control can write to; wasmtime checks its version, settings and processor features.
    let component = unsafe { Component::deserialize_file(&host.engine, path) };
    component
        .and_then(|component| host.linker.instantiate_pre(&component))
        .and_then(Pre::new)
        .map_err(anyhow::Error::from)
}
