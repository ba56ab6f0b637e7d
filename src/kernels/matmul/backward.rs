//! The derivatives of `y = x Wᵀ (+ bias)`: forward mode and reverse mode.

use super::{
    Chain, Context, Left, MatMut, MatRef, PanelSource, multiply,
    panel::{ByInput, Plain},
    tile::Start,
};
use crate::{
    kernels::Profile,
    simd::{Simd, SimdOp},
    tensor::Sequences,
};

/// Forward mode: `ẏ = ẋ Wᵀ + x Ẇᵀ (+ ḃias)`, the second product continuing the chains of the first.
///
/// Shapes: `x`, `x_dot` `[m, k]`; `w`, `w_dot` `[n, k]`; `bias_dot` `[n]`; `y_dot` `[m, n]`. A part
/// that does not move is `None`.
///
/// # Panics
/// If the shapes do not fit.
pub fn tangent<W: PanelSource, D: PanelSource>(
    cx: &Context,
    (x, x_dot): (MatRef<'_>, Option<MatRef<'_>>),
    (w, w_dot): (&W, Option<&D>),
    bias_dot: Option<&[f32]>,
    mut y_dot: MatMut<'_>,
) {
    let bias = |last: bool| bias_dot.filter(|_| last);
    match x_dot {
        Some(x_dot) => {
            let chain = Chain { start: Start::Zero, bias: bias(w_dot.is_none()) };
            multiply(cx, Left::Rows(x_dot), w, None, chain, y_dot.reborrow());
        }
        None => {
            for row in y_dot.reborrow().into_rows() {
                match bias(w_dot.is_none()) {
                    Some(bias) => row.copy_from_slice(bias),
                    None => row.fill(0.0),
                }
            }
        }
    }
    if let Some(w_dot) = w_dot {
        multiply(cx, Left::Rows(x), w_dot, None, Chain { start: Start::Continue, bias: bias_dot }, y_dot);
    }
}

/// Reverse mode, the input: `dx (+)= dy W`, each chain over output features ascending.
///
/// Shapes: `dy` `[m, n]`, `w` `[n, k]`, `dx` `[m, k]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn input<W: PanelSource>(cx: &Context, dy: MatRef<'_>, w: &W, accumulate: bool, dx: MatMut<'_>) {
    let start = if accumulate { Start::Continue } else { Start::Zero };
    multiply(cx, Left::Rows(dy), &ByInput(w), None, Chain { start, bias: None }, dx);
}

/// Reverse mode, the weight: `dw += dyᵀ x`, each chain over tokens in batch order, continuing in `dw`.
///
/// Shapes: `dy` `[t, n]`, `x` `[t, k]`, `dw` `[n, k]`, where `t` rows are the `examples` end to end. In
/// `strict-bf16` tokens pair within their example, an odd last one with nothing, so that no
/// micro-batch split changes a bit.
///
/// # Panics
/// If the shapes do not fit.
pub fn weight(cx: &Context, dy: MatRef<'_>, x: MatRef<'_>, examples: &Sequences, mut dw: MatMut<'_>) {
    assert!(
        dy.rows() == x.rows() && dy.rows() == examples.total(),
        "dy [{}, {}] and x [{}, {}] for {} tokens",
        dy.rows(),
        dy.cols(),
        x.rows(),
        x.cols(),
        examples.total()
    );
    let chain = Chain { start: Start::Continue, bias: None };
    if cx.profile == Profile::StrictF32 {
        return multiply(cx, Left::Columns(dy), &Plain(x), None, chain, dw);
    }
    for tokens in examples.iter().filter(|tokens| !tokens.is_empty()) {
        let part = |of: MatRef<'_>| {
            let (from, to) = (tokens.start * of.stride(), (tokens.end - 1) * of.stride() + of.cols());
            (from..to, tokens.len(), of.cols(), of.stride())
        };
        let (dy_span, rows, cols, stride) = part(dy);
        let own_dy = MatRef::with_stride(&dy.data()[dy_span], rows, cols, stride);
        let (x_span, rows, cols, stride) = part(x);
        let own_x = MatRef::with_stride(&x.data()[x_span], rows, cols, stride);
        multiply(cx, Left::Columns(own_dy), &Plain(own_x), None, chain, dw.reborrow());
    }
}

/// Reverse mode, the bias: `db += Σ dy`, each chain over tokens in batch order, continuing in `db`.
///
/// Shapes: `dy` `[t, n]`, `db` `[n]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn bias(cx: &Context, dy: MatRef<'_>, db: &mut [f32]) {
    assert_eq!(dy.cols(), db.len(), "dy [{}, {}] for a bias gradient [{}]", dy.rows(), dy.cols(), db.len());
    cx.isa.dispatch(ColumnSums { dy, db });
}

struct ColumnSums<'a> {
    dy: MatRef<'a>,
    db: &'a mut [f32],
}

impl SimdOp for ColumnSums<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for t in 0..self.dy.rows() {
            for (db, dy) in self.db.chunks_mut(S::LANES).zip(self.dy.row(t).chunks(S::LANES)) {
                if dy.len() == S::LANES {
                    simd.store(simd.add(simd.load(db), simd.load(dy)), db);
                } else {
                    db.iter_mut().zip(dy).for_each(|(db, dy)| *db += dy);
                }
            }
        }
    }
}
