//! The words of SQL and the fingerprints of attacks, each in a hash table made at the first question.
//!
//! The table in `libinjectionrs` is sorted; looking it up by halves was most of the time of a verdict.

use std::sync::LazyLock;

use libinjectionrs::sqli::sqli_data::{Keyword, SQL_KEYWORDS};

use super::token::{Kind, LONGEST};

static WORDS: LazyLock<Table> = LazyLock::new(|| Table::of(|known| known.token_type != b'F'));
static FINGERPRINTS: LazyLock<Table> =
    LazyLock::new(|| Table::of(|known| known.token_type == b'F'));

/// What kind of token a word is, in any case; nothing for a word that SQL does not know.
pub(super) fn kind(word: &[u8]) -> Option<Kind> {
    WORDS.find(word).map(|known| match known.token_type {
        b'k' => Kind::Keyword,
        b'U' => Kind::Union,
        b'B' => Kind::Group,
        b'E' => Kind::Expression,
        b't' => Kind::SqlType,
        b'f' => Kind::Function,
        b'1' => Kind::Number,
        b'v' => Kind::Variable,
        b'o' => Kind::Operator,
        b'&' => Kind::LogicOperator,
        b'A' => Kind::Collate,
        b'T' => Kind::TransactSql,
        _ => Kind::Bareword,
    })
}

/// Whether a pattern is one of attacks.
pub(super) fn is_fingerprint(pattern: &str) -> bool {
    let mut key = [b'0'; 6];
    for (place, byte) in key.iter_mut().skip(1).zip(pattern.bytes()) {
        *place = byte;
    }
    key.get(..=pattern.len())
        .is_some_and(|key| FINGERPRINTS.find(key).is_some())
}

/// Words by their hash, in any case. At most half of the slots are taken, so that a search ends soon.
struct Table {
    slots: Box<[Option<&'static Keyword>]>,
}

impl Table {
    fn of(is_in: fn(&Keyword) -> bool) -> Self {
        let count = SQL_KEYWORDS.iter().filter(|known| is_in(known)).count();
        let mut slots = vec![None; (2 * count).next_power_of_two()].into_boxed_slice();
        for known in SQL_KEYWORDS.iter().filter(|known| is_in(known)) {
            let start = hash(known.word.as_bytes()) & (slots.len() - 1);
            let (before, behind) = slots.split_at_mut(start);
            let free = behind.iter_mut().chain(before).find(|slot| slot.is_none());
            if let Some(slot) = free {
                *slot = Some(known);
            }
        }
        Self { slots }
    }

    fn find(&self, word: &[u8]) -> Option<&'static Keyword> {
        if word.is_empty() || word.len() > LONGEST {
            return None;
        }
        let (before, behind) = self
            .slots
            .split_at_checked(hash(word) & (self.slots.len() - 1))?;
        behind
            .iter()
            .chain(before)
            .map_while(|slot| *slot)
            .find(|known| known.word.as_bytes().eq_ignore_ascii_case(word))
    }
}

/// FNV-1a, whatever the case. Its values are no secret: the table holds nothing of a request.
fn hash(word: &[u8]) -> usize {
    let mix = |hash: usize, byte: &u8| {
        (hash ^ usize::from(byte.to_ascii_uppercase())).wrapping_mul(0x0000_0100_0000_01B3)
    };
    let hash = word.iter().fold(0xCBF2_9CE4_8422_2325, mix);
    hash ^ hash >> 32
}
