//! The border between Python and Rust: bytes cross it, calls do not.
//!
//! Every function releases the interpreter lock for as long as it works, and none calls back; but for the two that
//! put the calling process into a box, which has one thread then.

use std::path::Path;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Worth 15–20 % of the requests/s of a function (notes, measured).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An error as control reads it: JSON with `code` and `message`.
fn refused(code: &str, message: &str) -> PyErr {
    PyValueError::new_err(vedette_engine::error_json(code, message))
}

/// The version of the engine.
#[pyfunction]
fn version() -> &'static str {
    vedette_engine::VERSION
}

/// Names what compiled code depends on.
#[pyfunction]
fn engine_key(py: Python<'_>) -> PyResult<&'static str> {
    py.detach(vedette_wasm::engine_key)
        .map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

/// Runs the engine until it is told to stop.
#[pyfunction]
fn run(py: Python<'_>, config: &[u8], engine_key: &str) -> PyResult<()> {
    let (config, engine_key) = (config.to_vec(), engine_key.to_owned());
    py.detach(move || vedette_engine::run(&config, &engine_key))
        .map_err(|error| PyRuntimeError::new_err(format!("{error:#}")))
}

/// Checks a component and compiles it for this node.
#[pyfunction]
fn precompile<'py>(py: Python<'py>, component: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let component = component.to_vec();
    py.detach(move || vedette_wasm::precompile(&component))
        .map(|compiled| PyBytes::new(py, &compiled))
        .map_err(|error| refused(error.code.as_str(), &error.message))
}

/// Finds out what an engine need not, when it loads these packed rules.
#[pyfunction]
fn analyse_rules<'py>(py: Python<'py>, rules: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let rules = rules.to_vec();
    py.detach(move || vedette_engine::analyse_rules(&rules))
        .map(|analysis| PyBytes::new(py, &analysis))
        .map_err(|error| refused(error.code, &error.message))
}

/// Checks a snapshot as the engine would before activating it.
#[pyfunction]
fn check_snapshot<'py>(
    py: Python<'py>,
    envelope: &[u8],
    public_key_pem: &[u8],
    engine_dir: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let (envelope, engine_dir) = (envelope.to_vec(), engine_dir.to_owned());
    let key = String::from_utf8_lossy(public_key_pem).into_owned();
    let checked = py.detach(move || {
        let engine_key = vedette_wasm::engine_key().map_err(|error| error.to_string());
        engine_key.map(|engine_key| {
            vedette_engine::check_snapshot(&envelope, &key, Path::new(&engine_dir), engine_key)
        })
    });
    let digest = checked
        .map_err(PyRuntimeError::new_err)?
        .map_err(|error| refused(error.code, &error.message))?;
    Ok(PyBytes::new(
        py,
        format!("{{\"digest\":\"{digest}\"}}").as_bytes(),
    ))
}

/// Checks policies against a schema.
#[pyfunction]
fn check_policies<'py>(py: Python<'py>, request: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let request = request.to_vec();
    py.detach(move || vedette_engine::check_policies(&request))
        .map(|report| PyBytes::new(py, &report))
        .map_err(|error| refused(error.code, &error.message))
}

/// Explains what is decided about requests under a snapshot.
#[pyfunction]
fn explain<'py>(py: Python<'py>, query: &[u8], engine_dir: &str) -> PyResult<Bound<'py, PyBytes>> {
    let (query, engine_dir) = (query.to_vec(), engine_dir.to_owned());
    let explained = py.detach(move || {
        let engine_key = vedette_wasm::engine_key().map_err(|error| error.to_string());
        engine_key
            .map(|engine_key| vedette_engine::explain(&query, Path::new(&engine_dir), engine_key))
    });
    explained
        .map_err(PyRuntimeError::new_err)?
        .map(|answers| PyBytes::new(py, &answers))
        .map_err(|error| refused(error.code, &error.message))
}

/// Says what the firewall makes of requests under a snapshot.
#[pyfunction]
fn judge<'py>(py: Python<'py>, query: &[u8], engine_dir: &str) -> PyResult<Bound<'py, PyBytes>> {
    let (query, engine_dir) = (query.to_vec(), engine_dir.to_owned());
    let judged = py.detach(move || {
        let engine_key = vedette_wasm::engine_key().map_err(|error| error.to_string());
        engine_key
            .map(|engine_key| vedette_engine::judge(&query, Path::new(&engine_dir), engine_key))
    });
    judged
        .map_err(PyRuntimeError::new_err)?
        .map(|answers| PyBytes::new(py, &answers))
        .map_err(|error| refused(error.code, &error.message))
}

/// Gives this process a network of its own with nothing but loopback.
#[pyfunction]
fn isolate() -> PyResult<()> {
    // The interpreter lock stays: each of these calls covers the thread that makes it.
    vedette_sandbox::isolate().map_err(|error| refused(error.code, &error.message))
}

/// Gives this process a view of the files in which only some can be changed.
#[pyfunction]
fn seal(write: &[u8]) -> PyResult<()> {
    let write: Vec<std::path::PathBuf> = serde_json::from_slice(write)
        .map_err(|error| refused("files_invalid", &error.to_string()))?;
    vedette_sandbox::seal(&write).map_err(|error| refused(error.code, &error.message))
}

/// Takes from this process what leads out of its box.
#[pyfunction]
fn confine(files: &[u8]) -> PyResult<()> {
    let files = serde_json::from_slice(files)
        .map_err(|error| refused("files_invalid", &error.to_string()))?;
    vedette_sandbox::confine(&files).map_err(|error| refused(error.code, &error.message))
}

/// Serves one model until it is told to stop.
#[pyfunction]
fn run_model(py: Python<'_>, config: &str) -> PyResult<()> {
    py.detach(|| vedette_models::run(config))
        .map_err(|error| refused(error.code, &error.message))
}

/// Says what a model takes and gives, or why it is refused.
#[pyfunction]
fn inspect_model(py: Python<'_>, config: &str) -> String {
    py.detach(|| vedette_models::inspect(config))
}

/// The module `vedette.engine._native`.
#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(version, module)?)?;
    module.add_function(wrap_pyfunction!(engine_key, module)?)?;
    module.add_function(wrap_pyfunction!(run, module)?)?;
    module.add_function(wrap_pyfunction!(precompile, module)?)?;
    module.add_function(wrap_pyfunction!(analyse_rules, module)?)?;
    module.add_function(wrap_pyfunction!(check_snapshot, module)?)?;
    module.add_function(wrap_pyfunction!(check_policies, module)?)?;
    module.add_function(wrap_pyfunction!(explain, module)?)?;
    module.add_function(wrap_pyfunction!(judge, module)?)?;
    module.add_function(wrap_pyfunction!(isolate, module)?)?;
    module.add_function(wrap_pyfunction!(seal, module)?)?;
    module.add_function(wrap_pyfunction!(confine, module)?)?;
    module.add_function(wrap_pyfunction!(run_model, module)?)?;
    module.add_function(wrap_pyfunction!(inspect_model, module)?)?;
    Ok(())
}
