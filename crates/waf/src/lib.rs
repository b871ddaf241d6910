//! The rule engine: SecLang compiled once, requests judged many times.
//!
//! Owns the language (`seclang`), the rule set made from it (`compile`) and the judgement of one
//! request by it (`evaluate`). Useful on its own.
//!
//! Must not: know HTTP's wire form, read a clock but through its caller, wait, or hold a lock on
//! the request path.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::too_many_lines
    )
)]

mod analysis;
mod bytes;
mod compile;
mod custom;
mod evaluate;
mod operator;
mod prefilter;
mod prepare;
mod rule;
mod seclang;
mod tailor;
mod transform;

pub mod body;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod injection;

pub use analysis::{Analysis, AnalysisError};
pub use compile::Options;
pub use custom::{Consequence, CustomRule, Field, Test};
pub use evaluate::{
    Answer, Countries, Ends, Found, Interruption, Matched, MemoryStore, Store, Stored, Transaction,
    Verdict, Workbench,
};
pub use rule::{RuleSet, Settings};
pub use seclang::{Disk, EngineMode, Limits, LoadError, Memory, Sources};
pub use tailor::{Exclusion, Selected, TailorError, Tailored, Tailoring};
