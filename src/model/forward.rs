//! The forward pass of every model: a ragged batch under several displacements at once.
//!
//! Shapes: `T` rows (tokens), `D` hidden size; a lane is one displacement, and the rows of all lanes are stacked.
//! Blocks below the first one that a lane displaces are computed once for all of them.

use super::{
    Batch, BlockParts, KvCache, Model, ModelError, NormPart, NormPlacement, Positions, ProjectionParts, pass::Pass,
    stream::Stream,
};
use crate::{
    direction::{Displacement, ParamId},
    kernels::{
        Context, activation,
        attention::{self, Attention, Inputs},
        rope::{self, RopeTable},
    },
    tensor::{MatRef, Sequences},
};

/// Is shown the rows of all lanes (one lane's while they agree) after the embedding (0) and after each block (1, 2, …),
/// the last with the closing normalisation and projection.
pub type Observer<'o> = dyn FnMut(usize, MatRef<'_>) + 'o;

/// What enters the head: `[T, width]` per lane.
pub struct Hidden<'w> {
    pub(super) stream: Stream<'w>,
}

impl Hidden<'_> {
    /// The rows of one lane.
    pub fn lane(&self, lane: usize) -> MatRef<'_> {
        self.stream.lane(lane)
    }
}

/// What the rows of a pass have in common.
struct Rows<'a> {
    batch: &'a Batch,
    /// Tokens of each sequence before its first row.
    starts: Vec<usize>,
    positions: Vec<u32>,
    rope: Option<std::sync::Arc<RopeTable>>,
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
    /// those after them.
    pub fn forward<'w>(
        &self,
        cx: &'w Context,
        batch: &Batch,
        lanes: &[Displacement],
        mut cache: Option<&mut KvCache>,
        mut observer: Option<&mut Observer<'_>>,
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
        batch.check(&self.spec, &starts)?;
        let positions = batch.positions(&starts);
        let reach = positions.iter().max().map_or(0, |&last| last as usize + 1);
        let rows = Rows { batch, starts, rope: self.rope(reach), positions };
        let pass = Pass { cx, model: self, lanes };

        let mut stream = pass.embed(&rows);
        for (index, block) in self.parts.blocks.iter().enumerate() {
            if let Some(observer) = &mut observer {
                observer(index, stream.all());
            }
            if pass.moved(block.params()) {
                stream = stream.fork(cx, lanes.len());
            }
            pass.attend(index, block, &rows, &mut stream, cache.as_deref_mut());
            pass.feed_forward(block, &mut stream);
        }
        let stream = pass.leave(stream);
        if let Some(observer) = &mut observer {
            observer(self.parts.blocks.len(), stream.all());
        }
        if let Some(cache) = cache {
            cache.advance(batch.sequences().iter().map(|rows| rows.len()));
        }
        Ok(Hidden { stream })
    }
}

impl<'w> Pass<'_, 'w> {
    /// From tokens to the residual stream.
    fn embed(&self, rows: &Rows<'_>) -> Stream<'w> {
        let (parts, spec) = (&self.model.parts, &self.model.spec);
        let norm = parts.embedding_norm.map(NormPart::params).into_iter().flatten();
        let project = parts.project_in.map(|part| part.weight);
        let entries = [Some(parts.tokens), parts.types, parts.positions, project].into_iter().flatten();
        let lanes = if self.moved(entries.chain(norm)) { self.lanes.len() } else { 1 };

        let mut stream = self.gather(parts.tokens, rows.batch.ids(), lanes, spec.embedding.width);
        if let Some(part) = parts.project_in {
            let mut wide = stream.beside(self.cx, spec.hidden_size);
            self.linear(part, stream.all(), wide.all_mut());
            stream = wide;
        }
        if let Some(types) = parts.types {
            let ids = vec![0; rows.batch.tokens()];
            stream.add(self.cx, &self.gather(types, &ids, lanes, spec.hidden_size));
        }
        if let (Some(table), Positions::Learned { offset, .. }) = (parts.positions, &spec.embedding.positions) {
            let ids: Vec<u32> = rows.positions.iter().map(|position| position + *offset as u32).collect();
            stream.add(self.cx, &self.gather(table, &ids, lanes, spec.hidden_size));
        }
        match parts.embedding_norm {
            Some(part) => self.normed(part, &stream),
            None => stream,
        }
    }

    /// Rows `ids` of a table in each of `lanes` lanes.
    fn gather(&self, table: ParamId, ids: &[u32], lanes: usize, width: usize) -> Stream<'w> {
        let moves = self.moves(table);
        let mut rows = Stream::new(self.cx, if moves.is_empty() { 1 } else { lanes }, ids.len(), width);
        moves.gather(self.cx, self.model.store.weight(table), ids, rows.all_mut());
        rows.fork(self.cx, lanes)
    }

    /// `norm(stream)`.
    fn normed(&self, part: NormPart, stream: &Stream<'w>) -> Stream<'w> {
        let mut out = stream.beside(self.cx, stream.width());
        self.norm(part, stream.all(), out.all_mut());
        out
    }

    /// One residual layer: `stream += layer(norm(stream))`, or `stream = norm(stream + layer(stream))`.
    fn residual(&self, norm: NormPart, stream: &mut Stream<'w>, layer: impl FnOnce(&Stream<'w>) -> Stream<'w>) {
        match self.model.spec.norm.placement {
            NormPlacement::Before => {
                let delta = layer(&self.normed(norm, stream));
                stream.add(self.cx, &delta);
            }
            NormPlacement::After => {
                let delta = layer(stream);
                stream.add(self.cx, &delta);
                *stream = self.normed(norm, stream);
            }
        }
    }

    fn attend(
        &self,
        index: usize,
        block: &BlockParts,
        rows: &Rows<'_>,
        stream: &mut Stream<'w>,
        cache: Option<&mut KvCache>,
    ) {
        let spec = &self.model.spec;
        let (queries, keys) = (spec.query_width(), spec.key_width());
        self.residual(block.attention_norm, stream, |x| {
            let mut projected = x.beside(self.cx, queries + 2 * keys);
            let columns = [0..queries, queries..queries + keys, queries + keys..queries + 2 * keys];
            match block.projections {
                ProjectionParts::Split(parts) => {
                    for (part, columns) in parts.into_iter().zip(columns.clone()) {
                        self.linear(part, x.all(), projected.all_mut().column_range_mut(columns));
                    }
                }
                ProjectionParts::Fused(part) => self.linear(part, x.all(), projected.all_mut()),
            }
            if let Some(table) = &rows.rope {
                let positions = rows.positions.repeat(x.lanes());
                for columns in &columns[..2] {
                    rope::forward(self.cx, table, &positions, projected.all_mut().column_range_mut(columns.clone()));
                }
            }
            let mut mixed = x.beside(self.cx, queries);
            let [q, k, v] = columns.map(|columns| projected.all().column_range(columns));
            match cache {
                None => self.attention(rows, Inputs { q, k, v }, &mut mixed),
                Some(cache) => self.cached_attention(index, rows, Inputs { q, k, v }, &mut mixed, cache),
            }
            let mut delta = x.beside(self.cx, spec.hidden_size);
            self.linear(block.out, mixed.all(), delta.all_mut());
            delta
        });
    }

    /// Attention within the batch: keys are those of its own rows.
    fn attention(&self, rows: &Rows<'_>, inputs: Inputs<'_>, out: &mut Stream<'_>) {
        let sequences = rows.batch.sequences().repeat(out.lanes());
        attention::forward(self.cx, &self.attention_layer(&sequences, &sequences), inputs, out.all_mut());
    }

    /// Attention over cached keys, sequence by sequence.
    fn cached_attention(
        &self,
        block: usize,
        rows: &Rows<'_>,
        Inputs { q, k, v }: Inputs<'_>,
        out: &mut Stream<'_>,
        cache: &mut KvCache,
    ) {
        for (sequence, range) in rows.batch.sequences().iter().enumerate() {
            let [k, v] = cache.extend(block, sequence, [k, v], range.clone());
            let queries = Sequences::from_lengths([range.len()]);
            let keys = Sequences::from_lengths([rows.starts[sequence] + range.len()]);
            let inputs = Inputs { q: q.row_range(range.clone()), k, v };
            let layer = self.attention_layer(&queries, &keys);
            attention::forward(self.cx, &layer, inputs, out.all_mut().row_range_mut(range));
        }
    }

    fn attention_layer<'s>(&self, queries: &'s Sequences, keys: &'s Sequences) -> Attention<'s> {
        let spec = &self.model.spec.attention;
        Attention {
            queries,
            keys,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            mask: spec.mask,
            scale: self.model.spec.attention_scale(),
        }
    }

    fn feed_forward(&self, block: &BlockParts, stream: &mut Stream<'w>) {
        let (spec, parts) = (&self.model.spec, block.ffn);
        self.residual(block.ffn_norm, stream, |x| {
            let mut up = x.beside(self.cx, spec.ffn.width);
            self.linear(parts.up, x.all(), up.all_mut());
            if let Some(part) = parts.gate {
                let mut gate = x.beside(self.cx, spec.ffn.width);
                self.linear(part, x.all(), gate.all_mut());
                activation::gated_forward_in_place(self.cx, spec.ffn.activation, gate.values(), up.values());
                up = gate;
            } else {
                activation::forward_in_place(self.cx, spec.ffn.activation, up.values());
            }
            let mut delta = x.beside(self.cx, spec.hidden_size);
            self.linear(parts.down, up.all(), delta.all_mut());
            delta
        });
    }

    /// From the residual stream to what the head reads.
    fn leave(&self, mut stream: Stream<'w>) -> Stream<'w> {
        let parts = &self.model.parts;
        if let Some(part) = parts.last_norm {
            if self.moved(part.params()) {
                stream = stream.fork(self.cx, self.lanes.len());
            }
            stream = self.normed(part, &stream);
        }
        if let Some(part) = parts.project_out {
            if self.moved([part.weight]) {
                stream = stream.fork(self.cx, self.lanes.len());
            }
            let mut narrow = stream.beside(self.cx, part.outputs);
            self.linear(part, stream.all(), narrow.all_mut());
            stream = narrow;
        }
        stream
    }
}
