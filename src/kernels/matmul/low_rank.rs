//! Low-rank displacements of a weight: `W + c·L·Rᵀ` is multiplied by without being formed.
//!
//! `y = x Wᵀ + c·(x R) Lᵀ`: the weights are packed once for all probes, and the side product continues
//! the chains of the main one, so `y` is written once. In profile `strict-bf16` its operands are
//! rounded like those of any linear layer.

use super::{Chain, Context, Left, MatMut, MatRef, PanelSource, Tail, multiply, panel::ByInput, product, tile::Start};

/// A displacement `coefficient · left · rightᵀ` of a weight `[n, k]`.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// `[n, r]`.
    pub left: MatRef<'a>,
    /// `[k, r]`.
    pub right: MatRef<'a>,
    /// The scale, for example ±epsilon.
    pub coefficient: f32,
}

/// `y = x (W + c·L·Rᵀ)ᵀ (+ bias)`, with one displacement for each of the equal row groups of `x`.
///
/// Shapes: `x` `[probes · m, k]`, `w` `[n, k]`, `bias` `[n]`, `y` `[probes · m, n]`; all factors of
/// one rank. Definition: `t = x R`, then `t · c`, each rounded; the chain of `y` runs over `k` and then
/// over the rank.
///
/// # Panics
/// If the shapes do not fit.
pub fn forward<W: PanelSource>(
    cx: &Context,
    x: MatRef<'_>,
    w: &W,
    probes: &[LowRank<'_>],
    bias: Option<&[f32]>,
    y: MatMut<'_>,
) {
    let (rows, k, n) = (x.rows(), x.cols(), w.rows());
    assert!(!probes.is_empty() && rows % probes.len() == 0, "x [{rows}, {k}] has rows for {} probes", probes.len());
    let (m, rank) = (rows / probes.len(), probes[0].left.cols());
    let mut side = cx.workspace.take::<f32>(rows * rank);
    for (i, probe) in probes.iter().enumerate() {
        let LowRank { left, right, coefficient } = *probe;
        assert!(
            (left.rows(), left.cols(), right.rows(), right.cols()) == (n, rank, k, rank),
            "factors [{}, {}] and [{}, {}] of a weight [{n}, {k}] at rank {rank}",
            left.rows(),
            left.cols(),
            right.rows(),
            right.cols()
        );
        if m * rank == 0 {
            continue;
        }
        let part = &mut side[i * m * rank..(i + 1) * m * rank];
        let own = MatRef::with_stride(&x.data()[i * m * x.stride()..], m, k, x.stride());
        product::nn(cx, own, right, false, MatMut::new(part, m, rank));
        part.iter_mut().for_each(|t| *t *= coefficient);
    }
    let left: Vec<_> = probes.iter().map(|probe| probe.left).collect();
    with_side(cx, x, w, Side { x: MatRef::new(&side, rows, rank), left: &left }, bias, y);
}

/// A product of its own for each of the equal row groups of `x`, which goes on where the chains of the main one end.
///
/// A group that has fewer columns than the others pads `x` with −0 and `left` with +0: adding −0 changes no value.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// `[groups · m, r]`.
    pub x: MatRef<'a>,
    /// `[n, r]` for each group.
    pub left: &'a [MatRef<'a>],
}

/// `y = x Wᵀ + side · leftᵀ (+ bias)`, the chain of `y` running over `k` and then over the columns of `side`.
///
/// Shapes: `x` `[groups · m, k]`, `w` `[n, k]`, `bias` `[n]`, `y` `[groups · m, n]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn with_side<W: PanelSource>(
    cx: &Context,
    x: MatRef<'_>,
    w: &W,
    side: Side<'_>,
    bias: Option<&[f32]>,
    y: MatMut<'_>,
) {
    let tail = Tail { x: side.x, groups: side.left };
    multiply(cx, Left::Rows(x), w, Some(tail), Chain { start: Start::Zero, bias }, y);
}

/// As [`with_side`] for a weight stored `[k, n]`, inputs by outputs.
///
/// # Panics
/// If the shapes do not fit.
pub fn with_side_transposed<W: PanelSource>(
    cx: &Context,
    x: MatRef<'_>,
    w: &W,
    side: Side<'_>,
    bias: Option<&[f32]>,
    y: MatMut<'_>,
) {
    with_side(cx, x, &ByInput(w), side, bias, y);
}
