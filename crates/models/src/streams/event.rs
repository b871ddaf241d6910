//! Events as they come: lines of a body, and the numbers in one.
//!
//! Owns: the grammar. An event is a JSON object with each feature as a number, or a list of them in the detector's order.
//! What else an object has is passed over, a sensor says more than a detector knows, but for `id`, which is given back.
//! An event for a model is a list of its input's elements, or an object with that under the input's name.
//!
//! Must not: hold more than one line and what of the next came with it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::recurrent::Event;
use super::spec::{Feature, MAX_VALUE};
use crate::json::{Fault, Reader};
use crate::oip::elements;

/// Longest line, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Longest `id`, as it is written, in bytes.
const MAX_ID: usize = 256;

/// Reads an event: its numbers into `values`, one for each feature, and where in `line` its `id` is.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn read(
    line: &[u8],
    features: &[Feature],
    values: &mut Vec<f64>,
) -> Result<Option<Range<usize>>, String> {
    values.clear();
    values.resize(features.len(), f64::NAN);
    let mut reader = Reader::new(line);
    let id = match reader.peek() {
        Some(b'[') => list(&mut reader, values).map(|()| None),
        Some(b'{') => object(&mut reader, features, values),
        _ => Err("an event is a JSON object or a list of numbers".to_owned()),
    }?;
    reader.end().map_err(said)?;
    match values.iter().position(|it| it.is_nan()) {
        None => Ok(id),
        Some(place) => {
            let name = features.get(place).map_or("", |it| it.name.as_str());
            Err(format!("{name:?} is missing"))
        }
    }
}

#[allow(clippy::needless_pass_by_value)]
pub(super) fn said(fault: Fault) -> String {
    format!("at byte {}: {} is expected there", fault.at, fault.expected)
}

fn list(reader: &mut Reader<'_>, values: &mut [f64]) -> Result<(), String> {
    reader.need(b'[', "a list").map_err(said)?;
    let (mut is_first, mut count) = (true, 0);
    while reader.next_item(&mut is_first, b']').map_err(said)? {
        let Some(value) = values.get_mut(count) else {
            return Err(format!("an event has {count} numbers"));
        };
        *value = number(reader)?;
        count += 1;
    }
    Ok(())
}

fn object(
    reader: &mut Reader<'_>,
    features: &[Feature],
    values: &mut [f64],
) -> Result<Option<Range<usize>>, String> {
    reader.need(b'{', "an object").map_err(said)?;
    let (mut is_first, mut id) = (true, None);
    // Most senders name them in the order of the detector.
    let mut expected = 0;
    while let Some(key) = reader.next_key(&mut is_first).map_err(said)? {
        if key == "id" {
            id = Some(identifier(reader)?);
            continue;
        }
        let is_expected = features.get(expected).is_some_and(|it| it.name == key);
        let place = match is_expected {
            true => Some(expected),
            false => features.iter().position(|it| it.name == key),
        };
        let Some(place) = place else {
            reader.skip().map_err(said)?;
            continue;
        };
        let Some(value) = values.get_mut(place).filter(|it| it.is_nan()) else {
            return Err(format!("{key:?} is there twice"));
        };
        *value = number(reader)?;
        expected = place + 1;
    }
    Ok(id)
}

fn number(reader: &mut Reader<'_>) -> Result<f64, String> {
    let text = reader.number().map_err(said)?;
    let number = text.parse::<f64>().unwrap_or(f64::NAN);
    match number.abs() <= MAX_VALUE {
        true => Ok(number),
        false => Err(format!(
            "numbers lie between -{MAX_VALUE:e} and {MAX_VALUE:e}"
        )),
    }
}

/// Reads an event of elements, a list or an object with it and perhaps an `id`, for a model: the elements, and where in
/// `line` its `id` is.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn read_elements(line: &[u8], event: &Event) -> Result<(Bytes, Option<Range<usize>>), String> {
    let mut reader = Reader::new(line);
    let shape = [i64::try_from(event.count).unwrap_or(i64::MAX)];
    let list = |reader: &mut Reader<'_>| {
        let found = elements::read(reader, event.datatype, &shape, event.count);
        found.map_err(|it| format!("{}; {}", event.said(), said(it)))
    };
    let found = match reader.peek() {
        Some(b'[') => (Some(list(&mut reader)?), None),
        Some(b'{') => {
            let (mut is_first, mut found, mut id) = (true, None, None);
            reader.need(b'{', "an object").map_err(said)?;
            while let Some(key) = reader.next_key(&mut is_first).map_err(said)? {
                match &*key {
                    "id" => id = Some(identifier(&mut reader)?),
                    key if key == event.name && found.is_some() => {
                        return Err(format!("{key:?} is there twice"));
                    }
                    key if key == event.name => found = Some(list(&mut reader)?),
                    _ => reader.skip().map_err(said)?,
                }
            }
            (found, id)
        }
        _ => return Err("an event is a JSON object or a list of numbers".to_owned()),
    };
    reader.end().map_err(said)?;
    match found {
        (Some(elements), id) => Ok((elements, id)),
        (None, _) => Err(format!("{:?} is missing", event.name)),
    }
}

/// A text or a number; where it is.
fn identifier(reader: &mut Reader<'_>) -> Result<Range<usize>, String> {
    let first = reader.peek();
    let from = reader.at();
    match first {
        Some(b'"') => drop(reader.text().map_err(said)?),
        _ => drop(reader.number().map_err(said)?),
    }
    let range = from..reader.at();
    match range.len() <= MAX_ID {
        true => Ok(range),
        false => Err(format!("an id is at most {MAX_ID} bytes long")),
    }
}

/// A body, line by line.
#[derive(Default)]
pub struct Lines {
    bytes: BytesMut,
    /// Bytes of the next line that were looked at, and have no end of line.
    looked: usize,
    /// A line that was too long is passed over.
    is_passing: bool,
    has_ended: bool,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A line, without its end.
    Line(Bytes),
    /// One that was too long.
    TooLong,
    /// More of the body is needed.
    More,
    /// There is none.
    End,
}

impl Lines {
    /// Adds what came.
    pub fn add(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// No more comes.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// The next line; empty ones are left out.
    pub fn take(&mut self) -> Next {
        loop {
            let rest = self.bytes.get(self.looked..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', rest) else {
                return self.without_end();
            };
            let line = self.bytes.split_to(self.looked + end);
            let _ = self.bytes.split_to(1);
            self.looked = 0;
            if std::mem::take(&mut self.is_passing) {
                continue;
            }
            if line.len() > MAX_LINE {
                return Next::TooLong;
            }
            if !line.trim_ascii().is_empty() {
                return Next::Line(line.freeze());
            }
        }
    }

    fn without_end(&mut self) -> Next {
        self.looked = self.bytes.len();
        if self.bytes.len() > MAX_LINE {
            // Told once; the rest of it is thrown away as it comes.
            (self.bytes, self.looked) = (BytesMut::new(), 0);
            if !std::mem::replace(&mut self.is_passing, true) {
                return Next::TooLong;
            }
        }
        if !self.has_ended {
            return Next::More;
        }
        let line = std::mem::take(&mut self.bytes);
        self.looked = 0;
        match line.trim_ascii().is_empty() || self.is_passing {
            true => Next::End,
            false => Next::Line(line.freeze()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn features() -> Vec<Feature> {
        ["temp", "flow"]
            .map(|name| Feature {
                name: name.into(),
                min: None,
                max: None,
            })
            .into()
    }

    fn of(line: &str) -> Result<(Vec<f64>, Option<String>), String> {
        let mut values = vec![];
        let id = read(line.as_bytes(), &features(), &mut values)?;
        Ok((values, id.map(|it| line[it].to_owned())))
    }

    #[test]
    fn an_event_is_an_object_in_any_order_or_a_list() {
        let numbers = vec![71.2, 3.0];
        assert_eq!(
            of(r#"{"temp": 71.2, "flow": 3}"#),
            Ok((numbers.clone(), None))
        );
        assert_eq!(
            of(r#" {"flow": 3, "at": {"t": [1]}, "id": "a\"b" , "temp": 71.2} "#),
            Ok((numbers.clone(), Some(r#""a\"b""#.into())))
        );
        assert_eq!(of("[71.2, 3]"), Ok((numbers.clone(), None)));
        assert_eq!(
            of(r#"{"temp":71.2,"flow":3,"id": -7}"#),
            Ok((numbers, Some("-7".into())))
        );
    }

    #[test]
    fn what_is_no_event_is_told_why() {
        for (line, words) in [
            ("", "a JSON object or a list"),
            ("3", "a JSON object or a list"),
            ("[1]", "\"flow\" is missing"),
            ("[1,2,3]", "an event has 2 numbers"),
            (r#"{"temp":1}"#, "\"flow\" is missing"),
            (r#"{"temp":1,"temp":1,"flow":2}"#, "\"temp\" is there twice"),
            (r#"{"temp":"1","flow":2}"#, "a number is expected"),
            (r#"{"temp":NaN,"flow":2}"#, "a number is expected"),
            (r#"{"temp":1e301,"flow":2}"#, "between -1e300 and 1e300"),
            (r#"{"temp":1e999,"flow":2}"#, "between -1e300 and 1e300"),
            (r#"{"temp":1,"flow":2} x"#, "the end is expected"),
            (r#"{"temp":1,"flow":2,"id":null}"#, "a number is expected"),
            (r#"{"temp":1,"flow":2,"x":[[[}"#, "expected"),
        ] {
            let said = of(line).unwrap_err();
            assert!(said.contains(words), "{line}: {said}");
        }
        let long = format!(r#"{{"temp":1,"flow":2,"id":"{}"}}"#, "x".repeat(255));
        assert!(of(&long).unwrap_err().contains("at most 256"));
    }

    fn lines(pieces: &[&[u8]]) -> Vec<Next> {
        let (mut lines, mut found) = (Lines::default(), vec![]);
        for piece in pieces {
            lines.add(piece);
            loop {
                match lines.take() {
                    Next::More => break,
                    next => found.push(next),
                }
            }
        }
        lines.end();
        loop {
            match lines.take() {
                Next::End => return found,
                next => found.push(next),
            }
        }
    }

    fn line(text: &'static str) -> Next {
        Next::Line(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let whole = b"[1,2]\r\n\n  \n[3]\nlast";
        let wanted = vec![line("[1,2]\r"), line("[3]"), line("last")];
        assert_eq!(lines(&[whole]), wanted);
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(lines(&single), wanted);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_costs_its_own_length_of_nothing() {
        let long = vec![b'x'; MAX_LINE + 1];
        let wanted = vec![line("a"), Next::TooLong, line("b")];
        assert_eq!(lines(&[b"a\n", &long, &long, &long, b"\nb"]), wanted);
        let whole = [b"a\n".as_slice(), &long, b"\nb"].concat();
        assert_eq!(lines(&[&whole]), wanted);
        assert_eq!(lines(&[&long]), vec![Next::TooLong]);
        let mut held = Lines::default();
        for _ in 0..100 {
            held.add(&long);
            held.take();
            assert!(held.bytes.len() <= MAX_LINE);
        }
    }
}
