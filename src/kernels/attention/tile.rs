//! The register tile of attention's products: `MR` rows × `NV` vectors of accumulators, each element one
//! chain of fused multiply-adds over ascending k that continues from what the accumulator holds.

use crate::simd::{MAX_LANES, Simd};
use crate::tensor::MatRef;

/// Rows of the largest tile: with four vectors a row it fills 24 of AVX-512's 32 registers, with two
/// 12 of AVX2's 16.
pub(super) const MR: usize = 6;

/// Vectors in a row of the largest tile.
#[inline(always)]
pub(super) const fn vectors(lanes: usize) -> usize {
    if lanes == MAX_LANES { 4 } else { 2 }
}

/// Accumulators of a tile.
pub(super) type Tile<S, const M: usize, const NV: usize> = [[<S as Simd>::F32; NV]; M];

/// The loop shared by both layouts of the left factor: `$factors` is the expression for the `M` factors
/// of step `$k`, indexable by row.
macro_rules! accumulate {
    ($simd:ident, $depth:expr, $k:ident, $factors:expr, $right:ident, $stride:ident, $acc:ident) => {
        for $k in 0..$depth {
            let right = &$right[$k * $stride..][..NV * S::LANES];
            let mut vectors = [$simd.splat(0.0); NV];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = $simd.load(&right[v * S::LANES..]);
            }
            let factors = $factors;
            for m in 0..M {
                let factor = $simd.splat(factors(m));
                for v in 0..NV {
                    $acc[m][v] = $simd.mul_add(factor, vectors[v], $acc[m][v]);
                }
            }
        }
    };
}

/// `acc[m] += Σₖ left[m][k] · right[k]`, where row `k` of `right` starts at `k * stride`.
#[inline(always)]
pub(super) fn by_rows<S: Simd, const M: usize, const NV: usize>(
    simd: S,
    mut left: [&[f32]; M],
    right: &[f32],
    stride: usize,
    mut acc: Tile<S, M, NV>,
) -> Tile<S, M, NV> {
    let depth = left[0].len();
    for row in &mut left {
        *row = &row[..depth];
    }
    accumulate!(simd, depth, k, |m: usize| left[m][k], right, stride, acc);
    acc
}

/// `acc[m] += Σₖ left[k * left_stride + m] · right[k]` over `depth` steps.
#[inline(always)]
pub(super) fn by_columns<S: Simd, const M: usize, const NV: usize>(
    simd: S,
    depth: usize,
    (left, left_stride): (&[f32], usize),
    (right, stride): (&[f32], usize),
    mut acc: Tile<S, M, NV>,
) -> Tile<S, M, NV> {
    accumulate!(
        simd,
        depth,
        k,
        {
            let column: &[f32; M] = left[k * left_stride..].first_chunk().expect("M factors a step");
            |m: usize| column[m]
        },
        right,
        stride,
        acc
    );
    acc
}

/// Packs columns `columns..columns + depth` of rows `rows.0..rows.0 + rows.1` of `x` into a panel of
/// `width` lanes: `panel[d * width + lane]` is element (`rows.0 + lane`, `columns + d`); lanes without a
/// row hold +0. `width` is a multiple of `LANES`, `panel` has `depth * width` values.
#[inline(always)]
pub(super) fn pack_panel<S: Simd>(
    simd: S,
    x: MatRef,
    (first, rows): (usize, usize),
    (column, depth): (usize, usize),
    width: usize,
    panel: &mut [f32],
) {
    let mut tile = [simd.splat(0.0); MAX_LANES];
    let tile = &mut tile[..S::LANES];
    for lane in (0..width).step_by(S::LANES) {
        let have = rows.saturating_sub(lane).min(S::LANES);
        let mut d = 0;
        while have == S::LANES && d + S::LANES <= depth {
            let source = &x.data()[(first + lane) * x.stride() + column + d..];
            simd.load_transposed(source, x.stride(), tile);
            for (vector, out) in tile.iter().zip(panel[d * width..].chunks_mut(width)) {
                simd.store(*vector, &mut out[lane..]);
            }
            d += S::LANES;
        }
        for d in d..depth {
            let out = &mut panel[d * width + lane..][..S::LANES];
            for (r, out) in out.iter_mut().enumerate() {
                *out = if r < have { x.row(first + lane + r)[column + d] } else { 0.0 };
            }
        }
    }
}
