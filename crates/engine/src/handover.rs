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

const QUOTAS: &str = "quotas.bin";
const BLOCKS: &str = "blocks.bin";
/// How often what was counted so far is written.
const WRITE_EVERY: Duration = Duration::from_secs(5);

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

/// Where is kept what was counted so far, for the engine after this one: quotas, and who is blocked. A crash
/// forgets what came since the last time it was written.
#[derive(Clone)]
pub struct Counted(PathBuf);

impl Counted {
    /// What a node has counted.
    pub fn in_folder(spool_dir: &Path) -> Self {
        Self(spool_dir.to_owned())
    }

    /// The quotas that were written last.
    pub fn quotas(&self) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(QUOTAS)).ok()
    }

    /// The blocks that were written last.
    pub fn blocks(&self) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(BLOCKS)).ok()
    }

    /// Writes both. Only the engine in charge may.
    pub fn write(&self, node: &Node) {
        for (name, image) in [
            (QUOTAS, node.quotas()),
            (BLOCKS, Some(node.offenders.image())),
        ] {
            let Some(image) = image else {
                continue;
            };
            let (file, fresh) = (self.0.join(name), self.0.join(format!("{name}.new")));
            let written =
                std::fs::write(&fresh, image).and_then(|()| std::fs::rename(&fresh, &file));
            if let Err(error) = written {
                sys::say(&format_args!("{name} is not kept: {error}"));
            }
        }
    }

    /// Writes them now and then, and once more when the engine begins to leave.
    pub async fn keep(self, node: Arc<Node>, mut phase: watch::Receiver<Phase>) {
        loop {
            let goes_on = tokio::select! {
                () = leaving(&mut phase) => false,
                () = tokio::time::sleep(WRITE_EVERY) => true,
            };
            let (counted, node) = (self.clone(), Arc::clone(&node));
            let _ = tokio::task::spawn_blocking(move || counted.write(&node)).await;
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
