//! Keys and values of tokens that were seen: what makes the next token cost one row.
//!
//! *What must stay true* (contract C1). A row's bits do not depend on whether its keys came from here: attention
//! counts positions within a sequence, and stored keys are the values that a run without a cache computes.

use std::ops::Range;

use super::ArchSpec;
use crate::tensor::MatRef;

/// The keys and values of every block for several sequences.
#[derive(Clone, Debug)]
pub struct KvCache {
    width: usize,
    /// Tokens held, per sequence.
    lengths: Vec<usize>,
    /// Per block, then per sequence.
    blocks: Vec<Vec<Entry>>,
}

/// One sequence's keys and values in one block, `[tokens, width]` each.
#[derive(Clone, Debug, Default)]
struct Entry {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    /// An empty cache for `sequences` sequences.
    pub fn new(spec: &ArchSpec, sequences: usize) -> KvCache {
        KvCache {
            width: spec.key_width(),
            lengths: vec![0; sequences],
            blocks: vec![vec![Entry::default(); sequences]; spec.layers],
        }
    }

    /// Tokens held, per sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let held = |entry: &Entry| (entry.keys.capacity() + entry.values.capacity()) * size_of::<f32>();
        self.blocks.iter().flatten().map(held).sum()
    }

    /// Adds `rows` of keys and values to a sequence in one block, and answers all that it holds there.
    pub(super) fn extend(
        &mut self,
        block: usize,
        sequence: usize,
        [keys, values]: [MatRef<'_>; 2],
        rows: Range<usize>,
    ) -> [MatRef<'_>; 2] {
        let entry = &mut self.blocks[block][sequence];
        for row in rows {
            entry.keys.extend_from_slice(keys.row(row));
            entry.values.extend_from_slice(values.row(row));
        }
        let tokens = entry.keys.len() / self.width;
        [&entry.keys, &entry.values].map(|held| MatRef::new(held, tokens, self.width))
    }

    /// Counts tokens that every block has been given.
    pub(super) fn advance(&mut self, tokens: impl Iterator<Item = usize>) {
        self.lengths.iter_mut().zip(tokens).for_each(|(length, tokens)| *length += tokens);
    }
}
