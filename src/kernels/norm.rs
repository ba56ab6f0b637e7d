//! `LayerNorm` (Ba, Kiros and Hinton, 2016, arXiv:1607.06450) and `RMSNorm` (Zhang and Sennrich, 2019,
//! arXiv:1910.07467) of rows: x̂ = (x − mean) / √(variance + eps), y = x̂ · weight + bias; `RMSNorm` is the same with
//! mean 0, so that the variance is the mean square.
//!
//! *What it is not.* Fused with the residual sum or a matmul; and no statistics are stored: two passes over a row
//! in cache cost less than keeping and re-reading them for every layer.
//!
//! *What must stay true.* The mean, then Σ(x − mean)², are canonical reductions; 1/√ is an IEEE square root and a
//! division. Gradients of weight and bias are one chain per column over rows ascending that continues in the buffer.
//!
//! The derivative of x̂ along v is `P v = (v − mean(v) − x̂ · mean(v · x̂)) / √(variance + eps)`. P is symmetric, so
//! `tangent` is `(P ẋ) · weight` and `backward` is `P (ȳ · weight)`: one routine.
//!
//! Shapes: `x`, `y` and their derivatives are `[T, D]`; `weight` and `bias` have `D` values.

use std::ops::Range;

use super::{
    Context,
    elementwise::Store,
    lanewise::{self, Lanewise},
    reduce, rows,
};
use crate::{
    simd::{Simd, SimdOp, VIRTUAL_LANES, tree_sum},
    tensor::{MatMut, MatRef},
};

/// The parameters of a normalisation over `D` features.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
    centered: bool,
}

/// A change of a normalisation's parameters: a direction for [`tangent`].
#[derive(Clone, Copy, Debug)]
pub struct NormTangent<'a> {
    /// The change of the weight, `D` values.
    pub weight: &'a [f32],
    /// The change of the bias, `D` values; absent: no change.
    pub bias: Option<&'a [f32]>,
}

/// The gradients of a normalisation's parameters; [`backward_parameters`] adds to them.
#[derive(Debug)]
pub struct NormGradient<'a> {
    /// The gradient of the weight, `D` values.
    pub weight: &'a mut [f32],
    /// The gradient of the bias, `D` values; absent: not wanted.
    pub bias: Option<&'a mut [f32]>,
}

impl<'a> Norm<'a> {
    /// `LayerNorm`.
    ///
    /// # Panics
    /// If `bias` is not as long as `weight`.
    pub fn layer(weight: &'a [f32], bias: Option<&'a [f32]>, eps: f32) -> Self {
        if let Some(bias) = bias {
            assert_eq!(bias.len(), weight.len(), "a bias of {} values, a weight of {}", bias.len(), weight.len());
        }
        Norm { weight, bias, eps, centered: true }
    }

    /// `RMSNorm`.
    pub fn rms(weight: &'a [f32], eps: f32) -> Self {
        Norm { weight, bias: None, eps, centered: false }
    }

    #[track_caller]
    fn check(&self, x: MatRef<'_>, others: &[(&str, usize, usize)]) {
        let (rows, cols) = (x.rows(), x.cols());
        assert_eq!(cols, self.weight.len(), "x [{rows}, {cols}], a norm over {} features", self.weight.len());
        for &(name, r, c) in others {
            assert_eq!((r, c), (rows, cols), "{name} [{r}, {c}], x [{rows}, {cols}]");
        }
    }

    #[track_caller]
    fn check_vectors(&self, weight: usize, bias: Option<usize>) {
        for len in [Some(weight), bias].into_iter().flatten() {
            assert_eq!(len, self.weight.len(), "{len} values for a norm over {} features", self.weight.len());
        }
    }
}

/// `y = x̂ · weight + bias`, fused.
///
/// # Panics
/// If the shapes of `x`, `y` and the parameters do not fit; so do the other functions of this module.
pub fn forward(cx: &Context, norm: Norm<'_>, x: MatRef<'_>, y: MatMut<'_>) {
    norm.check(x, &[("y", y.rows(), y.cols())]);
    rows::for_each_block(y, x.cols(), |first, y| cx.isa.dispatch(Forward { norm, x, first, y }));
}

/// `dy = (P dx) · weight + x̂ · dweight + dbias`; the last two with `parameters` only.
pub fn tangent(
    cx: &Context,
    norm: Norm<'_>,
    x: MatRef<'_>,
    dx: MatRef<'_>,
    parameters: Option<NormTangent<'_>>,
    dy: MatMut<'_>,
) {
    norm.check(x, &[("dx", dx.rows(), dx.cols()), ("dy", dy.rows(), dy.cols())]);
    if let Some(change) = parameters {
        norm.check_vectors(change.weight.len(), change.bias.map(<[f32]>::len));
    }
    rows::for_each_block(dy, x.cols(), |first, dy| cx.isa.dispatch(Tangent { norm, x, dx, parameters, first, dy }));
}

/// `dx = P (dy · weight)`, written or added (a pre-norm block's gradient joins the residual stream's).
pub fn backward(cx: &Context, norm: Norm<'_>, x: MatRef<'_>, dy: MatRef<'_>, store: Store, dx: MatMut<'_>) {
    norm.check(x, &[("dy", dy.rows(), dy.cols()), ("dx", dx.rows(), dx.cols())]);
    rows::for_each_block(dx, x.cols(), |first, dx| cx.isa.dispatch(Backward { norm, x, dy, store, first, dx }));
}

/// `dweight += Σₜ dy[t] · x̂[t]`, `dbias += Σₜ dy[t]`: chains over rows ascending, continuing in the buffers.
pub fn backward_parameters(cx: &Context, norm: Norm<'_>, x: MatRef<'_>, dy: MatRef<'_>, gradient: NormGradient<'_>) {
    norm.check(x, &[("dy", dy.rows(), dy.cols())]);
    norm.check_vectors(gradient.weight.len(), gradient.bias.as_deref().map(<[f32]>::len));
    // Statistics first, over rows; then the chains, over columns.
    let mut stats = cx.workspace.take::<f32>(2 * x.rows());
    rows::for_each_block(MatMut::new(&mut stats, x.rows(), 2), x.cols(), |first, stats| {
        cx.isa.dispatch(AllStats { norm, x, first, stats });
    });
    let stats: &[f32] = &stats;
    rows::for_each_strip(x.rows(), gradient.weight, |columns, sums| {
        cx.isa.dispatch(WeightChains { x, dy, stats, columns, sums });
    });
    if let Some(bias) = gradient.bias {
        super::elementwise::add_bias_backward(cx, dy, bias);
    }
}

/// The mean (0 for `RMSNorm`) and 1/√(variance + eps) of a row.
#[derive(Clone, Copy)]
struct Stats {
    mean: f32,
    rstd: f32,
}

impl Stats {
    #[inline(always)]
    fn of<S: Simd>(simd: S, norm: Norm<'_>, x: &[f32]) -> Self {
        let n = x.len() as f32;
        let mean = if norm.centered { reduce::sum(simd, x) / n } else { 0.0 };
        let variance = reduce::sum_squares(simd, x, mean) / n;
        Stats { mean, rstd: 1.0 / (variance + norm.eps).sqrt() }
    }

    /// x̂.
    #[inline(always)]
    fn normalize<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        simd.mul(simd.sub(x, simd.splat(self.mean)), simd.splat(self.rstd))
    }
}

/// P of one row along one vector: the statistics of the row and both means of the vector.
#[derive(Clone, Copy)]
struct Projection {
    stats: Stats,
    mean: f32,
    along: f32,
}

impl Projection {
    /// The means of `v · weight` (of `v` without `weight`) and of its product with x̂, canonical reductions both.
    #[inline(always)]
    fn of<S: Simd>(simd: S, norm: Norm<'_>, x: &[f32], v: &[f32], weight: Option<&[f32]>) -> Self {
        let stats = Stats::of(simd, norm, x);
        let mut sums = [simd.splat(0.0); VIRTUAL_LANES];
        let mut dots = sums;
        let full = x.len() / VIRTUAL_LANES * VIRTUAL_LANES;
        let blocks = x[..full].chunks_exact(VIRTUAL_LANES).zip(v[..full].chunks_exact(VIRTUAL_LANES));
        match weight {
            Some(weight) => {
                for ((x, v), w) in blocks.zip(weight.chunks_exact(VIRTUAL_LANES)) {
                    stats.fold(simd, x, v, Some(w), &mut sums, &mut dots);
                }
            }
            None => {
                for (x, v) in blocks {
                    stats.fold(simd, x, v, None, &mut sums, &mut dots);
                }
            }
        }
        if full < x.len() {
            // The pad is +0 *after* normalisation: with eps = 0 a row may have 1/√0 = ∞, and 0·∞ is no pad.
            let pad = |values: &[f32]| {
                let mut block = [0.0; VIRTUAL_LANES];
                block[..values.len()].copy_from_slice(values);
                block
            };
            let (mut normal, v) = (pad(&x[full..]), pad(&v[full..]));
            lanewise::apply(simd, stats, [], [&mut normal[..x.len() - full]]);
            let weight = weight.map(|w| pad(&w[full..]));
            let weight = weight.as_ref().map(<[f32; VIRTUAL_LANES]>::as_slice);
            // Already normalised: (x̂ − 0) · 1 is x̂ in every bit.
            let done = Stats { mean: 0.0, rstd: 1.0 };
            done.fold(simd, &normal, &v, weight, &mut sums, &mut dots);
        }
        let n = x.len() as f32;
        let mean = if norm.centered { fold_lanes(simd, sums) / n } else { 0.0 };
        Projection { stats, mean, along: fold_lanes(simd, dots) / n }
    }

    /// P v at one vector of elements.
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::F32, v: S::F32) -> S::F32 {
        let normal = self.stats.normalize(simd, x);
        let centered = simd.sub(v, simd.splat(self.mean));
        simd.mul(simd.neg_mul_add(normal, simd.splat(self.along), centered), simd.splat(self.stats.rstd))
    }
}

impl Stats {
    /// Adds one block of 16 elements to the virtual lanes of Σ v·w and Σ v·w·x̂.
    #[inline(always)]
    fn fold<S: Simd>(
        self,
        simd: S,
        x: &[f32],
        v: &[f32],
        weight: Option<&[f32]>,
        sums: &mut [S::F32; VIRTUAL_LANES],
        dots: &mut [S::F32; VIRTUAL_LANES],
    ) {
        for i in 0..VIRTUAL_LANES / S::LANES {
            let at = i * S::LANES;
            let loaded = simd.load(&v[at..]);
            let v = match weight {
                Some(weight) => simd.mul(loaded, simd.load(&weight[at..])),
                None => loaded,
            };
            sums[i] = simd.add(sums[i], v);
            dots[i] = simd.mul_add(v, self.normalize(simd, simd.load(&x[at..])), dots[i]);
        }
    }
}

#[inline(always)]
fn fold_lanes<S: Simd>(simd: S, lanes: [S::F32; VIRTUAL_LANES]) -> f32 {
    let mut values = [0.0; VIRTUAL_LANES];
    for (chunk, lanes) in values.chunks_exact_mut(S::LANES).zip(lanes) {
        simd.store(lanes, chunk);
    }
    tree_sum(values)
}

struct Forward<'a> {
    norm: Norm<'a>,
    x: MatRef<'a>,
    first: usize,
    y: MatMut<'a>,
}

impl SimdOp for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for (t, y) in self.y.into_rows().enumerate() {
            let x = self.x.row(self.first + t);
            let stats = Stats::of(simd, self.norm, x);
            match self.norm.bias {
                Some(bias) => lanewise::apply(simd, stats, [x, self.norm.weight, bias], [y]),
                None => lanewise::apply(simd, stats, [x, self.norm.weight], [y]),
            }
        }
    }
}

/// x̂ itself, in place.
impl Lanewise<0, 1> for Stats {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, _: [S::F32; 0], [x]: [S::F32; 1]) -> [S::F32; 1] {
        [self.normalize(simd, x)]
    }
}

/// x̂ · weight + bias.
impl Lanewise<3, 1> for Stats {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, weight, bias]: [S::F32; 3], _: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul_add(self.normalize(simd, x), weight, bias)]
    }
}

/// x̂ · weight.
impl Lanewise<2, 1> for Stats {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, weight]: [S::F32; 2], _: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul(self.normalize(simd, x), weight)]
    }
}

struct Tangent<'a> {
    norm: Norm<'a>,
    x: MatRef<'a>,
    dx: MatRef<'a>,
    parameters: Option<NormTangent<'a>>,
    first: usize,
    dy: MatMut<'a>,
}

impl SimdOp for Tangent<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let weight = self.norm.weight;
        for (t, dy) in self.dy.into_rows().enumerate() {
            let (x, dx) = (self.x.row(self.first + t), self.dx.row(self.first + t));
            let along = Along(Projection::of(simd, self.norm, x, dx, None));
            match self.parameters {
                None => lanewise::apply(simd, along, [x, dx, weight], [dy]),
                Some(NormTangent { weight: dweight, bias: None }) => {
                    lanewise::apply(simd, along, [x, dx, weight, dweight], [dy]);
                }
                Some(NormTangent { weight: dweight, bias: Some(dbias) }) => {
                    lanewise::apply(simd, along, [x, dx, weight, dweight, dbias], [dy]);
                }
            }
        }
    }
}

/// The tangent of one row.
#[derive(Clone, Copy)]
struct Along(Projection);

impl Lanewise<3, 1> for Along {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, dx, weight]: [S::F32; 3], _: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul(self.0.at(simd, x, dx), weight)]
    }
}

impl Lanewise<4, 1> for Along {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, dx, weight, dweight]: [S::F32; 4], _: [S::F32; 1]) -> [S::F32; 1] {
        let change = simd.mul(self.0.stats.normalize(simd, x), dweight);
        [simd.mul_add(self.0.at(simd, x, dx), weight, change)]
    }
}

impl Lanewise<5, 1> for Along {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, dx, weight, dweight, dbias]: [S::F32; 5], _: [S::F32; 1]) -> [S::F32; 1] {
        let change = simd.mul_add(self.0.stats.normalize(simd, x), dweight, dbias);
        [simd.mul_add(self.0.at(simd, x, dx), weight, change)]
    }
}

struct Backward<'a> {
    norm: Norm<'a>,
    x: MatRef<'a>,
    dy: MatRef<'a>,
    store: Store,
    first: usize,
    dx: MatMut<'a>,
}

impl SimdOp for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let weight = self.norm.weight;
        for (t, dx) in self.dx.into_rows().enumerate() {
            let (x, dy) = (self.x.row(self.first + t), self.dy.row(self.first + t));
            let projection = Projection::of(simd, self.norm, x, dy, Some(weight));
            match self.store {
                Store::Write => lanewise::apply(simd, Back::<false>(projection), [x, dy, weight], [dx]),
                Store::Add => lanewise::apply(simd, Back::<true>(projection), [x, dy, weight], [dx]),
            }
        }
    }
}

/// The input gradient of one row, written or added.
#[derive(Clone, Copy)]
struct Back<const ADD: bool>(Projection);

impl<const ADD: bool> Lanewise<3, 1> for Back<ADD> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, dy, weight]: [S::F32; 3], [held]: [S::F32; 1]) -> [S::F32; 1] {
        let dx = self.0.at(simd, x, simd.mul(dy, weight));
        [if ADD { simd.add(held, dx) } else { dx }]
    }
}

/// Mean and rstd of every row, as rows of two values.
struct AllStats<'a> {
    norm: Norm<'a>,
    x: MatRef<'a>,
    first: usize,
    stats: MatMut<'a>,
}

impl SimdOp for AllStats<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for (t, out) in self.stats.into_rows().enumerate() {
            let Stats { mean, rstd } = Stats::of(simd, self.norm, self.x.row(self.first + t));
            out.copy_from_slice(&[mean, rstd]);
        }
    }
}

struct WeightChains<'a> {
    x: MatRef<'a>,
    dy: MatRef<'a>,
    stats: &'a [f32],
    columns: Range<usize>,
    sums: &'a mut [f32],
}

impl SimdOp for WeightChains<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for (t, stats) in self.stats.chunks_exact(2).enumerate() {
            let (x, dy) = (&self.x.row(t)[self.columns.clone()], &self.dy.row(t)[self.columns.clone()]);
            let chain = Chain(Stats { mean: stats[0], rstd: stats[1] });
            lanewise::apply(simd, chain, [x, dy], [&mut *self.sums]);
        }
    }
}

/// One row's link in the chains of the weight gradient.
#[derive(Clone, Copy)]
struct Chain(Stats);

impl Lanewise<2, 1> for Chain {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, dy]: [S::F32; 2], [sum]: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul_add(dy, self.0.normalize(simd, x), sum)]
    }
}

#[cfg(test)]
mod tests;
