//! Matrix products: `y = x Wᵀ (+ bias)` over stored or perturbed weights, and plain f32 products.
//!
//! *What it is.* One micro-tile (`tile`), one packer per operand (`panel`, `pack`), one schedule
//! (this file). Weights come as a [`PanelSource`], produced panel by panel while packing, so that a
//! perturbed or 16-bit weight costs a little packing and no arithmetic.
//!
//! *Schedule.* `x` is packed once into row tiles, shared by all threads. Each thread owns a range of
//! output columns: it packs a chunk of panels into its own L2, meets it with every row tile, and
//! goes on; no panel is packed twice (keyed noise is drawn once) and threads meet only at the end.
//!
//! *What must stay true* (contract C1). Each output element is one chain of fused multiply-adds over
//! `k` ascending from +0; where `k` is cut into blocks the partial sum re-enters the chain. Bias is
//! added last. Threads, blocks and tiles change nothing.

pub mod backward;
mod blocking;
mod few_rows;
mod gemv;
pub mod low_rank;
mod pack;
mod panel;
pub mod product;
mod schedule;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

pub use panel::{DEPTH_BLOCK, PanelSource};

use blocking::Region;
use pack::{Format, Left, PackRows};
use panel::ByInput;
use schedule::Product;
use tile::{Start, TileShape};

use super::{Context, Profile, round_bf16};
use crate::{
    simd::{Simd, SimdOp},
    tensor::{MatMut, MatRef, WeightRef},
};

/// `y = x Wᵀ (+ bias)` in the numeric profile of `cx`.
///
/// Shapes: `x` is `[branches · m, k]` (the rows of branch 0 first), `w` is `[n, k]`, `bias` is `[n]`,
/// `y` is `[branches · m, n]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn forward<W: PanelSource>(cx: &Context, x: MatRef<'_>, w: &W, bias: Option<&[f32]>, y: MatMut<'_>) {
    multiply(cx, Left::Rows(x), w, None, Chain { start: Start::Zero, bias }, y);
}

/// `y = x W (+ bias)` for a weight stored `[k, n]`, inputs by outputs, as GPT-2's `Conv1D` stores them: the same
/// chains as [`forward`] over the transposed weight.
///
/// Shapes: `x` is `[branches · m, k]`, `w` is `[k, n]`, `bias` is `[n]`, `y` is `[branches · m, n]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn forward_transposed<W: PanelSource>(cx: &Context, x: MatRef<'_>, w: &W, bias: Option<&[f32]>, y: MatMut<'_>) {
    multiply(cx, Left::Rows(x), &ByInput(w), None, Chain { start: Start::Zero, bias }, y);
}

/// `y += x Wᵀ`, each chain going on from what `y` holds. Shapes as in [`forward`].
///
/// # Panics
/// If the shapes do not fit.
pub fn accumulate<W: PanelSource>(cx: &Context, x: MatRef<'_>, w: &W, y: MatMut<'_>) {
    multiply(cx, Left::Rows(x), w, None, Chain { start: Start::Continue, bias: None }, y);
}

/// `y += x W` for a weight stored `[k, n]`, as [`accumulate`]. Shapes as in [`forward_transposed`].
///
/// # Panics
/// If the shapes do not fit.
pub fn accumulate_transposed<W: PanelSource>(cx: &Context, x: MatRef<'_>, w: &W, y: MatMut<'_>) {
    accumulate(cx, x, &ByInput(w), y);
}

/// Where the chains of a product begin and what is added at their end.
#[derive(Clone, Copy)]
struct Chain<'a> {
    start: Start,
    bias: Option<&'a [f32]>,
}

/// More steps at the end of every chain: `x` `[m, r]` times the transpose of one `[n, r]` matrix per
/// equal group of rows. The weights before it are packed once for all groups.
#[derive(Clone, Copy)]
struct Tail<'a> {
    x: MatRef<'a>,
    groups: &'a [MatRef<'a>],
}

/// The common driver of all products.
fn multiply<P: PanelSource>(
    cx: &Context,
    x: Left<'_>,
    source: &P,
    tail: Option<Tail<'_>>,
    chain: Chain<'_>,
    mut y: MatMut<'_>,
) {
    let (m, k, n, branches) = (x.rows(), x.depth(), source.rows(), source.branches());
    assert_eq!(k, source.cols(), "x [{m}, {k}] times the transpose of w [{n}, {}]", source.cols());
    assert!(
        y.rows() == m && y.cols() == n,
        "x [{m}, {k}] times the transpose of w [{n}, {k}] into y [{}, {}]",
        y.rows(),
        y.cols()
    );
    assert_eq!(m % branches, 0, "x [{m}, {k}] has rows for {branches} branches");
    if let Some(bias) = chain.bias {
        assert_eq!(bias.len(), n, "a bias [{}] for y [{m}, {n}]", bias.len());
    }
    let groups = tail.map_or(1, |tail| tail.groups.len());
    assert_eq!(m % groups, 0, "x [{m}, {k}] has rows for {groups} side products");
    if m == 0 || n == 0 {
        return;
    }
    let rank = tail.map_or(0, |tail| tail.x.cols());
    if k + rank == 0 {
        for row in y.reborrow().into_rows() {
            empty_product(row, chain);
        }
        return;
    }
    let shape = cx.isa.dispatch(ShapeOf);
    if let (Left::Rows(x), Some(w), 1, None) = (x, source.as_weight(), m, tail) {
        return single_row(cx, x.row(0), w, chain, shape.width, y.row_mut(0));
    }
    let format = Format::of(cx);
    let unpacked = source.as_weight().filter(|_| m <= few_rows::MAX_ROWS && tail.is_none() && format == Format::F32);
    // A tile lies within one branch and one group: cut the rows by the finer of the two first.
    let parts = branches.max(groups);
    assert!(parts % branches == 0 && parts % groups == 0, "{groups} side products over {branches} branches");
    let tiles: Vec<_> = if unpacked.is_some() {
        few_rows::row_tiles(m).collect()
    } else {
        let tiles = |part| {
            let first = part * (m / parts);
            blocking::row_tiles(m / parts, shape.rows).map(move |t| first + t.start..first + t.end)
        };
        (0..parts).flat_map(tiles).collect()
    };
    let steps = format.steps(k) + format.steps(rank);
    let mut packed = cx.workspace.take::<f32>(m * steps);
    let jobs: Vec<_> = split_by(&mut packed, tiles.iter().map(|tile| tile.len() * steps)).zip(&tiles).collect();
    let pack = |(out, rows): (&mut [f32], &Range<usize>)| {
        let (main, rest) = out.split_at_mut(rows.len() * format.steps(k));
        cx.isa.dispatch(PackRows { x, rows: rows.clone(), format, out: main });
        if let Some(tail) = tail {
            cx.isa.dispatch(PackRows { x: Left::Rows(tail.x), rows: rows.clone(), format, out: rest });
        }
    };
    if m * k < PARALLEL_PACK {
        jobs.into_iter().for_each(pack);
    } else {
        jobs.into_par_iter().for_each(pack);
    }

    let panels = n.div_ceil(shape.width);
    let threads = rayon::current_num_threads();
    let regions = match unpacked {
        Some(_) => blocking::regions(1, panels, threads, m * k * n)
            .into_iter()
            .map(|region| Region { tiles: 0..tiles.len(), ..region })
            .collect(),
        None => blocking::regions(tiles.len(), panels, threads, m * k * n),
    };
    let product = Product { cx, packed: &packed, tiles: &tiles, source, tail, chain, format, shape, steps };
    let run = |(rows, region): (Vec<&mut [f32]>, Region)| match unpacked {
        Some(w) => product.run_unpacked(w, rows, &region),
        None => product.run(rows, &region),
    };
    let tasks: Vec<_> = own_columns(y, &regions, &tiles, shape.width).into_iter().zip(regions).collect();
    match <[_; 1]>::try_from(tasks) {
        Ok([task]) => run(task),
        Err(tasks) => tasks.into_par_iter().for_each(run),
    }
}

/// The driver of single rows: each thread takes a range of features.
fn single_row(
    cx: &Context,
    x: &[f32],
    w: WeightRef<'_>,
    Chain { start, bias }: Chain<'_>,
    width: usize,
    y: &mut [f32],
) {
    let regions = blocking::regions(1, y.len().div_ceil(width), rayon::current_num_threads(), w.rows() * w.cols());
    let share = regions[0].panels.len().max(regions[regions.len() - 1].panels.len()) * width;
    let mut operands = cx.workspace.take::<f32>(if cx.profile == Profile::StrictBf16 { x.len() } else { 0 });
    let x = if operands.is_empty() {
        x
    } else {
        operands.copy_from_slice(x);
        round_bf16::operand_slice(cx.isa, &mut operands);
        &operands
    };
    let run = |(i, y): (usize, &mut [f32])| {
        let features = i * share..i * share + y.len();
        cx.isa.dispatch(gemv::Gemv { x, w, bias, start, profile: cx.profile, features, y });
    };
    if regions.len() == 1 {
        run((0, y));
    } else {
        y.par_chunks_mut(share).enumerate().for_each(run);
    }
}

/// Elements of `x` from which packing on several threads should pay for waking them; not measured yet.
const PARALLEL_PACK: usize = 1 << 16;

/// A sum over nothing.
fn empty_product(row: &mut [f32], Chain { start, bias }: Chain<'_>) {
    if start == Start::Zero {
        row.fill(0.0);
    }
    if let Some(bias) = bias {
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

/// Consecutive disjoint parts of the given lengths.
fn split_by(mut rest: &mut [f32], lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = &mut [f32]> {
    lengths.map(move |len| {
        let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
        rest = tail;
        part
    })
}

/// For each region, its rows of `y` restricted to its columns.
fn own_columns<'y>(y: MatMut<'y>, regions: &[Region], tiles: &[Range<usize>], width: usize) -> Vec<Vec<&'y mut [f32]>> {
    let n = y.cols();
    let mut owned: Vec<Vec<&mut [f32]>> = regions
        .iter()
        .map(|r| Vec::with_capacity(tiles[r.tiles.clone()].iter().map(ExactSizeIterator::len).sum()))
        .collect();
    for (r, mut rest) in y.into_rows().enumerate() {
        for (region, rows) in regions.iter().zip(&mut owned) {
            let Region { tiles: own, panels } = region;
            if own.is_empty() || !(tiles[own.start].start..tiles[own.end - 1].end).contains(&r) {
                continue;
            }
            let columns = (panels.end * width).min(n) - (panels.start * width).min(n);
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(columns);
            rest = tail;
            rows.push(part);
        }
    }
    owned
}

/// Asks the instruction set for its row of the tile table.
struct ShapeOf;

impl SimdOp for ShapeOf {
    type Output = TileShape;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S) -> TileShape {
        TileShape::of::<S>()
    }
}
