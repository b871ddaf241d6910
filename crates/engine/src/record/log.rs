//! What functions print: lines on their way to `spool/logs`, bounded, never in a request's way.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use http::HeaderValue;
use serde::Serialize;
use vedette_wasm::{LogSink, Stream};

use crate::clock;

/// The most lines waiting to be written; more are dropped and counted.
const QUEUE: usize = 4096;
/// The size at which a new file is begun.
const MAX_FILE: u64 = 8 << 20;

/// What a function may print in a second, over all its instances; the rest is dropped and counted.
const RATE: u64 = 1 << 20;
/// What it may print at once.
const BURST: u64 = 4 << 20;
/// What a line costs besides its text: its time, its ids and its place in the queue.
const LINE_COST: u64 = 128;
/// How long after the first dropped line the log says how many there were.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// The way to the log, shared by all workers.
#[derive(Clone)]
pub struct FunctionLog {
    send: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// The log as one function has it.
#[derive(Clone)]
struct NamedLog {
    log: FunctionLog,
    function: Arc<str>,
    allowance: Arc<Mutex<Allowance>>,
}

/// What a function may still print.
struct Allowance {
    left: u64,
    since: Instant,
    /// Lines dropped and not told of yet.
    dropped: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Dropped, the first since the log has last told of any.
    DropFirst,
    Drop,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            dropped: 0,
        }
    }

    fn spend(&mut self, size: usize, now: Instant) -> Verdict {
        let passed = now.saturating_duration_since(self.since).as_micros();
        let earned = u128::from(RATE) * passed / 1_000_000;
        if earned > 0 {
            let earned = u64::try_from(earned).unwrap_or(BURST);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
        let cost = size as u64 + LINE_COST;
        if let Some(left) = self.left.checked_sub(cost) {
            self.left = left;
            return Verdict::Keep;
        }
        self.dropped += 1;
        match self.dropped {
            1 => Verdict::DropFirst,
            _ => Verdict::Drop,
        }
    }
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
            allowance: Arc::new(Mutex::new(Allowance::new(Instant::now()))),
        })
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl LogSink for NamedLog {
    fn line(&self, request_id: &HeaderValue, stream: Stream, line: &[u8]) {
        let verdict = self.allowance().spend(line.len(), Instant::now());
        match verdict {
            Verdict::Keep => self.write(request_id, stream, line),
            Verdict::Drop => {}
            Verdict::DropFirst => self.tell_later(request_id.clone()),
        }
    }
}

impl NamedLog {
    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, request_id: &HeaderValue, stream: Stream, line: &[u8]) {
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

    /// One line for all that are dropped until then. It names the request that went too far.
    fn tell_later(&self, request_id: HeaderValue) {
        let log = self.clone();
        let tell = async move {
            tokio::time::sleep(TELL_AFTER).await;
            let dropped = std::mem::take(&mut log.allowance().dropped);
            log.log.dropped.fetch_add(dropped, Ordering::Relaxed);
            let said = format!("vedette: {dropped} lines dropped, the function prints too much");
            log.write(&request_id, Stream::Stderr, said.as_bytes());
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tell);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_waits_for_its_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let size = 1024 - usize::try_from(LINE_COST).unwrap_or_default();
        let burst = BURST / 1024;
        for _ in 0..burst {
            assert_eq!(allowance.spend(size, start), Verdict::Keep);
        }
        assert_eq!(allowance.spend(size, start), Verdict::DropFirst);
        assert_eq!(allowance.spend(size, start), Verdict::Drop);
        let later = start + Duration::from_millis(500);
        let kept = (0..burst).filter(|_| allowance.spend(size, later) == Verdict::Keep);
        assert_eq!(kept.count() as u64, RATE / 1024 / 2);
    }

    #[test]
    fn what_is_not_printed_is_saved_up_to_a_burst_only() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let later = start + Duration::from_secs(3600);
        let lines = (0..2 * BURST / 1024).filter(|_| {
            let size = 1024 - usize::try_from(LINE_COST).unwrap_or_default();
            allowance.spend(size, later) == Verdict::Keep
        });
        assert_eq!(lines.count() as u64, BURST / 1024);
    }
}
