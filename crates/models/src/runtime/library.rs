//! The library of ONNX Runtime: loaded, silent, and how its sessions are set.
//!
//! Settings, and why. One thread unless more are asked for, and none spins: an edge node shares its cores. No memory
//! arena: it would keep what the largest request ever took, and doubles when it grows, past the limit of the process.
//! Memory patterns only where all inputs have one shape: each other shape would be remembered for good. No thread of
//! the library's own beside those.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ort::environment::Environment;
use ort::session::Session as OrtSession;
use ort::session::builder::SessionBuilder;

use super::Session;
use super::onnx::Opened;
use crate::error::Error;

/// The library, loaded and silent.
pub struct Library {
    environment: Environment,
    version: String,
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::new("model_invalid", error)
}

impl Library {
    /// Loads the library at `path`, with telemetry off.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        require_file(path)?;
        let shown = path.display();
        let version = version(path)?;
        // `ort` panics where a library answers nonsense.
        let loaded = catch_unwind(|| {
            let builder = ort::init_from(path).map_err(unusable)?;
            let builder = builder.with_name("vedette").with_telemetry(false);
            let environment = builder.build().map_err(unusable)?;
            environment.set_log_level(ort::logging::LogLevel::Fatal);
            Ok(environment)
        });
        let environment = loaded.unwrap_or_else(|_| {
            let message = format_args!("{shown} is no ONNX Runtime that could be used");
            Err(Error::new("runtime_invalid", message))
        })?;
        Ok(Self {
            environment,
            version: format!("onnxruntime {version}"),
        })
    }

    /// Such as `onnxruntime 1.31.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Makes a session of a file that was checked.
    ///
    /// # Errors
    /// `model_invalid`, `model_out_of_memory`.
    pub fn session(
        &self,
        file: &[u8],
        threads: usize,
        has_one_shape: bool,
    ) -> Result<Box<dyn Session>, Error> {
        let made = catch_unwind(AssertUnwindSafe(|| {
            let mut builder = self.builder(threads, has_one_shape)?;
            let session = builder.commit_from_memory(file)?;
            Opened::new(session)
        }));
        match made {
            Ok(Ok(opened)) => Ok(Box::new(opened)),
            Ok(Err(error)) if is_out_of_memory(error.message()) => Err(Error::new(
                "model_out_of_memory",
                "loading it takes more memory than it may have",
            )),
            Ok(Err(error)) => Err(invalid(one_line(error.message()))),
            Err(_) => Err(invalid(
                "the runtime has no words for what it takes or gives",
            )),
        }
    }

    fn builder(&self, threads: usize, has_one_shape: bool) -> ort::Result<SessionBuilder> {
        let cpu = ort::ep::CPU::default().with_arena_allocator(false).build();
        let builder = OrtSession::builder(&self.environment)?
            .with_execution_providers([cpu])?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_memory_pattern(has_one_shape)?
            // What it is was looked at; the other format was not.
            .with_config_entry("session.load_model_format", "ONNX")?
            .with_log_level(ort::logging::LogLevel::Fatal)?;
        Ok(builder)
    }
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::new("runtime_invalid", error)
}

/// Refuses what is no file, before a loader sees it.
pub(super) fn require_file(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(it) if it.is_file() => Ok(()),
        Ok(_) => Err(unusable(format_args!("{shown} is no file"))),
        Err(error) => {
            let message = format_args!("{shown}: {error}");
            Err(Error::new("runtime_missing", message))
        }
    }
}

/// Loads a library for good.
pub(super) fn open(name: &CStr) -> Result<*mut c_void, Error> {
    // SAFETY: the library is the wheel's, whose initialisers run here; the handle is kept, so nothing is unloaded.
    let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        // SAFETY: the text is the C library's, valid until its next call on this thread.
        let error = unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy();
        return Err(unusable(error));
    }
    Ok(library)
}

/// What the library at `path` says of itself, before `ort` sees it.
fn version(path: &Path) -> Result<String, Error> {
    let shown = path.display();
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        return Err(unusable(format_args!("{shown} is no path")));
    };
    let library = open(&name)?;
    // SAFETY: an open library and a C string.
    let base = unsafe { libc::dlsym(library, c"OrtGetApiBase".as_ptr()) };
    if base.is_null() {
        return Err(unusable(format_args!("{shown} is no ONNX Runtime")));
    }
    // SAFETY: under this name the library has a function of this type (`onnxruntime_c_api.h`), whose answer lives as
    // long as the library.
    let version = unsafe {
        let base: unsafe extern "C" fn() -> *const ort::sys::OrtApiBase = std::mem::transmute(base);
        let base = base().as_ref();
        base.map(|it| {
            CStr::from_ptr((it.GetVersionString)())
                .to_string_lossy()
                .into_owned()
        })
    };
    let version = version.unwrap_or_default();
    let wanted = ort::sys::ORT_API_VERSION;
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) if minor >= wanted => Ok(version),
        (Some(Ok(1)), Some(Ok(_))) => Err(Error::new(
            "runtime_too_old",
            format_args!("{shown} is ONNX Runtime {version}; 1.{wanted} or newer is needed"),
        )),
        _ => Err(unusable(format_args!(
            "{shown} says that it is version {version:?}"
        ))),
    }
}

/// Whether the runtime, or the C++ library below it, says that it got no memory.
pub(super) fn is_out_of_memory(message: &str) -> bool {
    [
        "bad_alloc",
        "allocate memory",
        "out of memory",
        "bad allocation",
        "length_error",
    ]
    .iter()
    .any(|it| message.contains(it))
}

/// What the runtime says, on one line and cut.
pub(super) fn one_line(message: &str) -> String {
    const MOST: usize = 500;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MOST).collect()
}
