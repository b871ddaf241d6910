//! One request judged by a rule set.
//!
//! Owns the state of a transaction and the order of its phases. What a client sent is copied once
//! and then only referred to. Must not: wait, do I/O but through the store and the countries it was
//! given, or write to anything that another worker reads.

mod actions;
mod cleared;
mod request;
mod run;
mod seen;
mod state;
mod store;
mod strings;
mod test;
mod time;
mod tx;
mod values;
mod verdict;
mod workbench;

pub use store::{MemoryStore, Store, Stored};
pub use verdict::{Answer, Ends, Found, Interruption, Matched, Verdict};
pub use workbench::{Countries, Workbench};

pub(crate) use seen::{ByBytes, Looks, Seen};
pub(crate) use state::{State, Value};
pub(crate) use strings::TextId;
pub(crate) use tx::Content;

use crate::rule::{Preset, Presets, RuleSet};
use crate::seclang::{EngineMode, Variable};
use crate::tailor::Tailored;
use run::Run;

/// A request under judgement, and its answer.
///
/// The phases are called in order: `request_line`, `header`…, `end_of_request_headers`, `body`…,
/// `end_of_request_body`, then the same of the response, then `end`. Once one of them has given an
/// interruption, only `end` is left to call.
#[derive(Debug)]
pub struct Transaction<'r> {
    set: &'r RuleSet,
    tailored: Option<&'r Tailored>,
    presets: &'r Presets,
    state: Box<State>,
}

impl<'r> Transaction<'r> {
    /// Begins a request. `now_micros` is the time since the Unix epoch; `unique` names the request
    /// (`UNIQUE_ID`), and sampling takes its chance from it.
    pub fn begin(set: &'r RuleSet, bench: &mut Workbench, now_micros: u64, unique: &str) -> Self {
        let mut state = bench.state();
        state.reset(set, &set.presets, now_micros);
        state.set_text(Variable::UniqueId, unique.as_bytes());
        Self {
            set,
            tailored: None,
            presets: &set.presets,
            state,
        }
    }

    /// Begins a request as `begin` does, judged as the tailoring has it.
    pub fn begin_tailored(
        tailored: &'r Tailored,
        bench: &mut Workbench,
        now_micros: u64,
        unique: &str,
    ) -> Self {
        let set = tailored.set();
        let mut state = bench.state();
        state.reset(set, tailored.presets(), now_micros);
        state.set_text(Variable::UniqueId, unique.as_bytes());
        state.mode = tailored.mode();
        for removed in tailored.removed_at(now_micros) {
            state.removed.add(removed);
            state.has_removed = true;
        }
        Self {
            set,
            tailored: tailored.loses_targets().then_some(tailored),
            presets: tailored.presets(),
            state,
        }
    }

    /// Overrides `SecRuleEngine`.
    pub fn set_mode(&mut self, mode: EngineMode) {
        self.state.mode = mode;
    }

    /// Tells who talks to whom.
    pub fn connection(&mut self, ends: &Ends) {
        let state = &mut *self.state;
        for (variable, (address, _)) in [
            (Variable::RemoteAddr, ends.client),
            (Variable::ServerAddr, ends.server),
        ] {
            state.set_text(variable, address.to_canonical().to_string().as_bytes());
        }
        state.set_single(Variable::RemotePort, Content::Number(ends.client.1.into()));
        state.set_single(Variable::ServerPort, Content::Number(ends.server.1.into()));
    }

    /// The request line; `protocol` as in `HTTP/1.1`.
    pub fn request_line(&mut self, method: &[u8], target: &[u8], protocol: &[u8]) {
        request::line(&mut self.state, self.set, method, target, protocol);
    }

    /// One header, in the order and case in which it came.
    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        request::header(&mut self.state, name, value);
    }

    /// Phase 1.
    pub fn end_of_request_headers(&mut self, bench: &mut Workbench) -> Option<&Interruption> {
        request::headers_end(&mut self.state);
        self.phase(bench, 1)
    }

    /// Whether the body is to be read for `end_of_request_body`.
    pub fn wants_body(&self) -> bool {
        self.state.mode != EngineMode::Off && self.state.request_body_access
    }

    /// More of the body. Returns whether it was taken: beyond the set's limit it is not, and the
    /// caller refuses or judges what there is, as the settings say.
    pub fn body(&mut self, bytes: &[u8]) -> bool {
        let limit = usize::try_from(self.set.settings.request_body_limit).unwrap_or(usize::MAX);
        let room = limit.saturating_sub(self.state.body.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.state.body.extend_from_slice(taken);
        let whole = taken.len() == bytes.len();
        if !whole {
            self.state.set_flag(Variable::InboundDataError, true);
        }
        whole
    }

    /// Tells that the body goes on beyond what was given, so that it is not broken for want of its end.
    pub fn body_is_cut_off(&mut self) {
        self.state.body_is_cut_off = true;
    }

    /// Phase 2.
    pub fn end_of_request_body(&mut self, bench: &mut Workbench) -> Option<&Interruption> {
        if self.state.request_body_access {
            request::body(&mut self.state, self.set);
        }
        self.phase(bench, 2)
    }

    /// The response's status; `protocol` as in `HTTP/1.1`.
    pub fn response_line(&mut self, protocol: &[u8], status: u16) {
        self.state
            .set_single(Variable::ResponseStatus, Content::Number(status.into()));
        self.state.set_text(Variable::ResponseProtocol, protocol);
        let line = [protocol, b" ", status.to_string().as_bytes()].concat();
        self.state.set_text(Variable::StatusLine, &line);
    }

    /// One header of the response.
    pub fn response_header(&mut self, name: &[u8], value: &[u8]) {
        request::response_header(&mut self.state, name, value);
    }

    /// Phase 3.
    pub fn end_of_response_headers(&mut self, bench: &mut Workbench) -> Option<&Interruption> {
        self.phase(bench, 3)
    }

    /// Whether the response's body is to be read for `end_of_response_body`.
    pub fn wants_response_body(&self) -> bool {
        self.state.mode != EngineMode::Off && self.state.response_body_access
    }

    /// More of the response's body. Returns whether it was taken.
    pub fn response_body(&mut self, bytes: &[u8]) -> bool {
        let limit = usize::try_from(self.set.settings.response_body_limit).unwrap_or(usize::MAX);
        let room = limit.saturating_sub(self.state.response_body.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.state.response_body.extend_from_slice(taken);
        let whole = taken.len() == bytes.len();
        if !whole {
            self.state.set_flag(Variable::OutboundDataError, true);
        }
        whole
    }

    /// Phase 4.
    pub fn end_of_response_body(&mut self, bench: &mut Workbench) -> Option<&Interruption> {
        let body = std::mem::take(&mut self.state.response_body);
        let length = i64::try_from(body.len()).unwrap_or(i64::MAX);
        self.state.set_text(Variable::ResponseBody, &body);
        self.state
            .set_single(Variable::ResponseContentLength, Content::Number(length));
        self.state.response_body = body;
        self.phase(bench, 4)
    }

    fn phase(&mut self, bench: &mut Workbench, number: u8) -> Option<&Interruption> {
        if self.state.mode != EngineMode::Off && (self.state.interruption.is_none() || number == 5)
        {
            bench.fit(self.set);
            Run {
                set: self.set,
                tailored: self.tailored,
                presets: self.presets,
                state: &mut self.state,
                bench,
            }
            .phase(number);
        }
        self.state.interruption.as_ref()
    }

    /// Tells the time, for `DURATION` and what expires.
    pub fn at(&mut self, now_micros: u64) {
        self.state.now_micros = now_micros.max(self.state.now_micros);
    }

    /// A TX variable as text, by its name in lower case.
    pub fn tx(&self, name: &str) -> Option<Vec<u8>> {
        let content = self.state.tx.get(*self.set.slots.get(name.as_bytes())?)?;
        let mut text = Vec::new();
        self.state.write(content, &mut text);
        Some(text)
    }

    /// All TX variables that are set, by name, but for what rules that only look names up have noted of
    /// names that are in no list.
    pub fn all_tx(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = &self.state;
        let name = |slot: u16| {
            self.set
                .slot_names
                .get(usize::from(slot))
                .map(|name| name.to_vec())
        };
        let slots = state
            .tx
            .slots()
            .map(|(slot, content)| (name(slot).unwrap_or_default(), content));
        let named = state
            .tx
            .named()
            .map(|(id, content)| (state.texts.get(id).to_vec(), content));
        let written = |(name, content): (Vec<u8>, Content)| {
            let mut text = Vec::new();
            state.write(content, &mut text);
            (name, text)
        };
        slots.chain(named).map(written).collect()
    }

    /// Phase 5, and the outcome. Collections are written back.
    pub fn end(mut self, bench: &mut Workbench) -> Verdict {
        self.phase(bench, 5);
        self.save(bench);
        let state = &mut *self.state;
        let verdict = Verdict {
            interruption: state.interruption.take(),
            matched: std::mem::take(&mut state.matched),
            is_recorded: state.audit.unwrap_or(state.records),
            is_exhausted: state.texts.is_exhausted(),
        };
        bench.keep(self.state);
        verdict
    }

    fn save(&self, bench: &Workbench) {
        let Some(store) = &bench.store else { return };
        let state = &self.state;
        for opened in state.opened.iter().filter(|opened| opened.changed) {
            let stored = |&(name, content, expires): &(TextId, Content, u64)| {
                let mut value = Vec::new();
                state.write(content, &mut value);
                Stored {
                    name: state.texts.get(name).into(),
                    value: value.into_boxed_slice(),
                    expires,
                }
            };
            let record = opened.variables.iter().map(stored).collect();
            store.save(
                opened.collection.variable().name(),
                &opened.key,
                record,
                state.now_seconds(),
            );
        }
    }
}

/// What TX variables hold after the constant rules of the set, which ask nothing of a request, where
/// the given hold whatever those rules say.
pub(crate) fn presets(set: &RuleSet, given: &Presets) -> Presets {
    let mut bench = Workbench::new(set);
    let mut state = State::new();
    state.reset(set, given, 0);
    Run {
        set,
        tailored: None,
        presets: given,
        state: &mut state,
        bench: &mut bench,
    }
    .constants(given);
    let preset = |content| match content {
        Content::Number(number) => Preset::Number(number),
        Content::Text(id) => Preset::Text(state.texts.get(id).into()),
    };
    let slots = state.tx.slots();
    Presets::new(
        slots
            .map(|(slot, content)| (slot, preset(content)))
            .collect(),
    )
}

#[cfg(test)]
mod tests;
