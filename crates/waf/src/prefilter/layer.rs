//! One requirement of bytes for each probe: which probes the bytes of a text leave open.

use std::collections::{HashMap, HashSet};

use super::shape::Needs;
use super::those;
use crate::bytes::ByteSet;
use crate::rule::Bits;

/// One requirement of bytes for each probe.
#[derive(Debug)]
pub(super) struct Layer {
    /// Probes without a mask in this layer.
    free: Bits,
    /// Bytes that are in any mask.
    pub(super) loud: ByteSet,
    /// The probes whose mask a byte is in: a block of words for each loud byte, in order.
    blocks: Vec<u64>,
    /// The place of a byte's block.
    block_of: Box<[u8; 256]>,
}

impl Layer {
    /// Takes out of `found` the probes whose mask none of the bytes is in.
    pub(super) fn narrow(&self, bytes: &ByteSet, found: &mut [u64], open: &mut Vec<u64>) {
        let words = found.len();
        open.clear();
        open.extend_from_slice(&self.free.0);
        bytes.intersection(&self.loud).visit(|byte| {
            let block = usize::from(
                self.block_of
                    .get(usize::from(byte))
                    .copied()
                    .unwrap_or_default(),
            ) * words;
            for (word, more) in open
                .iter_mut()
                .zip(self.blocks.get(block..block + words).unwrap_or_default())
            {
                *word |= more;
            }
        });
        for (word, open) in found.iter_mut().zip(open.iter()) {
            *word &= open;
        }
    }

    /// Whether no mask tells a letter from its other case.
    pub(super) fn treats_cases_alike(&self) -> bool {
        (b'a'..=b'z').all(|letter| self.block(letter) == self.block(letter.to_ascii_uppercase()))
    }

    fn block(&self, byte: u8) -> Option<&[u64]> {
        let words = self.free.0.len();
        let at = usize::from(*self.block_of.get(usize::from(byte))?) * words;
        self.blocks
            .get(at..at + words)
            .filter(|_| self.loud.contains(byte))
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.blocks.len() * 8
    }
}

/// Fewer bytes that are alike are not worth being told.
const FEWEST_ALIKE: usize = 8;

/// The bytes that no mask tells from each other, where there are many.
pub(super) fn alike(needs: &[Needs]) -> Vec<ByteSet> {
    let mut classes: HashMap<Vec<bool>, Vec<u8>> = HashMap::new();
    let masks: HashSet<&ByteSet> = needs.iter().flat_map(|need| &need.masks).collect();
    for byte in 0..=u8::MAX {
        let held = masks.iter().map(|mask| mask.contains(byte)).collect();
        classes.entry(held).or_default().push(byte);
    }
    let many = classes
        .into_values()
        .filter(|bytes| bytes.len() >= FEWEST_ALIKE);
    many.map(|bytes| ByteSet::of(&bytes)).collect()
}

/// The layer of each probe's mask at this place, where any has one.
pub(super) fn layer(needs: &[Needs], place: usize) -> Option<Layer> {
    let masks: Vec<(usize, ByteSet)> = needs
        .iter()
        .enumerate()
        .filter_map(|(probe, need)| need.masks.get(place).map(|mask| (probe, *mask)))
        .collect();
    if masks.is_empty() {
        return None;
    }
    let loud = masks
        .iter()
        .fold(ByteSet::EMPTY, |all, (_, mask)| all.union(mask));
    let mut block_of = Box::new([0u8; 256]);
    let mut blocks = Vec::new();
    for (block, byte) in (0u8..).zip(loud.iter()) {
        let mut bits = Bits::with_room_for(needs.len());
        masks
            .iter()
            .filter(|(_, mask)| mask.contains(byte))
            .for_each(|(probe, _)| bits.set(*probe));
        blocks.extend(bits.0);
        if let Some(place) = block_of.get_mut(usize::from(byte)) {
            *place = block;
        }
    }
    Some(Layer {
        free: those(needs, |need| need.masks.len() <= place),
        loud,
        blocks,
        block_of,
    })
}
