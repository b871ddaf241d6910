//! What functions print: lines on their way to `spool/logs`, bounded, never in a request's way.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use http::HeaderValue;
use serde::Serialize;
use vedette_wasm::{LogSink, Stream};

use crate::clock;

/// The most lines waiting to be written; more are dropped and counted.
const QUEUE: usize = 4096;
/// The size at which a new file is begun.
const MAX_FILE: u64 = 8 << 20;

/// The way to the log, shared by all workers.
#[derive(Clone)]
pub struct FunctionLog {
    send: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// The log as one function has it.
struct NamedLog {
    log: FunctionLog,
    function: Arc<str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    time: String,
    function: &'a str,
    request_id: &'a str,
    stream: &'static str,
    message: &'a str,
}

impl FunctionLog {
    /// Starts the thread that writes `folder/prefix-N.jsonl`.
    ///
    /// # Errors
    /// When the thread cannot start.
    pub fn start(folder: &Path, prefix: &str) -> std::io::Result<Self> {
        let (send, lines) = sync_channel(QUEUE);
        let mut writer = Writer {
            folder: folder.to_owned(),
            prefix: prefix.to_owned(),
            number: 0,
            file: None,
            size: 0,
        };
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log".into())
            .stack_size(64 << 10)
            .spawn(move || writer.run(&lines, &lost))?;
        Ok(Self { send, dropped })
    }

    /// The log of one function.
    pub fn of_function(&self, function: &Arc<str>) -> Arc<dyn LogSink> {
        Arc::new(NamedLog {
            log: self.clone(),
            function: Arc::clone(function),
        })
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl LogSink for NamedLog {
    fn line(&self, request_id: &HeaderValue, stream: Stream, line: &[u8]) {
        let line = Line {
            kind: "log",
            time: clock::rfc3339(clock::since_epoch()),
            function: &self.function,
            request_id: request_id.to_str().unwrap_or_default(),
            stream: match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            },
            message: &String::from_utf8_lossy(line),
        };
        let Ok(mut bytes) = serde_json::to_vec(&line) else {
            return;
        };
        bytes.push(b'\n');
        if self.log.send.try_send(bytes).is_err() {
            self.log.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    folder: PathBuf,
    prefix: String,
    number: u64,
    file: Option<File>,
    size: u64,
}

impl Writer {
    fn run(&mut self, lines: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
        while let Ok(mut batch) = lines.recv() {
            for line in lines.try_iter().take(256) {
                batch.extend_from_slice(&line);
            }
            if self.write(&batch).is_err() {
                let lost = batch.iter().filter(|byte| **byte == b'\n').count();
                dropped.fetch_add(lost as u64, Ordering::Relaxed);
                self.file = None;
                // A full disk does not get better by being asked at once again.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn write(&mut self, batch: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() || self.size > MAX_FILE {
            let name = format!("{}-{:08}.jsonl", self.prefix, self.number);
            let path = self.folder.join(name);
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            file.lock()?; // as the files of records are
            self.file = Some(file);
            self.number += 1;
            self.size = 0;
        }
        self.size += batch.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(batch),
            None => Ok(()),
        }
    }
}
