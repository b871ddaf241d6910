//! The file of a detector: a small JSON document.
//!
//! Owns: what it may say, with a bound for each number: what a stream takes of memory and time follows from it alone.
//!
//! Must not: take a word that it does not know; a setting that is misspelt would be one that is not there.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::config::{Datatype, Tensor};
use crate::error::Error;

/// Largest file, in bytes.
pub const MAX_FILE: usize = 64 * 1024;
const MAX_FEATURES: usize = 64;
const MAX_NAME: usize = 64;
const MAX_TREES: u32 = 100;
const MAX_DEPTH: u32 = 15;
const WINDOWS: std::ops::RangeInclusive<u32> = 16..=65_535;
/// Largest number that an event or a range may have: sums and differences of two stay finite.
pub const MAX_VALUE: f64 = 1e300;

/// A detector as it is written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    detector: Kind,
    /// What an event has, in this order.
    pub features: Vec<Feature>,
    /// How many trees.
    #[serde(default = "default_trees")]
    pub trees: u32,
    /// Halvings from the root of a tree to its leaves.
    #[serde(default = "default_depth")]
    pub depth: u32,
    /// Events that make up what is usual.
    #[serde(default = "default_window")]
    pub window: u32,
    /// Of the numbers by which the trees are drawn.
    #[serde(default)]
    pub seed: u64,
    /// Score from which on an event is an alarm.
    #[serde(default = "default_threshold")]
    pub threshold: f64,
    /// Whether and how a change of what is usual is told.
    #[serde(default)]
    pub drift: Option<Drift>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    HalfSpaceTrees,
}

/// One number of an event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Feature {
    /// Its key.
    pub name: String,
    /// Where it usually lies; absent: learnt from the first window.
    pub min: Option<f64>,
    /// The other end.
    pub max: Option<f64>,
}

/// How a change is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drift {
    /// ADWIN's settings.
    pub adwin: AdwinSpec,
}

/// Settings of ADWIN.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdwinSpec {
    /// How likely a change is told that is none.
    #[serde(default = "default_delta")]
    pub delta: f64,
}

fn default_trees() -> u32 {
    25
}

fn default_depth() -> u32 {
    8
}

fn default_window() -> u32 {
    250
}

fn default_threshold() -> f64 {
    0.95
}

fn default_delta() -> f64 {
    0.002
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new("model_invalid", format_args!("the detector: {what}"))
}

/// The bytes of the file at `path`, which is opened and read before this process is confined, and read as a detector
/// after.
///
/// # Errors
/// `model_missing`, `model_too_large`.
pub fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let missing = |error: std::io::Error| Error::new("model_missing", error);
    let file = File::open(path).map_err(missing)?;
    let mut bytes = vec![];
    file.take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(missing)?;
    Ok(bytes)
}

impl Spec {
    /// Reads a file.
    ///
    /// # Errors
    /// `model_invalid`, with what is wrong; `model_too_large`.
    pub fn read(file: &[u8]) -> Result<Self, Error> {
        if file.len() > MAX_FILE {
            let message = format_args!("a detector has at most {MAX_FILE} bytes");
            return Err(Error::new("model_too_large", message));
        }
        let spec: Self = serde_json::from_slice(file).map_err(invalid)?;
        spec.require_bounds()?;
        spec.require_features()?;
        Ok(spec)
    }

    fn require_bounds(&self) -> Result<(), Error> {
        let Kind::HalfSpaceTrees = self.detector;
        if !(1..=MAX_TREES).contains(&self.trees) {
            return Err(invalid(format_args!("trees is 1 to {MAX_TREES}")));
        }
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            return Err(invalid(format_args!("depth is 1 to {MAX_DEPTH}")));
        }
        if !WINDOWS.contains(&self.window) {
            let (least, most) = (WINDOWS.start(), WINDOWS.end());
            return Err(invalid(format_args!("window is {least} to {most}")));
        }
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            return Err(invalid("threshold is more than 0 and at most 1"));
        }
        let delta = self.drift.as_ref().map(|it| it.adwin.delta);
        if delta.is_some_and(|it| !(it > 0.0 && it < 1.0)) {
            return Err(invalid("drift.adwin.delta is more than 0 and less than 1"));
        }
        Ok(())
    }

    fn require_features(&self) -> Result<(), Error> {
        let count = self.features.len();
        if !(1..=MAX_FEATURES).contains(&count) {
            return Err(invalid(format_args!("it has 1 to {MAX_FEATURES} features")));
        }
        for (place, feature) in self.features.iter().enumerate() {
            let name = &feature.name;
            let is_sound =
                (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
            if !is_sound || name == "id" {
                let message = "the name of a feature is 1 to 64 bytes without control characters, and not \"id\"";
                return Err(invalid(message));
            }
            if self.features.iter().take(place).any(|it| it.name == *name) {
                return Err(invalid(format_args!("the feature {name:?} is there twice")));
            }
            let is_range = match (feature.min, feature.max) {
                (None, None) => true,
                (Some(min), Some(max)) => {
                    min.abs() <= MAX_VALUE && max.abs() <= MAX_VALUE && min < max
                }
                _ => false,
            };
            if !is_range {
                let message = format_args!(
                    "the feature {name:?} has both min and max, min below max, or neither"
                );
                return Err(invalid(message));
            }
        }
        Ok(())
    }

    /// What it takes, as the protocol says it: a number for each feature.
    pub fn inputs(&self) -> Vec<Tensor> {
        let input = |it: &Feature| tensor(&it.name, Datatype::Fp64);
        self.features.iter().map(input).collect()
    }

    /// What every detector gives.
    pub fn outputs() -> Vec<Tensor> {
        vec![
            tensor("score", Datatype::Fp64),
            tensor("alarm", Datatype::Bool),
            tensor("drift", Datatype::Bool),
        ]
    }
}

fn tensor(name: &str, datatype: Datatype) -> Tensor {
    Tensor {
        name: name.into(),
        datatype,
        shape: vec![1],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(file: &str) -> String {
        Spec::read(file.as_bytes()).unwrap_err().message
    }

    #[test]
    fn what_is_left_out_is_what_is_usual() {
        let spec =
            Spec::read(br#"{"detector":"half-space-trees","features":[{"name":"x"}]}"#).unwrap();
        assert_eq!((spec.trees, spec.depth, spec.window), (25, 8, 250));
        assert_eq!(spec.inputs(), vec![tensor("x", Datatype::Fp64)]);
        assert!(spec.drift.is_none());
    }

    #[test]
    fn each_number_has_its_bounds_and_says_them() {
        let with = |more: &str| {
            format!(r#"{{"detector":"half-space-trees","features":[{{"name":"x"}}],{more}}}"#)
        };
        for (more, words) in [
            (r#""trees":0"#, "trees is 1 to 100"),
            (r#""trees":101"#, "trees is 1 to 100"),
            (r#""depth":16"#, "depth is 1 to 15"),
            (r#""window":15"#, "window is 16 to 65535"),
            (r#""window":70000"#, "window is 16 to 65535"),
            (r#""threshold":0"#, "threshold"),
            (r#""threshold":1.1"#, "threshold"),
            (r#""drift":{"adwin":{"delta":1}}"#, "delta"),
            (r#""drift":{"kswin":{}}"#, "unknown field"),
            (r#""tree":1"#, "unknown field"),
            (r#""trees":1,"trees":2"#, "duplicate field"),
            (r#""trees":-1"#, "invalid value"),
        ] {
            let said = refused(&with(more));
            assert!(said.contains(words), "{more}: {said}");
        }
    }

    #[test]
    fn features_have_names_of_their_own_and_whole_ranges() {
        let with = |features: &str| {
            format!(r#"{{"detector":"half-space-trees","features":[{features}]}}"#)
        };
        for (features, words) in [
            ("", "1 to 64 features"),
            (r#"{"name":""}"#, "1 to 64 bytes"),
            (r#"{"name":"id"}"#, "not \"id\""),
            (r#"{"name":"a\u0000"}"#, "control"),
            (r#"{"name":"a"},{"name":"a"}"#, "twice"),
            (r#"{"name":"a","min":1}"#, "both min and max"),
            (r#"{"name":"a","min":1,"max":1}"#, "min below max"),
            (r#"{"name":"a","min":-1e301,"max":1}"#, "min below max"),
        ] {
            let said = refused(&with(features));
            assert!(said.contains(words), "{features}: {said}");
        }
        assert!(refused(r#"{"detector":"lof","features":[]}"#).contains("unknown variant"));
        assert!(refused("[]").contains("the detector"));
        assert!(refused(&"[".repeat(10_000)).contains("the detector"));
    }
}
