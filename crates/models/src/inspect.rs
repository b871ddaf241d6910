//! Looks at a model before it is taken in: loads it once, in the same box, and says what it takes and gives.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::{self, Format, InspectConfig};
use crate::error::Error;
use crate::place::{Place, confine};
use crate::streams::spec::{self, Spec};
use crate::worker::too_slow;
use crate::{sys, watchdog};

/// Loads a file (`VEDETTE_MODEL` of an inspection as JSON) and says, as JSON, its inputs and outputs, or why it is
/// refused. The process must have one thread; it ends when loading takes too long, after that was said on standard
/// output.
pub fn inspect(config: &str) -> String {
    let looked = config::parse::<InspectConfig>(config).and_then(|config| look(&config));
    let said = looked.unwrap_or_else(|error| json!({"error": error.to_json()}));
    said.to_string()
}

fn look(config: &InspectConfig) -> Result<Value, Error> {
    let started = Instant::now();
    if config.format == Format::Detector {
        return look_at_detector(config);
    }
    let place = Place::enter(
        &config.file,
        config.format,
        &config.library,
        config.memory_bytes,
    )?;
    let limit = Duration::from_millis(config.run_millis);
    let loading = watchdog::within(limit, move || {
        let said = json!({"error": too_slow(limit).to_json()});
        let _ = std::io::stdout().write_all(format!("{said}\n").as_bytes());
        let _ = std::io::stdout().flush();
        sys::end(0);
    });
    let loading = loading.map_err(|error| Error::new("worker_failed", error))?;
    let session = place.session(1)?;
    let millis = started.elapsed().as_secs_f64() * 1e3;
    drop(loading);
    drop(session);
    Ok(json!({
        "inputs": place.outline.inputs,
        "outputs": place.outline.outputs,
        "loadMillis": millis,
        "runtime": place.runtime(),
    }))
}

fn look_at_detector(config: &InspectConfig) -> Result<Value, Error> {
    let started = Instant::now();
    let bytes = spec::bytes(&config.file)?;
    confine(Path::new(""), config.memory_bytes)?;
    let spec = Spec::read(&bytes)?;
    Ok(json!({
        "inputs": spec.inputs(),
        "outputs": Spec::outputs(),
        "loadMillis": started.elapsed().as_secs_f64() * 1e3,
        "runtime": concat!("vedette ", env!("CARGO_PKG_VERSION")),
    }))
}
