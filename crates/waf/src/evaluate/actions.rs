//! What a matching rule does to the state: variables, collections, controls.

use super::run::Run;
use super::state::{Name, Opened, Value};
use super::tx::Content;
use crate::bytes::leading_number;
use crate::rule::{After, Assign, Change, Key, Part, Template};
use crate::seclang::{Collection, Variable};

/// Bytes of a text that a rule makes up, at most.
const MOST_EXPANDED: usize = 64 << 10;
/// Collections that one request may open.
const MOST_OPENED: usize = 8;

impl Run<'_> {
    /// Appends a text with its macros filled in.
    pub(super) fn expand(&mut self, template: &Template, out: &mut Vec<u8>) {
        for part in &template.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Slot(slot) => {
                    if let Some(content) = self.state.tx.get(*slot) {
                        self.state.write(content, out);
                    }
                }
                Part::Value(variable, key) => {
                    if let Some(content) = self.first(*variable, key.as_deref()) {
                        self.state.write(content, out);
                    }
                }
            }
            if out.len() > MOST_EXPANDED {
                out.truncate(MOST_EXPANDED);
                break;
            }
        }
    }

    fn first(&mut self, variable: Variable, key: Option<&str>) -> Option<Content> {
        use crate::rule::{Chosen, Target};
        let chosen = match key {
            Some("/*") if variable == Variable::Xml => Chosen::XmlText,
            Some("//@*") if variable == Variable::Xml => Chosen::XmlAttributes,
            Some(key) => Chosen::Name(self.set.names.find(key.as_bytes()), key.as_bytes().into()),
            None => Chosen::All,
        };
        let mut values: Vec<Value> = Vec::new();
        self.state.collect(
            self.set,
            &Target {
                variable,
                chosen,
                count: false,
            },
            &mut values,
        );
        values.first().map(|value| value.content)
    }

    /// The number that a text with macros comes to.
    pub(super) fn number_in(&mut self, template: &Template) -> i64 {
        match &*template.0 {
            [Part::Text(text)] => leading_number(text),
            [Part::Slot(slot)] => self
                .state
                .tx
                .get(*slot)
                .map_or(0, |content| self.state.number_of(content)),
            _ => {
                let mut text = Vec::new();
                self.expand(template, &mut text);
                leading_number(&text)
            }
        }
    }

    pub(super) fn assign(&mut self, assign: &Assign) {
        let content = self.changed(&assign.change, |run| run.current(assign));
        match (&assign.key, assign.collection) {
            (Key::Slot(slot), _) => self.state.tx.set(*slot, content),
            (Key::Named(name), Collection::Tx) => {
                let name = self.name(name);
                match self.set.slots.get(name.as_slice()) {
                    Some(&slot) => self.state.tx.set(slot, content),
                    None => self.set_named(&name, content),
                }
                self.bench.name = name;
            }
            (Key::Named(name), collection) => {
                let name = self.name(name);
                self.store(collection, &name, content);
                self.bench.name = name;
            }
        }
    }

    /// What the change makes of what is there.
    fn changed(
        &mut self,
        change: &Change,
        current: impl FnOnce(&mut Self) -> i64,
    ) -> Option<Content> {
        match change {
            Change::SetNumber(number) => Some(Content::Number(*number)),
            Change::Set(template) => {
                if let [Part::Slot(slot)] = &*template.0 {
                    // A text that is one variable is that variable, or empty.
                    let empty = || Content::Text(self.state.texts.add(b""));
                    return Some(self.state.tx.get(*slot).unwrap_or_else(empty));
                }
                let mut text = std::mem::take(&mut self.bench.expanded);
                text.clear();
                self.expand(template, &mut text);
                let id = self.state.texts.add(&text);
                self.bench.expanded = text;
                Some(Content::Text(id))
            }
            Change::Add(template) => {
                let amount = self.number_in(template);
                Some(Content::Number(current(self).saturating_add(amount)))
            }
            Change::Subtract(template) => {
                let amount = self.number_in(template);
                Some(Content::Number(current(self).saturating_sub(amount)))
            }
            Change::Remove => None,
        }
    }

    fn current(&mut self, assign: &Assign) -> i64 {
        let content = match (&assign.key, assign.collection) {
            (Key::Slot(slot), _) => self.state.tx.get(*slot),
            (Key::Named(name), Collection::Tx) => {
                let name = self.name(name);
                match self.set.slots.get(name.as_slice()) {
                    Some(&slot) => self.state.tx.get(slot),
                    None => self
                        .named_place(&name)
                        .and_then(|place| self.state.tx.at(place)),
                }
            }
            (Key::Named(name), collection) => {
                let name = self.name(name);
                self.stored(collection, &name)
            }
        };
        content.map_or(0, |content| self.state.number_of(content))
    }

    /// The name that a template comes to, in a buffer of the worker's that may be given back.
    fn name(&mut self, template: &Template) -> Vec<u8> {
        let mut name = std::mem::take(&mut self.bench.name);
        name.clear();
        self.expand(template, &mut name);
        name.make_ascii_lowercase();
        name
    }

    fn named_place(&self, name: &[u8]) -> Option<usize> {
        self.state.tx.place(|id| self.state.texts.get(id) == name)
    }

    fn set_named(&mut self, name: &[u8], content: Option<Content>) {
        let place = self.named_place(name);
        let id = self.state.texts.add(name);
        self.state.tx.set_named(place, id, content);
    }

    fn stored(&self, collection: Collection, name: &[u8]) -> Option<Content> {
        let opened = self
            .state
            .opened
            .iter()
            .find(|opened| opened.collection == collection)?;
        let now = self.state.now_seconds();
        let is_it =
            |&&(id, _, expires): &&(_, _, u64)| expires > now && self.state.texts.get(id) == name;
        opened
            .variables
            .iter()
            .find(is_it)
            .map(|&(_, content, _)| content)
    }

    /// Sets a variable of an open collection; of one that is not open there is nothing to set.
    fn store(&mut self, collection: Collection, name: &[u8], content: Option<Content>) {
        let id = self.state.texts.add(name);
        let expires = self.state.now_seconds() + u64::from(self.set.settings.collection_timeout);
        let state = &mut *self.state;
        let texts = &state.texts;
        let Some(opened) = state
            .opened
            .iter_mut()
            .find(|opened| opened.collection == collection)
        else {
            return;
        };
        opened.changed = true;
        opened
            .variables
            .retain(|&(known, _, _)| texts.get(known) != name);
        opened
            .variables
            .extend(content.map(|content| (id, content, expires)));
    }

    fn expire(&mut self, collection: Collection, name: &[u8], seconds: i64) {
        let expires = self.state.now_seconds() + u64::try_from(seconds).unwrap_or(0);
        let state = &mut *self.state;
        let texts = &state.texts;
        for opened in state
            .opened
            .iter_mut()
            .filter(|opened| opened.collection == collection)
        {
            for (_, _, at) in opened
                .variables
                .iter_mut()
                .filter(|(known, ..)| texts.get(*known) == name)
            {
                *at = expires;
                opened.changed = true;
            }
        }
    }

    fn open(&mut self, collection: Collection, key: &Template) {
        let mut name = Vec::new();
        self.expand(key, &mut name);
        let is_open = self
            .state
            .opened
            .iter()
            .any(|opened| opened.collection == collection);
        if name.is_empty() || is_open || self.state.opened.len() >= MOST_OPENED {
            return;
        }
        let now = self.state.now_seconds();
        let record = match &self.bench.store {
            Some(store) => store.load(collection.variable().name(), &name, now),
            None => Vec::new(),
        };
        let mut variables = Vec::with_capacity(record.len());
        for stored in record {
            let (id, value) = (
                self.state.texts.add(&stored.name),
                self.state.texts.add(&stored.value),
            );
            variables.push((id, Content::Text(value), stored.expires));
        }
        self.state.opened.push(Opened {
            collection,
            key: name.into_boxed_slice(),
            variables,
            changed: false,
        });
    }

    /// What a rule does once its whole chain has matched.
    pub(super) fn after(&mut self, after: &After, position: usize) {
        match after {
            After::RemoveRules(rules) => {
                self.state.removed.add(rules);
                self.state.has_removed = true;
            }
            After::RemoveTargets(removal) => {
                self.state.removals.push(std::sync::Arc::clone(removal));
            }
            After::Engine(mode) => self.state.mode = *mode,
            After::Processor(processor) => {
                self.state.processor = Some(*processor);
                self.state
                    .set_text(Variable::ReqbodyProcessor, processor.name().as_bytes());
            }
            After::ForceRequestBody(on) => self.state.forces_body = *on,
            After::RequestBodyAccess(on) => self.state.request_body_access = *on,
            After::ResponseBodyAccess(on) => self.state.response_body_access = *on,
            After::Audit(on) => self.state.audit = Some(*on),
            After::Expire(collection, key, seconds) => {
                let name = self.name(key);
                let seconds = self.number_in(seconds);
                self.expire(*collection, &name, seconds);
            }
            After::Open(collection, key) => self.open(*collection, key),
            After::SetEnv(name, value) => {
                let mut text = Vec::new();
                self.expand(value, &mut text);
                let pair = self.state.add_pair(name.as_bytes(), &text);
                self.state.environment.push(pair);
            }
            After::HideMatched => {}
            After::Hide(variable, name) => self.state.hidden.push((*variable, name.clone())),
            After::Skip(rules) => {
                let to = u32::try_from(position + 1)
                    .unwrap_or(u32::MAX)
                    .saturating_add(*rules);
                self.state.go_to = Some(to);
            }
            After::GoTo(to) => self.state.go_to = Some(*to),
        }
    }
}

impl Name {
    /// The text of a name that was sent.
    pub(super) const fn text(self) -> Option<super::strings::TextId> {
        match self {
            Self::Text(id) => Some(id),
            _ => None,
        }
    }
}
