//! When the node sheds load, in which order, and when it stops.
//!
//! Owns the levels and the moves between them, one sample a second. Pure: the same samples give the
//! same moves. Must not: measure anything, or say who is known and what is expensive.
//!
//! A level is entered after some seconds above its mark, and left after more seconds below a lower
//! one: load that is shed makes the samples fall, and would bring itself back at once.

use std::fmt;

/// What is shed, each level also all that those before it shed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    #[default]
    Calm,
    /// Browsers without a pass are challenged.
    Challenge,
    /// Unknown callers are refused what is expensive.
    UnknownExpensive,
    /// Unknown callers are refused.
    Unknown,
    /// Known callers are refused what is expensive.
    KnownExpensive,
}

const LEVELS: [Level; 5] = [
    Level::Calm,
    Level::Challenge,
    Level::UnknownExpensive,
    Level::Unknown,
    Level::KnownExpensive,
];

/// What is asked for, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The caller has proved who it is, or has a pass.
    pub is_known: bool,
    /// The route says of itself that it costs much.
    pub is_expensive: bool,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gauge {
    /// Processor time of the workers, of what they could have used.
    Cpu,
    /// Requests under way, of the most there may be.
    InFlight,
    /// Handshakes in the second, of what the node can do.
    Handshakes,
}

/// One second. Each a share of what there is: 1.0 is all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// See [`Gauge::Cpu`].
    pub cpu: f64,
    /// See [`Gauge::InFlight`].
    pub in_flight: f64,
    /// See [`Gauge::Handshakes`].
    pub handshakes: f64,
}

/// When a level is entered and left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The share above which each level after the first is entered, rising.
    pub marks: [f64; 4],
    /// How far below its mark a level is left.
    pub gap: f64,
    /// Seconds above a mark before its level is entered.
    pub rise_seconds: u32,
    /// Seconds below before a level is left.
    pub fall_seconds: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            marks: [0.85, 0.92, 0.95, 0.98],
            gap: 0.15,
            rise_seconds: 3,
            fall_seconds: 15,
        }
    }
}

/// A move from one level to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moved {
    /// The level before.
    pub from: Level,
    /// The level now.
    pub to: Level,
    /// The gauge that stood highest.
    pub gauge: Gauge,
    /// Where it stood.
    pub share: f64,
    /// How many seconds it had been beyond the mark.
    pub seconds: u32,
}

/// The state.
#[derive(Clone, Debug)]
pub struct Pressure {
    terms: Terms,
    level: Level,
    above: u32,
    below: u32,
}

impl Level {
    /// Whether a request is refused at this level.
    pub fn sheds(self, asked: Asked) -> bool {
        match asked {
            Asked {
                is_known: false,
                is_expensive: true,
            } => self >= Self::UnknownExpensive,
            Asked {
                is_known: false,
                is_expensive: false,
            } => self >= Self::Unknown,
            Asked {
                is_known: true,
                is_expensive: true,
            } => self >= Self::KnownExpensive,
            Asked {
                is_known: true,
                is_expensive: false,
            } => false,
        }
    }

    /// Whether browsers without a pass are challenged.
    pub fn challenges(self) -> bool {
        self >= Self::Challenge
    }

    /// Its name in events and `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Challenge => "challenge",
            Self::UnknownExpensive => "unknownExpensive",
            Self::Unknown => "unknown",
            Self::KnownExpensive => "knownExpensive",
        }
    }
}

impl Sample {
    /// The gauge that stands highest. What is no number counts as nothing.
    fn highest(&self) -> (Gauge, f64) {
        let gauges = [
            (Gauge::Cpu, self.cpu),
            (Gauge::InFlight, self.in_flight),
            (Gauge::Handshakes, self.handshakes),
        ];
        let numbers = gauges.into_iter().filter(|(_, share)| share.is_finite());
        numbers
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .unwrap_or((Gauge::Cpu, 0.0))
    }
}

impl Pressure {
    /// Calm.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            level: Level::Calm,
            above: 0,
            below: 0,
        }
    }

    /// The level now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes the sample of a second; says when the level moved, one step at a time.
    pub fn sample(&mut self, sample: &Sample) -> Option<Moved> {
        let (gauge, share) = sample.highest();
        let is_above = self.mark(1).is_some_and(|mark| share > mark);
        let is_below = self
            .mark(0)
            .is_some_and(|mark| share < mark - self.terms.gap);
        self.above = if is_above { self.above + 1 } else { 0 };
        self.below = if is_below { self.below + 1 } else { 0 };
        let (step, seconds) = if self.above >= self.terms.rise_seconds.max(1) {
            (1, self.above)
        } else if self.below >= self.terms.fall_seconds.max(1) {
            (-1, self.below)
        } else {
            return None;
        };
        let from = self.level;
        self.level = self.neighbour(step)?;
        (self.above, self.below) = (0, 0);
        Some(Moved {
            from,
            to: self.level,
            gauge,
            share,
            seconds,
        })
    }

    fn place(&self) -> usize {
        LEVELS.iter().position(|it| *it == self.level).unwrap_or(0)
    }

    /// The mark of this level, or of the one `further` up. Calm has none.
    fn mark(&self, further: usize) -> Option<f64> {
        let index = (self.place() + further).checked_sub(1)?;
        self.terms.marks.get(index).copied()
    }

    fn neighbour(&self, step: isize) -> Option<Level> {
        let place = self.place().checked_add_signed(step)?;
        LEVELS.get(place).copied()
    }
}

impl fmt::Display for Gauge {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Cpu => "cpu",
            Self::InFlight => "inFlight",
            Self::Handshakes => "handshakes",
        })
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.share * 100.0;
        let direction = if self.to > self.from {
            "above"
        } else {
            "below"
        };
        write!(
            to,
            "{} to {}: {} at {percent:.0} %, {direction} the mark for {} s",
            self.from.name(),
            self.to.name(),
            self.gauge,
            self.seconds
        )
    }
}

#[cfg(test)]
#[path = "pressure_tests.rs"]
mod tests;
