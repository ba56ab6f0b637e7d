//! What one task does: a block of query rows forward or tangent, a whole key head backward.

use super::{
    Inputs,
    band::{self, Factors},
    block::Block,
    scores::{self, Scores},
};
use crate::{
    kernels::{Context, softmax},
    simd::{MAX_LANES, Simd, SimdOp},
    tensor::MatRef,
};

/// Where a task's rows and columns are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Rows of `q` before the sequence's first query; rows of `k` and `v` before its first key.
    pub(super) first_query: usize,
    pub(super) first_key: usize,
    pub(super) kv_head: usize,
    /// Query heads per key head.
    pub(super) group: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f32,
}

impl Place {
    /// Values of one query row in the group's heads, which lie side by side.
    fn group_width(&self) -> usize {
        self.group * self.head_dim
    }

    /// Copies the group's heads of the block's query rows: `[queries, group · head_dim]` in memory is
    /// `[rows, head_dim]` of the score tile's rows.
    #[inline(always)]
    fn gather(&self, block: &Block, x: MatRef, out: &mut [f32]) {
        let width = self.group_width();
        for (query, out) in block.queries.clone().zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&x.row(self.first_query + query)[self.kv_head * width..][..width]);
        }
    }

    /// The product of a block's rows with a key matrix.
    #[inline(always)]
    fn scores<'a>(&self, block: &Block, left: &'a [f32], right: MatRef<'a>) -> Scores<'a> {
        Scores {
            left,
            right,
            first_key: self.first_key + block.span.start,
            column: self.kv_head * self.head_dim,
            depth: self.head_dim,
            carry: false,
            scale: 1.0,
        }
    }

    /// The product of a score tile with the values of the block's span.
    #[inline(always)]
    fn weighted<'a>(&self, block: &Block, left: &'a [f32], left_stride: usize, right: MatRef<'a>) -> Factors<'a> {
        let first = (self.first_key + block.span.start) * right.stride() + self.kv_head * self.head_dim;
        Factors { left, left_stride, right: &right.data()[first..], right_stride: right.stride(), width: self.head_dim }
    }
}

/// One block's rows of the output.
pub(super) struct Forward<'a, 'out> {
    pub(super) cx: &'a Context,
    pub(super) place: Place,
    pub(super) block: &'a Block,
    pub(super) x: Inputs<'a>,
    /// The group's heads of each of the block's query rows.
    pub(super) out: &'a mut [&'out mut [f32]],
}

impl SimdOp for Forward<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Forward { cx, place, block, x, out } = self;
        let (rows, head_dim) = (block.rows(), place.head_dim);
        let stride = scores::row_stride(block, S::LANES);
        let mut panel = cx.workspace.take::<f32>(head_dim * scores::panel_width(S::LANES));
        let mut q = cx.workspace.take::<f32>(rows * head_dim);
        let mut tile = cx.workspace.take::<f32>(rows * stride);
        let mut sums = cx.workspace.take::<f32>(rows);

        place.gather(block, x.q, &mut q);
        let product = Scores { scale: place.scale, ..place.scores(block, &q, x.k) };
        scores::fill(simd, block, &product, &mut panel, &mut tile);
        for (r, (row, sum)) in tile.chunks_exact_mut(stride).zip(sums.iter_mut()).enumerate() {
            *sum = softmax::exponentials(simd, row, block.columns_of(r));
        }
        // The queries are not needed any more: their memory takes the result.
        let mut result = q;
        result.fill(0.0);
        let factors = place.weighted(block, &tile, stride, x.v);
        band::product::<S, false>(simd, &factors, rows, |r| block.columns_of(r), &mut result);
        for (row, sum) in result.chunks_exact_mut(head_dim).zip(sums.iter()) {
            softmax::divide(simd, row, *sum);
        }
        scatter(&result, out);
    }
}

/// One block's rows of the output's tangent.
pub(super) struct Tangent<'a, 'out> {
    pub(super) cx: &'a Context,
    pub(super) place: Place,
    pub(super) block: &'a Block,
    pub(super) x: Inputs<'a>,
    pub(super) x_dot: Inputs<'a>,
    pub(super) out: &'a mut [&'out mut [f32]],
}

impl SimdOp for Tangent<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Tangent { cx, place, block, x, x_dot, out } = self;
        let (rows, head_dim) = (block.rows(), place.head_dim);
        let stride = scores::row_stride(block, S::LANES);
        let mut panel = cx.workspace.take::<f32>(head_dim * scores::panel_width(S::LANES));
        let mut q = cx.workspace.take::<f32>(rows * head_dim);
        let mut q_dot = cx.workspace.take::<f32>(rows * head_dim);
        let mut p = cx.workspace.take::<f32>(rows * stride);
        let mut p_dot = cx.workspace.take::<f32>(rows * stride);

        place.gather(block, x.q, &mut q);
        place.gather(block, x_dot.q, &mut q_dot);
        // Ṡ = (q̇·k + q·k̇) scale, one chain; three products from one call site, which is compiled once.
        let scaled = |product| Scores { scale: place.scale, ..product };
        let products = [
            scaled(place.scores(block, &q, x.k)),
            place.scores(block, &q_dot, x.k),
            scaled(Scores { carry: true, ..place.scores(block, &q, x_dot.k) }),
        ];
        for (i, product) in products.iter().enumerate() {
            let tile = if i == 0 { &mut p } else { &mut p_dot };
            scores::fill(simd, block, product, &mut panel, tile);
        }
        for (r, (p, p_dot)) in p.chunks_exact_mut(stride).zip(p_dot.chunks_exact_mut(stride)).enumerate() {
            let seen = block.columns_of(r);
            let sum = softmax::exponentials(simd, p, seen.clone());
            softmax::divide(simd, &mut p[seen.clone()], sum);
            softmax::jacobian_product(simd, p, p_dot, seen);
        }
        // ȯ = Σ ṗ v, continued by Σ p v̇.
        let mut result = q;
        result.fill(0.0);
        for (weights, values) in [(&p_dot, x.v), (&p, x_dot.v)] {
            let factors = place.weighted(block, weights, stride, values);
            band::product::<S, false>(simd, &factors, rows, |r| block.columns_of(r), &mut result);
        }
        scatter(&result, out);
    }
}

/// The gradients of one key head: its keys and values, and the queries of its group.
pub(super) struct Backward<'a, 'out> {
    pub(super) cx: &'a Context,
    pub(super) place: Place,
    /// All blocks of the sequence, in order.
    pub(super) blocks: &'a [Block],
    pub(super) x: Inputs<'a>,
    pub(super) out_bar: MatRef<'a>,
    /// The group's heads of each query row of the sequence.
    pub(super) q_bar: &'a mut [&'out mut [f32]],
    /// The head's columns of each key and value row of the sequence.
    pub(super) k_bar: &'a mut [&'out mut [f32]],
    pub(super) v_bar: &'a mut [&'out mut [f32]],
}

impl SimdOp for Backward<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Backward { cx, place, blocks, x, out_bar, q_bar, k_bar, v_bar } = self;
        let head_dim = place.head_dim;
        let most = |size: fn(&Block) -> usize| blocks.iter().map(size).max().unwrap_or(0);
        let (rows, keys) = (most(Block::rows), k_bar.len());
        let tile = most(|block| block.rows() * block.span.len().next_multiple_of(4 * MAX_LANES));
        let mut panel = cx.workspace.take::<f32>(head_dim * scores::panel_width(S::LANES));
        let mut q = cx.workspace.take::<f32>(rows * head_dim);
        let mut o = cx.workspace.take::<f32>(rows * head_dim);
        let mut p = cx.workspace.take::<f32>(tile);
        let mut s = cx.workspace.take::<f32>(tile);
        let mut k_sum = cx.workspace.take::<f32>(keys * head_dim);
        let mut v_sum = cx.workspace.take::<f32>(keys * head_dim);
        k_sum.fill(0.0);
        v_sum.fill(0.0);

        for block in blocks {
            let rows = block.rows();
            let stride = scores::row_stride(block, S::LANES);
            let (q, o) = (&mut q[..rows * head_dim], &mut o[..rows * head_dim]);
            let (p, s) = (&mut p[..rows * stride], &mut s[..rows * stride]);
            place.gather(block, x.q, q);
            place.gather(block, out_bar, o);
            let products = [
                (Scores { scale: place.scale, ..place.scores(block, q, x.k) }, &mut *p),
                (place.scores(block, o, x.v), &mut *s),
            ];
            for (product, tile) in products {
                scores::fill(simd, block, &product, &mut panel, tile);
            }
            for (r, (p, s)) in p.chunks_exact_mut(stride).zip(s.chunks_exact_mut(stride)).enumerate() {
                let seen = block.columns_of(r);
                let sum = softmax::exponentials(simd, p, seen.clone());
                softmax::divide(simd, &mut p[seen.clone()], sum);
                softmax::jacobian_product(simd, p, s, seen.clone());
                multiply(simd, &mut s[seen], place.scale);
            }
            // Sums over query rows, in order: the chains of a key go on from block to block.
            for (left, right, out) in [(&*p, &*o, &mut *v_sum), (&*s, &*q, &mut *k_sum)] {
                let factors = Factors { left, left_stride: stride, right, right_stride: head_dim, width: head_dim };
                let out = &mut out[block.span.start * head_dim..];
                band::product::<S, true>(simd, &factors, block.span.len(), |c| block.rows_of(c), out);
            }
            let q_sum = q;
            q_sum.fill(0.0);
            let factors = place.weighted(block, s, stride, x.k);
            band::product::<S, false>(simd, &factors, rows, |r| block.columns_of(r), q_sum);
            scatter(q_sum, &mut q_bar[block.queries.clone()]);
        }
        scatter(&k_sum, k_bar);
        scatter(&v_sum, v_bar);
    }
}

/// Copies the rows of a dense matrix to where they belong.
fn scatter(rows: &[f32], out: &mut [&mut [f32]]) {
    let mut rest = rows;
    for out in out {
        let (row, after) = rest.split_at(out.len());
        out.copy_from_slice(row);
        rest = after;
    }
}

/// Multiplies every value by `factor`.
#[inline(always)]
fn multiply<S: Simd>(simd: S, row: &mut [f32], factor: f32) {
    let factor = simd.splat(factor);
    let mut chunks = row.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        simd.store(simd.mul(simd.load(chunk), factor), chunk);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        simd.store_partial(simd.mul(simd.load_partial(rest), factor), rest);
    }
}
