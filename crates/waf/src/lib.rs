//! The rule engine: SecLang compiled once, requests judged many times.
//!
//! Owns the language (`seclang`), the rule set made from it (`compile`) and the judgement of one
//! request by it (`evaluate`). Useful on its own.
//!
//! Must not: know HTTP's wire form, read a clock but through its caller, wait, or hold a lock on
//! the request path.

pub mod body;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod injection;
