//! Rules of phase 1 that come out the same for every request, run once at the load.
//!
//! Rule sets begin by giving their variables a value where nobody has: CRS with some 25 rules. Such
//! a rule is run here if it reads and writes nothing but TX variables, and no rule that stays before
//! it could tell the difference: none skips or removes it, or reads or writes what it writes, or
//! writes what it reads.

use crate::operator::Operator;
use crate::rule::{
    After, Assign, Bits, Change, Chosen, Key, Link, Part, Rule, RuleSet, Target, Template,
};
use crate::seclang::{Collection, Disruption, Variable};

/// The positions in phase 1 of the rules that are run at the load.
pub(super) fn positions(set: &RuleSet) -> Bits {
    let [first, ..] = &set.phases;
    let mut found = Bits::with_room_for(first.steps.len());
    let mut stays = Touched::new(set.slot_names.len());
    let mut removed = Bits::with_room_for(set.rules.len());
    for (position, step) in first.steps.iter().enumerate() {
        let Some(rule) = set.rules.get(step.rule as usize) else {
            break;
        };
        let touched = Touched::by(rule, set);
        let is_free = !removed.has(step.rule as usize) && !stays.conflicts(&touched);
        if is_free && is_constant(rule, set) {
            found.set(position);
            continue;
        }
        if changes_course(rule) {
            break;
        }
        stays.add(&touched);
        for after in rule.links.iter().flat_map(|link| &link.after) {
            if let After::RemoveRules(rules) = after {
                removed.add(rules);
            }
        }
    }
    found
}

fn is_constant(rule: &Rule, set: &RuleSet) -> bool {
    let [link] = &*rule.links else { return false };
    let silent = !rule.logged && !rule.audited && rule.disruption == Disruption::Pass;
    let plain =
        link.after.is_empty() && link.excluded.is_empty() && !link.capture && *link.stages == [0];
    silent
        && plain
        && link.targets.iter().all(is_tx)
        && has_constant_operator(link, set)
        && link.assigns.iter().all(is_constant_assign)
}

fn is_tx(target: &Target) -> bool {
    target.variable == Variable::Tx && matches!(target.chosen, Chosen::Slot(_))
}

fn has_constant_operator(link: &Link, set: &RuleSet) -> bool {
    match set.operator(link) {
        None => link.operator.is_none(),
        Some(Operator::Number(_, other) | Operator::Text(_, other)) => is_of_tx(other),
        Some(_) => false,
    }
}

fn is_constant_assign(assign: &Assign) -> bool {
    assign.collection == Collection::Tx
        && matches!(assign.key, Key::Slot(_))
        && assign.texts().all(is_of_tx)
}

fn is_of_tx(template: &Template) -> bool {
    template
        .0
        .iter()
        .all(|part| !matches!(part, Part::Value(..)))
}

/// Whether the rules after it are not always run, or run in another mode.
fn changes_course(rule: &Rule) -> bool {
    let courses =
        |after: &After| matches!(after, After::Skip(_) | After::GoTo(_) | After::Engine(_));
    matches!(rule.disruption, Disruption::Allow(_))
        || rule.links.iter().any(|link| link.after.iter().any(courses))
}

/// The TX variables that rules read and write.
struct Touched {
    reads: Bits,
    writes: Bits,
    reads_any: bool,
    writes_any: bool,
}

impl Touched {
    fn new(slots: usize) -> Self {
        let none = Bits::with_room_for(slots);
        Self {
            reads: none.clone(),
            writes: none,
            reads_any: false,
            writes_any: false,
        }
    }

    fn by(rule: &Rule, set: &RuleSet) -> Self {
        let mut touched = Self::new(set.slot_names.len());
        touched.read_template(rule.redirect.as_ref());
        for link in &rule.links {
            touched.add_link(link, set);
        }
        touched
    }

    fn add_link(&mut self, link: &Link, set: &RuleSet) {
        for target in link
            .targets
            .iter()
            .filter(|target| target.variable == Variable::Tx)
        {
            match target.chosen {
                Chosen::Slot(slot) => self.reads.set(usize::from(slot)),
                _ => self.reads_any = true,
            }
        }
        if let Some(Operator::Number(_, other) | Operator::Text(_, other)) = set.operator(link) {
            self.read_template(Some(other));
        }
        self.read_template(link.message.as_ref());
        self.read_template(link.log_data.as_ref());
        if link.capture {
            (0..10).for_each(|group| self.writes.set(group));
        }
        for assign in link
            .assigns
            .iter()
            .filter(|assign| assign.collection == Collection::Tx)
        {
            self.add_assign(assign);
        }
        for text in link.after.iter().flat_map(After::texts) {
            self.read_template(Some(text));
        }
    }

    fn add_assign(&mut self, assign: &Assign) {
        match &assign.key {
            Key::Slot(slot) => self.writes.set(usize::from(*slot)),
            Key::Named(_) => self.writes_any = true,
        }
        self.read_template(assign.change.text());
        if let (Change::Add(_) | Change::Subtract(_), Key::Slot(slot)) =
            (&assign.change, &assign.key)
        {
            self.reads.set(usize::from(*slot));
        }
    }

    fn read_template(&mut self, template: Option<&Template>) {
        for part in template.into_iter().flat_map(|template| &template.0) {
            if let Part::Slot(slot) = part {
                self.reads.set(usize::from(*slot));
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.reads_any |= other.reads_any;
        self.writes_any |= other.writes_any;
    }

    /// Whether what `later` does would come out otherwise, or be seen, before these.
    fn conflicts(&self, later: &Self) -> bool {
        let later_writes = later.writes_any || later.writes.0.iter().any(|word| *word != 0);
        self.writes_any
            || (self.reads_any && later_writes)
            || self.writes.meets(&later.reads)
            || self.writes.meets(&later.writes)
            || self.reads.meets(&later.writes)
    }
}
