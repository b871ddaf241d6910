//! Everything that is known of one request while it is judged.

use std::sync::Arc;

use super::strings::{Beginning, TextId, Texts};
use super::tx::{Content, Tx};
use super::verdict::{Interruption, Matched};
use crate::body::Processor;
use crate::rule::{Bits, NameId, Names, Preset, Presets, Removal, RuleSet, Slot};
use crate::seclang::{Allow, Collection, EngineMode, Variable};

/// A name and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    /// The name's number among those that targets choose by.
    pub(crate) known: NameId,
    pub(crate) name: TextId,
    pub(crate) value: TextId,
}

/// An argument, and whether it came in the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Argument {
    pub(crate) pair: Pair,
    pub(crate) posted: bool,
}

/// A file of a form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uploaded {
    pub(crate) field: TextId,
    pub(crate) name: TextId,
    pub(crate) content: Option<TextId>,
    pub(crate) size: i64,
}

/// How a value is called after its variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    None,
    Text(TextId),
    Slot(Slot),
    /// The path of what an XML body holds.
    Path(&'static str),
}

/// A value that a rule looks at, or that matched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) variable: Variable,
    pub(crate) name: Name,
    pub(crate) content: Content,
}

/// A persistent collection that rules opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) collection: Collection,
    pub(crate) key: Box<[u8]>,
    /// Name, value and when it expires.
    pub(crate) variables: Vec<(TextId, Content, u64)>,
    pub(crate) changed: bool,
}

/// The state of a transaction. Reused: `reset` keeps the room.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is one switch that rules turn on their own.
pub(crate) struct State {
    pub(crate) texts: Texts,
    names: Arc<Names>,
    singles: Vec<Option<Content>>,
    /// The empty text.
    pub(crate) empty: TextId,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) request_headers: Vec<Pair>,
    pub(crate) cookies: Vec<Pair>,
    pub(crate) response_headers: Vec<Pair>,
    pub(crate) files: Vec<Uploaded>,
    pub(crate) part_headers: Vec<Pair>,
    pub(crate) xml_text: Vec<TextId>,
    pub(crate) xml_attributes: Vec<TextId>,
    pub(crate) environment: Vec<Pair>,
    pub(crate) tx: Tx,
    /// The number of the presets that `beginning` and `first_tx` are of.
    presets: u64,
    beginning: Beginning,
    first_tx: Tx,
    pub(crate) opened: Vec<Opened>,
    /// The values that the rule under way matched, its chain included.
    pub(crate) matching: Vec<Value>,
    pub(crate) mode: EngineMode,
    pub(crate) now_micros: u64,
    pub(crate) began_micros: u64,
    pub(crate) processor: Option<Processor>,
    pub(crate) forces_body: bool,
    pub(crate) request_body_access: bool,
    pub(crate) body_is_cut_off: bool,
    pub(crate) response_body_access: bool,
    pub(crate) audit: Option<bool>,
    pub(crate) records: bool,
    pub(crate) allowed: Option<Allow>,
    pub(crate) removed: Bits,
    pub(crate) has_removed: bool,
    pub(crate) removals: Vec<Arc<Removal>>,
    pub(crate) hidden: Vec<(Variable, Box<[u8]>)>,
    pub(crate) go_to: Option<u32>,
    pub(crate) interruption: Option<Interruption>,
    pub(crate) matched: Vec<Matched>,
    pub(crate) highest_severity: u8,
    pub(crate) body: Vec<u8>,
    pub(crate) response_body: Vec<u8>,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            texts: Texts::default(),
            names: Arc::default(),
            singles: Vec::new(),
            empty: TextId::default(),
            arguments: Vec::new(),
            request_headers: Vec::new(),
            cookies: Vec::new(),
            response_headers: Vec::new(),
            files: Vec::new(),
            part_headers: Vec::new(),
            xml_text: Vec::new(),
            xml_attributes: Vec::new(),
            environment: Vec::new(),
            tx: Tx::default(),
            presets: 0,
            beginning: Beginning::default(),
            first_tx: Tx::default(),
            opened: Vec::new(),
            matching: Vec::new(),
            mode: EngineMode::Off,
            now_micros: 0,
            began_micros: 0,
            processor: None,
            forces_body: false,
            request_body_access: true,
            body_is_cut_off: false,
            response_body_access: false,
            audit: None,
            records: false,
            allowed: None,
            removed: Bits::default(),
            has_removed: false,
            removals: Vec::new(),
            hidden: Vec::new(),
            go_to: None,
            interruption: None,
            matched: Vec::new(),
            highest_severity: 255,
            body: Vec::new(),
            response_body: Vec::new(),
        }
    }

    /// Forgets the last request.
    pub(crate) fn reset(&mut self, set: &RuleSet, presets: &Presets, now_micros: u64) {
        if !Arc::ptr_eq(&self.names, &set.names) {
            self.names = Arc::clone(&set.names);
        }
        self.begin(set, presets);
        self.singles.clear();
        self.singles.resize(Variable::COUNT, None);
        self.arguments.clear();
        self.request_headers.clear();
        self.cookies.clear();
        self.response_headers.clear();
        self.files.clear();
        self.part_headers.clear();
        self.xml_text.clear();
        self.xml_attributes.clear();
        self.environment.clear();
        self.opened.clear();
        self.matching.clear();
        self.mode = set.settings.engine;
        self.now_micros = now_micros;
        self.began_micros = now_micros;
        self.processor = None;
        self.forces_body = false;
        self.body_is_cut_off = false;
        self.request_body_access = set.settings.request_body;
        self.response_body_access = set.settings.response_body;
        self.audit = None;
        self.records = false;
        self.allowed = None;
        self.removed.0.clear();
        self.removed.0.resize(set.rules.len().div_ceil(64), 0);
        self.has_removed = false;
        self.removals.clear();
        self.hidden.clear();
        self.go_to = None;
        self.interruption = None;
        self.matched.clear();
        self.highest_severity = 255;
        self.body.clear();
        self.response_body.clear();
    }

    /// The texts and TX variables that a request begins with: made once, and copied while a worker
    /// meets the same presets.
    fn begin(&mut self, set: &RuleSet, presets: &Presets) {
        if self.presets == presets.number {
            self.texts.rewind(&self.beginning);
            self.tx.rewind(&self.first_tx);
            return;
        }
        self.texts.clear();
        self.empty = self.texts.add(b"");
        self.tx.reset(set.slot_names.len());
        self.preset(presets);
        self.beginning = self.texts.beginning();
        self.first_tx.rewind(&self.tx);
        self.presets = presets.number;
    }

    /// Gives TX variables a value that no rule of this request gave them.
    pub(crate) fn preset(&mut self, presets: &Presets) {
        for (slot, preset) in &presets.values {
            let content = match preset {
                Preset::Number(number) => Content::Number(*number),
                Preset::Text(text) => Content::Text(self.texts.add(text)),
            };
            self.tx.set(*slot, Some(content));
        }
    }

    /// How many headers have the name of this number.
    #[inline]
    pub(crate) fn headers_named(&self, name: NameId) -> i64 {
        named(&self.request_headers, name)
    }

    /// How many headers of a form's parts have the name, or how many there are.
    pub(crate) fn part_headers_named(&self, name: Option<NameId>) -> i64 {
        match name {
            Some(name) => named(&self.part_headers, name),
            None => i64::try_from(self.part_headers.len()).unwrap_or(i64::MAX),
        }
    }

    #[inline]
    pub(crate) fn single(&self, variable: Variable) -> Option<Content> {
        self.singles.get(variable as usize).copied().flatten()
    }

    pub(crate) fn set_single(&mut self, variable: Variable, content: Content) {
        if let Some(place) = self.singles.get_mut(variable as usize) {
            *place = Some(content);
        }
    }

    /// Sets a variable of one value from bytes.
    pub(crate) fn set_text(&mut self, variable: Variable, text: &[u8]) {
        let id = self.texts.add(text);
        self.set_single(variable, Content::Text(id));
    }

    pub(crate) fn set_flag(&mut self, variable: Variable, on: bool) {
        self.set_single(variable, Content::Number(i64::from(on)));
    }

    pub(crate) fn add_pair(&mut self, name: &[u8], value: &[u8]) -> Pair {
        Pair {
            known: self.names.find(name),
            name: self.texts.add(name),
            value: self.texts.add(value),
        }
    }

    /// The content as text.
    #[inline]
    pub(crate) fn text_of(&mut self, content: Content) -> TextId {
        match content {
            Content::Text(id) => id,
            Content::Number(number) => {
                let mut digits = Digits::default();
                self.texts.add(digits.write(number))
            }
        }
    }

    /// The content as a number, 0 where it is none.
    #[inline]
    pub(crate) fn number_of(&self, content: Content) -> i64 {
        match content {
            Content::Number(number) => number,
            Content::Text(id) => crate::bytes::leading_number(self.texts.get(id)),
        }
    }

    /// Appends the content to `out`.
    pub(crate) fn write(&self, content: Content, out: &mut Vec<u8>) {
        match content {
            Content::Number(number) => out.extend_from_slice(Digits::default().write(number)),
            Content::Text(id) => out.extend_from_slice(self.texts.get(id)),
        }
    }

    pub(crate) const fn now_seconds(&self) -> u64 {
        self.now_micros / 1_000_000
    }
}

fn named(pairs: &[Pair], name: NameId) -> i64 {
    let named = pairs.iter().filter(|pair| pair.known == name);
    i64::try_from(named.count()).unwrap_or(i64::MAX)
}

/// A number's decimal digits, without an allocation.
#[derive(Default)]
struct Digits([u8; 20]);

impl Digits {
    fn write(&mut self, number: i64) -> &[u8] {
        let mut rest = number.unsigned_abs();
        let mut at = self.0.len();
        loop {
            at -= 1;
            if let (Some(place), Ok(digit)) = (self.0.get_mut(at), u8::try_from(rest % 10)) {
                *place = b'0' + digit;
            }
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            at -= 1;
            if let Some(place) = self.0.get_mut(at) {
                *place = b'-';
            }
        }
        self.0.get(at..).unwrap_or_default()
    }
}
