//! Cross-entropy of logit rows against labels, with the loss in f64.
//!
//! A zeroth-order step divides the difference of two losses by 2ε ≈ 2·10⁻³, and the slope of one step is
//! often below 10⁻¹: an f32 sum over a vocabulary of 50,000 terms, wrong in its seventh digit, would be
//! seen in the third digit of the slope. So the exponentials are f32, their sum is compensated
//! (each of 16 virtual lanes carries the sum of its rounding errors) and everything after is f64.
//!
//! *What it is not.* No matmul: [`super::head`] fuses the two, so that a full logit matrix never exists.
//!
//! *What must stay true* (contract C1). Column `i` belongs to virtual lane `i % 16`; lanes are widened and
//! folded by halves in f64. An example's loss is one f64 chain over its rows, the total one f64 chain
//! over examples. A row without a label is not read and counts nowhere. NaN and +∞ reach the loss.

use rayon::prelude::*;

use super::{Context, reduce};
use crate::{
    simd::{Simd, SimdOp, VIRTUAL_LANES, math, math64},
    tensor::{MatMut, MatRef, Sequences},
};

/// The label that Hugging Face data sets use for "ignored".
pub const IGNORED: i64 = -100;

/// A label as data sets write it: `None` if it is [`IGNORED`].
///
/// # Errors
/// The label itself, if it is no vocabulary id: negative or above `u32::MAX`.
pub fn label(raw: i64) -> Result<Option<u32>, i64> {
    if raw == IGNORED { Ok(None) } else { u32::try_from(raw).map(Some).map_err(|_| raw) }
}

/// The columns of a logit matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary<'a> {
    /// Column `i` is id `i`, for this many ids.
    Full(usize),
    /// Column `i` is the `i`-th of these ids, and the softmax runs over them alone: label words, classes.
    Only(&'a [u32]),
}

impl Vocabulary<'_> {
    /// Number of columns.
    pub fn len(self) -> usize {
        match self {
            Vocabulary::Full(len) => len,
            Vocabulary::Only(ids) => ids.len(),
        }
    }

    /// Whether there is no column.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The column of an id, if it has one.
    pub fn column(self, id: u32) -> Option<usize> {
        match self {
            Vocabulary::Full(len) => Some(id as usize).filter(|&column| column < len),
            Vocabulary::Only(ids) => ids.iter().position(|&allowed| allowed == id),
        }
    }
}

/// What the rows of a logit matrix `[R, V]` are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// The `V` columns.
    pub vocabulary: Vocabulary<'a>,
    /// The right id of each of the `R` rows; rows without one are ignored.
    pub labels: &'a [Option<u32>],
    /// The rows of each example (of each candidate, where candidates are scored).
    pub examples: &'a Sequences,
}

impl Targets<'_> {
    /// The column of row `row`'s label.
    ///
    /// # Panics
    /// If the label has no column: data is checked where it is read.
    pub(super) fn column(&self, row: usize) -> Option<usize> {
        self.labels[row].map(|id| {
            self.vocabulary
                .column(id)
                .unwrap_or_else(|| panic!("row {row} has label {id}, which is not among {} ids", self.vocabulary.len()))
        })
    }

    pub(super) fn check_rows(&self) {
        assert_eq!(
            self.labels.len(),
            self.examples.total(),
            "{} labels for {} rows of examples",
            self.labels.len(),
            self.examples.total()
        );
    }

    fn check(&self, logits: MatRef) {
        self.check_rows();
        assert!(
            logits.rows() == self.labels.len() && logits.cols() == self.vocabulary.len(),
            "logits [{}, {}] for {} labels over {} ids",
            logits.rows(),
            logits.cols(),
            self.labels.len(),
            self.vocabulary.len()
        );
    }

    /// Folds one value per row (those of ignored rows are not read).
    pub(super) fn sum(&self, values: &[f64]) -> Sums {
        let mut sums = Sums { per_example: Vec::new(), counts: Vec::new(), total: 0.0 };
        for rows in self.examples.iter() {
            let mut sum = 0.0;
            let mut count = 0;
            for row in rows.filter(|&row| self.labels[row].is_some()) {
                sum += values[row];
                count += 1;
            }
            sums.total += sum;
            sums.per_example.push(sum);
            sums.counts.push(count);
        }
        sums
    }
}

/// A quantity summed over labelled rows; not divided by anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Per example, in batch order.
    pub per_example: Vec<f64>,
    /// Labelled rows per example.
    pub counts: Vec<usize>,
    /// Over all examples.
    pub total: f64,
}

impl Sums {
    /// `count` examples from `first` on, with their own total.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn part(&self, first: usize, count: usize) -> Sums {
        let per_example = self.per_example[first..first + count].to_vec();
        let total = per_example.iter().fold(0.0, |total, loss| total + loss);
        Sums { per_example, counts: self.counts[first..first + count].to_vec(), total }
    }

    /// Labelled rows of all examples.
    pub fn count(&self) -> usize {
        self.counts.iter().sum()
    }
}

/// `Σ −ln softmax(z)[label]` over labelled rows, in nats. `logits` is `[R, V]`.
///
/// # Panics
/// If a shape does not fit `targets` or a label has no column.
pub fn forward(cx: &Context, targets: &Targets, logits: MatRef) -> Sums {
    targets.check(logits);
    per_row(cx, targets, |row, target| cx.isa.dispatch(RowLoss { logits: logits.row(row), target }))
}

/// The derivative of [`forward`] along `logits_dot`, both `[R, V]`.
///
/// # Panics
/// As [`forward`].
pub fn tangent(cx: &Context, targets: &Targets, logits: MatRef, logits_dot: MatRef) -> Sums {
    targets.check(logits);
    targets.check(logits_dot);
    per_row(cx, targets, |row, target| {
        cx.isa.dispatch(RowSlope { logits: logits.row(row), logits_dot: logits_dot.row(row), target })
    })
}

/// The gradient of `Σ scale[r] · loss[r]`: row `r` of `logits_bar` becomes
/// `(softmax(z) − onehot(label)) · scale[r]`, and +0 where there is no label.
///
/// `logits` and `logits_bar` are `[R, V]`, `scale` has `R` values (those of ignored rows are not read).
///
/// # Panics
/// As [`forward`].
pub fn backward(cx: &Context, targets: &Targets, logits: MatRef, scale: &[f32], logits_bar: MatMut) {
    targets.check(logits);
    targets.check(logits_bar.as_ref());
    assert_eq!(scale.len(), logits.rows(), "{} scales for {} rows", scale.len(), logits.rows());
    let mut rows: Vec<_> = logits_bar.into_rows().collect();
    rows.par_iter_mut().enumerate().for_each(|(row, out)| match targets.column(row) {
        None => out.fill(0.0),
        Some(target) => {
            out.copy_from_slice(logits.row(row));
            cx.isa.dispatch(RowGradient { logits: out, target, scale: scale[row] });
        }
    });
}

fn per_row(cx: &Context, targets: &Targets, value: impl Fn(usize, usize) -> f64 + Sync) -> Sums {
    let mut values = cx.workspace.take::<f64>(targets.labels.len());
    values.par_iter_mut().enumerate().for_each(|(row, out)| {
        if let Some(target) = targets.column(row) {
            *out = value(row, target);
        }
    });
    targets.sum(&values)
}

/// The loss of one row.
pub(super) struct RowLoss<'a> {
    pub(super) logits: &'a [f32],
    pub(super) target: usize,
}

impl SimdOp for RowLoss<'_> {
    type Output = f64;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> f64 {
        let max = reduce::max(simd, self.logits);
        let shift = simd.splat(max);
        let mut sum = CompensatedLanes::new(simd);
        let mut groups = self.logits.chunks_exact(VIRTUAL_LANES);
        for group in &mut groups {
            for (v, z) in group.chunks_exact(S::LANES).enumerate() {
                let e = math::exp(simd, simd.sub(simd.load(z), shift));
                sum.add(simd, v, e, simd.splat(0.0));
            }
        }
        for (v, z) in groups.remainder().chunks(S::LANES).enumerate() {
            let e = math::exp(simd, simd.sub(simd.load_partial(z), shift));
            sum.add(simd, v, only(simd, e, z.len()), simd.splat(0.0));
        }
        (f64::from(max) - f64::from(self.logits[self.target])) + math64::ln(sum.fold(simd))
    }
}

/// The derivative of the loss of one row along `logits_dot`.
pub(super) struct RowSlope<'a> {
    pub(super) logits: &'a [f32],
    pub(super) logits_dot: &'a [f32],
    pub(super) target: usize,
}

impl SimdOp for RowSlope<'_> {
    type Output = f64;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> f64 {
        let shift = simd.splat(reduce::max(simd, self.logits));
        let mut sum = CompensatedLanes::new(simd);
        let mut weighted = CompensatedLanes::new(simd);
        let mut groups = self.logits.chunks_exact(VIRTUAL_LANES);
        let mut dot_groups = self.logits_dot.chunks_exact(VIRTUAL_LANES);
        for (group, dot) in (&mut groups).zip(&mut dot_groups) {
            for (v, (z, dot)) in group.chunks_exact(S::LANES).zip(dot.chunks_exact(S::LANES)).enumerate() {
                let e = math::exp(simd, simd.sub(simd.load(z), shift));
                sum.add(simd, v, e, simd.splat(0.0));
                weighted.add_product(simd, v, e, simd.load(dot));
            }
        }
        let rest = groups.remainder().chunks(S::LANES).zip(dot_groups.remainder().chunks(S::LANES));
        for (v, (z, dot)) in rest.enumerate() {
            let e = math::exp(simd, simd.sub(simd.load_partial(z), shift));
            let e = only(simd, e, z.len());
            sum.add(simd, v, e, simd.splat(0.0));
            weighted.add_product(simd, v, e, simd.load_partial(dot));
        }
        weighted.fold(simd) / sum.fold(simd) - f64::from(self.logits_dot[self.target])
    }
}

/// Turns one row of logits into its gradient, in place.
pub(super) struct RowGradient<'a> {
    pub(super) logits: &'a mut [f32],
    pub(super) target: usize,
    pub(super) scale: f32,
}

impl SimdOp for RowGradient<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let RowGradient { logits, target, scale } = self;
        let shift = simd.splat(reduce::max(simd, logits));
        let mut sum = CompensatedLanes::new(simd);
        let mut groups = logits.chunks_exact_mut(VIRTUAL_LANES);
        for group in &mut groups {
            for (v, z) in group.chunks_exact_mut(S::LANES).enumerate() {
                let e = math::exp(simd, simd.sub(simd.load(z), shift));
                sum.add(simd, v, e, simd.splat(0.0));
                simd.store(e, z);
            }
        }
        for (v, z) in groups.into_remainder().chunks_mut(S::LANES).enumerate() {
            let e = math::exp(simd, simd.sub(simd.load_partial(z), shift));
            sum.add(simd, v, only(simd, e, z.len()), simd.splat(0.0));
            simd.store_partial(e, z);
        }
        let sum = sum.fold(simd);
        // 1 − p would cancel in f32 where the model is sure; e − Σ is exact enough in f64.
        let of_target = ((f64::from(logits[target]) - sum) / sum * f64::from(scale)) as f32;
        let (divisor, factor) = (simd.splat(sum as f32), simd.splat(scale));
        let mut chunks = logits.chunks_exact_mut(S::LANES);
        for e in &mut chunks {
            simd.store(simd.mul(simd.div(simd.load(e), divisor), factor), e);
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            simd.store_partial(simd.mul(simd.div(simd.load_partial(rest), divisor), factor), rest);
        }
        logits[target] = of_target;
    }
}

/// The first `len` lanes of `x`, +0 in the others.
#[inline(always)]
fn only<S: Simd>(simd: S, x: S::F32, len: usize) -> S::F32 {
    let mut lanes = [0.0; VIRTUAL_LANES];
    simd.store(x, &mut lanes);
    simd.load_partial(&lanes[..len])
}

/// 16 virtual lanes, each an f32 sum and the sum of its rounding errors.
struct CompensatedLanes<S: Simd> {
    /// One vector per `LANES` virtual lanes; the rest of the array is unused.
    sum: [S::F32; VIRTUAL_LANES],
    error: [S::F32; VIRTUAL_LANES],
}

impl<S: Simd> CompensatedLanes<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        let zero = [simd.splat(0.0); VIRTUAL_LANES];
        CompensatedLanes { sum: zero, error: zero }
    }

    /// Adds `x`, whose own error is `x_error`, to vector `v`: `TwoSum` (Knuth, TAOCP 4.2.2).
    #[inline(always)]
    fn add(&mut self, simd: S, v: usize, x: S::F32, x_error: S::F32) {
        let before = self.sum[v];
        let sum = simd.add(before, x);
        let from_x = simd.sub(sum, before);
        let error = simd.add(simd.sub(before, simd.sub(sum, from_x)), simd.sub(x, from_x));
        self.error[v] = simd.add(self.error[v], simd.add(error, x_error));
        self.sum[v] = sum;
    }

    /// Adds `a · b` to vector `v`, the error of the product included: one fused multiply-add finds it.
    #[inline(always)]
    fn add_product(&mut self, simd: S, v: usize, a: S::F32, b: S::F32) {
        let product = simd.mul(a, b);
        self.add(simd, v, product, simd.mul_add(a, b, simd.neg(product)));
    }

    /// The total: each lane widened, then halves added pairwise in f64.
    #[inline(always)]
    fn fold(&self, simd: S) -> f64 {
        let (mut sum, mut error) = ([0.0; VIRTUAL_LANES], [0.0; VIRTUAL_LANES]);
        for v in 0..VIRTUAL_LANES / S::LANES {
            simd.store(self.sum[v], &mut sum[v * S::LANES..]);
            simd.store(self.error[v], &mut error[v * S::LANES..]);
        }
        let mut lanes = [0.0; VIRTUAL_LANES];
        for (lane, (sum, error)) in lanes.iter_mut().zip(sum.into_iter().zip(error)) {
            *lane = f64::from(sum) + f64::from(error);
        }
        let mut width = VIRTUAL_LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

#[cfg(test)]
mod tests;
