//! Fuzz targets of the readers of bodies.

use super::{Fields, File, Limits, Outcome, Processor, process};

/// Small, so that they are met.
const LIMITS: Limits = Limits {
    arguments: 8,
    depth: 8,
    parts: 8,
    attributes: 8,
    name: 64,
    header: 64,
};

/// What a body gave, counted.
#[derive(Default)]
struct Counted {
    arguments: usize,
    longest_name: usize,
    files: usize,
    attributes: usize,
    texts: usize,
    bytes: usize,
}

impl Fields for Counted {
    fn argument(&mut self, name: &[u8], value: &[u8]) {
        self.arguments += 1;
        self.longest_name = self.longest_name.max(name.len());
        self.bytes += value.len();
    }

    fn file(&mut self, file: &File<'_>) {
        assert!(!file.field.is_empty() && !file.name.is_empty());
        self.files += 1;
        self.bytes += file.content.len();
    }

    fn part_header(&mut self, _part: &[u8], line: &[u8]) {
        assert!(line.len() <= LIMITS.header && !line.contains(&b'\n'));
        self.bytes += line.len();
    }

    fn xml_text(&mut self, text: &[u8]) {
        assert!(std::str::from_utf8(text).is_ok());
        self.texts += 1;
        self.bytes += text.len();
    }

    fn xml_attribute(&mut self, value: &[u8]) {
        self.attributes += 1;
        self.bytes += value.len();
    }
}

/// Read a body. It gives no more than the limits allow, and no more bytes than `growth` for each of its own.
fn read(
    processor: Processor,
    content_type: &[u8],
    body: &[u8],
    growth: usize,
) -> (Counted, Outcome) {
    let mut counted = Counted::default();
    let outcome = process(processor, content_type, body, &LIMITS, &mut counted);
    assert!(counted.arguments <= LIMITS.arguments && counted.files <= LIMITS.parts);
    assert!(counted.attributes <= LIMITS.attributes && counted.texts <= 1);
    assert!(counted.bytes <= growth * body.len());
    if let Some(error) = outcome.error {
        assert!(error.at <= growth * body.len());
        assert!(error.to_string().contains("parsing error"));
    }
    (counted, outcome)
}

/// A form.
pub(crate) fn form(data: &[u8]) {
    let (counted, outcome) = read(Processor::UrlEncoded, b"", data, 1);
    assert!(outcome.error.is_none() || counted.arguments == LIMITS.arguments);
}

/// The first line is the media type. What is read without an oddity ends as it must.
pub(crate) fn multipart(data: &[u8]) {
    let end = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    let (content_type, body) = data.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let (_, outcome) = read(Processor::Multipart, content_type, body, 1);
    assert!(outcome.error.is_none() || outcome.multipart.is_strict_error());
    if !outcome.multipart.is_strict_error() && !body.is_empty() {
        assert!(body.trim_ascii_end().ends_with(b"--"));
    }
}

/// No value grows when it is read.
pub(crate) fn json(data: &[u8]) {
    let (counted, _) = read(Processor::Json, b"", data, 1);
    assert!(counted.longest_name <= LIMITS.name);
}

/// Latin 1 grows.
pub(crate) fn xml(data: &[u8]) {
    let (counted, outcome) = read(Processor::Xml, b"", data, 2);
    assert!(outcome.error.is_some() || data.is_empty() || counted.texts == 1);
}
