//! XML: all text, and the values of all attributes.
//!
//! Owns well-formedness (XML 1.0) as far as two readers could differ in what they see. Declares no entity and expands
//! none but the five and the numbered ones: a document type with declarations of its own is an error, because what it
//! hides in an entity is seen by the service and not by the rules.
//! Must not: fetch anything, build a tree, recurse, or check against a schema.

mod prolog;
mod text;

use memchr::{memchr, memchr2, memmem};

use super::{Error, Fields, Limits, Outcome, Processor};

const TOO_DEEP: &str = "elements are nested deeper than the limit.";
const TOO_MANY: &str = "more attributes than the limit.";
const NO_ROOT: &str = "the document has no element.";
const SEVERAL_ROOTS: &str = "something is behind the document's element.";
const OUTSIDE: &str = "text is outside the document's element.";
const NOT_CLOSED: &str = "the document ends within an element.";
const CUT: &str = "the document ends within a tag.";
const WRONG_END: &str = "an end tag closes another element than is open.";
const BAD_NAME: &str = "a name begins with a character that it may not.";
const BAD_TAG: &str = "a tag is malformed.";
const BAD_ATTRIBUTE: &str = "an attribute is malformed.";
const TWICE: &str = "an attribute occurs twice.";
const BAD_COMMENT: &str = "two hyphens are within a comment.";
const BAD_INSTRUCTION: &str = "a processing instruction has a reserved name.";
const LATE_DOCTYPE: &str = "the document type is not where it may be.";
const CDATA_END: &str = "a section's end is within text.";

type Read<T> = Result<T, &'static str>;

/// Read a document. An empty body is none, and no error.
pub(super) fn process(body: &[u8], limits: &Limits, fields: &mut dyn Fields) -> Outcome {
    if body.is_empty() {
        return Outcome::default();
    }
    let mut at = 0;
    let read = prolog::utf8(body).and_then(|(document, start)| {
        let mut reader = Reader {
            document: &document,
            at: start,
            limits,
            fields,
            open: Vec::new(),
            text: Vec::new(),
            attributes: 0,
            has_root: false,
            has_type: false,
        };
        let read = reader.document();
        at = reader.at;
        reader.fields.xml_text(&reader.text);
        read
    });
    Outcome {
        error: read.err().map(|what| Error {
            processor: Processor::Xml,
            what,
            at,
        }),
        ..Outcome::default()
    }
}

struct Reader<'a> {
    document: &'a [u8],
    at: usize,
    limits: &'a Limits,
    fields: &'a mut dyn Fields,
    /// The names of the elements that are open.
    open: Vec<&'a [u8]>,
    text: Vec<u8>,
    attributes: usize,
    has_root: bool,
    has_type: bool,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Read<()> {
        while !self.rest().is_empty() {
            self.text()?;
            if self.rest().is_empty() {
                break;
            }
            self.markup()?;
        }
        match (self.has_root, self.open.is_empty()) {
            (false, _) => Err(NO_ROOT),
            (true, false) => Err(NOT_CLOSED),
            (true, true) => Ok(()),
        }
    }

    /// Read up to the next tag.
    fn text(&mut self) -> Read<()> {
        let rest = self.rest();
        let text = rest
            .get(..memchr(b'<', rest).unwrap_or(rest.len()))
            .unwrap_or_default();
        if self.open.is_empty() {
            if !text.trim_ascii().is_empty() {
                return Err(OUTSIDE);
            }
        } else {
            if memmem::find(text, b"]]>").is_some() {
                return Err(CDATA_END);
            }
            self.text.extend_from_slice(&text::content(text)?);
        }
        self.at += text.len();
        Ok(())
    }

    /// Read what begins with `<`.
    fn markup(&mut self) -> Read<()> {
        match self.rest() {
            [b'<', b'!', b'-', b'-', ..] => self.comment(),
            [b'<', b'!', ..] if self.rest().starts_with(b"<![CDATA[") => self.section(),
            [b'<', b'!', ..] if self.rest().starts_with(b"<!DOCTYPE") => self.document_type(),
            [b'<', b'?', ..] => self.instruction(),
            [b'<', b'/', ..] => self.end_tag(),
            [b'<', ..] => self.start_tag(),
            _ => Err(BAD_TAG),
        }
    }

    fn comment(&mut self) -> Read<()> {
        let inside = self.rest().get(4..).unwrap_or_default();
        let end = memmem::find(inside, b"--").ok_or(CUT)?;
        match inside.get(end + 2) {
            Some(b'>') => {
                self.at += end + 7;
                Ok(())
            }
            Some(_) => Err(BAD_COMMENT),
            None => Err(CUT),
        }
    }

    fn section(&mut self) -> Read<()> {
        if self.open.is_empty() {
            return Err(OUTSIDE);
        }
        let inside = self.rest().get(9..).unwrap_or_default();
        let end = memmem::find(inside, b"]]>").ok_or(CUT)?;
        let section = inside.get(..end).unwrap_or_default();
        self.text.extend_from_slice(&text::one_line_end(section));
        self.at += end + 12;
        Ok(())
    }

    fn document_type(&mut self) -> Read<()> {
        if self.has_root || std::mem::replace(&mut self.has_type, true) {
            return Err(LATE_DOCTYPE);
        }
        self.at += prolog::document_type(self.rest())?;
        Ok(())
    }

    fn instruction(&mut self) -> Read<()> {
        self.at += 2;
        if self.name()?.eq_ignore_ascii_case(b"xml") {
            return Err(BAD_INSTRUCTION);
        }
        if !self.rest().starts_with(b"?>") && !self.skip_space() {
            return Err(BAD_NAME);
        }
        self.at += memmem::find(self.rest(), b"?>").ok_or(CUT)? + 2;
        Ok(())
    }

    fn end_tag(&mut self) -> Read<()> {
        self.at += 2;
        let name = self.name()?;
        if self.open.pop() != Some(name) {
            return Err(WRONG_END);
        }
        self.skip_space();
        self.expect(b'>', BAD_TAG)
    }

    fn start_tag(&mut self) -> Read<()> {
        if self.open.is_empty() && std::mem::replace(&mut self.has_root, true) {
            return Err(SEVERAL_ROOTS);
        }
        if self.open.len() == self.limits.depth {
            return Err(TOO_DEEP);
        }
        self.at += 1;
        let name = self.name()?;
        let mut attributes = Vec::new();
        loop {
            let had_space = self.skip_space();
            match self.rest() {
                [] => return Err(CUT),
                [b'>', ..] => {
                    self.at += 1;
                    self.open.push(name);
                    break;
                }
                [b'/', b'>', ..] => {
                    self.at += 2;
                    break;
                }
                _ if had_space => attributes.push(self.attribute()?),
                _ => return Err(BAD_TAG),
            }
        }
        attributes.sort_unstable();
        let mut pairs = attributes.iter().zip(attributes.iter().skip(1));
        if pairs.any(|(one, next)| one == next) {
            Err(TWICE)
        } else {
            Ok(())
        }
    }

    /// Read an attribute, hand on its value, and give back its name.
    fn attribute(&mut self) -> Read<&'a [u8]> {
        if self.attributes == self.limits.attributes {
            return Err(TOO_MANY);
        }
        self.attributes += 1;
        let name = self.name()?;
        self.skip_space();
        self.expect(b'=', BAD_ATTRIBUTE)?;
        self.skip_space();
        let (quote, inside) = match self.rest() {
            [quote @ (b'"' | b'\''), inside @ ..] => (*quote, inside),
            _ => return Err(BAD_ATTRIBUTE),
        };
        let end = memchr2(quote, b'<', inside).ok_or(CUT)?;
        if inside.get(end) != Some(&quote) {
            return Err(BAD_ATTRIBUTE);
        }
        let value = text::attribute(inside.get(..end).unwrap_or_default())?;
        // XPath's `@*` has no declarations of namespaces.
        if !is_namespace_declaration(name) {
            self.fields.xml_attribute(&value);
        }
        self.at += end + 2;
        Ok(name)
    }

    fn name(&mut self) -> Read<&'a [u8]> {
        let rest = self.rest();
        match rest.first() {
            Some(byte) if begins_name(*byte) => {}
            Some(_) => return Err(BAD_NAME),
            None => return Err(CUT),
        }
        let is_in =
            |byte: &&u8| byte.is_ascii_alphanumeric() || **byte >= 0x80 || b"_:-.".contains(byte);
        let end = rest.iter().take_while(is_in).count();
        self.at += end;
        Ok(rest.get(..end).unwrap_or_default())
    }

    fn expect(&mut self, byte: u8, otherwise: &'static str) -> Read<()> {
        match self.rest().first() {
            Some(found) if *found == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(otherwise),
            None => Err(CUT),
        }
    }

    /// Whether there was any.
    fn skip_space(&mut self) -> bool {
        let space = self
            .rest()
            .iter()
            .take_while(|byte| prolog::is_space(**byte))
            .count();
        self.at += space;
        space > 0
    }

    fn rest(&self) -> &'a [u8] {
        self.document.get(self.at..).unwrap_or_default()
    }
}

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0x80 || b"_:".contains(&byte)
}

fn is_namespace_declaration(name: &[u8]) -> bool {
    let prefix = name.strip_prefix(b"xmlns:").unwrap_or_default();
    let is_name = prefix.first().copied().is_some_and(begins_name) && !prefix.contains(&b':');
    name == b"xmlns" || is_name
}

#[cfg(test)]
#[path = "xml_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
