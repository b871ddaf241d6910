//! Request bodies taken apart into what rules look at.
//!
//! Owns four readers (forms, multipart, JSON, XML) as pure functions over the bytes of a body. Each
//! pushes what it finds into [`Fields`] as it goes, so that what came before an error is inspected
//! too, and hands back an [`Outcome`]: an error is a value that rules decide on, never a panic.
//!
//! Must not: recurse, keep a tree, allocate by a number the sender wrote, or decide anything.
//! Names and shapes are those of libmodsecurity 3.0.9, which our verdicts are compared with.

#[cfg(test)]
mod collected;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod json;
mod multipart;
mod urlencoded;
mod xml;

use std::fmt;

pub use multipart::{Flag, Flags};
pub use urlencoded::arguments;

/// How much of a body is taken in. What is beyond is an error that rules see, never dropped in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arguments of one body or query (`SecArgumentsLimit`).
    pub arguments: usize,
    /// Objects and arrays of JSON, or elements of XML, inside each other (`SecRequestBodyJsonDepthLimit`).
    pub depth: usize,
    /// Parts of a multipart body.
    pub parts: usize,
    /// Attributes of an XML document.
    pub attributes: usize,
    /// Bytes of an argument's name. A JSON path repeats its ancestors, so that without this a small
    /// body makes a thousand large names.
    pub name: usize,
    /// Bytes of one header of a part, all its folded lines together.
    pub header: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            arguments: 1_000,
            depth: 512,
            parts: 1_000,
            attributes: 10_000,
            name: 8_192,
            header: 4_096,
        }
    }
}

/// Takes what a body holds, in the order in which it holds it.
pub trait Fields {
    /// An argument of the body (`ARGS`, `ARGS_POST` and their names).
    fn argument(&mut self, name: &[u8], value: &[u8]);
    /// A file of a multipart body (`FILES` and its kin).
    fn file(&mut self, file: &File<'_>);
    /// One header of a part as it was sent, without its end of line (`MULTIPART_PART_HEADERS`).
    fn part_header(&mut self, part: &[u8], line: &[u8]);
    /// All text of an XML document (`XML:/*`).
    fn xml_text(&mut self, text: &[u8]);
    /// The value of one attribute (`XML://@*`).
    fn xml_attribute(&mut self, value: &[u8]);
}

/// A file of a multipart body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File<'a> {
    /// The field's name (`FILES_NAMES`).
    pub field: &'a [u8],
    /// The name the sender gives the file (`FILES`).
    pub name: &'a [u8],
    /// What is in it (`FILES_TMP_CONTENT`); its length is `FILES_SIZES`.
    pub content: &'a [u8],
}

/// Who reads a body (`REQBODY_PROCESSOR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// `application/x-www-form-urlencoded`.
    UrlEncoded,
    /// `multipart/form-data`.
    Multipart,
    /// JSON of any media type, which a rule chooses.
    Json,
    /// XML of any media type, which a rule chooses.
    Xml,
}

impl Processor {
    /// Every processor.
    pub const ALL: [Self; 4] = [Self::UrlEncoded, Self::Multipart, Self::Json, Self::Xml];

    /// The name rules know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UrlEncoded => "URLENCODED",
            Self::Multipart => "MULTIPART",
            Self::Json => "JSON",
            Self::Xml => "XML",
        }
    }

    /// The processor that `ctl:requestBodyProcessor` names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|each| each.name().eq_ignore_ascii_case(name))
    }

    /// The processor of a media type. Rules choose those of JSON and XML.
    pub fn of_content_type(content_type: &[u8]) -> Option<Self> {
        let starts = |with: &[u8]| {
            content_type
                .get(..with.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(with))
        };
        if starts(b"multipart/form-data") {
            Some(Self::Multipart)
        } else if starts(b"application/x-www-form-urlencoded") {
            Some(Self::UrlEncoded)
        } else {
            None
        }
    }
}

/// What became of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Why it could not be read whole (`REQBODY_ERROR`, `REQBODY_PROCESSOR_ERROR` and their messages).
    pub error: Option<Error>,
    /// A percent sign that starts no byte (`URLENCODED_ERROR`).
    pub has_bad_escape: bool,
    /// What is odd about a multipart body.
    pub multipart: Flags,
}

/// Why a body could not be read. Its text is the `REQBODY_ERROR_MSG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// Who could not.
    pub processor: Processor,
    /// What was wrong.
    pub what: &'static str,
    /// Where in the body, in bytes; 0 for what is wrong with its media type.
    pub at: usize,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, what) = match self.processor {
            Processor::UrlEncoded => ("Form parsing error: ", self.what),
            Processor::Multipart => ("Multipart parsing error: Multipart: ", self.what),
            Processor::Json => ("JSON parsing error: ", self.what),
            Processor::Xml => ("XML parsing error: XML: ", self.what),
        };
        write!(out, "{prefix}{what} (at byte {})", self.at)
    }
}

impl std::error::Error for Error {}

/// Read `body` and push what it holds into `fields`.
pub fn process(
    processor: Processor,
    content_type: &[u8],
    body: &[u8],
    limits: &Limits,
    fields: &mut dyn Fields,
) -> Outcome {
    match processor {
        Processor::UrlEncoded => urlencoded::process(body, limits, fields),
        Processor::Multipart => multipart::process(content_type, body, limits, fields),
        Processor::Json => json::process(body, limits, fields),
        Processor::Xml => xml::process(body, limits, fields),
    }
}
