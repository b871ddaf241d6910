//! `FlatBuffers` as bytes: tables, whose fields may be left out, and vectors.
//!
//! Follows <https://flatbuffers.dev/internals/>. Must not: copy, or follow an offset that leads backwards or out of the
//! file. Tables may lie in each other's bytes and be referred to more than once, so whoever walks through them counts
//! ([`Visits`]).

/// Why bytes are no `FlatBuffer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// An offset or a length leads out of the file.
    Outside,
    /// It refers to the same parts over and over.
    TooMany,
}

type Read<T> = Result<T, Broken>;

/// Tables that may be looked at in one file; a model of 1 GB has some hundred thousand.
const MAX_VISITS: usize = 1 << 22;

/// How many tables were looked at.
#[derive(Default)]
pub struct Visits(usize);

impl Visits {
    /// Counts one more.
    pub fn count(&mut self) -> Read<()> {
        self.0 += 1;
        match self.0 > MAX_VISITS {
            true => Err(Broken::TooMany),
            false => Ok(()),
        }
    }
}

fn array<const N: usize>(file: &[u8], at: usize) -> Read<[u8; N]> {
    let bytes = file.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().ok_or(Broken::Outside)
}

fn u32_at(file: &[u8], at: usize) -> Read<usize> {
    let number = u32::from_le_bytes(array(file, at)?);
    usize::try_from(number).map_err(|_| Broken::Outside)
}

/// Where the offset at `at` leads to: forward, by at most 4 GiB.
fn follow(file: &[u8], at: usize) -> Read<usize> {
    match u32_at(file, at)? {
        0 => Err(Broken::Outside),
        offset => at.checked_add(offset).ok_or(Broken::Outside),
    }
}

/// A table: fields by their number in the schema.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    file: &'a [u8],
    at: usize,
    /// Its vtable behind the two sizes: where each field is, from `at`.
    fields: &'a [u8],
}

impl<'a> Table<'a> {
    /// The table that a file is.
    pub fn root(file: &'a [u8]) -> Read<Self> {
        Self::at(file, follow(file, 0)?)
    }

    fn at(file: &'a [u8], at: usize) -> Read<Self> {
        let back = i64::from(i32::from_le_bytes(array(file, at)?));
        let vtable = i64::try_from(at).ok().and_then(|at| at.checked_sub(back));
        let vtable = vtable.and_then(|it| usize::try_from(it).ok());
        let vtable = vtable.ok_or(Broken::Outside)?;
        let size = usize::from(u16::from_le_bytes(array(file, vtable)?));
        let end = vtable.checked_add(size).ok_or(Broken::Outside)?;
        let fields = file.get(vtable + 4..end).ok_or(Broken::Outside)?;
        Ok(Self { file, at, fields })
    }

    /// Where a field is; `None`: it is left out.
    fn field(&self, number: usize) -> Option<usize> {
        let offset = self.fields.get(2 * number..)?.first_chunk()?;
        match u16::from_le_bytes(*offset) {
            0 => None,
            offset => self.at.checked_add(usize::from(offset)),
        }
    }

    fn scalar<const N: usize>(&self, number: usize) -> Read<Option<[u8; N]>> {
        let field = self.field(number);
        field.map(|at| array(self.file, at)).transpose()
    }

    /// A byte; 0 when left out.
    pub fn byte(&self, number: usize) -> Read<u8> {
        Ok(self.scalar(number)?.map_or(0, u8::from_le_bytes))
    }

    /// A signed number of four bytes; 0 when left out.
    pub fn int(&self, number: usize) -> Read<i32> {
        Ok(self.scalar(number)?.map_or(0, i32::from_le_bytes))
    }

    /// An unsigned number of four bytes; 0 when left out.
    pub fn uint(&self, number: usize) -> Read<u32> {
        Ok(self.scalar(number)?.map_or(0, u32::from_le_bytes))
    }

    /// An unsigned number of eight bytes; 0 when left out.
    pub fn ulong(&self, number: usize) -> Read<u64> {
        Ok(self.scalar(number)?.map_or(0, u64::from_le_bytes))
    }

    /// Elements of a vector with elements of this size, and where they begin; empty when left out.
    fn vector(&self, number: usize, size: usize) -> Read<(&'a [u8], usize)> {
        let Some(at) = self.field(number) else {
            return Ok((&[], 0));
        };
        let start = follow(self.file, at)?;
        let length = u32_at(self.file, start)?.checked_mul(size);
        let start = start + 4;
        let end = length.and_then(|it| start.checked_add(it));
        let elements = end.and_then(|end| self.file.get(start..end));
        Ok((elements.ok_or(Broken::Outside)?, start))
    }

    /// A text, or a vector of bytes.
    pub fn bytes(&self, number: usize) -> Read<&'a [u8]> {
        Ok(self.vector(number, 1)?.0)
    }

    /// A vector of numbers of four bytes.
    pub fn ints(
        &self,
        number: usize,
    ) -> Read<impl ExactSizeIterator<Item = i32> + Clone + use<'a>> {
        let (elements, _) = self.vector(number, 4)?;
        let (numbers, _) = elements.as_chunks();
        Ok(numbers.iter().map(|it| i32::from_le_bytes(*it)))
    }

    /// A vector of tables.
    pub fn tables(&self, number: usize) -> Read<Tables<'a>> {
        let (elements, start) = self.vector(number, 4)?;
        let file = self.file;
        let count = elements.len() / 4;
        Ok(Tables { file, start, count })
    }
}

/// A vector of tables.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    file: &'a [u8],
    start: usize,
    count: usize,
}

impl<'a> Tables<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Where in the file it is said where this one is.
    pub fn place(&self, index: usize) -> Option<usize> {
        (index < self.count).then(|| self.start + 4 * index)
    }

    /// The table at `index`; outside the vector is outside the file.
    pub fn get(&self, index: usize) -> Read<Table<'a>> {
        let place = self.place(index).ok_or(Broken::Outside)?;
        Table::at(self.file, follow(self.file, place)?)
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Read<Table<'a>>> {
        (0..self.count).map(move |index| self.get(index))
    }
}
