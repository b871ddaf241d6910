//! Where records go: files mapped into memory, one at a time per worker thread.
//!
//! A record is copied into a mapped page and is then the kernel's: `kill -9` of the engine loses
//! none that was written. Blocks are reserved before a file is used, so a full disk shows when the
//! next file is made, not as a fault in the middle of a request; from then on [`Spool::has_room`]
//! says no and requests are refused rather than served without a record.
//!
//! A file has its name when it is locked and has its blocks: control removes the oldest that nobody has locked, and must not
//! find one that is about to be used.
//!
//! A file in use ends in NUL bytes; readers stop at the first. The other file with `unsafe` (one
//! call, to map a file that this process alone writes to).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use memmap2::MmapMut;

/// Bytes of one file.
const SEGMENT: u64 = 4 << 20;
/// How the name of a file ends that is not ready.
const UNNAMED: &str = "new";
/// Room that must be left in the last file for new requests to be taken: enough for what is under
/// way to be recorded as well.
const RESERVE: usize = 1 << 20;
/// How long to wait before trying again to make a file on a full disk.
const RETRY: Duration = Duration::from_millis(100);

/// The spool of one worker thread.
pub struct Spool {
    current: Option<Segment>,
    ready: Receiver<Segment>,
    next: Option<Segment>,
    full: Sender<Segment>,
    dropped: u64,
}

struct Segment {
    map: MmapMut,
    file: File,
    used: usize,
}

impl Segment {
    /// The file at `path`, of which nothing is there yet.
    fn create(path: &Path) -> io::Result<Self> {
        let unnamed = path.with_extension(UNNAMED);
        let made = Self::unnamed(&unnamed).and_then(|it| it.name(&unnamed, path));
        if made.is_err() {
            let _ = fs::remove_file(&unnamed);
        }
        made
    }

    /// One that nobody takes for a file of records.
    fn unnamed(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        // Says to others, for as long as it is open, that the file is written to.
        file.lock()?;
        crate::sys::reserve(&file, SEGMENT)?;
        // SAFETY: only this process writes to the file, and it never shortens it while mapped; its
        // blocks are reserved. Readers in other processes do not change it.
        let map = unsafe { MmapMut::map_mut(&file)? };
        Ok(Self { map, file, used: 0 })
    }

    fn name(self, unnamed: &Path, path: &Path) -> io::Result<Self> {
        // Only this process makes files that begin so.
        if path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(unnamed, path)?;
        Ok(self)
    }

    fn room(&self) -> usize {
        self.map.len() - self.used
    }

    fn append(&mut self, line: &[u8]) -> bool {
        let Some(place) = self.map.get_mut(self.used..self.used + line.len()) else {
            return false;
        };
        place.copy_from_slice(line);
        self.used += line.len();
        true
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // The map goes with the struct; cutting the file first is sound, nothing reads the map now.
        let _ = self.file.set_len(self.used as u64);
    }
}

impl Spool {
    /// A spool whose files are `folder/prefix-N.jsonl`. Makes the first at once.
    ///
    /// # Errors
    /// When the threads that prepare and close files cannot start.
    pub fn open(folder: &Path, prefix: &str) -> io::Result<Self> {
        let (send, ready) = sync_channel(0);
        let (full, to_close) = channel();
        let (folder, prefix) = (folder.to_owned(), prefix.to_owned());
        let thread = || thread::Builder::new().stack_size(64 << 10);
        thread()
            .name("spool".into())
            .spawn(move || prepare(&folder, &prefix, &send))?;
        thread()
            .name("spool-close".into())
            .spawn(move || to_close.into_iter().for_each(drop::<Segment>))?;
        let current = ready.recv_timeout(RETRY).ok();
        Ok(Self {
            current,
            ready,
            next: None,
            full,
            dropped: 0,
        })
    }

    /// Whether another request can be recorded.
    pub fn has_room(&mut self) -> bool {
        if self.current.as_ref().is_some_and(|it| it.room() > RESERVE) {
            return true;
        }
        self.take_next();
        self.current.is_some() && self.next.is_some()
    }

    /// Keeps one record, a line with its line end.
    pub fn append(&mut self, line: &[u8]) {
        let kept = self.current.as_mut().is_some_and(|it| it.append(line));
        if kept {
            return;
        }
        self.take_next();
        if let Some(next) = self.next.take()
            && let Some(full) = self.current.replace(next)
        {
            // Cutting and unmapping a file takes milliseconds at times.
            let _ = self.full.send(full);
        }
        if !self.current.as_mut().is_some_and(|it| it.append(line)) {
            self.dropped += 1;
        }
    }

    /// How many records found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn take_next(&mut self) {
        let place = match (&self.current, &self.next) {
            (None, _) => &mut self.current,
            (_, None) => &mut self.next,
            _ => return,
        };
        // The preparer has the next file ready almost always; a worker must not wait for a disk.
        *place = self.ready.try_recv().ok();
    }
}

/// Makes the next file before it is needed. Ends when the spool is gone.
fn prepare(folder: &Path, prefix: &str, send: &SyncSender<Segment>) {
    let mut number = 0u64;
    loop {
        let path = folder.join(format!("{prefix}-{number:08}.jsonl"));
        match Segment::create(&path) {
            Ok(segment) => {
                if send.send(segment).is_err() {
                    // Nobody will write to it.
                    let _ = fs::remove_file(&path);
                    return;
                }
                number += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(_) => thread::sleep(RETRY),
        }
    }
}

/// Cuts what an engine that was killed has left: files are shortened to their records, empty ones and those that were not
/// ready removed. Leaves alone what another engine still writes to: that one has it mapped.
///
/// # Errors
/// When the folder cannot be read.
pub fn tidy(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is = |ending: &str| path.extension().is_some_and(|it| it == ending);
        if is("jsonl") {
            let _ = tidy_file(&path);
        } else if is(UNNAMED) {
            let _ = remove_left(&path);
        }
    }
    Ok(())
}

fn remove_left(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // One without a lock may be another engine's, which has just made it: it makes another then.
    file.try_lock()?;
    fs::remove_file(path)
}

fn tidy_file(path: &PathBuf) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    file.try_lock()?;
    let bytes = fs::read(path)?;
    let records = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    if records == 0 {
        return fs::remove_file(path);
    }
    if records < bytes.len() {
        file.set_len(records as u64)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "spool_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
