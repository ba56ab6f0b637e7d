//! Scaled dot-product attention with grouped key/value heads over ragged sequences.
//!
//! `out = softmax(mask(q kᵀ · scale)) v` per sequence and head; query head `h` reads key head
//! `h / (heads / kv_heads)` (GQA: Ainslie et al. 2023, arXiv 2305.13245). Nothing is saved for
//! [`tangent`] and [`backward`]: they recompute the probabilities, which costs one of the five products
//! of a backward and spares memory of the square of the sequence length.
//!
//! *What it is not.* No online softmax (Milakov & Gimelshein 2018; `FlashAttention`, Dao et al. 2022): its rescaling
//! makes results depend on the tile size. The score tile is bounded by splitting query rows instead.
//!
//! *What must stay true* (contract C1). Each q·k is one chain of fused multiply-adds over the head
//! dimension ascending from +0, then one multiplication by the scale. The row maximum comes first, then
//! `e = exp(s − max)`; the denominator's virtual lane is the key's position in its own sequence mod 16;
//! `Σ e v` is one chain over keys ascending; one division at the end. Where probabilities are needed
//! themselves (tangent, backward), `p = e / Σe`. Masked keys are skipped: neither their values nor NaN
//! or ∞ in their memory touch a result, so a run with cached keys gives the bits of a run without.
//! Gradients of keys and values are one chain each over query rows ascending and, within a row, over
//! the heads of the group ascending.

mod band;
mod block;
mod passes;
mod scores;
#[cfg(test)]
mod tests;
mod tile;

use rayon::prelude::*;

use self::{
    block::Block,
    passes::{Backward, Forward, Place, Tangent},
};
use super::{Context, Mask};
use crate::tensor::{MatMut, MatRef, Sequences};

/// The geometry of an attention layer over a batch.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The rows of each sequence in `q` and `out`.
    pub queries: &'a Sequences,
    /// The rows of each sequence in `k` and `v`: as many as it has queries, or more. The queries are its
    /// last positions; keys before them were computed earlier (KV cache).
    pub keys: &'a Sequences,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Features of one head.
    pub head_dim: usize,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Multiplies the scores; `1/√head_dim` in most models.
    pub scale: f32,
}

/// Queries `[Tq, H·hd]`, keys and values `[Tk, K·hd]`; heads lie side by side in a row.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: MatRef<'a>,
    /// Keys.
    pub k: MatRef<'a>,
    /// Values.
    pub v: MatRef<'a>,
}

/// Where [`backward`] writes; shapes as in [`Inputs`].
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of the queries.
    pub q: MatMut<'a>,
    /// Of the keys.
    pub k: MatMut<'a>,
    /// Of the values.
    pub v: MatMut<'a>,
}

/// `out = softmax(mask(q kᵀ · scale)) v`, `[Tq, H·hd]`.
///
/// # Panics
/// If a shape does not fit `layer`.
pub fn forward(cx: &Context, layer: &Attention, x: Inputs, out: MatMut) {
    layer.check("attention", x, out.as_ref());
    let mut tasks = layer.tasks(out);
    tasks.par_iter_mut().for_each(|Task { place, block, out }| {
        cx.isa.dispatch(Forward { cx, place: *place, block, x, out });
    });
}

/// The change of [`forward`]'s result along `x_dot`.
///
/// # Panics
/// If a shape does not fit `layer`.
pub fn tangent(cx: &Context, layer: &Attention, x: Inputs, x_dot: Inputs, out_dot: MatMut) {
    layer.check("attention tangent", x, out_dot.as_ref());
    layer.check("attention tangent", x_dot, out_dot.as_ref());
    let mut tasks = layer.tasks(out_dot);
    tasks.par_iter_mut().for_each(|Task { place, block, out }| {
        cx.isa.dispatch(Tangent { cx, place: *place, block, x, x_dot, out });
    });
}

/// Writes the gradients of the inputs, given the gradient of the output.
///
/// One task is a sequence and a key head: fewer than the forward's, because the gradients of its keys
/// are chains over all of the sequence's queries.
///
/// # Panics
/// If a shape does not fit `layer`.
pub fn backward(cx: &Context, layer: &Attention, x: Inputs, out_bar: MatRef, gradients: Gradients) {
    layer.check("attention backward", x, out_bar);
    let shapes = Inputs { q: gradients.q.as_ref(), k: gradients.k.as_ref(), v: gradients.v.as_ref() };
    layer.check("attention gradients", shapes, out_bar);
    let q_bar = layer.by_head(layer.queries, gradients.q, layer.group() * layer.head_dim);
    let k_bar = layer.by_head(layer.keys, gradients.k, layer.head_dim);
    let v_bar = layer.by_head(layer.keys, gradients.v, layer.head_dim);
    let mut tasks: Vec<_> = layer.places().zip(q_bar).zip(k_bar.into_iter().zip(v_bar)).collect();
    tasks.par_iter_mut().for_each(|(((sequence, place), q_bar), (k_bar, v_bar))| {
        let blocks: Vec<_> = layer.blocks(*sequence).collect();
        cx.isa.dispatch(Backward { cx, place: *place, blocks: &blocks, x, out_bar, q_bar, k_bar, v_bar });
    });
}

/// One block of query rows of one key head, and where its results go.
struct Task<'out> {
    place: Place,
    block: Block,
    out: Vec<&'out mut [f32]>,
}

impl Attention<'_> {
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn blocks(&self, sequence: usize) -> impl Iterator<Item = Block> {
        Block::split(self.mask, self.group(), self.queries.range(sequence).len(), self.keys.range(sequence).len())
    }

    /// Every (sequence, key head), sequences outermost.
    fn places(&self) -> impl Iterator<Item = (usize, Place)> {
        (0..self.queries.len()).flat_map(move |sequence| {
            (0..self.kv_heads).map(move |kv_head| {
                let place = Place {
                    first_query: self.queries.range(sequence).start,
                    first_key: self.keys.range(sequence).start,
                    kv_head,
                    group: self.group(),
                    head_dim: self.head_dim,
                    scale: self.scale,
                };
                (sequence, place)
            })
        })
    }

    /// Cuts the rows of `out` into one piece of `width` values per key head: the result lists, in the
    /// order of [`Attention::places`], the pieces of each.
    fn by_head<'out>(&self, rows: &Sequences, out: MatMut<'out>, width: usize) -> Vec<Vec<&'out mut [f32]>> {
        let mut pieces: Vec<Vec<_>> = Vec::new();
        let mut all = out.into_rows();
        for rows in rows.iter() {
            let first = pieces.len();
            pieces.resize_with(first + self.kv_heads, || Vec::with_capacity(rows.len()));
            for row in all.by_ref().take(rows.len()) {
                for (pieces, piece) in pieces[first..].iter_mut().zip(row.chunks_exact_mut(width)) {
                    pieces.push(piece);
                }
            }
        }
        pieces
    }

    fn tasks<'out>(&self, out: MatMut<'out>) -> Vec<Task<'out>> {
        let pieces = self.by_head(self.queries, out, self.group() * self.head_dim);
        let mut tasks = Vec::new();
        for ((sequence, place), pieces) in self.places().zip(pieces) {
            let mut pieces = pieces.into_iter();
            for block in self.blocks(sequence) {
                let out = pieces.by_ref().take(block.queries.len()).collect();
                tasks.push(Task { place, block, out });
            }
        }
        tasks
    }

    fn check(&self, what: &str, x: Inputs, out: MatRef) {
        let &Attention { queries, keys, heads, kv_heads, head_dim, .. } = self;
        assert!(
            kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads) && head_dim > 0,
            "{what}: {heads} query heads over {kv_heads} key heads of {head_dim} features"
        );
        assert!(
            queries.len() == keys.len() && queries.iter().zip(keys.iter()).all(|(q, k)| q.len() <= k.len()),
            "{what}: queries {queries:?} do not end keys {keys:?}"
        );
        let shape = |x: MatRef| (x.rows(), x.cols());
        let (wide, narrow) = ((queries.total(), heads * head_dim), (keys.total(), kv_heads * head_dim));
        assert!(
            [shape(x.q), shape(out)] == [wide; 2] && [shape(x.k), shape(x.v)] == [narrow; 2],
            "{what}: q {:?}, k {:?}, v {:?} and output {:?}, where q and output want {wide:?}, k and v {narrow:?}",
            shape(x.q),
            shape(x.k),
            shape(x.v),
            shape(out),
        );
    }
}
