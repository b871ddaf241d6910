//! What a rule asks first and is told in a few instructions: numbers, and whether a header was sent.
//!
//! Owns the gates of a phase's rules, and which of its steps no request reaches because a variable that
//! nothing changes says so: CRS skips over each paranoia level's rules, and has a rule for each level in
//! each sum. It only ever leaves out what would not match, or would be jumped over.
//! Must not: know what a match does.

use crate::bytes::leading_number;
use crate::evaluate::{Content, State};
use crate::operator::{Operator, compare};
use crate::rule::{
    After, Bits, Chosen, Guard, Key, Link, NameId, Part, Phase, Preset, Presets, Rule, RuleSet,
    Slot, Target, Template,
};
use crate::seclang::{Collection, NumberTest, Variable};

/// The gates of a phase's steps.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// Where each step's gates begin and end.
    spans: Vec<(u32, u32)>,
    gates: Vec<Gate>,
}

/// What must hold for a rule to match.
#[derive(Debug)]
enum Gate {
    Number {
        what: Measured,
        test: NumberTest,
        bound: Bound,
        negated: bool,
    },
    /// One of these was sent.
    Sent(Box<[Sent]>),
}

#[derive(Clone, Copy, Debug)]
enum Measured {
    /// A TX variable.
    Slot(Slot),
    /// 1 where a TX variable is set, 0 where it is not.
    IsSet(Slot),
    /// The headers of a name.
    Headers(NameId),
    /// The headers of a form's parts, of a name or all.
    PartHeaders(Option<NameId>),
    /// A number that is 0 until something sets it.
    Single(Variable),
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    Number(i64),
    Slot(Slot),
}

#[derive(Clone, Copy, Debug)]
enum Sent {
    Header(NameId),
    File,
    PartHeader,
}

impl Gates {
    pub(super) fn new(phase: &Phase, rules: &[Rule], operators: &[Operator]) -> Self {
        let mut made = Self::default();
        for step in &phase.steps {
            let from = made.gates.len();
            if let Some(rule) = rules.get(step.rule as usize) {
                made.gates.extend(gates(rule, operators));
            }
            let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            made.spans.push((place(from), place(made.gates.len())));
        }
        made
    }

    fn of(&self, position: usize) -> &[Gate] {
        let (from, to) = self.spans.get(position).copied().unwrap_or_default();
        self.gates
            .get(from as usize..to as usize)
            .unwrap_or_default()
    }

    /// Whether the rule at the position cannot match what the request is now.
    #[inline]
    pub(super) fn is_shut(&self, position: usize, state: &State) -> bool {
        self.of(position).iter().any(|gate| !gate.holds(state))
    }

    /// Whether it cannot match by the values that no request changes.
    fn is_shut_by(&self, position: usize, constants: &Constants) -> bool {
        self.of(position)
            .iter()
            .any(|gate| gate.holds_by(constants) == Some(false))
    }
}

/// The gates of a rule: those of each link up to the first that leaves a trace when a later one fails.
fn gates(rule: &Rule, operators: &[Operator]) -> Vec<Gate> {
    let mut found = Vec::new();
    for link in &rule.links {
        let operator = link
            .operator
            .and_then(|operator| operators.get(usize::from(operator)));
        found.extend(operator.and_then(|operator| number(link, operator)));
        found.extend(operator.and_then(|_| sent(link)));
        if link.capture || !link.assigns.is_empty() {
            break;
        }
    }
    found
}

fn number(link: &Link, operator: &Operator) -> Option<Gate> {
    let (Operator::Number(test, bound), [target], [0]) = (operator, &*link.targets, &*link.stages)
    else {
        return None;
    };
    Some(Gate::Number {
        what: measured(target)?,
        test: *test,
        bound: Bound::of(bound)?,
        negated: link.negated,
    })
}

fn measured(target: &Target) -> Option<Measured> {
    use Variable as V;
    Some(match (target.variable, &target.chosen, target.count) {
        (V::Tx, Chosen::Slot(slot), false) => Measured::Slot(*slot),
        (V::Tx, Chosen::Slot(slot), true) => Measured::IsSet(*slot),
        (V::RequestHeaders, Chosen::Name(name, _), true) if *name != 0 => Measured::Headers(*name),
        (V::MultipartPartHeaders, Chosen::Name(name, _), true) if *name != 0 => {
            Measured::PartHeaders(Some(*name))
        }
        (V::MultipartPartHeaders, Chosen::All, true) => Measured::PartHeaders(None),
        (
            V::RequestBodyLength
            | V::ReqbodyError
            | V::ReqbodyProcessorError
            | V::MultipartStrictError
            | V::UrlencodedError
            | V::InboundDataError
            | V::OutboundDataError,
            Chosen::All,
            false,
        ) => Measured::Single(target.variable),
        _ => return None,
    })
}

/// That one of the targets has a value, where that is quickly told of all of them.
fn sent(link: &Link) -> Option<Gate> {
    use Variable as V;
    let sent = |target: &Target| match (target.variable, &target.chosen, target.count) {
        (_, _, true) => None,
        (V::RequestHeaders, Chosen::Name(name, _), _) if *name != 0 => Some(Sent::Header(*name)),
        (V::MultipartPartHeaders, ..) => Some(Sent::PartHeader),
        (
            V::Files
            | V::FilesNames
            | V::FilesSizes
            | V::FilesTmpContent
            | V::MultipartFilename
            | V::MultipartName,
            ..,
        ) => Some(Sent::File),
        _ => None,
    };
    let all: Option<Box<[Sent]>> = link.targets.iter().map(sent).collect();
    all.map(Gate::Sent)
}

impl Bound {
    fn of(template: &Template) -> Option<Self> {
        match &*template.0 {
            [Part::Slot(slot)] => Some(Self::Slot(*slot)),
            _ => Some(Self::Number(leading_number(template.literal()?))),
        }
    }
}

impl Gate {
    fn holds(&self, state: &State) -> bool {
        let slot = |slot| state.tx.get(slot).map(|content| state.number_of(content));
        match self {
            Self::Number {
                what,
                test,
                bound,
                negated,
            } => {
                let value = match what {
                    Measured::Slot(place) => slot(*place),
                    Measured::IsSet(place) => Some(i64::from(state.tx.get(*place).is_some())),
                    Measured::Headers(name) => Some(state.headers_named(*name)),
                    Measured::PartHeaders(name) => Some(state.part_headers_named(*name)),
                    Measured::Single(variable) => Some(
                        state
                            .single(*variable)
                            .map_or(0, |content: Content| state.number_of(content)),
                    ),
                };
                let bound = match bound {
                    Bound::Number(number) => *number,
                    Bound::Slot(place) => slot(*place).unwrap_or(0),
                };
                value.is_some_and(|value| compare(*test, value, bound) != *negated)
            }
            Self::Sent(any) => any.iter().any(|sent| match sent {
                Sent::Header(name) => state.headers_named(*name) > 0,
                Sent::File => !state.files.is_empty(),
                Sent::PartHeader => !state.part_headers.is_empty(),
            }),
        }
    }

    /// Whether it holds whatever is sent; nothing where that depends.
    fn holds_by(&self, constants: &Constants) -> Option<bool> {
        let Self::Number {
            what,
            test,
            bound,
            negated,
        } = self
        else {
            return None;
        };
        let value = match what {
            Measured::Slot(slot) => constants.of(*slot)?.number(),
            Measured::IsSet(slot) => Some(i64::from(constants.of(*slot)?.0.is_some())),
            _ => return None,
        };
        let bound = match bound {
            Bound::Number(number) => *number,
            Bound::Slot(slot) => constants.of(*slot)?.number().unwrap_or(0),
        };
        Some(value.is_some_and(|value| compare(*test, value, bound) != *negated))
    }
}

/// The TX variables that no rule of a request writes, and what they hold.
struct Constants<'a> {
    fixed: &'a Bits,
    presets: &'a Presets,
}

/// What a variable holds in every request, if it is set.
struct Constant<'a>(Option<&'a Preset>);

impl Constant<'_> {
    fn number(&self) -> Option<i64> {
        self.0.map(|preset| match preset {
            Preset::Number(number) => *number,
            Preset::Text(text) => leading_number(text),
        })
    }
}

impl<'a> Constants<'a> {
    /// Nothing where requests change the variable.
    fn of(&self, slot: Slot) -> Option<Constant<'a>> {
        let mut presets = self.presets.values.iter();
        let is_fixed = self.fixed.has(usize::from(slot));
        is_fixed.then(|| {
            let preset = presets.find(|(known, _)| *known == slot);
            Constant(preset.map(|(_, preset)| preset))
        })
    }
}

/// What is known of a rule set's course before any request.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// TX variables that no rule of a request writes.
    fixed: Bits,
    /// Skips that turn on such a variable alone, by rule.
    pub(super) skips: Bits,
}

impl Course {
    pub(super) fn of(set: &RuleSet) -> Self {
        let fixed = fixed(set);
        let mut skips = Bits::with_room_for(set.rules.len());
        for phase in &set.phases {
            let jumps = jumps(phase, &set.rules);
            for (position, step) in phase.steps.iter().enumerate() {
                if let Some(guard) = &step.guard
                    && fixed.has(usize::from(guard.slot))
                    && !jumps.iter().any(|&(from, to)| {
                        from <= position && position < to && to < guard.to as usize
                    })
                {
                    skips.set(step.rule as usize);
                }
            }
        }
        Self { fixed, skips }
    }

    /// The steps of a phase that requests with these presets may reach.
    pub(super) fn reached(&self, phase: &Phase, gates: &Gates, presets: &Presets) -> Bits {
        let constants = Constants {
            fixed: &self.fixed,
            presets,
        };
        let is_met = |guard: &Guard| {
            let value = constants.of(guard.slot).and_then(|it| it.number());
            value.is_some_and(|value| compare(guard.test, value, guard.bound))
        };
        let mut reached = Bits::with_room_for(phase.steps.len());
        let mut next = 0;
        for (position, step) in phase.steps.iter().enumerate() {
            if position < next {
                continue;
            }
            match &step.guard {
                Some(guard) if self.skips.has(step.rule as usize) => {
                    if is_met(guard) {
                        next = guard.to as usize;
                    }
                }
                _ if gates.is_shut_by(position, &constants) => {}
                _ => reached.set(position),
            }
        }
        reached
    }
}

/// The TX variables that no rule writes but the constant ones, which are not run again.
fn fixed(set: &RuleSet) -> Bits {
    let mut fixed = Bits::with_room_for(set.slot_names.len());
    (0..set.slot_names.len()).for_each(|slot| fixed.set(slot));
    let [first, rest @ ..] = &set.phases;
    let first = first.steps.iter().enumerate();
    let first = first.filter(|(position, _)| !set.constant.has(*position));
    let steps = first
        .map(|(_, step)| step)
        .chain(rest.iter().flat_map(|phase| &phase.steps));
    let links = steps
        .filter_map(|step| set.rules.get(step.rule as usize))
        .flat_map(|rule| &rule.links);
    for link in links {
        if link.capture {
            (0..10).for_each(|group| fixed.clear(group));
        }
        for assign in &link.assigns {
            match (&assign.key, assign.collection) {
                (Key::Slot(slot), _) => fixed.clear(usize::from(*slot)),
                (Key::Named(name), Collection::Tx) => {
                    let start = match &*name.0 {
                        [Part::Text(start), ..] => start.to_ascii_lowercase(),
                        _ => Vec::new(),
                    };
                    for (slot, name) in set.slot_names.iter().enumerate() {
                        if name.starts_with(&start) {
                            fixed.clear(slot);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    fixed
}

/// From where to where rules of the phase may go on.
fn jumps(phase: &Phase, rules: &[Rule]) -> Vec<(usize, usize)> {
    let mut jumps = Vec::new();
    for (position, step) in phase.steps.iter().enumerate() {
        let links = rules.get(step.rule as usize).map(|rule| &rule.links);
        for after in links.into_iter().flatten().flat_map(|link| &link.after) {
            match after {
                After::GoTo(to) => jumps.push((position, *to as usize)),
                After::Skip(rules) => {
                    jumps.push((position, (position + 1).saturating_add(*rules as usize)));
                }
                _ => {}
            }
        }
    }
    jumps
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
