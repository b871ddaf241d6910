//! For tests: what a reader pushed, as text.

use super::{Fields, File, Limits, Outcome, Processor, process};

/// Everything in the order in which it came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Collected {
    pub(super) arguments: Vec<(String, String)>,
    pub(super) files: Vec<(String, String, String)>,
    pub(super) part_headers: Vec<(String, String)>,
    pub(super) texts: Vec<String>,
    pub(super) attributes: Vec<String>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Fields for Collected {
    fn argument(&mut self, name: &[u8], value: &[u8]) {
        self.arguments.push((text(name), text(value)));
    }

    fn file(&mut self, file: &File<'_>) {
        self.files
            .push((text(file.field), text(file.name), text(file.content)));
    }

    fn part_header(&mut self, part: &[u8], line: &[u8]) {
        self.part_headers.push((text(part), text(line)));
    }

    fn xml_text(&mut self, value: &[u8]) {
        self.texts.push(text(value));
    }

    fn xml_attribute(&mut self, value: &[u8]) {
        self.attributes.push(text(value));
    }
}

/// Read a body with the default limits.
pub(super) fn read(processor: Processor, content_type: &str, body: &[u8]) -> (Collected, Outcome) {
    read_within(&Limits::default(), processor, content_type, body)
}

/// Read a body with other limits.
pub(super) fn read_within(
    limits: &Limits,
    processor: Processor,
    content_type: &str,
    body: &[u8],
) -> (Collected, Outcome) {
    let mut collected = Collected::default();
    let outcome = process(
        processor,
        content_type.as_bytes(),
        body,
        limits,
        &mut collected,
    );
    (collected, outcome)
}

/// Names and values as a test writes them.
pub(super) fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
