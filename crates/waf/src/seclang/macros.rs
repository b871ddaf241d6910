//! `%{…}` in texts, split once.

use super::variables::{self, Variable};

/// One piece of a text with macros.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Piece {
    Text(Box<[u8]>),
    /// A variable of the transaction; the key is in lower case and not empty.
    Value(Variable, Option<Box<str>>),
}

/// A text with macros.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Macro {
    pub(crate) pieces: Vec<Piece>,
}

impl Macro {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("%{") {
            let Some((name, after)) = after.split_once('}') else {
                break;
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.as_bytes().into()));
            }
            pieces.push(value(name)?);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.as_bytes().into()));
        }
        Ok(Self { pieces })
    }

    /// A text that holds no macro whatever is in it.
    pub(crate) fn of_text(text: &str) -> Self {
        Self {
            pieces: vec![Piece::Text(text.as_bytes().into())],
        }
    }

    /// The text, where it holds no macro.
    pub(crate) fn literal(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [] => Some(b""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

fn value(name: &str) -> Result<Piece, String> {
    let (base, key) = match name.split_once(['.', ':']) {
        Some((base, key)) => (base, Some(key.to_ascii_lowercase().into_boxed_str())),
        None => (name, None),
    };
    let variable = Variable::named(base).ok_or_else(|| {
        format!(
            "unknown variable in the macro %{{{name}}}{}",
            variables::nearest_name(base)
        )
    })?;
    if key.is_none() && variable.shape() == variables::Shape::Keyed {
        return Err(format!(
            "the macro %{{{name}}} needs a key, as in %{{{name}.key}}"
        ));
    }
    Ok(Piece::Value(variable, key.filter(|key| !key.is_empty())))
}
