//! The micro-tile: a few rows of `y` by one panel of output features, held in registers over `k`.
//!
//! Written once over [`Simd`]; an instruction set is a row of [`TileShape`]. Lanes run along output
//! features, so every output element is one chain of fused multiply-adds over `k` ascending
//! (contract C1), whatever the tile. Bounds are checked once in [`DEPTH_UNROLL`] steps.

use std::hint::black_box;

use crate::simd::{Simd, SimdOp};

/// Steps of `k` stored together for one row of a packed `x` tile: packing is then a copy of 16-byte
/// runs instead of a transposition, and the loop is unrolled by as much.
pub(super) const DEPTH_UNROLL: usize = 4;

/// The most vectors across a panel of any instruction set.
pub(super) const MAX_VECTORS: usize = 4;
/// The tallest tile and the widest panel of any instruction set.
const MAX_ROWS: usize = 14;
const MAX_WIDTH: usize = 32;

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
            // 28 accumulators of 32 registers.
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
    if tile.columns < TileShape::of::<S>().width {
        return narrow::<S, PAIRS>(simd, tile);
    }
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

/// A tile over the last columns of `y`, which are fewer than a panel has: computed beside `y`.
#[inline(never)]
fn narrow<S: Simd, const PAIRS: bool>(simd: S, tile: Tile<'_, '_>) {
    let Tile { x, panel, y, column, columns, start, bias } = tile;
    let width = TileShape::of::<S>().width;
    let mut whole = [[0.0; MAX_WIDTH]; MAX_ROWS];
    for (whole, y) in whole.iter_mut().zip(&*y) {
        whole[..columns].copy_from_slice(&y[column..column + columns]);
    }
    let mut padded = [0.0; MAX_WIDTH];
    if let Some(bias) = bias {
        padded[..columns].copy_from_slice(bias);
    }
    let bias = bias.map(|_| &padded[..width]);
    let mut rows = whole.each_mut().map(|row| &mut row[..width]);
    run::<S, PAIRS>(simd, Tile { x, panel, y: &mut rows[..y.len()], column: 0, columns: width, start, bias });
    for (whole, y) in whole.iter().zip(y) {
        y[column..column + columns].copy_from_slice(&whole[..columns]);
    }
}

/// One tile of a fixed height, as an operation of its own.
struct Rows<'a, 'y, const ROWS: usize, const PAIRS: bool>(Tile<'a, 'y>);

/// Keeps each tile height a function of its own: inlined together they would share one stack frame
/// and spill their accumulators.
#[inline(never)]
fn rows<S: Simd, const ROWS: usize, const PAIRS: bool>(simd: S, tile: Tile<'_, '_>) {
    // Heights above the table's never occur for this instruction set: no code for them.
    if ROWS <= TileShape::of::<S>().rows {
        simd.vectorize(Rows::<ROWS, PAIRS>(tile));
    }
}

/// Repeats a block with `$i` a constant: accumulators that are indexed by constants live in registers,
/// while the optimiser gives up unrolling loops of 112 fused multiply-adds and leaves them in memory.
macro_rules! unroll {
    ($i:ident in [$($n:literal)*] $body:block) => { $({ const $i: usize = $n; $body })* };
}
pub(super) use unroll;

/// Runs `$body` for every accumulator of a tile, `$r` and `$v` being constants.
macro_rules! for_each_accumulator {
    ($rows:ident, $vectors:ident, |$r:ident, $v:ident| $body:block) => {
        unroll!($r in [0 1 2 3 4 5 6 7 8 9 10 11 12 13] {
            if $r < $rows {
                unroll!($v in [0 1 2 3] {
                    if $v < $vectors $body
                });
            }
        });
    };
}

impl<const ROWS: usize, const PAIRS: bool> SimdOp for Rows<'_, '_, ROWS, PAIRS> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Tile { x, panel, y, column, start, bias, .. } = self.0;
        let vectors = TileShape::of::<S>().vectors;
        let y: &mut [&mut [f32]; ROWS] = y.try_into().expect("a tile of ROWS rows");
        let mut acc = [[simd.splat(0.0); MAX_VECTORS]; ROWS];
        if start == Start::Continue {
            for_each_accumulator!(ROWS, vectors, |R, V| {
                acc[R][V] = simd.load(&y[R][column + V * S::LANES..]);
            });
        }
        acc = accumulate::<S, ROWS, PAIRS>(simd, x, panel, acc);
        if let Some(bias) = bias {
            for_each_accumulator!(ROWS, vectors, |R, V| {
                acc[R][V] = simd.add(acc[R][V], simd.load(&bias[V * S::LANES..]));
            });
        }
        for_each_accumulator!(ROWS, vectors, |R, V| {
            simd.store(acc[R][V], &mut y[R][column + V * S::LANES..]);
        });
    }
}

/// `acc[r][v] = fma(x[r][k], panel[k][v], acc[r][v])` for k ascending.
#[inline(always)]
fn accumulate<S: Simd, const ROWS: usize, const PAIRS: bool>(
    simd: S,
    x: &[f32],
    panel: &[f32],
    mut acc: [[S::F32; MAX_VECTORS]; ROWS],
) -> [[S::F32; MAX_VECTORS]; ROWS] {
    let TileShape { vectors, width, .. } = TileShape::of::<S>();
    // AVX-512 multiplies by a broadcast from memory: a factor of two multiply-adds costs one instruction less if
    // both read it than if a register is loaded for them, and one load more. Half of the rows do: alone on a core
    // it does not matter, beside another hardware thread it was faster than none or all.
    let folds = S::LANES == 16;
    // The optimiser would see one value and load it once, or one index for both addresses, with which the
    // instructions are split again: so the second address and both steps are hidden from it.
    let run = ROWS * DEPTH_UNROLL;
    let (mut x, mut again) = (x, black_box(x));
    let (step, again_step) = (black_box(run), black_box(run));
    for panel in panel.chunks_exact(DEPTH_UNROLL * width) {
        let (first, second) = (&x[..run], &again[..run]);
        (x, again) = (&x[step..], &again[again_step..]);
        unroll!(STEP in [0 1 2 3] {
            let mut w = [simd.splat(0.0); MAX_VECTORS];
            unroll!(V in [0 1 2 3] {
                if V < vectors {
                    w[V] = simd.load(&panel[STEP * width + V * S::LANES..][..S::LANES]);
                }
            });
            for_each_accumulator!(ROWS, vectors, |R, V| {
                let x = if folds && V % 2 == 1 && R % 2 == 1 { second } else { first };
                let x = simd.splat(x[R * DEPTH_UNROLL + STEP]);
                acc[R][V] = if PAIRS {
                    simd.dot_bf16_pairs(simd.to_bits(x), simd.to_bits(w[V]), acc[R][V])
                } else {
                    simd.mul_add(x, w[V], acc[R][V])
                };
            });
        });
    }
    acc
}
