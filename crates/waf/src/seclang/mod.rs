//! SecLang as text: files into statements.
//!
//! Owns the grammar: lines, quotes, variables, operators, transformations and actions, each name
//! known or refused with its place and the nearest known name. Must not: resolve what one
//! statement says of another (that is `compile`), or accept anything that would have no effect.

mod actions;
mod control;
mod directive;
mod error;
mod lexer;
mod macros;
mod operators;
mod source;
mod statement;
mod variables;

pub use error::LoadError;
pub use source::{Disk, Limits, Memory, Sources};
pub use statement::EngineMode;

pub(crate) use control::matching;
pub(crate) use directive::parse;
pub(crate) use error::{Place, nearest};
pub(crate) use macros::{Macro, Piece};
pub(crate) use operators::{NumberTest, Operand, OperatorSpec, TextTest, addresses};
pub(crate) use source::relative;
pub(crate) use statement::{
    Action, Allow, Assign, Change, Collection, Control, Disruption, Matching, RuleSpec, Select,
    Setting, Statement,
};
pub(crate) use variables::{Selector, TargetSpec, Variable, parse_targets};

#[cfg(test)]
mod tests;
