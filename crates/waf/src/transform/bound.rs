//! Which bytes a transformation may leave, told from the bytes that it is given: what is looked for
//! and cannot be among them need not be looked for.

use super::{SPACES, Transform, WIDE_SPACES};
use crate::bytes::ByteSet;

const SPACE: ByteSet = ByteSet::of(b" ");
const SLASH: ByteSet = ByteSet::of(b"/");
const NO_BACKSLASH: ByteSet = ByteSet::of(b"\\").complement();
const NO_NULL: ByteSet = ByteSet::of(b"\0").complement();
const NO_SPACES: ByteSet = ByteSet::of(SPACES).complement();
const NO_WIDE_SPACES: ByteSet = ByteSet::of(WIDE_SPACES).complement();
/// What goes from a command line.
const COMMAND: ByteSet = ByteSet::of(b"\"'\\^,;\t\r\n").complement();

impl Transform {
    /// The bytes that the output may hold where the input holds these; more than that is allowed.
    /// `triggers` are the transformation's own, which the caller has at hand.
    #[inline]
    pub(crate) fn leaves(self, triggers: &ByteSet, bytes: &ByteSet) -> ByteSet {
        if !self.is_always() && !bytes.intersects(triggers) {
            return *bytes;
        }
        if let Some(just) = self.leaves_just(bytes) {
            return just;
        }
        match self {
            Self::CmdLine => bytes.intersection(&COMMAND).in_lower_case().union(&SPACE),
            Self::CompressWhitespace => bytes.intersection(&NO_SPACES).union(&SPACE),
            Self::NormalizePath
            | Self::RemoveCommentsChar
            | Self::Trim
            | Self::TrimLeft
            | Self::TrimRight => *bytes,
            Self::NormalizePathWin => bytes.intersection(&NO_BACKSLASH).union(&SLASH),
            Self::ReplaceComments | Self::RemoveComments | Self::ReplaceNulls => {
                bytes.union(&SPACE)
            }
            _ => ByteSet::ALL,
        }
    }

    /// The bytes that the output holds where the input holds these, if that is known of the transformation.
    #[inline]
    pub(crate) fn leaves_just(self, bytes: &ByteSet) -> Option<ByteSet> {
        match self {
            Self::Lowercase => Some(bytes.in_lower_case()),
            Self::RemoveWhitespace => Some(bytes.intersection(&NO_WIDE_SPACES)),
            Self::RemoveNulls => Some(bytes.intersection(&NO_NULL)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Transform;
    use crate::bytes::ByteSet;

    #[test]
    fn no_transformation_leaves_a_byte_that_was_not_foretold() {
        let mut random = fastrand::Rng::with_seed(8);
        let alphabet = b"aZ09 \t\r\n\0\x0b\xa0\xc2/*\\.<!->#%+&;,'\"^($x=";
        for transform in Transform::names().filter_map(Transform::named) {
            let (mut foretold, mut out) = (0, Vec::new());
            for _ in 0..5000 {
                let few: Vec<u8> = (0..random.usize(1..6))
                    .map(|_| alphabet[random.usize(..alphabet.len())])
                    .collect();
                let text: Vec<u8> = (0..random.usize(..12))
                    .map(|_| few[random.usize(..few.len())])
                    .collect();
                out.clear();
                transform.apply(&text, &mut out);
                if let Some(just) = transform.leaves_just(&ByteSet::of(&text)) {
                    assert_eq!(
                        just,
                        ByteSet::of(&out),
                        "{transform:?} of {}",
                        text.escape_ascii()
                    );
                }
                let leaves = transform.leaves(&transform.triggers(), &ByteSet::of(&text));
                foretold += usize::from(leaves != ByteSet::ALL);
                assert!(
                    ByteSet::of(&out).is_subset(&leaves),
                    "{transform:?} of {}",
                    text.escape_ascii()
                );
            }
            let tells = !matches!(transform.triggers(), ByteSet::ALL) && !transform.is_always();
            assert!(!tells || foretold > 100, "{transform:?}");
        }
    }
}
