//! The micro-tile: a few rows of `y` by one panel of output features, held in registers over `k`.
//!
//! Written once over [`Simd`]; an instruction set is a row of [`TileShape`]. Lanes run along output
//! features, so every output element is one chain of fused multiply-adds over `k` ascending
//! (contract C1), whatever the tile. Bounds checks vanish because the loop walks `chunks_exact`.

use crate::simd::{Simd, SimdOp};

/// Steps of `k` stored together for one row of a packed `x` tile: packing is then a copy of 16-byte
/// runs instead of a transposition, and the loop is unrolled by as much.
pub(super) const DEPTH_UNROLL: usize = 4;

/// The most vectors across a panel of any instruction set.
const MAX_VECTORS: usize = 4;

/// The register tile of an instruction set: `rows × vectors` accumulators, plus `vectors` registers
/// for the panel and one for the broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TileShape {
    /// `MR`.
    pub(super) rows: usize,
    /// `NR` in vectors.
    pub(super) vectors: usize,
    /// `NR` = `vectors · LANES`.
    pub(super) width: usize,
}

impl TileShape {
    /// The tile table.
    pub(super) const fn of<S: Simd>() -> TileShape {
        let (rows, vectors) = match S::LANES {
            // 28 accumulators of 32 registers; 24 instructions fewer per step than AVX2 for the same work.
            16 => (14, 2),
            // 12 accumulators of 16 registers.
            8 => (6, 2),
            // NEON: 24 of 32 registers. Portable code has only 16 under SSE2, and stays correct.
            4 => (6, 4),
            _ => (1, 1),
        };
        TileShape { rows, vectors, width: vectors * S::LANES }
    }
}

/// What the tile is added to and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Chains start at +0.
    Zero,
    /// Chains continue from the values in `y`: partial sums re-enter in order.
    Continue,
}

/// One packed operand pair and its place in the output.
pub(super) struct Tile<'a, 'y> {
    /// Packed rows, `[steps / DEPTH_UNROLL][rows][DEPTH_UNROLL]`.
    pub(super) x: &'a [f32],
    /// One panel, `[steps][width]`.
    pub(super) panel: &'a [f32],
    /// The rows of the output range; one per row of the tile.
    pub(super) y: &'a mut [&'y mut [f32]],
    /// First column of the panel within the output range.
    pub(super) column: usize,
    /// Columns of the panel that exist.
    pub(super) columns: usize,
    /// Where chains start.
    pub(super) start: Start,
    /// Added after the last step; `columns` values.
    pub(super) bias: Option<&'a [f32]>,
}

/// Runs one tile. `PAIRS`: steps are pairs of bf16 in the bits of an f32.
#[inline(always)]
pub(super) fn run<S: Simd, const PAIRS: bool>(simd: S, tile: Tile<'_, '_>) {
    match tile.y.len() {
        1 => rows::<S, 1, PAIRS>(simd, tile),
        2 => rows::<S, 2, PAIRS>(simd, tile),
        3 => rows::<S, 3, PAIRS>(simd, tile),
        4 => rows::<S, 4, PAIRS>(simd, tile),
        5 => rows::<S, 5, PAIRS>(simd, tile),
        6 => rows::<S, 6, PAIRS>(simd, tile),
        7 => rows::<S, 7, PAIRS>(simd, tile),
        8 => rows::<S, 8, PAIRS>(simd, tile),
        9 => rows::<S, 9, PAIRS>(simd, tile),
        10 => rows::<S, 10, PAIRS>(simd, tile),
        11 => rows::<S, 11, PAIRS>(simd, tile),
        12 => rows::<S, 12, PAIRS>(simd, tile),
        13 => rows::<S, 13, PAIRS>(simd, tile),
        14 => rows::<S, 14, PAIRS>(simd, tile),
        more => unreachable!("a tile of {more} rows"),
    }
}

/// Keeps each tile height a function of its own: inlined together they would share one stack frame
/// and spill their accumulators.
struct Rows<'a, 'y, const ROWS: usize, const PAIRS: bool>(Tile<'a, 'y>);

impl<const ROWS: usize, const PAIRS: bool> SimdOp for Rows<'_, '_, ROWS, PAIRS> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Tile { x, panel, y, column, columns, start, bias } = self.0;
        let TileShape { vectors, width, .. } = TileShape::of::<S>();
        let mut acc = [[simd.splat(0.0); MAX_VECTORS]; ROWS];
        let span = |v: usize| column + (v * S::LANES).min(columns)..column + ((v + 1) * S::LANES).min(columns);
        if start == Start::Continue {
            for (acc, y) in acc.iter_mut().zip(y.iter()) {
                for (v, acc) in acc[..vectors].iter_mut().enumerate() {
                    let y = &y[span(v)];
                    *acc = if y.len() == S::LANES { simd.load(y) } else { simd.load_partial(y) };
                }
            }
        }
        accumulate::<S, ROWS, PAIRS>(simd, x, panel, &mut acc);
        let _ = width;
        for (acc, y) in acc.iter_mut().zip(y.iter_mut()) {
            for (v, acc) in acc[..vectors].iter_mut().enumerate() {
                let mut sum = *acc;
                if let Some(bias) = bias {
                    let bias = &bias[span(v).start - column..span(v).end - column];
                    sum = simd.add(sum, if bias.len() == S::LANES { simd.load(bias) } else { simd.load_partial(bias) });
                }
                let y = &mut y[span(v)];
                if y.len() == S::LANES { simd.store(sum, y) } else { simd.store_partial(sum, y) }
            }
        }
    }
}

#[inline(always)]
fn rows<S: Simd, const ROWS: usize, const PAIRS: bool>(simd: S, tile: Tile<'_, '_>) {
    // Heights above the table's never occur for this instruction set: no code for them.
    if ROWS <= TileShape::of::<S>().rows {
        simd.vectorize(Rows::<ROWS, PAIRS>(tile));
    }
}

/// `acc[r][v] = fma(x[r][k], panel[k][v], acc[r][v])` for k ascending.
#[inline(always)]
fn accumulate<S: Simd, const ROWS: usize, const PAIRS: bool>(
    simd: S,
    x: &[f32],
    panel: &[f32],
    acc: &mut [[S::F32; MAX_VECTORS]; ROWS],
) {
    let TileShape { vectors, width, .. } = TileShape::of::<S>();
    let x = x.chunks_exact(ROWS * DEPTH_UNROLL);
    let panel = panel.chunks_exact(DEPTH_UNROLL * width);
    for (x, panel) in x.zip(panel) {
        for (step, weights) in panel.chunks_exact(width).enumerate() {
            let mut w = [simd.splat(0.0); MAX_VECTORS];
            for (w, lanes) in w.iter_mut().zip(weights.chunks_exact(S::LANES)) {
                *w = simd.load(lanes);
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = simd.splat(x[r * DEPTH_UNROLL + step]);
                for v in 0..vectors {
                    acc[v] = if PAIRS {
                        simd.dot_bf16_pairs(simd.to_bits(x), simd.to_bits(w[v]), acc[v])
                    } else {
                        simd.mul_add(x, w[v], acc[v])
                    };
                }
            }
        }
    }
}
