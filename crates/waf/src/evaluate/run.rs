//! The rules of a phase, in order, over the state of one request.

use std::ops::Range;

use super::state::{Name, State, Value};
use super::strings::TextId;
use super::tx::Content;
use super::verdict::{Answer, Found, Interruption, MOST_PLACES, MOST_TOLD, Matched};
use super::workbench::Workbench;
use crate::prefilter::Waker;
use crate::rule::{After, Bits, ChainId, Link, Presets, Rule, RuleSet};
use crate::seclang::{Allow, Disruption, EngineMode, Variable};
use crate::tailor::{Lost, Tailored};

/// One phase under way.
pub(super) struct Run<'a> {
    pub(super) set: &'a RuleSet,
    /// Where rules lose targets by a tailoring.
    pub(super) tailored: Option<&'a Tailored>,
    /// What the request began with.
    pub(super) presets: &'a Presets,
    pub(super) state: &'a mut State,
    pub(super) bench: &'a mut Workbench,
}

/// The values that a rule is run for; the filter says that it matches no other.
struct Woken<'a> {
    wakers: &'a [Waker],
    values: &'a [Value],
    /// Where the rule's first link looks: the source of each of its targets.
    looked_at: &'a [u16],
    /// The sources of the phase.
    sources: &'a Range<u16>,
}

impl<'a> Woken<'a> {
    /// Those of the target at the place, and of others that differ from it by a pattern of names.
    fn values(&self, place: usize) -> impl Iterator<Item = &'a Value> + use<'a> {
        let source = self.looked_at.get(place).copied().unwrap_or(u16::MAX);
        let first = self.wakers.partition_point(|waker| waker.source < source);
        let wakers = self.wakers.get(first..).unwrap_or_default().iter();
        let values = self.values;
        wakers
            .take_while(move |waker| waker.source == source)
            .filter_map(move |waker| values.get(waker.value as usize))
    }
}

/// The values that a link does not look at.
struct Spared<'a> {
    has_removals: bool,
    /// By the tailoring.
    lost: Option<&'a [Lost]>,
    /// All but those that woke its rule.
    woken: Option<&'a Woken<'a>>,
}

/// What a rule has matched so far.
struct Matches {
    /// The first few.
    found: Vec<(Value, (usize, usize))>,
    values: u32,
}

impl Run<'_> {
    /// Runs the rules of a phase, 1 to 5.
    pub(super) fn phase(&mut self, number: u8) {
        if self.is_allowed(number) {
            return;
        }
        self.state.allowed = None;
        let set = self.set;
        let Some(phase) = set.phases.get(usize::from(number) - 1) else {
            return;
        };
        let mut live = std::mem::take(&mut self.bench.live);
        let mut woken = std::mem::take(&mut self.bench.woken);
        set.prefilter
            .live(set, number, self.state, self.bench, (&mut live, &mut woken));
        let mut unreached = std::mem::take(&mut self.bench.unreached);
        self.leave_out(number, &mut live, &mut unreached);
        let sources = set.prefilter.sources(number);
        let mut wakers = woken.wakers.as_slice();
        let mut position = 0;
        while let Some(next) = live.next(position) {
            position = next + 1;
            if self.state.mode == EngineMode::Off {
                break;
            }
            let Some(step) = phase.steps.get(next) else {
                break;
            };
            let index = step.rule as usize;
            if self.state.has_removed && self.state.removed.has(index) {
                continue;
            }
            if set.prefilter.is_shut(number, next, self.state) {
                continue;
            }
            if let Some(lookup) = set.prefilter.lookup(number, next)
                && self.finds_nothing(lookup)
            {
                continue;
            }
            let Some(rule) = set.rules.get(index) else {
                break;
            };
            let passed = wakers.partition_point(|waker| (waker.position as usize) < next);
            wakers = wakers.get(passed..).unwrap_or_default();
            let own = wakers.partition_point(|waker| waker.position as usize == next);
            let looked_at = set.prefilter.looked_at(number, next);
            let woken = looked_at.map(|looked_at| Woken {
                wakers: wakers.get(..own).unwrap_or_default(),
                values: &woken.values,
                looked_at,
                sources: &sources,
            });
            self.rule(index, rule, next, woken.as_ref());
            if self.state.has_removed && self.lost_skips() {
                live.add(&unreached);
            }
            if let Some(to) = self.state.go_to.take() {
                position = position.max(to as usize);
            }
            let is_interrupted = self.state.interruption.is_some() && number < 5;
            if is_interrupted || self.state.allowed.is_some() {
                break;
            }
        }
        self.bench.live = live;
        self.bench.woken = woken;
        self.bench.unreached = unreached;
    }

    /// Moves from `live` to `unreached` the steps that no request reaches which began as this one did.
    fn leave_out(&self, number: u8, live: &mut Bits, unreached: &mut Bits) {
        unreached.0.clear();
        if self.state.has_removed && self.lost_skips() {
            return;
        }
        let Some(reached) = self.presets.reached.get(usize::from(number) - 1) else {
            return;
        };
        for (live, reached) in live.0.iter_mut().zip(&reached.0) {
            unreached.0.push(*live & !reached);
            *live &= reached;
        }
    }

    /// Whether a rule was removed that would have skipped others.
    fn lost_skips(&self) -> bool {
        self.state.removed.meets(self.set.prefilter.followed())
    }

    /// Runs the constant rules of phase 1, and no other. What is given stays as it is.
    pub(super) fn constants(&mut self, given: &Presets) {
        let set = self.set;
        let [first, ..] = &set.phases;
        let mut from = 0;
        while let Some(position) = set.constant.next(from) {
            from = position + 1;
            let Some(step) = first.steps.get(position) else {
                break;
            };
            let index = step.rule as usize;
            if let Some(rule) = set.rules.get(index) {
                self.rule(index, rule, position, None);
                self.state.preset(given);
            }
        }
    }

    fn is_allowed(&self, number: u8) -> bool {
        match self.state.allowed {
            Some(Allow::All) => number < 5,
            Some(Allow::Request) => number <= 2,
            Some(Allow::Phase) | None => false,
        }
    }

    fn rule(&mut self, index: usize, rule: &Rule, position: usize, woken: Option<&Woken<'_>>) {
        self.state.matching.clear();
        let mut matches = Matches {
            found: std::mem::take(&mut self.bench.found),
            values: 0,
        };
        matches.found.clear();
        if self.links(index, rule, woken, &mut matches) {
            // Innermost first, as ModSecurity returns from the chain.
            for link in rule.links.iter().rev() {
                for after in &link.after {
                    self.after(after, position);
                }
            }
            self.conclude(rule, &matches);
        }
        self.bench.found = matches.found;
    }

    /// Runs the chain. Whether all of it matched.
    fn links(
        &mut self,
        index: usize,
        rule: &Rule,
        woken: Option<&Woken<'_>>,
        matches: &mut Matches,
    ) -> bool {
        for (depth, link) in rule.links.iter().enumerate() {
            let first = depth == 0;
            let spared = Spared {
                has_removals: self.has_removals(index),
                lost: self
                    .tailored
                    .filter(|_| first)
                    .and_then(|tailored| tailored.lost(index)),
                woken: woken.filter(|_| first),
            };
            let told = (rule.logged && first).then_some(&mut *matches);
            if !self.link(index, link, &spared, told) {
                return false;
            }
        }
        true
    }

    fn has_removals(&self, index: usize) -> bool {
        self.state
            .removals
            .iter()
            .any(|removal| removal.rules.has(index))
    }

    /// Runs one link over all its values. Whether any matched.
    fn link(
        &mut self,
        index: usize,
        link: &Link,
        spared: &Spared<'_>,
        mut told: Option<&mut Matches>,
    ) -> bool {
        let Some(operator) = link.operator else {
            self.assign_all(link);
            return true;
        };
        let mut matched = false;
        if let Some(woken) = spared.woken {
            for (place, target) in link.targets.iter().enumerate() {
                for value in woken.values(place) {
                    if !self.state.is_meant(target, value)
                        || self.is_excluded(index, link, value, spared)
                    {
                        continue;
                    }
                    if self.value(operator, link, value, told.as_deref_mut()) {
                        matched = true;
                    } else if let Content::Text(id) = value.content {
                        self.let_sleep(woken, id);
                    }
                }
            }
            return matched;
        }
        let mut values = std::mem::take(&mut self.bench.values);
        for target in &link.targets {
            values.clear();
            self.state.collect(self.set, target, &mut values);
            for value in &values {
                matched |= !self.is_excluded(index, link, value, spared)
                    && self.value(operator, link, value, told.as_deref_mut());
            }
        }
        self.bench.values = values;
        matched
    }

    fn is_excluded(&self, index: usize, link: &Link, value: &Value, spared: &Spared<'_>) -> bool {
        if !link.excluded.is_empty() && self.state.is_among(self.set, &link.excluded, value) {
            return true;
        }
        if spared.lost.is_some_and(|lost| self.is_lost(lost, value)) {
            return true;
        }
        spared.has_removals
            && self.state.removals.iter().any(|removal| {
                removal.rules.has(index) && self.state.is_among(self.set, &removal.targets, value)
            })
    }

    /// The rule under way does not match the text, which depends on the text alone: it is not woken
    /// for it again.
    fn let_sleep(&mut self, woken: &Woken<'_>, id: TextId) {
        let seen = &mut self.bench.seen;
        let spot = self.state.texts.spot(id, seen);
        if let (Some(spot), Some(waker)) = (spot, woken.wakers.first()) {
            seen.let_sleep(spot, woken.sources, waker.position);
        }
    }

    fn is_lost(&self, lost: &[Lost], value: &Value) -> bool {
        let now = self.state.began_micros;
        lost.iter()
            .any(|lost| lost.holds(now) && self.state.is_among(self.set, &lost.targets, value))
    }

    /// Looks at a value in each stage of its transformation that the link asks for.
    fn value(
        &mut self,
        operator: u16,
        link: &Link,
        value: &Value,
        mut told: Option<&mut Matches>,
    ) -> bool {
        let mut matched = false;
        let mut last: Option<Content> = None;
        for &stage in &link.stages {
            let content = self.staged(link, value.content, stage);
            if last == Some(content) {
                continue;
            }
            last = Some(content);
            if let Some(hit) = self.test(operator, link, content) {
                matched = true;
                let value = Value { content, ..*value };
                self.matched(link, value);
                if let Some(told) = told.as_deref_mut() {
                    told.values = told.values.saturating_add(1);
                    if told.found.len() < MOST_PLACES {
                        told.found.push((value, hit));
                    }
                }
            }
        }
        matched
    }

    fn staged(&mut self, link: &Link, content: Content, stage: ChainId) -> Content {
        if stage == 0 {
            return content;
        }
        let id = self.state.text_of(content);
        if link.measures {
            let before = self
                .set
                .chains
                .get(usize::from(stage))
                .map_or(0, |chain| chain.before);
            let id = self.state.texts.transformed(&self.set.chains, id, before);
            return Content::Number(
                i64::try_from(self.state.texts.get(id).len()).unwrap_or(i64::MAX),
            );
        }
        Content::Text(self.state.texts.transformed(&self.set.chains, id, stage))
    }

    fn matched(&mut self, link: &Link, value: Value) {
        self.state.matching.push(value);
        self.assign_all(link);
    }

    fn assign_all(&mut self, link: &Link) {
        for assign in &link.assigns {
            self.assign(assign);
        }
    }

    /// How a match is told. Most rules that match a value are chains of which another fails, so that
    /// nobody asks.
    fn found(&mut self, &(value, hit): &(Value, (usize, usize))) -> Found {
        let mut name = Vec::new();
        self.state.full_name(self.set, &value, &mut name);
        let mut bytes = Vec::new();
        if self.is_hidden(&value) {
            bytes.extend_from_slice(b"<hidden>");
        } else {
            let mut whole = Vec::new();
            self.state.write(value.content, &mut whole);
            let (start, end) = hit;
            let end = end.min(start.saturating_add(MOST_TOLD)).min(whole.len());
            bytes.extend_from_slice(whole.get(start..end).unwrap_or_default());
        }
        Found {
            variable: String::from_utf8_lossy(&name).into_owned(),
            bytes,
        }
    }

    fn is_hidden(&self, value: &Value) -> bool {
        self.state.hidden.iter().any(|(variable, name)| {
            let same = *variable == value.variable
                || (*variable == Variable::Args && is_argument(value.variable));
            let text = match value.name {
                Name::Text(id) => self.state.texts.get(id),
                _ => b"",
            };
            same && text.eq_ignore_ascii_case(name)
        })
    }

    /// A rule has matched with its whole chain.
    fn conclude(&mut self, rule: &Rule, matches: &Matches) {
        self.state.records |= rule.audited;
        let mut message = String::new();
        if rule.logged {
            let told = self.told(rule, matches);
            message.clone_from(&told.message);
            if let Some(severity) = told.severity {
                self.state.highest_severity = self.state.highest_severity.min(severity);
            }
            self.state.matched.push(told);
        } else if !matches!(rule.disruption, Disruption::Pass | Disruption::Block) {
            message = self.message(rule);
        }
        if self.state.mode == EngineMode::On {
            self.disrupt(rule, message);
        }
    }

    fn told(&mut self, rule: &Rule, matches: &Matches) -> Matched {
        let mut found: Vec<Found> = matches.found.iter().map(|one| self.found(one)).collect();
        let mut after = rule.links.iter().flat_map(|link| &link.after);
        if after.any(|after| matches!(after, After::HideMatched)) {
            for found in &mut found {
                found.bytes = b"<hidden>".to_vec();
            }
        }
        let first =
            |pick: fn(&Link) -> Option<&crate::rule::Template>| rule.links.iter().find_map(pick);
        let mut data = Vec::new();
        if let Some(template) = first(|link| link.log_data.as_ref()) {
            self.expand(template, &mut data);
            data.truncate(MOST_TOLD * 4);
        }
        Matched {
            rule: rule.id,
            phase: rule.phase,
            message: self.message(rule),
            data,
            severity: rule.links.iter().find_map(|link| link.severity),
            tags: rule.tags.iter().map(ToString::to_string).collect(),
            found,
            values: matches.values,
        }
    }

    fn message(&mut self, rule: &Rule) -> String {
        let mut text = Vec::new();
        if let Some(template) = rule.links.iter().find_map(|link| link.message.as_ref()) {
            self.expand(template, &mut text);
        }
        text.truncate(MOST_TOLD * 4);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn disrupt(&mut self, rule: &Rule, message: String) {
        let (answer, status) = match &rule.disruption {
            Disruption::Pass | Disruption::Block => return,
            Disruption::Allow(scope) => {
                self.state.allowed = Some(*scope);
                return;
            }
            Disruption::Deny => (Answer::Deny, rule.status),
            Disruption::Drop => (Answer::Drop, rule.status),
            Disruption::Redirect(_) => {
                let mut to = Vec::new();
                if let Some(template) = &rule.redirect {
                    self.expand(template, &mut to);
                }
                let status = if (300..400).contains(&rule.status) {
                    rule.status
                } else {
                    302
                };
                (
                    Answer::Redirect(String::from_utf8_lossy(&to).into_owned()),
                    status,
                )
            }
        };
        if self.state.interruption.is_none() {
            let interruption = Interruption {
                rule: rule.id,
                phase: rule.phase,
                answer,
                status,
                message,
            };
            self.state.interruption = Some(interruption);
        }
    }
}

fn is_argument(variable: Variable) -> bool {
    matches!(
        variable,
        Variable::Args | Variable::ArgsGet | Variable::ArgsPost
    )
}
