//! Checks a component and compiles it for this node.
//!
//! Runs in a process of its own with limits on time and memory: compile-time bombs are not a
//! security bug in wasmtime's eyes, so they must not meet the engine or control.

use std::fmt;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::load::Pre;
use crate::runtime::{Wasi, compiler_config, link};

/// The first four bytes of every wasm binary.
const WASM_MAGIC: &[u8] = b"\0asm";
/// Version and layer of a component, after the magic (component-model `Binary.md`, preamble).
const COMPONENT_LAYER: &[u8] = &[0x0d, 0x00, 0x01, 0x00];

/// Which part of admission a file failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmitErrorCode {
    /// Not a WebAssembly component: text, a core module, or anything else.
    NotAComponent,
    /// Code compiled elsewhere, which is never run.
    PrecompiledRefused,
    /// The component does not compile.
    CompileFailed,
    /// It imports something this host does not have.
    ImportMissing,
    /// It exports neither `wasi:http/incoming-handler` 0.2 nor `wasi:http/handler` 0.3.
    ExportMissing,
}

impl AdmitErrorCode {
    /// The code as it stands in errors and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAComponent => "not_a_component",
            Self::PrecompiledRefused => "precompiled_refused",
            Self::CompileFailed => "compile_failed",
            Self::ImportMissing => "import_missing",
            Self::ExportMissing => "export_missing",
        }
    }
}

/// Why a component was not admitted.
#[derive(Debug, Clone)]
pub struct AdmitError {
    /// Which check failed.
    pub code: AdmitErrorCode,
    /// What is wrong, for the person who deploys.
    pub message: String,
}

impl fmt::Display for AdmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for AdmitError {}

fn refuse(code: AdmitErrorCode, message: impl Into<String>) -> AdmitError {
    AdmitError {
        code,
        message: message.into(),
    }
}

/// Compiles `component` for this node's processor and engine settings.
///
/// # Errors
/// [`AdmitError`] when it is no component, does not compile, imports what this host lacks, or does
/// not handle HTTP requests.
pub fn precompile(component: &[u8]) -> Result<Vec<u8>, AdmitError> {
    require_component(component)?;
    // What needs WASI 0.3 does not pass for 0.2, and says so at once.
    precompile_for(component, Wasi::P2).or_else(|_| precompile_for(component, Wasi::P3))
}

fn precompile_for(component: &[u8], wasi: Wasi) -> Result<Vec<u8>, AdmitError> {
    let failed =
        |error: &dyn fmt::Display| refuse(AdmitErrorCode::CompileFailed, format!("{error:#}"));
    let engine = Engine::new(&compiler_config(wasi)).map_err(|error| failed(&error))?;
    let compiled = Component::from_binary(&engine, component).map_err(|error| failed(&error))?;
    let imports = link(&engine, wasi).map_err(|error| failed(&error))?;
    let linked = imports
        .instantiate_pre(&compiled)
        .map_err(|error| refuse(AdmitErrorCode::ImportMissing, format!("{error:#}")))?;
    Pre::new(linked)
        .map_err(|error| refuse(AdmitErrorCode::ExportMissing, format!("{error:#}")))?;
    compiled.serialize().map_err(|error| failed(&error))
}

fn require_component(bytes: &[u8]) -> Result<(), AdmitError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(refuse(
            AdmitErrorCode::PrecompiledRefused,
            "this is compiled code; deploy the component it was compiled from",
        ));
    }
    let Some(rest) = bytes.strip_prefix(WASM_MAGIC) else {
        return Err(refuse(
            AdmitErrorCode::NotAComponent,
            "this is not a WebAssembly file",
        ));
    };
    if !rest.starts_with(COMPONENT_LAYER) {
        return Err(refuse(
            AdmitErrorCode::NotAComponent,
            "this is a core WebAssembly module, not a component; build it for wasm32-wasip2",
        ));
    }
    Ok(())
}
