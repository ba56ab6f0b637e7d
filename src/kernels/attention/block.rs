//! A block of consecutive query rows of one sequence and one key head, and who sees whom in it.

use std::ops::Range;

use crate::{kernels::Mask, simd::VIRTUAL_LANES};

/// Scores of a block, at most: 512 KiB, half of a small server core's second-level cache. A longer
/// sequence has blocks of fewer query rows.
const SCORES: usize = 128 * 1024;

/// Rows of a block's score tile, at most. A packed panel of keys serves all rows of a block: with 256 of
/// them packing is a few per cent of the arithmetic, and more would only make tasks coarser.
const ROWS: usize = 256;

/// The rows of a score tile: row `r` is query `r / group` of the block and head `r % group` of the
/// query heads that share the key head. Column `c` is the key at position `span.start + c`.
#[derive(Clone, Debug)]
pub(super) struct Block {
    mask: Mask,
    group: usize,
    /// The block's queries, numbered within the queries of the sequence.
    pub(super) queries: Range<usize>,
    /// Position of the first of them; keys cached earlier come before the sequence's first query.
    start: usize,
    /// Keys of the sequence.
    keys: usize,
    /// The keys that any query of the block sees. It starts at a multiple of 16: the column mod 16 is the
    /// position mod 16, which names the virtual lane.
    pub(super) span: Range<usize>,
}

impl Block {
    /// Splits the queries of a sequence, which are its `queries` last positions, into blocks.
    pub(super) fn split(mask: Mask, group: usize, queries: usize, keys: usize) -> impl Iterator<Item = Block> {
        let step = (SCORES / keys.max(1)).clamp(1, ROWS).div_ceil(group);
        (0..queries).step_by(step).map(move |first| {
            let last = queries.min(first + step) - 1;
            let start = keys - queries + first;
            let seen_first = mask.visible(start, keys).start;
            let seen_last = mask.visible(keys - queries + last, keys).end;
            let span = seen_first - seen_first % VIRTUAL_LANES..seen_last;
            Block { mask, group, queries: first..last + 1, start, keys, span }
        })
    }

    /// Rows of the score tile.
    pub(super) fn rows(&self) -> usize {
        self.queries.len() * self.group
    }

    /// The columns that row `row` sees; both ends grow with `row`.
    #[inline(always)]
    pub(super) fn columns_of(&self, row: usize) -> Range<usize> {
        let seen = self.mask.visible(self.start + row / self.group, self.keys);
        seen.start - self.span.start..seen.end - self.span.start
    }

    /// The rows that see column `column`; both ends grow with `column`.
    #[inline(always)]
    pub(super) fn rows_of(&self, column: usize) -> Range<usize> {
        let viewers = self.mask.viewers(self.span.start + column, self.start, self.queries.len());
        viewers.start * self.group..viewers.end * self.group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_query_once_and_their_tiles_are_bounded() {
        for (group, queries, keys) in [(1, 1, 1), (3, 1000, 1000), (8, 5, 40_000), (1, 700, 300_000), (300, 2, 9)] {
            let blocks: Vec<_> = Block::split(Mask::Causal, group, queries, keys).collect();
            let covered: Vec<_> = blocks.iter().flat_map(|block| block.queries.clone()).collect();
            assert_eq!(covered, (0..queries).collect::<Vec<_>>());
            for block in &blocks {
                // Rounding up to whole groups exceeds the bound by less than one group.
                assert!((block.rows() - group) * keys <= SCORES, "{block:?}");
            }
        }
    }

    #[test]
    fn a_span_starts_at_a_multiple_of_sixteen_and_holds_what_its_rows_see() {
        for mask in [Mask::Bidirectional, Mask::Causal, Mask::Window(5), Mask::Window(100)] {
            for block in Block::split(mask, 2, 300, 333) {
                assert_eq!(block.span.start % VIRTUAL_LANES, 0);
                for row in 0..block.rows() {
                    let position = 33 + block.queries.start + row / 2;
                    let columns = block.columns_of(row);
                    let seen = columns.start + block.span.start..columns.end + block.span.start;
                    assert_eq!(seen, mask.visible(position, 333), "{mask:?} row {row}");
                    assert!(columns.end <= block.span.len());
                    for column in [0, columns.start, columns.end - 1, block.span.len() - 1] {
                        assert_eq!(block.rows_of(column).contains(&row), columns.contains(&column));
                    }
                }
            }
        }
    }
}
