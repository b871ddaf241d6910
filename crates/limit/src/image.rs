//! Quotas as bytes, to outlive a restart.
//!
//! `VDTLIMIT`, the version (u16), the seed of the tags (16 bytes), the number of tables (u32), the
//! tables by name, and a checksum (SipHash-1-3-128 of all before, 16 bytes). A table: the length of
//! its name (u8), the name, `per` (u8), a hash of its routes (u64), the window (u32), the number of
//! records (u32), and each record: tag (u64), count with the top bit set for a `rest` (u64).
//! Numbers are little-endian. The checksum tells a torn write; it proves no author, so the file
//! must be where only the engine writes. It must not be readable by others: the seed is in it.

use std::fmt;

use siphasher::sip128::SipHasher13;

use crate::calendar::Window;
use crate::key::Seed;

const MAGIC: &[u8; 8] = b"VDTLIMIT";
const VERSION: u16 = 1;
const CHECKSUM: usize = 16;
const RECORD: usize = 16;
const MOST_TABLES: u32 = 1_024;
/// Longer images are refused unread: more than the tables of the default memory can fill.
const MOST_BYTES: usize = 256 << 20;
const REST: u64 = 1 << 63;

/// An image that was read and found sound. Borrows the bytes.
pub struct Image<'a> {
    pub(crate) seed: Seed,
    pub(crate) tables: Vec<TableImage<'a>>,
}

/// The counts of one limit.
pub(crate) struct TableImage<'a> {
    pub(crate) name: &'a str,
    pub(crate) keyed: Keyed,
    pub(crate) window: Window,
    records: &'a [u8],
}

/// What tells whether two limits have the same keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keyed {
    pub(crate) per: u8,
    pub(crate) routes: u64,
}

/// Why an image is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// Too long.
    TooLong,
    /// The checksum is not that of the bytes, or there is no room for one.
    Damaged,
    /// Not an image of this version.
    Unknown,
    /// It ends too early or too late, or a value in it cannot be.
    Malformed,
}

impl fmt::Display for ImageError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::TooLong => "the image of the quotas is too long",
            Self::Damaged => "the image of the quotas is damaged",
            Self::Unknown => "the image of the quotas has another version",
            Self::Malformed => "the image of the quotas is malformed",
        })
    }
}

impl std::error::Error for ImageError {}

impl<'a> Image<'a> {
    /// Reads an image; checks all of it. Takes memory for the list of tables only.
    ///
    /// # Errors
    /// When any of it is not as written.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        if bytes.len() > MOST_BYTES {
            return Err(ImageError::TooLong);
        }
        let (body, sum) = bytes.split_last_chunk().ok_or(ImageError::Damaged)?;
        if checksum(body) != *sum {
            return Err(ImageError::Damaged);
        }
        let mut reader = Reader(body);
        if reader.array().ok_or(ImageError::Unknown)? != MAGIC
            || reader.array().ok_or(ImageError::Unknown)? != &VERSION.to_le_bytes()
        {
            return Err(ImageError::Unknown);
        }
        reader.image().ok_or(ImageError::Malformed)
    }
}

impl TableImage<'_> {
    /// Tag, whether it is a `rest`, and count.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, bool, u64)> {
        self.records.as_chunks::<RECORD>().0.iter().map(|record| {
            let number = u128::from_le_bytes(*record);
            let tag = u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0);
            let count = u64::try_from(number >> 64).unwrap_or(0);
            (tag, count & REST != 0, count & !REST)
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.array()?))
    }

    fn image(&mut self) -> Option<Image<'a>> {
        let seed = Seed(*self.array()?);
        let count = self.u32().filter(|count| *count <= MOST_TABLES)?;
        let mut tables: Vec<TableImage<'a>> = Vec::new();
        for _ in 0..count {
            let table = self.table()?;
            if tables.last().is_some_and(|last| last.name >= table.name) {
                return None;
            }
            tables.push(table);
        }
        self.0.is_empty().then_some(Image { seed, tables })
    }

    fn table(&mut self) -> Option<TableImage<'a>> {
        let [length] = *self.array()?;
        let name = str::from_utf8(self.bytes(usize::from(length))?).ok()?;
        let [per] = *self.array()?;
        let routes = u64::from_le_bytes(*self.array()?);
        let window = Window::from_bits(self.u32()?)?;
        let length = usize::try_from(self.u32()?).ok()?.checked_mul(RECORD)?;
        let records = self.bytes(length)?;
        let table = TableImage {
            name,
            keyed: Keyed { per, routes },
            window,
            records,
        };
        let sound = per < 8
            && table
                .records()
                .all(|(tag, _, count)| tag != 0 && count != 0);
        sound.then_some(table)
    }
}

/// Writes an image.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    count_at: usize,
}

impl Writer {
    pub(crate) fn new(seed: &Seed, tables: usize) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(seed.0);
        bytes.extend(u32::try_from(tables).unwrap_or(u32::MAX).to_le_bytes());
        Self { bytes, count_at: 0 }
    }

    pub(crate) fn table(&mut self, name: &str, keyed: Keyed, window: Window) {
        self.bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        self.bytes.extend(name.as_bytes());
        self.bytes.push(keyed.per);
        self.bytes.extend(keyed.routes.to_le_bytes());
        self.bytes.extend(window.bits().to_le_bytes());
        self.count_at = self.bytes.len();
        self.bytes.extend([0; 4]);
    }

    pub(crate) fn record(&mut self, tag: u64, is_rest: bool, count: u64) {
        self.bytes.extend(tag.to_le_bytes());
        let count = count & !REST | u64::from(is_rest) << 63;
        self.bytes.extend(count.to_le_bytes());
    }

    pub(crate) fn end_table(&mut self) {
        let records = (self.bytes.len() - self.count_at - 4) / RECORD;
        let count = u32::try_from(records).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(place) = self.bytes.get_mut(self.count_at..self.count_at + 4) {
            place.copy_from_slice(&count);
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        seal(self.bytes)
    }
}

/// Appends the checksum that [`Image::parse`] asks for; with it a fuzzer gets past the door.
pub fn seal(mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&body);
    body.extend(sum);
    body
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    SipHasher13::new().hash(body).as_bytes()
}

impl fmt::Debug for Image<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Image({} tables)", self.tables.len())
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
