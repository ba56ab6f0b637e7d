//! Ragged batches: sequences laid end to end, no padding.

use std::ops::Range;

/// The boundaries of `B` sequences within the rows of a batch: sequence `b` is rows
/// `bounds[b]..bounds[b + 1]`. Empty sequences are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences {
    bounds: Vec<usize>,
}

impl Sequences {
    /// Sequences of these lengths, in order.
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut bounds = vec![0_usize];
        for length in lengths {
            let end = bounds[bounds.len() - 1].checked_add(length).expect("total length overflows");
            bounds.push(end);
        }
        Sequences { bounds }
    }

    /// These sequences `times` times, end to end.
    pub fn repeat(&self, times: usize) -> Self {
        Sequences::from_lengths((0..times).flat_map(|_| self.iter().map(|rows| rows.len())))
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.bounds.len() - 1
    }
    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Rows of the whole batch.
    pub fn total(&self) -> usize {
        self.bounds[self.bounds.len() - 1]
    }
    /// The rows of sequence `b`.
    pub fn range(&self, b: usize) -> Range<usize> {
        self.bounds[b]..self.bounds[b + 1]
    }
    /// The row ranges of all sequences in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        (0..self.len()).map(|b| self.range(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_adjacent_and_cover_every_row() {
        let sequences = Sequences::from_lengths([3, 0, 5]);
        assert_eq!(sequences.iter().collect::<Vec<_>>(), [0..3, 3..3, 3..8]);
        assert_eq!((sequences.len(), sequences.total()), (3, 8));
        assert_eq!(Sequences::from_lengths([]).total(), 0);
        assert_eq!(sequences.repeat(2).iter().collect::<Vec<_>>(), [0..3, 3..3, 3..8, 8..11, 11..11, 11..16]);
    }
}
