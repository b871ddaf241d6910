//! Rules of a user's own in a short typed form, for what needs no language.
//!
//! Each becomes an ordinary rule of the set, before the files, so that an `allow` goes before what
//! it allows. Must not: know anything that SecLang cannot say.

use std::fmt;

use crate::seclang::{
    Action, Allow, Disruption, LoadError, Macro, Operand, OperatorSpec, Place, RuleSpec, Selector,
    Statement, TargetSpec, TextTest, Variable, addresses,
};
use crate::transform::Transform;

/// What a custom rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The path, decoded and without `..`.
    Path,
    /// The query as it was sent.
    Query,
    /// The method.
    Method,
    /// The client's address.
    Address,
    /// A header of this name.
    Header(String),
    /// A cookie of this name.
    Cookie(String),
    /// An argument of this name, of the query or the body.
    Argument(String),
    /// Any argument.
    AnyArgument,
    /// The body of a form as it was sent.
    Body,
}

/// How it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// The value is the field.
    Equals,
    /// The value is in the field.
    Contains,
    /// The field begins with the value.
    StartsWith,
    /// The field ends with the value.
    EndsWith,
    /// The value is a pattern that matches in the field.
    Matches,
    /// The field is an address in one of the value's networks, which commas separate.
    InNetworks,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The request is refused with 403.
    Block,
    /// No further rule of the request's phases is run.
    Allow,
    /// It is told, nothing more.
    Log,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomRule {
    /// A number of its own among all rules of the set.
    pub id: u64,
    /// What events call it.
    pub message: String,
    /// What it looks at.
    pub field: Field,
    /// How.
    pub test: Test,
    /// For what.
    pub value: String,
    /// What follows.
    pub consequence: Consequence,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("path"),
            Self::Query => f.write_str("query"),
            Self::Method => f.write_str("method"),
            Self::Address => f.write_str("address"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Argument(name) => write!(f, "argument {name}"),
            Self::AnyArgument => f.write_str("any argument"),
            Self::Body => f.write_str("body"),
        }
    }
}

impl CustomRule {
    /// The rule as the language has it.
    pub(crate) fn statement(&self) -> Result<Statement, LoadError> {
        let place = Place {
            file: format!("custom rule {}", self.id).into(),
            line: 0,
        };
        let error = |message| place.error(message);
        if self.value.is_empty() {
            return Err(error(
                "the value is empty, which every request holds".to_owned(),
            ));
        }
        let (variable, selector) = self.target();
        let operand = self.operand().map_err(error)?;
        // Arguments and bodies are only known once the body is.
        let late = matches!(
            self.field,
            Field::Argument(_) | Field::AnyArgument | Field::Body
        );
        let disruption = match self.consequence {
            Consequence::Block => Disruption::Deny,
            Consequence::Allow => Disruption::Allow(Allow::Request),
            Consequence::Log => Disruption::Pass,
        };
        let message = Macro::parse(&self.message).map_err(error)?;
        let mut actions = vec![
            Action::Id(self.id),
            Action::Phase(if late { 2 } else { 1 }),
            Action::Disruption(disruption),
            Action::Status(403),
            Action::Log(true),
            Action::Message(message),
        ];
        if self.field == Field::Path {
            actions.push(Action::Transform(Transform::NormalizePath));
        }
        let target = TargetSpec {
            variable,
            selector,
            count: false,
            exclude: false,
        };
        let operator = Some(OperatorSpec {
            negated: false,
            operand,
        });
        Ok(Statement::Rule(RuleSpec {
            place,
            targets: vec![target],
            operator,
            actions,
        }))
    }

    fn target(&self) -> (Variable, Selector) {
        let named = |name: &str| Selector::Name(name.to_ascii_lowercase().into());
        match &self.field {
            Field::Path => (Variable::RequestFilename, Selector::All),
            Field::Query => (Variable::QueryString, Selector::All),
            Field::Method => (Variable::RequestMethod, Selector::All),
            Field::Address => (Variable::RemoteAddr, Selector::All),
            Field::Header(name) => (Variable::RequestHeaders, named(name)),
            Field::Cookie(name) => (Variable::RequestCookies, named(name)),
            Field::Argument(name) => (Variable::Args, named(name)),
            Field::AnyArgument => (Variable::Args, Selector::All),
            Field::Body => (Variable::RequestBody, Selector::All),
        }
    }

    fn operand(&self) -> Result<Operand, String> {
        let text = |test| Operand::Text(test, Macro::of_text(&self.value));
        if (self.test == Test::InNetworks) != (self.field == Field::Address) {
            return Err(format!(
                "{} cannot be tested so: addresses, and only they, are looked up in networks",
                self.field
            ));
        }
        Ok(match self.test {
            Test::Equals => text(TextTest::Equal),
            Test::Contains => text(TextTest::Contains),
            Test::StartsWith => text(TextTest::BeginsWith),
            Test::EndsWith => text(TextTest::EndsWith),
            Test::Matches => Operand::Pattern {
                text: self.value.as_str().into(),
                every_match: false,
            },
            Test::InNetworks => Operand::Addresses(addresses(&self.value)?),
        })
    }
}

#[cfg(test)]
#[path = "custom_tests.rs"]
mod tests;
