//! The statements of a rule file, typed.

use std::sync::Arc;

use super::error::Place;
use super::macros::Macro;
use super::operators::OperatorSpec;
use super::variables::{TargetSpec, Variable};
use crate::body::Processor;
use crate::transform::Transform;

/// One statement.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Rule(RuleSpec),
    /// `SecDefaultAction`.
    Default(Place, Vec<Action>),
    Marker(Box<str>),
    Remove(Place, Select),
    UpdateTarget(Place, Select, Vec<TargetSpec>),
    UpdateAction(Place, u64, Vec<Action>),
    Setting(Place, Setting),
}

/// `SecRule` or, without targets and operator, `SecAction`.
#[derive(Clone, Debug)]
pub(crate) struct RuleSpec {
    pub(crate) place: Place,
    pub(crate) targets: Vec<TargetSpec>,
    pub(crate) operator: Option<OperatorSpec>,
    pub(crate) actions: Vec<Action>,
}

/// Which rules a statement or a `ctl` means.
#[derive(Clone, Debug)]
pub(crate) enum Select {
    /// Ranges of ids, both ends included.
    Ids(Vec<(u64, u64)>),
    Tag(Matching),
    Message(Matching),
}

/// A text, or a pattern between slashes.
#[derive(Clone, Debug)]
pub(crate) enum Matching {
    Text(Box<str>),
    Pattern(Arc<regex_automata::meta::Regex>),
}

impl Matching {
    pub(crate) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Text(wanted) => **wanted == *text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

/// A setting of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Engine(EngineMode),
    RequestBodyAccess(bool),
    ResponseBodyAccess(bool),
    ArgumentSeparator(u8),
    ArgumentsLimit(u32),
    JsonDepthLimit(u32),
    RequestBodyLimit(u64),
    ResponseBodyLimit(u64),
    /// What is done with a body beyond the limit: refused (true) or judged in part.
    RejectLongRequest(bool),
    RejectLongResponse(bool),
    CollectionTimeout(u32),
}

/// What is done with what the rules find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineMode {
    /// Requests are blocked.
    On,
    /// Rules match and score, nothing is blocked.
    DetectionOnly,
    /// No rule is run.
    Off,
}

/// What ends a request, or lets it go on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Disruption {
    /// What the phase's default says.
    Block,
    Deny,
    Drop,
    Pass,
    Allow(Allow),
    Redirect(Macro),
}

/// How much an `allow` skips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    All,
    Phase,
    Request,
}

/// A collection that rules write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collection {
    Tx,
    Ip,
    Global,
    Session,
    User,
    Resource,
}

impl Collection {
    pub(crate) const ALL: [Self; 6] = [
        Self::Tx,
        Self::Ip,
        Self::Global,
        Self::Session,
        Self::User,
        Self::Resource,
    ];

    pub(crate) const fn variable(self) -> Variable {
        match self {
            Self::Tx => Variable::Tx,
            Self::Ip => Variable::Ip,
            Self::Global => Variable::Global,
            Self::Session => Variable::Session,
            Self::User => Variable::User,
            Self::Resource => Variable::Resource,
        }
    }

    pub(crate) fn of(variable: Variable) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|collection| collection.variable() == variable)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Variable::named(name).and_then(Self::of)
    }
}

/// `setvar`.
#[derive(Clone, Debug)]
pub(crate) struct Assign {
    pub(crate) collection: Collection,
    pub(crate) key: Macro,
    pub(crate) change: Change,
}

/// What becomes of a variable.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Set(Macro),
    Add(Macro),
    Subtract(Macro),
    Remove,
}

/// `ctl`.
#[derive(Clone, Debug)]
pub(crate) enum Control {
    RemoveRules(Select),
    RemoveTargets(Select, Vec<TargetSpec>),
    Engine(EngineMode),
    RequestBodyProcessor(Processor),
    ForceRequestBody(bool),
    RequestBodyAccess(bool),
    ResponseBodyAccess(bool),
    /// Whether the event is worth a record: `auditEngine`.
    Audit(bool),
}

/// One action of a rule.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Id(u64),
    Phase(u8),
    Message(Macro),
    LogData(Macro),
    Severity(u8),
    Tag(Box<str>),
    /// `ver`, `rev`, `maturity`, `accuracy`, `xmlns`: told by rules, used by none.
    Note,
    Disruption(Disruption),
    Status(u16),
    Log(bool),
    Audit(bool),
    Chain,
    Capture,
    MultiMatch,
    /// `t:none`.
    NoTransform,
    Transform(Transform),
    Assign(Assign),
    Expire(Collection, Macro, Macro),
    Open(Collection, Macro),
    SetEnv(Box<str>, Macro),
    Skip(u32),
    SkipAfter(Box<str>),
    Control(Control),
    /// The matched value is kept out of events.
    HideMatched,
    /// The values of this variable and name are kept out of events.
    Hide(Variable, Box<str>),
}
