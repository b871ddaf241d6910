//! One operator over one value.

use std::net::IpAddr;

use super::run::Run;
use super::strings::TextId;
use super::tx::Content;
use crate::injection;
use crate::operator::{self, Operator, agree, compare};
use crate::rule::{Link, Part, Template};
use crate::seclang::{NumberTest, TextTest};
use crate::transform;

/// The bytes that matched.
type Hit = (usize, usize);

impl Run<'_> {
    /// What the link's operator, negated or not, matches in the value.
    pub(super) fn test(&mut self, id: u16, link: &Link, content: Content) -> Option<Hit> {
        let set = self.set;
        let operator = set.operators.get(usize::from(id))?;
        if let Operator::Number(test, other) = operator {
            let hit = self.number(*test, other, content);
            return (hit != link.negated).then_some((0, usize::MAX));
        }
        let text = self.state.text_of(content);
        if link.negated {
            return self
                .find(id, operator, text, false)
                .is_none()
                .then_some((0, usize::MAX));
        }
        self.find(id, operator, text, link.capture)
    }

    fn number(&mut self, test: NumberTest, other: &Template, content: Content) -> bool {
        let value = self.state.number_of(content);
        let other = self.number_in(other);
        compare(test, value, other)
    }

    fn find(&mut self, id: u16, operator: &Operator, text: TextId, capture: bool) -> Option<Hit> {
        let filter = &self.set.prefilter;
        let Some(probe) = filter.probe(id) else {
            return self.run(operator, text, capture);
        };
        if !filter.may_match(probe, self.state, &mut self.bench.seen, text) {
            return None;
        }
        let hit = self.run(operator, text, capture);
        if hit.is_none() {
            // What is filtered depends on the text alone, so that this holds for good.
            self.state
                .texts
                .refute(text, filter.words, probe, &mut self.bench.seen);
        }
        hit
    }

    fn run(&mut self, operator: &Operator, text: TextId, capture: bool) -> Option<Hit> {
        let length = self.state.texts.get(text).len();
        match operator {
            Operator::Pattern {
                pattern,
                every_match,
            } => self.pattern(pattern, text, capture, *every_match),
            Operator::Phrases(phrases) => {
                let hit = phrases.find(self.state.texts.get(text))?;
                self.capture_one(capture, text, hit);
                Some(hit)
            }
            Operator::Text(test, other) => self.text(*test, other, text, capture),
            Operator::SqlInjection => self.sql_injection(text, capture),
            Operator::Xss => self.xss(text, capture),
            Operator::CardNumber(pattern) => {
                let value = self.state.texts.get(text);
                let (start, end) = pattern.find(&mut self.bench.caches, value, 0)?;
                let is_card = operator::is_card_number(value.get(start..end)?);
                is_card
                    .then(|| self.capture_one(capture, text, (start, end)))
                    .map(|()| (start, end))
            }
            Operator::ByteRange(allowed) => {
                let bytes = self.state.texts.bytes_of(text);
                (!bytes.is_subset(allowed)).then_some((0, length))
            }
            other => self.is_match(other, text).then_some((0, length)),
        }
    }

    /// Operators that look at the value as a whole.
    fn is_match(&self, operator: &Operator, text: TextId) -> bool {
        let value = self.state.texts.get(text);
        match operator {
            Operator::Addresses(set) => address(value).is_some_and(|address| set.contains(address)),
            Operator::UrlEncoding => !transform::is_well_encoded(value),
            Operator::Utf8 => !operator::is_utf8_strict(value),
            Operator::Country => {
                address(value).is_some_and(|address| self.bench.has_country(address))
            }
            Operator::Always => true,
            _ => false,
        }
    }

    fn pattern(
        &mut self,
        pattern: &operator::Pattern,
        text: TextId,
        capture: bool,
        every: bool,
    ) -> Option<Hit> {
        let value = self.state.texts.get(text);
        let caches = &mut self.bench.caches;
        let by_groups = capture && (every || pattern.has_groups());
        if (by_groups || !capture) && !pattern.is_match(caches, value) {
            return None;
        }
        let whole = pattern.find(caches, value, 0)?;
        if !capture {
            return Some(whole);
        }
        let groups = if every {
            self.every_match(pattern, text)
        } else if by_groups {
            pattern.groups(caches, value)?
        } else {
            self.capture_whole(text, whole);
            return Some(whole);
        };
        for slot in 0..10u16 {
            let span = groups.get(usize::from(slot)).copied().flatten();
            let content = span.map(|span| self.part(text, span));
            self.state.tx.set(slot, content);
        }
        Some(whole)
    }

    fn capture_whole(&mut self, text: TextId, whole: Hit) {
        let content = self.part(text, whole);
        self.state.tx.set(0, Some(content));
        for slot in 1..10 {
            self.state.tx.set(slot, None);
        }
    }

    fn every_match(&mut self, pattern: &operator::Pattern, text: TextId) -> Vec<Option<Hit>> {
        let value = self.state.texts.get(text);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some((start, end)) = pattern.find(&mut self.bench.caches, value, from) {
            found.push(Some((start, end)));
            from = if end == start { end + 1 } else { end };
            if found.len() == 10 {
                break;
            }
        }
        found
    }

    fn part(&mut self, text: TextId, (start, end): Hit) -> Content {
        let whole = self.state.texts.get(text);
        if (start, end) == (0, whole.len()) {
            return Content::Text(text);
        }
        let part = whole.get(start..end).unwrap_or_default().to_vec();
        Content::Text(self.state.texts.add(&part))
    }

    fn capture_one(&mut self, capture: bool, text: TextId, hit: Hit) {
        if capture {
            let content = self.part(text, hit);
            self.state.tx.set(0, Some(content));
        }
    }

    fn text(
        &mut self,
        test: TextTest,
        other: &Template,
        text: TextId,
        capture: bool,
    ) -> Option<Hit> {
        let mut buffer = std::mem::take(&mut self.bench.operand);
        let hit = {
            let expected = if let Some(literal) = other.literal() {
                literal
            } else if let Some(text) = self.one_text(other) {
                self.state.texts.get(text)
            } else {
                buffer.clear();
                self.expand(other, &mut buffer);
                &buffer
            };
            let value = self.state.texts.get(text);
            agree(test, value, expected).map(|part| {
                let start = (part.as_ptr() as usize).saturating_sub(value.as_ptr() as usize);
                (start, start + part.len())
            })
        };
        self.bench.operand = buffer;
        if let Some(hit) = hit {
            self.capture_one(capture, text, hit);
        }
        hit
    }

    /// The text that a template is which is one variable.
    fn one_text(&self, template: &Template) -> Option<TextId> {
        match &*template.0 {
            [Part::Slot(slot)] => match self.state.tx.get(*slot)? {
                Content::Text(id) => Some(id),
                Content::Number(_) => None,
            },
            _ => None,
        }
    }

    fn sql_injection(&mut self, text: TextId, capture: bool) -> Option<Hit> {
        let value = self.state.texts.get(text);
        if is_one_word(value) {
            return None;
        }
        let length = value.len();
        let fingerprint = injection::is_sql_injection(value)?;
        if capture {
            let content = Content::Text(self.state.texts.add(fingerprint.as_bytes()));
            self.state.tx.set(0, Some(content));
        }
        Some((0, length))
    }

    fn xss(&mut self, text: TextId, capture: bool) -> Option<Hit> {
        let value = self.state.texts.get(text);
        let whole = (0, value.len());
        let is_xss = injection::is_xss(value);
        is_xss
            .then(|| self.capture_one(capture, text, whole))
            .map(|()| whole)
    }
}

/// Whether a text is one name or one number to SQL, which by itself is no injection.
fn is_one_word(text: &[u8]) -> bool {
    let is_name = text
        .first()
        .is_some_and(|&byte| byte.is_ascii_alphabetic() || byte == b'_');
    let all = |is_one: fn(&u8) -> bool| text.iter().all(is_one);
    (is_name && all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'))
        || all(u8::is_ascii_digit)
}

fn address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}
