//! The output head and its loss in one pass: at most 48 MiB of logits exist at a time.
//!
//! 1024 rows of a vocabulary of 49,152 would be 201 MB of logits, written and read once per probe. A block of 64 rows
//! (12.6 MB) pays for packing the matrix every 64 rows, a block of 256 a quarter of that. Rows without a label are not
//! even multiplied.
//!
//! *What it is not.* No new arithmetic: [`matmul`], then [`super::cross_entropy`], row by row the same bits as
//! over the whole matrix (contract C1). *What must stay true*: gradients of weight and bias are one chain
//! per element over labelled rows in batch order, continuing in the buffer.

use std::{borrow::Cow, ops::Range};

use rayon::prelude::*;

use super::{
    Context,
    cross_entropy::{RowGradient, RowLoss, RowSlope, Sums, Targets},
    elementwise,
    matmul::{self, PanelSource},
};
use crate::{
    simd::Simd,
    tensor::{MatMut, MatRef, Scratch, Sequences},
};

/// Bytes of logits that exist at a time, all branches together.
const BYTES: usize = 48 << 20;

/// Logit rows of a vocabulary that exist at a time, all branches together: whole tiles of any instruction set.
fn rows_at_a_time(vocabulary: usize) -> usize {
    const TILE: usize = 16;
    (BYTES / size_of::<f32>() / vocabulary.max(1) / TILE * TILE).clamp(TILE, 256)
}

/// `Σ −ln softmax(x Wᵀ + bias)[label]` over labelled rows, one answer per branch of `weight`.
///
/// `x` is `[branches · R, D]` (the rows of branch 0 first), `weight` `[V, D]`, `bias` `[V]`.
///
/// # Panics
/// If a shape does not fit `targets`, or a label has no column.
pub fn forward<W: PanelSource>(
    cx: &Context,
    x: MatRef,
    weight: &W,
    bias: Option<&[f32]>,
    targets: &Targets,
) -> Vec<Sums> {
    forward_by(cx, x, weight.branches(), targets, |_, x, logits| matmul::forward(cx, x, weight, bias, logits))
}

/// As [`forward`] for `groups` equal groups of rows of `x`, whatever makes logits of them: `product` is called with
/// the numbers of some rows and these rows of every group, `[groups · r, D]`, and writes theirs, `[groups · r, V]`.
///
/// # Panics
/// As [`forward`].
pub fn forward_by(
    cx: &Context,
    x: MatRef,
    groups: usize,
    targets: &Targets,
    product: impl FnMut(&[usize], MatRef<'_>, MatMut<'_>),
) -> Vec<Sums> {
    sums(cx, (x, groups), targets, product, |group, target, logits| {
        cx.isa.dispatch(RowLoss { logits: logits.row(group), target })
    })
}

/// The loss and its derivative along each of several changes of everything that the head reads.
///
/// The first of the `groups` groups of rows of `x` is the input, each other one its change along one direction;
/// `product`, called as in [`forward_by`], makes logits of the first and their change of the others.
///
/// # Panics
/// As [`forward`].
pub fn tangent_by(
    cx: &Context,
    x: MatRef,
    groups: usize,
    targets: &Targets,
    product: impl FnMut(&[usize], MatRef<'_>, MatMut<'_>),
) -> (Sums, Vec<Sums>) {
    let mut sums = sums(cx, (x, groups), targets, product, |group, target, logits| match group {
        0 => cx.isa.dispatch(RowLoss { logits: logits.row(0), target }),
        _ => cx.isa.dispatch(RowSlope { logits: logits.row(0), logits_dot: logits.row(group), target }),
    });
    let slopes = sums.split_off(1);
    (sums.remove(0), slopes)
}

/// The sum of `value(group, column of the label, logits)` over labelled rows for each group of rows of `x`; row `g` of
/// those logits is the row in group `g`.
fn sums(
    cx: &Context,
    (x, groups): (MatRef, usize),
    targets: &Targets,
    mut product: impl FnMut(&[usize], MatRef<'_>, MatMut<'_>),
    value: impl Fn(usize, usize, MatRef<'_>) -> f64 + Sync,
) -> Vec<Sums> {
    let (rows, v) = (targets.labels.len(), targets.vocabulary.len());
    check(x, groups, v, targets);
    let mut values = cx.workspace.take::<f64>(groups * rows);
    for Block { rows: block, .. } in blocks(targets, (rows_at_a_time(v) / groups).max(1)) {
        let (r, m) = (block.len(), groups * block.len());
        let input = gather(cx, x, &block, groups);
        let mut logits = cx.workspace.take::<f32>(m * v);
        product(&numbers(&block), MatRef::new(&input, m, x.cols()), MatMut::new(&mut logits, m, v));
        let logits: &[f32] = &logits;
        let of_row = |i: usize| MatRef::with_stride(&logits[i * v..], groups, v, r * v);
        let found: Vec<_> = (0..m).into_par_iter().map(|i| value(i / r, block[i % r].target, of_row(i % r))).collect();
        for (i, found) in found.into_iter().enumerate() {
            values[i / r * rows + block[i % r].row] = found;
        }
    }
    (0..groups).map(|g| targets.sum(&values[g * rows..(g + 1) * rows])).collect()
}

/// How much the loss of each row counts in the sum that [`backward_by`] differentiates: a value per row, those of rows
/// without a label unread.
pub enum Scale<'a> {
    /// Known before the losses are: logits are made once.
    Known(&'a [f32]),
    /// Found from the losses: logits that are not one block are made twice.
    Of(&'a mut dyn FnMut(&Sums) -> Vec<f32>),
}

/// Where [`backward_by`] writes, as far as it is wanted.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of the input, `[R, D]`: written, +0 in rows without a label.
    pub x: Option<MatMut<'a>>,
    /// Of the weight, `[V, D]`: added to.
    pub weight: Option<MatMut<'a>>,
    /// Of the bias, `[V]`: added to.
    pub bias: Option<&'a mut [f32]>,
}

/// The losses of [`forward_by`] for one group of rows, and the gradients of `Σ scale[r] · loss[r]`.
///
/// `product` makes logits of rows of `x`, as in [`forward_by`]; `adjoint` makes of the gradient of such logits, `[r, V]`,
/// that of the rows, `[r, D]`.
///
/// # Panics
/// As [`forward`], or if there is not one scale per row.
pub fn backward_by(
    cx: &Context,
    x: MatRef,
    targets: &Targets,
    scale: Scale,
    mut product: impl FnMut(&[usize], MatRef<'_>, MatMut<'_>),
    mut adjoint: impl FnMut(MatRef<'_>, MatMut<'_>),
    mut gradients: Gradients,
) -> Sums {
    let (rows, v, d) = (targets.labels.len(), targets.vocabulary.len(), x.cols());
    check(x, 1, v, targets);
    if let Some(x_bar) = &mut gradients.x {
        check(x_bar.as_ref(), 1, v, targets);
        x_bar.reborrow().into_rows().for_each(|row| row.fill(0.0));
    }
    let blocks = blocks(targets, rows_at_a_time(v));
    let mut values = cx.workspace.take::<f64>(rows);
    let mut make = |block: &Block, input: &Scratch<'_, f32>| {
        let m = block.rows.len();
        let mut logits = cx.workspace.take::<f32>(m * v);
        product(&numbers(&block.rows), MatRef::new(input, m, d), MatMut::new(&mut logits, m, v));
        logits
    };
    let evaluate = |block: &Block, logits: &[f32], values: &mut [f64]| {
        let loss = |(logits, row): (_, &Labelled)| cx.isa.dispatch(RowLoss { logits, target: row.target });
        let found: Vec<_> = logits.par_chunks_exact(v).zip(&block.rows).map(loss).collect();
        block.rows.iter().zip(found).for_each(|(row, loss)| values[row.row] = loss);
    };

    let mut held = None;
    let (is_known, scale) = match scale {
        Scale::Known(scale) => (true, Cow::Borrowed(scale)),
        Scale::Of(scale) => {
            for block in &blocks {
                let logits = make(block, &gather(cx, x, &block.rows, 1));
                evaluate(block, &logits, &mut values);
                held = (blocks.len() == 1).then_some(logits);
            }
            (false, Cow::Owned(scale(&targets.sum(&values))))
        }
    };
    assert_eq!(scale.len(), rows, "{} scales for {rows} rows", scale.len());
    for block in &blocks {
        let m = block.rows.len();
        let input = gather(cx, x, &block.rows, 1);
        let mut logits = held.take().unwrap_or_else(|| make(block, &input));
        if is_known {
            evaluate(block, &logits, &mut values);
        }
        logits.par_chunks_exact_mut(v).zip(&block.rows).for_each(|(logits, row)| {
            cx.isa.dispatch(RowGradient { logits, target: row.target, scale: scale[row.row] });
        });
        let logits_bar = MatRef::new(&logits, m, v);
        if let Some(x_bar) = &mut gradients.x {
            let mut own = cx.workspace.take::<f32>(m * d);
            adjoint(logits_bar, MatMut::new(&mut own, m, d));
            for (row, own) in block.rows.iter().zip(own.chunks_exact(d)) {
                x_bar.row_mut(row.row).copy_from_slice(own);
            }
        }
        if let Some(weight_bar) = &mut gradients.weight {
            let x = MatRef::new(&input, m, d);
            matmul::backward::weight(cx, logits_bar, x, &block.examples, weight_bar.reborrow());
        }
        if let Some(bias_bar) = &mut gradients.bias {
            elementwise::add_bias_backward(cx, logits_bar, bias_bar);
        }
    }
    targets.sum(&values)
}

/// The rows of a weight that a restricted vocabulary reads, as a weight of their own.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'a, W> {
    /// The whole weight, `[V, D]`.
    pub weight: &'a W,
    /// The rows of it that exist here, in this order.
    pub ids: &'a [u32],
}

impl<W: PanelSource> PanelSource for Selected<'_, W> {
    fn rows(&self) -> usize {
        self.ids.len()
    }
    fn cols(&self) -> usize {
        self.weight.cols()
    }
    fn branches(&self) -> usize {
        self.weight.branches()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        let width = panels[0].len() / depth.len();
        // A panel per row, of which the first lane is used: a few label words do not repay more.
        let mut single = vec![0.0; panels.len() * depth.len() * width];
        for (lane, id) in self.ids[rows.clone()].iter().enumerate() {
            let id = *id as usize;
            let mut parts: Vec<_> = single.chunks_exact_mut(depth.len() * width).collect();
            self.weight.fill(simd, id..id + 1, depth.clone(), &mut parts);
            for (panel, part) in panels.iter_mut().zip(parts) {
                for (out, x) in panel.chunks_exact_mut(width).zip(part.chunks_exact(width)) {
                    out[lane] = x[0];
                }
            }
        }
        for panel in panels {
            for out in panel.chunks_exact_mut(width) {
                out[rows.len()..].fill(0.0);
            }
        }
    }
}

/// A row that has a label.
#[derive(Clone, Copy)]
struct Labelled {
    row: usize,
    target: usize,
}

fn numbers(rows: &[Labelled]) -> Vec<usize> {
    rows.iter().map(|labelled| labelled.row).collect()
}

/// Labelled rows whose logits exist at a time, and how many are each example's.
struct Block {
    rows: Vec<Labelled>,
    examples: Sequences,
}

/// The labelled rows in order, at most `rows` at a time. An example is cut after an even number of its rows, so that its
/// tokens pair as they do uncut ([`matmul::backward::weight`]).
fn blocks(targets: &Targets, rows: usize) -> Vec<Block> {
    let (mut blocks, mut block, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    let finish = |block: &mut Vec<Labelled>, lengths: &mut Vec<usize>| Block {
        rows: std::mem::take(block),
        examples: Sequences::from_lengths(std::mem::take(lengths)),
    };
    for example in targets.examples.iter() {
        let labelled: Vec<_> =
            example.filter_map(|row| targets.column(row).map(|target| Labelled { row, target })).collect();
        let mut rest = &labelled[..];
        while !rest.is_empty() {
            let room = rows - block.len();
            let fitting = if rest.len() <= room { rest.len() } else { room / 2 * 2 };
            let fitting = if fitting == 0 && block.is_empty() { 1 } else { fitting };
            let (now, later) = rest.split_at(fitting);
            block.extend(now);
            lengths.push(now.len());
            if !later.is_empty() {
                blocks.push(finish(&mut block, &mut lengths));
            }
            rest = later;
        }
    }
    if !block.is_empty() {
        blocks.push(finish(&mut block, &mut lengths));
    }
    blocks
}

/// The block's rows of every branch of `x`, dense.
fn gather<'w>(cx: &'w Context, x: MatRef, block: &[Labelled], branches: usize) -> Scratch<'w, f32> {
    let (rows, d) = (x.rows() / branches, x.cols());
    let mut out = cx.workspace.take::<f32>(branches * block.len() * d);
    let sources = (0..branches).flat_map(|b| block.iter().map(move |labelled| b * rows + labelled.row));
    for (i, row) in sources.enumerate() {
        out[i * d..(i + 1) * d].copy_from_slice(x.row(row));
    }
    out
}

fn check(x: MatRef, branches: usize, columns: usize, targets: &Targets) {
    targets.check_rows();
    let (rows, ids) = (targets.labels.len(), targets.vocabulary.len());
    assert!(
        x.rows() == branches * rows && columns == ids,
        "x [{}, {}] of {branches} branches and {columns} columns for {rows} labels over {ids} ids",
        x.rows(),
        x.cols()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::{cross_entropy, cross_entropy::Vocabulary},
        tensor::{Sequences, WeightRef},
        testing::{assert_same_bits, everywhere},
    };

    const D: usize = 19;
    const V: usize = 83;
    const R: usize = 700;

    fn values(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32 * step).fract() - 0.5) * 1.7).collect()
    }

    /// `R` rows in three examples, every fourth without a label: two blocks of 256 and a rest.
    fn labels(ids: &[u32]) -> (Vec<Option<u32>>, Sequences) {
        let labels = (0..R).map(|i| (i % 4 != 1).then(|| ids[i * 7 % ids.len()])).collect();
        (labels, Sequences::from_lengths([40, 0, R - 40]))
    }

    fn same_sums(got: &Sums, expected: &Sums, label: &str) {
        let bits = |sums: &Sums| {
            let per_example: Vec<_> = sums.per_example.iter().map(|x| x.to_bits()).collect();
            (per_example, sums.counts.clone(), sums.total.to_bits())
        };
        assert_eq!(bits(got), bits(expected), "{label}: {got:?} where {expected:?} was expected");
    }

    #[test]
    fn the_fused_head_has_the_bits_of_matmul_then_cross_entropy() {
        let ids: Vec<u32> = (0..V as u32).collect();
        let (labels, examples) = labels(&ids);
        let targets = Targets { vocabulary: Vocabulary::Full(V), labels: &labels, examples: &examples };
        let (x, x_dot) = (values(R * D, 0.37), values(R * D, 0.71));
        let (w, w_dot) = (values(V * D, 0.29), values(V * D, 0.53));
        let (bias, bias_dot) = (values(V, 0.43), values(V, 0.19));
        let (weight, weight_dot) = (WeightRef::f32(&w, V, D), WeightRef::f32(&w_dot, V, D));
        let (x, x_dot) = (MatRef::new(&x, R, D), MatRef::new(&x_dot, R, D));
        let scale = values(R, 0.61);
        everywhere(|cx, label| {
            let mut logits = vec![0.0; R * V];
            let mut logits_dot = vec![0.0; R * V];
            let change_of = |(x, x_dot): (MatRef<'_>, MatRef<'_>), y_dot: MatMut<'_>| {
                let (x, w) = ((x, Some(x_dot)), (&weight, Some(&weight_dot)));
                matmul::backward::tangent(cx, x, w, Some(&bias_dot), y_dot);
            };
            matmul::forward(cx, x, &weight, Some(&bias), MatMut::new(&mut logits, R, V));
            change_of((x, x_dot), MatMut::new(&mut logits_dot, R, V));
            let (logits, logits_dot) = (MatRef::new(&logits, R, V), MatRef::new(&logits_dot, R, V));

            let expected = cross_entropy::forward(cx, &targets, logits);
            same_sums(&forward(cx, x, &weight, Some(&bias), &targets)[0], &expected, label);
            // The input, its change, and a change of nothing.
            let stacked = [x.data(), x_dot.data(), &[0.0; R * D]].concat();
            let (loss, slopes) = tangent_by(cx, MatRef::new(&stacked, 3 * R, D), 3, &targets, |_, x, mut y| {
                let rows = x.rows() / 3;
                let (own, dot) = (x.row_range(0..rows), x.row_range(rows..2 * rows));
                matmul::forward(cx, own, &weight, Some(&bias), y.row_range_mut(0..rows));
                change_of((own, dot), y.row_range_mut(rows..2 * rows));
                matmul::forward(
                    cx,
                    x.row_range(2 * rows..3 * rows),
                    &weight,
                    None,
                    y.row_range_mut(2 * rows..3 * rows),
                );
            });
            same_sums(&loss, &expected, label);
            same_sums(&slopes[0], &cross_entropy::tangent(cx, &targets, logits, logits_dot), label);
            assert!(slopes[1].per_example.iter().all(|slope| slope.to_bits() == 0), "{label}: {slopes:?}");

            let mut logits_bar = vec![0.0; R * V];
            cross_entropy::backward(cx, &targets, logits, &scale, MatMut::new(&mut logits_bar, R, V));
            let (mut x_bar, mut w_bar, mut b_bar) = (vec![f32::NAN; R * D], vec![0.5; V * D], vec![0.25; V]);
            let mut from_losses = |_: &Sums| scale.clone();
            let scales = [Scale::Known(&scale), Scale::Of(&mut from_losses)];
            for scale in scales {
                w_bar.fill(0.5);
                b_bar.fill(0.25);
                let gradients = Gradients {
                    x: Some(MatMut::new(&mut x_bar, R, D)),
                    weight: Some(MatMut::new(&mut w_bar, V, D)),
                    bias: Some(&mut b_bar),
                };
                let product =
                    |_: &[usize], x: MatRef<'_>, y: MatMut<'_>| matmul::forward(cx, x, &weight, Some(&bias), y);
                let adjoint = |y: MatRef<'_>, x: MatMut<'_>| matmul::backward::input(cx, y, &weight, false, x);
                same_sums(&backward_by(cx, x, &targets, scale, product, adjoint, gradients), &expected, label);
            }
            let (mut x_sum, mut w_sum, mut b_sum) = (vec![0.0_f32; R * D], vec![0.5_f32; V * D], vec![0.25_f32; V]);
            for r in (0..R).filter(|&r| labels[r].is_some()) {
                for c in 0..V {
                    let bar = logits_bar[r * V + c];
                    b_sum[c] += bar;
                    for d in 0..D {
                        x_sum[r * D + d] = bar.mul_add(w[c * D + d], x_sum[r * D + d]);
                        w_sum[c * D + d] = bar.mul_add(x.row(r)[d], w_sum[c * D + d]);
                    }
                }
            }
            assert_same_bits(&x_bar, &x_sum, format!("{label}, x"));
            assert_same_bits(&w_bar, &w_sum, format!("{label}, weight"));
            assert_same_bits(&b_bar, &b_sum, format!("{label}, bias"));
        });
    }

    #[test]
    fn a_restricted_vocabulary_reads_only_its_rows_of_the_weight() {
        let ids: Vec<u32> = (0..21).map(|i| (i * 31 % V) as u32).collect();
        let (labels, examples) = labels(&ids);
        let targets = Targets { vocabulary: Vocabulary::Only(&ids), labels: &labels, examples: &examples };
        let x = values(R * D, 0.37);
        let mut w = values(V * D, 0.29);
        let chosen: Vec<f32> = ids.iter().flat_map(|&id| w[id as usize * D..][..D].to_vec()).collect();
        let outside = (0..V).find(|id| !ids.contains(&(*id as u32))).unwrap();
        w[outside * D] = f32::NAN;
        let x = MatRef::new(&x, R, D);
        everywhere(|cx, label| {
            let weight = WeightRef::f32(&w, V, D);
            let got = forward(cx, x, &Selected { weight: &weight, ids: &ids }, None, &targets);
            let expected = forward(cx, x, &WeightRef::f32(&chosen, ids.len(), D), None, &targets);
            same_sums(&got[0], &expected[0], label);
            assert!(got[0].total.is_finite());
        });
    }
}
