//! The first run, before anybody asks.
//!
//! Owns: what a session is warmed up with. A runtime makes its plan of memory, and packs weights, with the first run of a
//! shape: that is many times as long as the next. Only where the shape is known, and for so long: a session that is not
//! warm serves as well.
//!
//! Must not: judge what comes of it, or learn from it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::config::Served;
use crate::error::Error;
use crate::runtime::{Data, Session};
use crate::watchdog;

/// For all sessions of a model.
const LONGEST: Duration = Duration::from_secs(2);
/// Of one input.
const MOST_BYTES: usize = 64 << 20;

/// Runs each of these sessions once with zeros, as far as there is time.
///
/// # Errors
/// When no thread can be started.
pub fn warm_up(model: &Served, sessions: &mut [Box<dyn Session>]) -> Result<(), Error> {
    let Some(inputs) = zeros(model) else {
        return Ok(());
    };
    let outputs: Vec<_> = (0..model.outputs.len()).collect();
    let stops: Vec<_> = sessions.iter().map(|it| it.stop()).collect();
    // How many are done; the next one is stopped when there is no time left.
    let done = Arc::new(Mutex::new(Some(0)));
    let under_way = Arc::clone(&done);
    let late = move || {
        let mut done = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stop) = done.take().and_then(|place: usize| stops.get(place)) {
            stop.stop();
        }
    };
    let failed = |error| Error::new("worker_failed", error);
    let within = watchdog::within(LONGEST, late).map_err(failed)?;
    for session in sessions {
        if done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
        {
            break;
        }
        // Zeros may be what it cannot take.
        let _ = session.run(&inputs, &outputs);
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = done.map(|place| place + 1);
    }
    *done.lock().unwrap_or_else(PoisonError::into_inner) = None;
    drop(within);
    Ok(())
}

/// A row of what goes in; none where a dimension other than that of rows may be any, or an input is of texts.
fn zeros(model: &Served) -> Option<Vec<Data>> {
    let zeros = model.inputs.iter().map(|input| {
        let mut shape = input.shape.clone();
        if let Some(rows) = shape.first_mut().filter(|it| **it == 0) {
            *rows = 1;
        }
        let elements = shape.iter().try_fold(1_usize, |elements, side| {
            let side = usize::try_from(*side).ok().filter(|it| *it > 0)?;
            elements.checked_mul(side)
        });
        let bytes = elements?.checked_mul(input.datatype.size()?)?;
        let shape: Result<Vec<_>, _> = shape.into_iter().map(i64::try_from).collect();
        Some(Data {
            datatype: input.datatype,
            shape: shape.ok()?,
            elements: (bytes <= MOST_BYTES).then(|| Bytes::from(vec![0; bytes]))?,
        })
    });
    zeros.collect()
}

#[cfg(test)]
#[path = "warm_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
