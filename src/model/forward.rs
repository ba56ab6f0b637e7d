//! The forward pass of every model: a ragged batch under several displacements at once.
//!
//! A lane is one displacement, and the rows of all lanes are stacked. Blocks below the first one that a lane displaces
//! are computed once for all of them.

use super::{
    Batch, KvCache, Model, ModelError,
    layers::{self, Rows},
    pass::Pass,
    stream::Stream,
};
use crate::{
    direction::{Displacement, ExampleRows},
    kernels::Context,
    tensor::MatRef,
};

/// Is shown the rows of all lanes (one lane's while they agree) after the embedding (0) and after each block (1, 2, …),
/// the last with the closing normalisation and projection.
pub type Observer<'o> = dyn FnMut(usize, MatRef<'_>) + 'o;

/// What enters the head: `[T, width]` per lane.
pub struct Hidden<'w> {
    pub(super) stream: Stream<'w>,
    /// The rows of a lane by their examples.
    pub(super) examples: Vec<ExampleRows>,
}

impl Hidden<'_> {
    /// The rows of one lane.
    pub fn lane(&self, lane: usize) -> MatRef<'_> {
        self.stream.lane(lane)
    }
}

impl Model {
    /// The hidden states of `batch` in every lane, one lane per displacement; those at θ are a lane that moves
    /// nothing. With a cache, sequences go on where it ends, and it is extended.
    ///
    /// # Errors
    /// [`ModelError::Token`], [`ModelError::TooLong`].
    ///
    /// # Panics
    /// If there is no lane, or a cache with several lanes or with other sequences, or with a model whose tokens see
    /// those after them; if a lane has directions of examples, but none of one of the batch.
    pub fn forward<'w>(
        &self,
        cx: &'w Context,
        batch: &Batch,
        lanes: &[Displacement],
        mut cache: Option<&mut KvCache>,
        observer: Option<&mut Observer<'_>>,
    ) -> Result<Hidden<'w>, ModelError> {
        assert!(!lanes.is_empty(), "a pass without a lane");
        if let Some(cache) = &cache {
            assert!(
                lanes.len() == 1 && self.spec.is_causal(),
                "a cache for {} lanes of {}",
                lanes.len(),
                self.spec.family
            );
            let (held, found) = (cache.lengths().len(), batch.sequences().len());
            assert_eq!(held, found, "a cache of {held} sequences for {found}");
        }
        let starts = cache.as_ref().map_or_else(|| vec![0; batch.sequences().len()], |cache| cache.lengths().to_vec());
        let rows = Rows::new(self, batch, starts)?;
        let examples = batch.example_rows();
        let mut pass = Pass { cx, model: self, lanes, cache: cache.as_deref_mut(), examples: &examples };
        let stream = layers::hidden(&mut pass, &rows, observer);
        if let Some(cache) = cache {
            cache.advance(batch.sequences().iter().map(|rows| rows.len()));
        }
        Ok(Hidden { stream, examples })
    }
}
