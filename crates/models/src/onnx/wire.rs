//! Protocol buffers as bytes: fields one after the other, each within its message.
//!
//! Follows <https://protobuf.dev/programming-guides/encoding/>. Groups, which ONNX never had, are refused.

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It ends within a field.
    Truncated,
    /// A tag or number that cannot be.
    Malformed,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    /// A number of any length.
    Number(u64),
    /// Four or eight bytes.
    Fixed(&'a [u8]),
    /// A message, a text, bytes or packed numbers.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A message or a text; a number where one belongs is malformed.
    pub fn bytes(self) -> Result<&'a [u8], Broken> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Broken::Malformed),
        }
    }

    /// A number.
    pub fn number(self) -> Result<u64, Broken> {
        match self {
            Self::Number(number) => Ok(number),
            _ => Err(Broken::Malformed),
        }
    }

    /// A text that is shown to a person: cut, and without what is no UTF-8.
    pub fn text(self) -> Result<String, Broken> {
        const MOST: usize = 200;
        let bytes = self.bytes()?;
        let text = String::from_utf8_lossy(bytes.get(..MOST).unwrap_or(bytes));
        Ok(text.chars().filter(|it| !it.is_control()).collect())
    }
}

/// The fields of one message.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Those of this message.
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The number that comes next, where numbers are packed.
    pub fn number(&mut self) -> Result<u64, Broken> {
        let mut number = 0_u64;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first().ok_or(Broken::Truncated)?;
            self.0 = rest;
            if place == 9 && *byte > 1 {
                return Err(Broken::Malformed);
            }
            number |= u64::from(byte & 0x7f) << (place * 7);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Broken::Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Broken> {
        let length = usize::try_from(length).map_err(|_| Broken::Truncated)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Broken::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Broken> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(Value::Fixed)?,
            2 => {
                let length = self.number()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(Value::Fixed)?,
            _ => return Err(Broken::Malformed),
        };
        match tag >> 3 {
            0 => Err(Broken::Malformed),
            number if number > 0x1fff_ffff => Err(Broken::Malformed),
            number => Ok((number, value)),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
