//! `multipart/form-data`, strictly: every doubt of where a part begins or what it is called is told to the rules.
//!
//! Owns the lines between the boundaries. Servers read malformed bodies each in its own way, and an attacker picks the
//! way that the firewall does not; so the first thing that two readers could disagree on is an error, and what was read
//! until then is inspected all the same.
//! Must not: write a file, or guess.

mod boundary;
mod disposition;
mod flags;

use memchr::memchr;
use memchr::memmem::Finder;

pub use flags::{Flag, Flags};

use super::{Error, Fields, File, Limits, Outcome, Processor};
use disposition::Disposition;

const TOO_MANY_PARTS: &str = "more parts than the limit";
const TOO_MANY_ARGUMENTS: &str = "more arguments than the limit";
const NO_BOUNDARY: &str = "No boundaries found in payload.";
const NO_FINAL_BOUNDARY: &str = "Final boundary missing.";
const BAD_BOUNDARY: &str = "Invalid boundary.";
const QUOTED_BOUNDARY: &str = "Invalid boundary (quotes).";
const SPACED_BOUNDARY: &str = "Invalid boundary (whitespace).";
const HEADER_TOO_LONG: &str = "Part header too long.";
const NUL: &str = "Nul byte in part headers.";
const NO_DISPOSITION: &str = "Part missing Content-Disposition header.";
const NO_NAME: &str = "Content-Disposition header missing name field.";
const FOLDED_NOTHING: &str = "Invalid part header (folding error).";
const NO_COLON: &str = "Invalid part header (colon missing).";
const NO_HEADER_NAME: &str = "Invalid part header (header name missing).";
const BAD_HEADER_NAME: &str = "Invalid part header (contains invalid character).";
const TWICE: &str = "Duplicate part header.";

type Read<T> = Result<T, &'static str>;

/// Read a body whose media type is `content_type`.
pub(super) fn process(
    content_type: &[u8],
    body: &[u8],
    limits: &Limits,
    fields: &mut dyn Fields,
) -> Outcome {
    let mut flags = Flags::default();
    let mut at = 0;
    let read = boundary::of(content_type, &mut flags).and_then(|boundary| {
        let delimiter = [b"--", boundary].concat();
        let mut reader = Reader {
            body,
            limits,
            fields,
            delimiter: Finder::new(&delimiter),
            flags: &mut flags,
            at: 0,
            part: None,
            parts: 0,
            arguments: 0,
            ended: None,
        };
        let read = reader.lines();
        at = reader.at;
        if read.is_err() {
            reader.leave();
        }
        read
    });
    if read.is_err() {
        flags.set(Flag::Error);
    }
    Outcome {
        error: read.err().map(|what| Error {
            processor: Processor::Multipart,
            what,
            at,
        }),
        multipart: flags,
        ..Outcome::default()
    }
}

/// How a line ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Lf,
    CrLf,
}

/// What is known of the part that is being read.
#[derive(Default)]
struct Part {
    headers: Vec<Header>,
    disposition: Disposition,
    /// Where the data begins, once the headers have ended.
    data: Option<usize>,
}

/// A header as it was sent, its folded lines joined with a blank.
struct Header {
    line: Vec<u8>,
    name: usize,
}

impl Header {
    fn name(&self) -> &[u8] {
        self.line.get(..self.name).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        let value = self.line.get(self.name + 1..).unwrap_or_default();
        let blanks = value
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        value.get(blanks..).unwrap_or_default()
    }
}

struct Reader<'a> {
    body: &'a [u8],
    limits: &'a Limits,
    fields: &'a mut dyn Fields,
    /// Two hyphens and the boundary.
    delimiter: Finder<'a>,
    flags: &'a mut Flags,
    at: usize,
    part: Option<Part>,
    parts: usize,
    arguments: usize,
    /// How the line before this one ended.
    ended: Option<End>,
}

impl<'a> Reader<'a> {
    fn lines(&mut self) -> Read<()> {
        while let Some(rest) = self.body.get(self.at..).filter(|rest| !rest.is_empty()) {
            let Some(end) = memchr(b'\n', rest) else {
                return self.last_line(rest);
            };
            let line = rest.get(..=end).unwrap_or_default();
            let is_final = self.line(line)?;
            self.at += line.len();
            self.ended = Some(if line.ends_with(b"\r\n") {
                End::CrLf
            } else {
                End::Lf
            });
            if is_final {
                if self.at < self.body.len() {
                    self.flags.set(Flag::DataAfter);
                }
                return Ok(());
            }
        }
        if self.body.is_empty() {
            Ok(())
        } else {
            Err(self.missing_end())
        }
    }

    fn missing_end(&self) -> &'static str {
        if self.parts == 0 {
            NO_BOUNDARY
        } else {
            NO_FINAL_BOUNDARY
        }
    }

    /// The final boundary needs no end of line.
    fn last_line(&mut self, line: &'a [u8]) -> Read<()> {
        if self.parts == 0 || line.strip_prefix(self.delimiter.needle()) != Some(b"--") {
            return Err(self.missing_end());
        }
        if self.has_no_data_yet() {
            self.flags.set(Flag::InvalidPart);
        }
        self.note_line_end_before_boundary();
        self.end_part()
    }

    /// Read one line. True when it is the final boundary.
    fn line(&mut self, line: &'a [u8]) -> Read<bool> {
        if line.len() > 3 && line.starts_with(b"--") {
            if let Some(behind) = line.strip_prefix(self.delimiter.needle()) {
                self.note_line_end_before_boundary();
                if self.parts == 0 || !self.has_no_data_yet() {
                    return self.boundary(behind);
                }
                self.flags.set(Flag::InvalidPart);
            } else {
                self.almost_a_boundary(line)?;
            }
        } else if self.delimiter.find(line).is_some() {
            self.flags.unmatched_boundary = 1;
        }
        match &self.part {
            None => self.flags.set(Flag::DataBefore),
            Some(Part { data: Some(_), .. }) => {}
            Some(_) => self.header_line(line)?,
        }
        Ok(false)
    }

    /// Whether the headers, or nothing, are behind the last boundary: another boundary cannot be here.
    fn has_no_data_yet(&self) -> bool {
        self.part
            .as_ref()
            .is_some_and(|part| part.data.is_none_or(|data| data == self.at))
    }

    fn note_line_end_before_boundary(&mut self) {
        if self.ended == Some(End::Lf) {
            self.flags.set(Flag::LfLine);
        }
    }

    fn boundary(&mut self, behind: &[u8]) -> Read<bool> {
        if self.parts > 0 {
            self.flags.unmatched_boundary = 2;
        }
        let (is_final, end) = match behind.strip_prefix(b"--") {
            Some(end) => (true, end),
            None => (false, behind),
        };
        self.flags.set(match end {
            b"\r\n" => Flag::CrLfLine,
            b"\n" => Flag::LfLine,
            _ => return Err(BAD_BOUNDARY),
        });
        self.end_part()?;
        self.parts += 1;
        if !is_final {
            if self.parts > self.limits.parts {
                self.flags.set(Flag::FileLimitExceeded);
                return Err(TOO_MANY_PARTS);
            }
            self.part = Some(Part::default());
        }
        Ok(is_final)
    }

    /// A line that begins as a boundary does, and is another or a disguised one.
    fn almost_a_boundary(&mut self, line: &[u8]) -> Read<()> {
        let boundary = self.delimiter.needle().get(2..).unwrap_or_default();
        let behind = line.get(2..).unwrap_or_default();
        if behind
            .strip_prefix(b"\"")
            .is_some_and(|quoted| quoted.starts_with(boundary))
            && self.flags.has(Flag::BoundaryQuoted)
        {
            return Err(QUOTED_BOUNDARY);
        }
        let bare = trim_start(behind);
        if bare.len() < behind.len() && bare.starts_with(boundary) {
            return Err(SPACED_BOUNDARY);
        }
        self.flags.unmatched_boundary = 1;
        Ok(())
    }

    fn header_line(&mut self, line: &[u8]) -> Read<()> {
        if memchr(0, line).is_some() {
            return Err(NUL);
        }
        let text = if let Some(text) = line.strip_suffix(b"\r\n") {
            self.flags.set(Flag::CrLfLine);
            text
        } else {
            self.flags.set(Flag::LfLine);
            line.strip_suffix(b"\n").unwrap_or(line)
        };
        match text.first() {
            None => self.end_headers(line.len()),
            Some(first) if is_space(*first) => self.fold(text),
            Some(_) => self.new_header(text),
        }
    }

    fn fold(&mut self, text: &[u8]) -> Read<()> {
        self.flags.set(Flag::HeaderFolding);
        let bare = trim_start(text);
        let blanks = text.get(..text.len() - bare.len()).unwrap_or_default();
        if blanks.iter().any(|byte| !matches!(byte, b' ' | b'\t')) {
            self.flags.set(Flag::InvalidHeaderFolding);
        }
        let limit = self.limits.header;
        let header = self
            .part
            .as_mut()
            .and_then(|part| part.headers.last_mut())
            .ok_or(FOLDED_NOTHING)?;
        if header.line.len() + bare.len() >= limit {
            return Err(HEADER_TOO_LONG);
        }
        header.line.push(b' ');
        header.line.extend_from_slice(bare);
        Ok(())
    }

    fn new_header(&mut self, text: &[u8]) -> Read<()> {
        if text.len() > self.limits.header {
            return Err(HEADER_TOO_LONG);
        }
        let colon = memchr(b':', text);
        let Some(part) = &mut self.part else {
            return Ok(());
        };
        let header = Header {
            line: text.to_vec(),
            name: colon.unwrap_or(text.len()),
        };
        let is_twice = part
            .headers
            .iter()
            .any(|each| each.name().eq_ignore_ascii_case(header.name()));
        let wrong = match header.name() {
            _ if colon.is_none() => Some(NO_COLON),
            [] => Some(NO_HEADER_NAME),
            name if name.iter().any(|byte| !byte.is_ascii_graphic()) => Some(BAD_HEADER_NAME),
            _ => is_twice.then_some(TWICE),
        };
        // Kept whatever is wrong with it: rules look at the line.
        part.headers.push(header);
        wrong.map_or(Ok(()), Err)
    }

    fn end_headers(&mut self, line: usize) -> Read<()> {
        let Some(part) = &mut self.part else {
            return Ok(());
        };
        let header = part
            .headers
            .iter()
            .find(|each| each.name().eq_ignore_ascii_case(b"content-disposition"));
        let header = header.ok_or(NO_DISPOSITION)?;
        part.disposition = disposition::parse(header.value(), self.flags)?;
        self.flags.part_name.clone_from(&part.disposition.name);
        self.flags
            .part_filename
            .clone_from(&part.disposition.filename);
        if part.disposition.name.is_empty() {
            return Err(NO_NAME);
        }
        part.data = Some(self.at + line);
        Ok(())
    }

    /// Hand on the part that ends before the boundary at `self.at`.
    fn end_part(&mut self) -> Read<()> {
        let end = self.at;
        self.hand_on(end, true)
    }

    /// Hand on what there is of a part that an error interrupts: some servers take it as it is.
    fn leave(&mut self) {
        let _ = self.hand_on(self.body.len(), false);
    }

    fn hand_on(&mut self, end: usize, is_ended: bool) -> Read<()> {
        let Some(part) = self.part.take() else {
            return Ok(());
        };
        for header in &part.headers {
            self.fields
                .part_header(&part.disposition.name, &header.line);
        }
        let Some(start) = part.data else {
            self.flags.set(Flag::InvalidPart);
            return Ok(());
        };
        let mut content = self.body.get(start..end).unwrap_or_default();
        if is_ended {
            content = content.strip_suffix(b"\n").unwrap_or(content);
            content = content.strip_suffix(b"\r").unwrap_or(content);
        }
        let Disposition { name, filename } = &part.disposition;
        if !filename.is_empty() {
            self.fields.file(&File {
                field: name,
                name: filename,
                content,
            });
            return Ok(());
        }
        if self.arguments == self.limits.arguments {
            return Err(TOO_MANY_ARGUMENTS);
        }
        self.arguments += 1;
        self.fields.argument(name, content);
        Ok(())
    }
}

/// What C calls space, which is what the servers in C skip.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0B
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_space(**byte)).count();
    text.get(blanks..).unwrap_or_default()
}

#[cfg(test)]
#[path = "multipart_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
