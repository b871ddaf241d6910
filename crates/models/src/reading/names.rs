//! What classes are called.
//!
//! Owns: the file of names: a JSON list, a JSON object by number (`{"0": "cat"}`), or a line for each.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::error::Error;

/// Classes that have names.
const MOST: usize = 1_000_000;
/// Bytes of a name.
const LONGEST: usize = 1024;

/// Names of classes, by their number.
pub struct Names(Vec<String>);

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::new(
        "names_invalid",
        format_args!("the names of classes: {error}"),
    )
}

impl Names {
    /// Those that are listed, else those of the file.
    ///
    /// # Errors
    /// `names_invalid`.
    pub fn new(listed: Vec<String>, file: Option<&[u8]>) -> Result<Self, Error> {
        let names = match file {
            Some(file) if listed.is_empty() => parse(file)?,
            _ => listed,
        };
        if names.len() > MOST || names.iter().any(|it| it.len() > LONGEST) {
            let message = format_args!("more than {MOST}, or one of more than {LONGEST} bytes");
            return Err(invalid(message));
        }
        Ok(Self(names))
    }

    /// What this class is called; its number where it has no name.
    pub fn of(&self, class: usize) -> Cow<'_, str> {
        match self.0.get(class) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(class.to_string()),
        }
    }
}

fn parse(file: &[u8]) -> Result<Vec<String>, Error> {
    let text = std::str::from_utf8(file).map_err(invalid)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().as_bytes().first() {
        Some(b'[') => serde_json::from_str(text).map_err(invalid),
        Some(b'{') => {
            let numbered: HashMap<usize, String> = serde_json::from_str(text).map_err(invalid)?;
            let most = numbered.keys().max().map_or(0, |it| it.saturating_add(1));
            if most > MOST {
                return Err(invalid(format_args!("a number of more than {MOST}")));
            }
            let name = |class| {
                numbered
                    .get(&class)
                    .cloned()
                    .unwrap_or_else(|| class.to_string())
            };
            Ok((0..most).map(name).collect())
        }
        _ => Ok(text.lines().map(|it| it.trim_end().to_owned()).collect()),
    }
}
