//! A ragged batch: the tokens of several sequences end to end, no padding.

use super::{ArchSpec, ModelError};
use crate::{direction::ExampleRows, tensor::Sequences};

/// The tokens of a forward pass. A token's row is its place among all tokens of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    ids: Vec<u32>,
    sequences: Sequences,
    /// The example that each sequence belongs to.
    examples: Vec<usize>,
}

impl Batch {
    /// These sequences, in order; empty ones are allowed. Each is an example.
    pub fn new<S: AsRef<[u32]>>(sequences: impl IntoIterator<Item = S>) -> Batch {
        let mut ids = Vec::new();
        let lengths: Vec<usize> = sequences
            .into_iter()
            .map(|sequence| {
                ids.extend_from_slice(sequence.as_ref());
                sequence.as_ref().len()
            })
            .collect();
        Batch { ids, examples: (0..lengths.len()).collect(), sequences: Sequences::from_lengths(lengths) }
    }

    /// The same sequences as those of other examples: `examples` has the number of each one's, which names the directions
    /// that it has to itself, if there are any.
    ///
    /// # Panics
    /// If there is not a number for each sequence.
    #[must_use]
    pub fn of_examples(self, examples: Vec<usize>) -> Batch {
        assert_eq!(examples.len(), self.sequences.len(), "examples of sequences");
        Batch { examples, ..self }
    }

    /// The same examples as those of a larger batch from number `first` on.
    #[must_use]
    pub fn numbered_from(mut self, first: usize) -> Batch {
        self.examples.iter_mut().for_each(|example| *example += first);
        self
    }

    /// The rows by their examples.
    pub(super) fn example_rows(&self) -> Vec<ExampleRows> {
        let of = |(rows, &example): (std::ops::Range<usize>, &usize)| rows.map(move |_| example);
        ExampleRows::of(self.sequences.iter().zip(&self.examples).flat_map(of))
    }

    /// The tokens of all sequences.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
    /// The rows of each sequence.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }
    /// Rows of the batch.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Checks that the model has a vector for every token and a place for every position, sequence `b` going on after
    /// `starts[b]` tokens.
    pub(super) fn check(&self, spec: &ArchSpec, starts: &[usize]) -> Result<(), ModelError> {
        for (sequence, (rows, start)) in self.sequences.iter().zip(starts).enumerate() {
            let found = start.saturating_add(rows.len());
            if found > spec.max_positions {
                return Err(ModelError::TooLong { sequence, found, limit: spec.max_positions });
            }
            for (position, &id) in self.ids[rows].iter().enumerate() {
                if id as usize >= spec.vocab_size {
                    let position = start + position;
                    return Err(ModelError::Token { sequence, position, found: id, vocab_size: spec.vocab_size });
                }
            }
        }
        Ok(())
    }

    /// The position of every row in its sequence, sequence `b` going on after `starts[b]` tokens.
    pub(super) fn positions(&self, starts: &[usize]) -> Vec<u32> {
        let from = |(rows, &start): (std::ops::Range<usize>, &usize)| (start..start + rows.len()).map(|at| at as u32);
        self.sequences.iter().zip(starts).flat_map(from).collect()
    }
}
