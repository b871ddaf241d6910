//! Until when bytes are read.
//!
//! Owns: the moment at which reading is to stop, and whether anybody still waits for it. Whoever reads asks often: before
//! each step, and each few kilobytes of what is decoded ([`Watched`]). Must not: read anything itself.

use std::io::{BufRead, Error, Read, Result as IoResult, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::oip::Refusal;

/// Bytes of a file between two looks at the clock: what a decoder makes of so few takes some milliseconds at most.
const PIECE: usize = 4096;

/// When reading is to stop. Copies are the same.
#[derive(Clone)]
pub struct Until {
    /// When nobody waits any more.
    pub at: Instant,
    is_forsaken: Arc<AtomicBool>,
    /// How often it was looked at the clock.
    #[cfg(test)]
    pub looks: Arc<std::sync::atomic::AtomicUsize>,
    /// After so many looks it is over.
    #[cfg(test)]
    pub most_looks: usize,
}

/// Dropped, reading stops: nobody waits for it any more.
pub struct Waiting(Arc<AtomicBool>);

impl Until {
    /// Until then.
    pub fn new(at: Instant) -> Self {
        Self {
            at,
            is_forsaken: Arc::default(),
            #[cfg(test)]
            looks: Arc::default(),
            #[cfg(test)]
            most_looks: usize::MAX,
        }
    }

    /// For as long as what is returned is kept.
    pub fn while_waiting(&self) -> Waiting {
        Waiting(Arc::clone(&self.is_forsaken))
    }

    /// Whether it is to stop.
    pub fn is_over(&self) -> bool {
        #[cfg(test)]
        if self.looks.fetch_add(1, Ordering::Relaxed) >= self.most_looks {
            return true;
        }
        self.is_forsaken.load(Ordering::Relaxed) || Instant::now() >= self.at
    }

    /// Whether it may go on.
    ///
    /// # Errors
    /// 504.
    pub fn check(&self) -> Result<(), Refusal> {
        match self.is_over() {
            true => Err(Refusal::new(504, "it was not read in time")),
            false => Ok(()),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes for a decoder, which ends with an error once reading is to stop.
pub struct Watched<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Up to where it was looked at the clock.
    checked: usize,
    until: &'a Until,
}

impl<'a> Watched<'a> {
    /// `bytes`, until then.
    pub fn new(bytes: &'a [u8], until: &'a Until) -> Self {
        Self {
            bytes,
            at: 0,
            checked: 0,
            until,
        }
    }
}

impl Read for Watched<'_> {
    #[inline]
    fn read(&mut self, to: &mut [u8]) -> IoResult<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(to.len());
        if let (Some(to), Some(from)) = (to.get_mut(..length), piece.get(..length)) {
            to.copy_from_slice(from);
        }
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Watched<'_> {
    #[inline]
    fn fill_buf(&mut self) -> IoResult<&[u8]> {
        if self.at >= self.checked {
            if self.until.is_over() {
                return Err(Error::other("it was not read in time"));
            }
            self.checked = self.at.saturating_add(PIECE);
        }
        let end = self.checked.min(self.bytes.len());
        Ok(self.bytes.get(self.at..end).unwrap_or_default())
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount);
    }
}

impl Seek for Watched<'_> {
    fn seek(&mut self, to: SeekFrom) -> IoResult<u64> {
        let at = match to {
            SeekFrom::Start(at) => usize::try_from(at).ok(),
            SeekFrom::End(by) => offset(self.bytes.len(), by),
            SeekFrom::Current(by) => offset(self.at, by),
        };
        self.at = at.ok_or_else(|| Error::other("before the beginning"))?;
        Ok(self.at as u64)
    }
}

fn offset(from: usize, by: i64) -> Option<usize> {
    from.checked_add_signed(isize::try_from(by).ok()?)
}
