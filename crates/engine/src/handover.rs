//! From one engine to the next: who is in charge of the node's sockets, and what the next one takes over.
//!
//! Two engines may run at once while one replaces the other. One of them holds a lock on
//! `spool/charge.lock` and is in charge: it alone accepts connections, answers control and writes
//! the quotas. The kernel frees the lock when its holder ends, however it ends, so nothing has to
//! be told between the two, and none is left waiting by a crash. Must not: decide when to replace
//! an engine; the supervisor does (ADR 0015).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::node::Node;
use crate::sys;

/// How often the quotas used so far are written.
const QUOTAS_EVERY: Duration = Duration::from_secs(5);

/// What an engine is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It takes connections and requests.
    Serving,
    /// Another engine takes the connections; those that are here may have one request more.
    HandingOver,
    /// Idle connections are closed, requests under way are finished.
    Stopping,
}

/// Returns once the engine takes no more connections. An error means that it is gone: the end as well.
pub async fn leaving(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
}

/// Returns once the engine is told to stop.
pub async fn stopping(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Stopping).await;
}

/// The lock of the engine in charge.
pub struct Charge(File);

impl Charge {
    /// Opens the lock without taking it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(spool_dir: &Path) -> io::Result<Self> {
        let path = spool_dir.join("charge.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        Ok(Self(file))
    }

    /// Takes charge, if nobody has it.
    ///
    /// # Errors
    /// When the kernel cannot lock.
    pub fn try_take(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes charge as soon as the engine that has it gives it up or ends.
    ///
    /// # Errors
    /// When the kernel cannot lock.
    pub fn take(&self) -> io::Result<()> {
        self.0.lock()
    }

    /// Leaves the sockets to the engine that waits for them, if one does.
    pub fn give_up(&self) {
        if let Err(error) = self.0.unlock() {
            sys::say(&format_args!("the charge cannot be given up: {error}"));
        }
    }
}

/// Tells the supervisor that this engine could take over now, or why it never will.
///
/// # Errors
/// When the supervisor does not listen any more: it has given this engine up.
pub fn report_ready(mut supervisor: File, refused: Option<&str>) -> io::Result<()> {
    let report = format!("{}\n", serde_json::json!({ "error": refused }));
    supervisor.write_all(report.as_bytes()) // at once: it is read at once
}

/// Where the quotas used so far are kept, for the engine after this one. A crash forgets what was
/// used since the last time they were written.
#[derive(Clone)]
pub struct Quotas(PathBuf);

impl Quotas {
    /// The quotas of a node.
    pub fn in_folder(spool_dir: &Path) -> Self {
        Self(spool_dir.join("quotas.bin"))
    }

    /// What was written last.
    pub fn read(&self) -> Option<Vec<u8>> {
        std::fs::read(&self.0).ok()
    }

    /// Writes what was used. Only the engine in charge may.
    pub fn write(&self, node: &Node) {
        let Some(image) = node.quotas() else {
            return;
        };
        let fresh = self.0.with_extension("new");
        let written = std::fs::write(&fresh, image).and_then(|()| std::fs::rename(&fresh, &self.0));
        if let Err(error) = written {
            sys::say(&format_args!("quotas are not kept: {error}"));
        }
    }

    /// Writes them now and then, and once more when the engine begins to leave.
    pub async fn keep(self, node: Arc<Node>, mut phase: watch::Receiver<Phase>) {
        loop {
            let goes_on = tokio::select! {
                () = leaving(&mut phase) => false,
                () = tokio::time::sleep(QUOTAS_EVERY) => true,
            };
            let (quotas, node) = (self.clone(), Arc::clone(&node));
            let _ = tokio::task::spawn_blocking(move || quotas.write(&node)).await;
            if !goes_on {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "handover_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
