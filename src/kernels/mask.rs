//! Which keys a query sees.
//!
//! Positions count within one sequence. A masked key is not a key with a small weight: it is skipped,
//! so its score, its value and whatever stands in its memory reach nothing.

use std::ops::Range;

/// The attention pattern of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Every query sees every key of its sequence.
    Bidirectional,
    /// A query sees the keys up to and including its own position.
    Causal,
    /// A query sees the given number of keys up to and including its own position: sliding-window
    /// attention (Mistral 7B, 2023, arXiv 2310.06825), `sliding_window` in Hugging Face configurations.
    Window(usize),
}

impl Mask {
    /// The positions of the keys that the query at `position` sees among `keys`.
    ///
    /// # Panics
    /// On an empty window: a query that sees nothing has no softmax.
    #[inline]
    pub fn visible(self, position: usize, keys: usize) -> Range<usize> {
        match self {
            Mask::Bidirectional => 0..keys,
            Mask::Causal => 0..keys.min(position + 1),
            Mask::Window(width) => {
                assert!(width > 0, "a sliding window of 0 keys");
                let end = keys.min(position + 1);
                (position + 1).saturating_sub(width).min(end)..end
            }
        }
    }

    /// The queries, numbered from 0 at position `start`, that see the key at position `key` among
    /// `queries` of them: the converse of [`Mask::visible`].
    #[inline]
    pub fn viewers(self, key: usize, start: usize, queries: usize) -> Range<usize> {
        let first = key.saturating_sub(start).min(queries);
        match self {
            Mask::Bidirectional => 0..queries,
            Mask::Causal => first..queries,
            Mask::Window(width) => first..key.saturating_add(width).saturating_sub(start).clamp(first, queries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_are_the_converse_of_visible() {
        let masks = [Mask::Bidirectional, Mask::Causal, Mask::Window(1), Mask::Window(3), Mask::Window(usize::MAX)];
        for mask in masks {
            for start in [0, 1, 5] {
                for queries in [0, 1, 7] {
                    let keys = start + queries;
                    for key in 0..keys {
                        let viewers = mask.viewers(key, start, queries);
                        for query in 0..queries {
                            let sees = mask.visible(start + query, keys).contains(&key);
                            assert_eq!(viewers.contains(&query), sees, "{mask:?} key {key} query {query} from {start}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_counts_the_query_itself() {
        assert_eq!(Mask::Window(3).visible(5, 9), 3..6);
        assert_eq!(Mask::Window(3).visible(1, 9), 0..2);
        assert_eq!(Mask::Causal.visible(5, 9), 0..6);
        assert_eq!(Mask::Bidirectional.visible(5, 9), 0..9);
    }

    #[test]
    #[should_panic(expected = "a sliding window of 0 keys")]
    fn an_empty_window_is_refused() {
        Mask::Window(0).visible(5, 9);
    }
}
