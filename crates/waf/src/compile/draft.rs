//! Rules as their file leaves them: chains joined, defaults applied, ids unique.

use std::collections::HashMap;

use crate::rule::Settings;
use crate::seclang::{
    Action, Disruption, LoadError, Macro, OperatorSpec, Place, RuleSpec, Select, Setting,
    Statement, TargetSpec,
};
use crate::transform::Transform;

/// What the files say, in order.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) rules: Vec<Draft>,
    /// Markers and the number of rules before each.
    pub(super) markers: Vec<(Box<str>, usize)>,
    pub(super) changes: Vec<Statement>,
    pub(super) settings: Settings,
}

/// A rule and its chain.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) place: Place,
    pub(super) id: u64,
    pub(super) phase: u8,
    pub(super) tags: Vec<Box<str>>,
    pub(super) logged: bool,
    pub(super) audited: bool,
    pub(super) disruption: Disruption,
    pub(super) status: u16,
    pub(super) links: Vec<DraftLink>,
    /// Its place among all rules of the files; markers count by it.
    pub(super) order: usize,
    /// Left out of the set.
    pub(super) removed: bool,
}

/// One rule of a chain.
#[derive(Debug)]
pub(super) struct DraftLink {
    pub(super) place: Place,
    pub(super) targets: Vec<TargetSpec>,
    pub(super) excluded: Vec<TargetSpec>,
    pub(super) operator: Option<OperatorSpec>,
    pub(super) transforms: Vec<Transform>,
    pub(super) multi_match: bool,
    pub(super) capture: bool,
    pub(super) message: Option<Macro>,
    pub(super) log_data: Option<Macro>,
    pub(super) severity: Option<u8>,
    /// `setvar`, `ctl` and the like, in order.
    pub(super) actions: Vec<Action>,
}

/// What `SecDefaultAction` says of a phase.
#[derive(Clone, Debug)]
struct Defaults {
    disruption: Disruption,
    status: u16,
    logged: bool,
    audited: bool,
    transforms: Vec<Transform>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            disruption: Disruption::Pass,
            status: 403,
            logged: true,
            audited: true,
            transforms: Vec::new(),
        }
    }
}

pub(super) fn gather(
    statements: Vec<Statement>,
    without_settings: Option<&str>,
) -> Result<Gathered, LoadError> {
    let mut gathered = Gathered::default();
    let mut defaults: HashMap<u8, Defaults> = HashMap::new();
    let mut places: HashMap<u64, Place> = HashMap::new();
    let mut open: Option<Draft> = None;
    let is_refused =
        |place: &Place| without_settings.is_some_and(|begin| place.file.starts_with(begin));
    for statement in statements {
        match statement {
            Statement::Rule(spec) => {
                let continues = has_chain(&spec);
                let draft = match open.take() {
                    Some(chain) if chain.place.file != spec.place.file => {
                        return Err(unfinished(&chain));
                    }
                    Some(chain) => join(chain, spec)?,
                    None => start(spec, &defaults, gathered.rules.len())?,
                };
                if continues {
                    open = Some(draft);
                } else {
                    if let Some(first) = places.insert(draft.id, draft.place.clone()) {
                        let message = format!(
                            "the id {} is taken by {}:{}",
                            draft.id, first.file, first.line
                        );
                        return Err(draft.place.error(message));
                    }
                    gathered.rules.push(draft);
                }
            }
            Statement::Default(place, actions) => {
                let (phase, default) = read_default(&place, &actions)?;
                defaults.insert(phase, default);
            }
            Statement::Marker(name) => gathered.markers.push((name, gathered.rules.len())),
            Statement::Setting(place, _) if is_refused(&place) => {
                let message = "this setting is not for a rule file: the mode, the limits and whether bodies are \
                               inspected are the policy's";
                return Err(place.error(message));
            }
            Statement::Setting(_, setting) => set(&mut gathered.settings, setting),
            change => gathered.changes.push(change),
        }
    }
    match open {
        Some(chain) => Err(unfinished(&chain)),
        None => Ok(gathered),
    }
}

fn unfinished(chain: &Draft) -> LoadError {
    chain.place.error("the chain has no next rule")
}

fn has_chain(spec: &RuleSpec) -> bool {
    spec.actions
        .iter()
        .any(|action| matches!(action, Action::Chain))
}

fn start(
    spec: RuleSpec,
    defaults: &HashMap<u8, Defaults>,
    order: usize,
) -> Result<Draft, LoadError> {
    let place = spec.place.clone();
    let phase = spec.actions.iter().rev().find_map(|action| match action {
        Action::Phase(phase) => Some(*phase),
        _ => None,
    });
    let phase = phase.unwrap_or(2);
    let default = defaults.get(&phase).cloned().unwrap_or_default();
    let mut draft = Draft {
        place: place.clone(),
        id: 0,
        phase,
        tags: Vec::new(),
        logged: default.logged,
        audited: default.audited,
        disruption: default.disruption.clone(),
        status: default.status,
        links: Vec::new(),
        order,
        removed: false,
    };
    apply_actions(&mut draft, &spec.actions, &default);
    if draft.id == 0 {
        return Err(place.error("the rule has no id: add `id:N` with a number of its own"));
    }
    draft.links.push(link(spec, &default.transforms));
    Ok(draft)
}

/// The actions that are the rule's as a whole.
fn apply_actions(draft: &mut Draft, actions: &[Action], default: &Defaults) {
    for action in actions {
        match action {
            Action::Id(id) => draft.id = *id,
            Action::Tag(tag) => draft.tags.push(tag.clone()),
            Action::Disruption(Disruption::Block) => draft.disruption = default.disruption.clone(),
            Action::Disruption(disruption) => draft.disruption = disruption.clone(),
            Action::Status(status) => draft.status = *status,
            Action::Log(logged) => {
                draft.logged = *logged;
                draft.audited = *logged;
            }
            Action::Audit(audited) => draft.audited = *audited,
            _ => {}
        }
    }
}

fn join(mut chain: Draft, spec: RuleSpec) -> Result<Draft, LoadError> {
    for action in &spec.actions {
        let wrong = match action {
            Action::Id(_) => "an id",
            Action::Phase(phase) if *phase != chain.phase => "a phase",
            Action::Disruption(Disruption::Block | Disruption::Pass) => continue,
            Action::Disruption(_) => "a disruptive action",
            Action::SkipAfter(_) | Action::Skip(_) => "a skip",
            _ => continue,
        };
        let message = format!(
            "a rule inside a chain has {wrong} of its own: write it on the chain's first rule"
        );
        return Err(spec.place.error(message));
    }
    chain.links.push(link(spec, &[]));
    Ok(chain)
}

fn link(spec: RuleSpec, default_transforms: &[Transform]) -> DraftLink {
    let (excluded, targets) = spec.targets.into_iter().partition(|target| target.exclude);
    let mut link = DraftLink {
        place: spec.place,
        targets,
        excluded,
        operator: spec.operator,
        transforms: default_transforms.to_vec(),
        multi_match: false,
        capture: false,
        message: None,
        log_data: None,
        severity: None,
        actions: Vec::new(),
    };
    link.take(spec.actions);
    link
}

impl DraftLink {
    /// Takes the actions that are this link's.
    pub(super) fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::NoTransform => self.transforms.clear(),
                Action::Transform(transform) => self.transforms.push(transform),
                Action::MultiMatch => self.multi_match = true,
                Action::Capture => self.capture = true,
                Action::Message(message) => self.message = Some(message),
                Action::LogData(data) => self.log_data = Some(data),
                Action::Severity(severity) => self.severity = Some(severity),
                Action::Assign(_)
                | Action::Expire(..)
                | Action::Open(..)
                | Action::SetEnv(..)
                | Action::Skip(_)
                | Action::SkipAfter(_)
                | Action::Control(_)
                | Action::HideMatched
                | Action::Hide(..) => self.actions.push(action),
                _ => {}
            }
        }
    }
}

impl Draft {
    /// `SecRuleUpdateActionById`: what is named replaces what was.
    pub(super) fn update_actions(
        &mut self,
        place: &Place,
        actions: Vec<Action>,
    ) -> Result<(), LoadError> {
        if actions
            .iter()
            .any(|action| matches!(action, Action::Id(_) | Action::Phase(_) | Action::Chain))
        {
            return Err(
                place.error("an update cannot change the id, the phase or the chain of a rule")
            );
        }
        apply_actions(self, &actions, &Defaults::default());
        if let Some(link) = self.links.first_mut() {
            if actions
                .iter()
                .any(|action| matches!(action, Action::Transform(_) | Action::NoTransform))
            {
                link.transforms.clear();
            }
            link.take(actions);
        }
        Ok(())
    }

    /// Whether the statement means this rule.
    pub(super) fn is_selected(&self, select: &Select) -> bool {
        match select {
            Select::Ids(ranges) => ranges
                .iter()
                .any(|(low, high)| (low..=high).contains(&&self.id)),
            Select::Tag(wanted) => self.tags.iter().any(|tag| wanted.is_match(tag)),
            Select::Message(wanted) => self.links.iter().any(|link| {
                let message = link.message.as_ref().and_then(Macro::literal);
                message
                    .and_then(|message| std::str::from_utf8(message).ok())
                    .is_some_and(|text| wanted.is_match(text))
            }),
        }
    }
}

fn read_default(place: &Place, actions: &[Action]) -> Result<(u8, Defaults), LoadError> {
    let mut default = Defaults::default();
    let mut phase = 2;
    for action in actions {
        match action {
            Action::Phase(number) => phase = *number,
            Action::Disruption(Disruption::Block) => {
                return Err(place.error(
                    "`block` in SecDefaultAction means itself: write deny, drop, redirect or pass",
                ));
            }
            Action::Disruption(disruption) => default.disruption = disruption.clone(),
            Action::Status(status) => default.status = *status,
            Action::Log(logged) => {
                default.logged = *logged;
                default.audited = *logged;
            }
            Action::Audit(audited) => default.audited = *audited,
            Action::Transform(transform) => default.transforms.push(*transform),
            Action::NoTransform => default.transforms.clear(),
            Action::Note => {}
            _ => {
                let message = "SecDefaultAction takes a phase, a disruptive action, a status, logging and transformations";
                return Err(place.error(message));
            }
        }
    }
    Ok((phase, default))
}

fn set(settings: &mut Settings, setting: Setting) {
    match setting {
        Setting::Engine(mode) => settings.engine = mode,
        Setting::RequestBodyAccess(on) => settings.request_body = on,
        Setting::ResponseBodyAccess(on) => settings.response_body = on,
        Setting::ArgumentSeparator(byte) => settings.argument_separator = byte,
        Setting::ArgumentsLimit(limit) => settings.arguments = limit,
        Setting::JsonDepthLimit(depth) => settings.json_depth = depth,
        Setting::RequestBodyLimit(bytes) => settings.request_body_limit = bytes,
        Setting::ResponseBodyLimit(bytes) => settings.response_body_limit = bytes,
        Setting::RejectLongRequest(refuses) => settings.refuses_long_request = refuses,
        Setting::RejectLongResponse(refuses) => settings.refuses_long_response = refuses,
        Setting::CollectionTimeout(seconds) => settings.collection_timeout = seconds,
    }
}
