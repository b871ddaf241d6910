//! How sure an answer is of itself.
//!
//! Owns: comparing it with what the route asks for. Must not: say what follows from that.

use crate::snapshot::Confidence;
use crate::tiers::Tiers;
use crate::tiers::leaves::{self, Message};
use crate::tiers::message::Answer;

/// The largest answer that is asked how sure it is.
pub const MOST_READ: usize = 64 << 10;

/// How sure an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sureness {
    /// As sure as the route wants it, or nobody asks.
    Sure,
    /// Less so.
    Unsure,
    /// There is no number in it that could say so.
    Empty,
}

/// How sure an answer is.
pub fn sureness(answer: &Answer<'_>, confidence: &Confidence) -> Sureness {
    #[allow(clippy::cast_precision_loss)]
    let below = confidence.below_millionths as f64 / 1e6;
    match leaves::greatest(answer, &confidence.output) {
        Some(f64::NEG_INFINITY) => Sureness::Empty,
        Some(greatest) if greatest < below => Sureness::Unsure,
        _ => Sureness::Sure,
    }
}

/// The same of what a tier said; what is too large to be looked at is sure.
pub fn sureness_of(message: &Message, tiers: &Tiers) -> Sureness {
    let confidence = tiers.confidence.as_ref();
    let confidence = confidence.filter(|_| message.body.len() <= MOST_READ);
    let answer = confidence.and_then(|confidence| {
        let answer = Answer::read(&message.body, message.json_length)?;
        Some(sureness(&answer, confidence))
    });
    answer.unwrap_or(Sureness::Sure)
}
