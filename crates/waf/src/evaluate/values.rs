//! The values that a target means.

use super::state::{Name, Pair, State, Value};
use super::time;
use super::tx::Content;
use crate::rule::{Chosen, RuleSet, Target};
use crate::seclang::{Collection, Variable};

impl State {
    /// Appends the values of a target to `out`; with `&`, their number.
    pub(crate) fn collect(&mut self, set: &RuleSet, target: &Target, out: &mut Vec<Value>) {
        let before = out.len();
        self.collect_all(set, target.variable, &target.chosen, out);
        if target.count {
            let number = i64::try_from(out.len() - before).unwrap_or(i64::MAX);
            out.truncate(before);
            let name = match target.chosen {
                Chosen::Slot(slot) => Name::Slot(slot),
                _ => Name::None,
            };
            out.push(Value {
                variable: target.variable,
                name,
                content: Content::Number(number),
            });
        }
    }

    fn collect_all(
        &mut self,
        set: &RuleSet,
        variable: Variable,
        chosen: &Chosen,
        out: &mut Vec<Value>,
    ) {
        match variable {
            Variable::Args
            | Variable::ArgsGet
            | Variable::ArgsPost
            | Variable::ArgsNames
            | Variable::ArgsGetNames
            | Variable::ArgsPostNames => self.arguments_of(variable, chosen, out),
            Variable::RequestHeaders => {
                self.pairs(variable, &self.request_headers, chosen, false, out);
            }
            Variable::RequestHeadersNames => {
                self.pairs(variable, &self.request_headers, chosen, true, out);
            }
            Variable::RequestCookies => self.pairs(variable, &self.cookies, chosen, false, out),
            Variable::RequestCookiesNames => self.pairs(variable, &self.cookies, chosen, true, out),
            Variable::ResponseHeaders => {
                self.pairs(variable, &self.response_headers, chosen, false, out);
            }
            Variable::ResponseHeadersNames => {
                self.pairs(variable, &self.response_headers, chosen, true, out);
            }
            Variable::MultipartPartHeaders => {
                self.pairs(variable, &self.part_headers, chosen, false, out);
            }
            Variable::Env => self.pairs(variable, &self.environment, chosen, false, out),
            Variable::Files
            | Variable::FilesNames
            | Variable::FilesSizes
            | Variable::FilesTmpContent
            | Variable::MultipartFilename
            | Variable::MultipartName => self.files_of(variable, chosen, out),
            Variable::Xml => self.xml(chosen, out),
            Variable::Tx => self.tx_values(set, chosen, out),
            Variable::MatchedVars | Variable::MatchedVarsNames => {
                self.matched(set, variable, chosen, out);
            }
            Variable::Ip
            | Variable::Global
            | Variable::Session
            | Variable::User
            | Variable::Resource => {
                self.stored(variable, chosen, out);
            }
            _ => {
                if let Some(content) = self.one(set, variable) {
                    out.push(Value {
                        variable,
                        name: Name::None,
                        content,
                    });
                }
            }
        }
    }

    /// Whether the target means a value of its source, which is wider where a pattern chooses.
    pub(super) fn is_meant(&self, target: &Target, value: &Value) -> bool {
        match (&target.chosen, value.name) {
            (Chosen::Pattern(pattern), Name::Text(id)) => pattern.is_match(self.texts.get(id)),
            _ => true,
        }
    }

    fn is_pair_chosen(&self, chosen: &Chosen, pair: &Pair) -> bool {
        match chosen {
            Chosen::All => true,
            Chosen::Name(wanted, _) if *wanted != 0 => pair.known == *wanted,
            other => is_chosen(other, self.texts.get(pair.name)),
        }
    }

    fn pairs(
        &self,
        variable: Variable,
        pairs: &[Pair],
        chosen: &Chosen,
        names: bool,
        out: &mut Vec<Value>,
    ) {
        for pair in pairs {
            if self.is_pair_chosen(chosen, pair) {
                let content = Content::Text(if names { pair.name } else { pair.value });
                out.push(Value {
                    variable,
                    name: Name::Text(pair.name),
                    content,
                });
            }
        }
    }

    fn arguments_of(&self, variable: Variable, chosen: &Chosen, out: &mut Vec<Value>) {
        let posted = match variable {
            Variable::ArgsGet | Variable::ArgsGetNames => Some(false),
            Variable::ArgsPost | Variable::ArgsPostNames => Some(true),
            _ => None,
        };
        let names = matches!(
            variable,
            Variable::ArgsNames | Variable::ArgsGetNames | Variable::ArgsPostNames
        );
        for argument in &self.arguments {
            let pair = argument.pair;
            let wanted = posted.is_none_or(|posted| posted == argument.posted);
            if wanted && self.is_pair_chosen(chosen, &pair) {
                let content = Content::Text(if names { pair.name } else { pair.value });
                out.push(Value {
                    variable,
                    name: Name::Text(pair.name),
                    content,
                });
            }
        }
    }

    fn files_of(&self, variable: Variable, chosen: &Chosen, out: &mut Vec<Value>) {
        for file in &self.files {
            if !is_chosen(chosen, self.texts.get(file.field)) {
                continue;
            }
            let content = match variable {
                Variable::FilesNames | Variable::MultipartName => Content::Text(file.field),
                Variable::FilesSizes => Content::Number(file.size),
                Variable::FilesTmpContent => match file.content {
                    Some(content) => Content::Text(content),
                    None => continue,
                },
                _ => Content::Text(file.name),
            };
            out.push(Value {
                variable,
                name: Name::Text(file.field),
                content,
            });
        }
    }

    fn xml(&self, chosen: &Chosen, out: &mut Vec<Value>) {
        let (texts, path) = match chosen {
            Chosen::XmlAttributes => (&self.xml_attributes, "//@*"),
            _ => (&self.xml_text, "/*"),
        };
        let value = |&id| Value {
            variable: Variable::Xml,
            name: Name::Path(path),
            content: Content::Text(id),
        };
        out.extend(texts.iter().map(value));
    }

    fn tx_values(&mut self, set: &RuleSet, chosen: &Chosen, out: &mut Vec<Value>) {
        let variable = Variable::Tx;
        if let Chosen::Slot(slot) = *chosen {
            out.extend(self.tx.get(slot).map(|content| Value {
                variable,
                name: Name::Slot(slot),
                content,
            }));
            return;
        }
        let mut push = |slot, content| {
            out.push(Value {
                variable,
                name: Name::Slot(slot),
                content,
            });
        };
        if let Chosen::Slots(_, slots) = chosen {
            for &slot in slots {
                if let Some(content) = self.tx.get(slot) {
                    push(slot, content);
                }
            }
        } else {
            for (slot, content) in self.tx.slots() {
                let name = set.slot_names.get(usize::from(slot));
                if name.is_some_and(|name| is_chosen(chosen, name)) {
                    push(slot, content);
                }
            }
        }
        for (name, content) in self.tx.named() {
            if is_chosen(chosen, self.texts.get(name)) {
                out.push(Value {
                    variable,
                    name: Name::Text(name),
                    content,
                });
            }
        }
    }

    fn stored(&self, variable: Variable, chosen: &Chosen, out: &mut Vec<Value>) {
        let now = self.now_seconds();
        for opened in self
            .opened
            .iter()
            .filter(|opened| opened.collection.variable() == variable)
        {
            for &(name, content, expires) in &opened.variables {
                if expires > now && is_chosen(chosen, self.texts.get(name)) {
                    out.push(Value {
                        variable,
                        name: Name::Text(name),
                        content,
                    });
                }
            }
        }
    }

    fn matched(
        &mut self,
        set: &RuleSet,
        variable: Variable,
        chosen: &Chosen,
        out: &mut Vec<Value>,
    ) {
        for index in 0..self.matching.len() {
            let Some(&value) = self.matching.get(index) else {
                break;
            };
            let mut full = Vec::new();
            self.full_name(set, &value, &mut full);
            if !is_chosen(chosen, &full) {
                continue;
            }
            let name = self.texts.add(&full);
            let content = if variable == Variable::MatchedVarsNames {
                Content::Text(name)
            } else {
                value.content
            };
            out.push(Value {
                variable,
                name: Name::Text(name),
                content,
            });
        }
    }

    /// Writes a value's variable and part, as `ARGS:q`.
    pub(super) fn full_name(&self, set: &RuleSet, value: &Value, out: &mut Vec<u8>) {
        if matches!(
            value.variable,
            Variable::MatchedVars | Variable::MatchedVarsNames
        ) {
            // The name of what matched before is a full name already.
            out.extend_from_slice(
                value
                    .name
                    .text()
                    .map(|id| self.texts.get(id))
                    .unwrap_or_default(),
            );
            return;
        }
        out.extend_from_slice(value.variable.name().as_bytes());
        let part = match value.name {
            Name::None => return,
            Name::Text(id) => self.texts.get(id),
            Name::Path(path) => path.as_bytes(),
            Name::Slot(slot) => set
                .slot_names
                .get(usize::from(slot))
                .map(|name| &**name)
                .unwrap_or_default(),
        };
        out.push(b':');
        out.extend_from_slice(part);
    }

    /// A variable of one value.
    fn one(&mut self, set: &RuleSet, variable: Variable) -> Option<Content> {
        if let Some(content) = self.single(variable) {
            return Some(content);
        }
        let sum =
            |lengths: usize| Some(Content::Number(i64::try_from(lengths).unwrap_or(i64::MAX)));
        match variable {
            Variable::ArgsCombinedSize => {
                let length = |pair: &Pair| {
                    self.texts.get(pair.name).len() + self.texts.get(pair.value).len()
                };
                sum(self
                    .arguments
                    .iter()
                    .map(|argument| length(&argument.pair))
                    .sum())
            }
            Variable::FilesCombinedSize => Some(Content::Number(
                self.files.iter().map(|file| file.size).sum(),
            )),
            Variable::MatchedVar => Some(
                self.matching
                    .last()
                    .map_or(Content::Text(self.empty), |value| value.content),
            ),
            Variable::MatchedVarName => {
                let Some(&value) = self.matching.last() else {
                    return Some(Content::Text(self.empty));
                };
                let mut full = Vec::new();
                self.full_name(set, &value, &mut full);
                Some(Content::Text(self.texts.add(&full)))
            }
            Variable::HighestSeverity => Some(Content::Number(i64::from(self.highest_severity))),
            Variable::Duration => {
                let micros = self.now_micros.saturating_sub(self.began_micros);
                Some(Content::Number(i64::try_from(micros).unwrap_or(i64::MAX)))
            }
            Variable::FullRequest | Variable::FullRequestLength => {
                Some(self.full_request(variable))
            }
            Variable::SessionId => Some(self.opened_key(Collection::Session)),
            Variable::UserId => Some(self.opened_key(Collection::User)),
            Variable::UrlencodedError
            | Variable::InboundDataError
            | Variable::OutboundDataError => Some(Content::Number(0)),
            Variable::Time => {
                let text = time::clock(self.now_seconds());
                Some(Content::Text(self.texts.add(text.as_bytes())))
            }
            // What was not sent is empty, and rules may ask whether it is.
            _ => match time::part(variable, self.now_seconds()) {
                Some(part) => Some(Content::Number(part)),
                None => Some(Content::Text(self.empty)),
            },
        }
    }

    fn opened_key(&mut self, collection: Collection) -> Content {
        let key = self
            .opened
            .iter()
            .find(|opened| opened.collection == collection)
            .map(|opened| opened.key.clone());
        Content::Text(self.texts.add(&key.unwrap_or_default()))
    }

    fn full_request(&mut self, variable: Variable) -> Content {
        let mut whole = Vec::new();
        for pair in &self.request_headers {
            whole.extend_from_slice(self.texts.get(pair.name));
            whole.extend_from_slice(b": ");
            whole.extend_from_slice(self.texts.get(pair.value));
            whole.push(b'\n');
        }
        whole.extend_from_slice(b"\n\n");
        whole.extend_from_slice(&self.body);
        if variable == Variable::FullRequestLength {
            return Content::Number(i64::try_from(whole.len()).unwrap_or(i64::MAX));
        }
        let content = Content::Text(self.texts.add(&whole));
        self.set_single(variable, content);
        content
    }

    /// Whether any of the targets means this value.
    pub(super) fn is_among(&self, set: &RuleSet, targets: &[Target], value: &Value) -> bool {
        targets
            .iter()
            .filter(|target| target.variable == value.variable && !target.count)
            .any(|target| match (&target.chosen, value.name) {
                (Chosen::All, _) => true,
                (Chosen::XmlText, name) => name == Name::Path("/*"),
                (Chosen::XmlAttributes, name) => name == Name::Path("//@*"),
                (Chosen::Slot(wanted), Name::Slot(slot)) => *wanted == slot,
                (chosen, Name::Text(id)) => is_chosen(chosen, self.texts.get(id)),
                (chosen, Name::Slot(slot)) => set
                    .slot_names
                    .get(usize::from(slot))
                    .is_some_and(|name| is_chosen(chosen, name)),
                (_, Name::None | Name::Path(_)) => false,
            })
    }
}

/// Whether a name is one of those that are meant.
fn is_chosen(chosen: &Chosen, name: &[u8]) -> bool {
    match chosen {
        Chosen::All => true,
        Chosen::Name(_, wanted) => name.eq_ignore_ascii_case(wanted),
        Chosen::Pattern(pattern) | Chosen::Slots(pattern, _) => pattern.is_match(name),
        Chosen::Slot(_) | Chosen::XmlText | Chosen::XmlAttributes => false,
    }
}
