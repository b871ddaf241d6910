//! Loads compiled code. The only file of this crate with `unsafe` in it.
//!
//! wasmtime maps compiled code and runs it: whoever writes it owns the process. So it is taken only
//! from the folder that control writes to after compiling the component itself, on this node, and
//! that the engine can only read. Code that came from outside is refused at deploy
//! ([`crate::precompile`] takes components only).

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::failure::Failure;
use crate::guest::{FunctionSpec, Guest};
use crate::runtime::Runtime;
use crate::ticker::Ticker;

/// A function ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct Function(pub(crate) Arc<Loaded>);

/// Compiled code, linked, with what its instances are given.
pub(crate) struct Loaded {
    pub(crate) pre: ProxyPre<Guest>,
    pub(crate) spec: Arc<FunctionSpec>,
    pub(crate) ticker: Arc<Ticker>,
}

impl Runtime {
    /// Maps the compiled code at `path` and links it.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] when the file is missing, was made by another engine version, or
    /// does not link.
    pub fn load(&self, path: &Path, spec: Arc<FunctionSpec>) -> Result<Function, Failure> {
        // SAFETY: the file was written by this node's own compile step into a folder that only
        // control can write to; wasmtime checks its version, settings and processor features.
        let component = unsafe { Component::deserialize_file(&self.engine, path) };
        let pre = component
            .and_then(|component| self.linker.instantiate_pre(&component))
            .and_then(ProxyPre::new)
            .map_err(|error| Failure::Unavailable(format!("{error:#}")))?;
        Ok(Function(Arc::new(Loaded {
            pre,
            spec,
            ticker: Arc::clone(&self.ticker),
        })))
    }
}
