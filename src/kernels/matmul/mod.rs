//! Matrix products: `y = x Wᵀ (+ bias)` over stored or perturbed weights, and plain f32 products.
//!
//! *What it is.* One micro-tile ([`tile`]), one packer per operand ([`panel`], [`pack`]), one schedule
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

mod blocking;
mod gemv;
mod pack;
mod panel;
pub mod product;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

pub use panel::{DEPTH_BLOCK, PanelSource};

use blocking::Region;
use pack::{Format, Left, PackPanels, PackRows};
use tile::{Start, Tile, TileShape};

use super::Context;
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
    multiply(cx, Left::Rows(x), w, bias, Start::Zero, y);
}

/// The common driver of all products.
fn multiply<P: PanelSource>(
    cx: &Context,
    x: Left<'_>,
    source: &P,
    bias: Option<&[f32]>,
    start: Start,
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
    if let Some(bias) = bias {
        assert_eq!(bias.len(), n, "a bias [{}] for y [{m}, {n}]", bias.len());
    }
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for row in y.reborrow().into_rows() {
            empty_product(row, bias, start);
        }
        return;
    }
    let shape = cx.isa.dispatch(ShapeOf);
    if let (Left::Rows(x), Some(w), 1) = (x, source.as_weight(), m) {
        return single_row(cx, x.row(0), w, bias, start, shape.width, y.row_mut(0));
    }
    let format = Format::of(cx);
    let tiles: Vec<_> = (0..branches)
        .flat_map(|b| {
            let first = b * (m / branches);
            blocking::row_tiles(m / branches, shape.rows).map(move |t| first + t.start..first + t.end)
        })
        .collect();
    let steps = format.steps(k);
    let mut packed = cx.workspace.take::<f32>(m * steps);
    let jobs: Vec<_> = split_by(&mut packed, tiles.iter().map(|tile| tile.len() * steps)).zip(&tiles).collect();
    let pack = |(out, rows): (&mut [f32], &Range<usize>)| {
        cx.isa.dispatch(PackRows { x, rows: rows.clone(), format, out });
    };
    if m * k < PARALLEL_PACK {
        jobs.into_iter().for_each(pack);
    } else {
        jobs.into_par_iter().for_each(pack);
    }

    let panels = n.div_ceil(shape.width);
    let regions = blocking::regions(tiles.len(), panels, rayon::current_num_threads(), m * k * n);
    let product = Product { cx, packed: &packed, tiles: &tiles, source, bias, start, format, shape, steps };
    let tasks: Vec<_> = own_columns(y, &regions, &tiles, shape.width).into_iter().zip(regions).collect();
    match <[_; 1]>::try_from(tasks) {
        Ok([(rows, region)]) => product.run(rows, &region),
        Err(tasks) => tasks.into_par_iter().for_each(|(rows, region)| product.run(rows, &region)),
    }
}

/// The driver of single rows: each thread takes a range of features.
fn single_row(
    cx: &Context,
    x: &[f32],
    w: WeightRef<'_>,
    bias: Option<&[f32]>,
    start: Start,
    width: usize,
    y: &mut [f32],
) {
    let regions = blocking::regions(1, y.len().div_ceil(width), rayon::current_num_threads(), w.rows() * w.cols());
    let share = regions[0].panels.len().max(regions[regions.len() - 1].panels.len()) * width;
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

/// Elements of `x` from which packing on several threads pays for waking them (about 5 µs).
const PARALLEL_PACK: usize = 1 << 16;

/// A sum over nothing.
fn empty_product(row: &mut [f32], bias: Option<&[f32]>, start: Start) {
    if start == Start::Zero {
        row.fill(0.0);
    }
    if let Some(bias) = bias {
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

/// Consecutive disjoint parts of the given lengths.
fn split_by<'a>(mut rest: &'a mut [f32], lengths: impl Iterator<Item = usize>) -> impl Iterator<Item = &'a mut [f32]> {
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

/// A product with its left operand packed.
struct Product<'a, P> {
    cx: &'a Context,
    packed: &'a [f32],
    tiles: &'a [Range<usize>],
    source: &'a P,
    bias: Option<&'a [f32]>,
    start: Start,
    format: Format,
    shape: TileShape,
    steps: usize,
}

impl<P: PanelSource> Product<'_, P> {
    /// Computes one region of `y`; `rows` are its rows restricted to its columns.
    fn run(&self, mut rows: Vec<&mut [f32]>, region: &Region) {
        let Product { cx, source, format, shape, .. } = *self;
        let (n, k, branches, width) = (source.rows(), source.cols(), source.branches(), shape.width);
        let per_chunk = blocking::panels_per_chunk(k, width, branches);
        let stride = blocking::longest_depth_block(k).next_multiple_of(tile::DEPTH_UNROLL) * width;
        let mut scratch = cx.workspace.take::<f32>(per_chunk.min(region.panels.len()) * branches * stride);
        for first in region.panels.clone().step_by(per_chunk) {
            let chunk = first..(first + per_chunk).min(region.panels.end);
            for depth in blocking::depth_blocks(k) {
                let used = depth.len().next_multiple_of(tile::DEPTH_UNROLL) * width;
                for (panel, buffers) in chunk.clone().zip(scratch.chunks_exact_mut(branches * stride)) {
                    let panels = buffers.chunks_exact_mut(stride).map(|panel| &mut panel[..used]).collect();
                    let features = panel * width..((panel + 1) * width).min(n);
                    cx.isa.dispatch(PackPanels { source, rows: features, depth: depth.clone(), format, panels, width });
                }
                let op = Block {
                    packed: self.packed,
                    steps: self.steps,
                    tiles: self.tiles,
                    branches,
                    format,
                    bias: self.bias.filter(|_| depth.end == k),
                    start: if depth.start == 0 { self.start } else { Start::Continue },
                    columns: n,
                    region,
                    chunk: chunk.clone(),
                    depth,
                    scratch: &scratch,
                    stride,
                    rows: &mut rows,
                };
                if format == Format::Pairs { cx.isa.dispatch_bf16(op) } else { cx.isa.dispatch(op) }
            }
        }
    }
}

/// Meets a chunk of packed panels, over one block of `k`, with every row tile of a region. Does not
/// know where the panels came from, so there is one copy of it for all sources.
struct Block<'a, 'y> {
    packed: &'a [f32],
    steps: usize,
    tiles: &'a [Range<usize>],
    branches: usize,
    format: Format,
    bias: Option<&'a [f32]>,
    start: Start,
    /// Columns of the whole output.
    columns: usize,
    region: &'a Region,
    chunk: Range<usize>,
    depth: Range<usize>,
    scratch: &'a [f32],
    /// Elements from one packed panel to the next.
    stride: usize,
    rows: &'a mut [&'y mut [f32]],
}

impl SimdOp for Block<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Block { packed, steps, tiles, branches, format, bias, start, columns: n, region, .. } = self;
        let width = TileShape::of::<S>().width;
        let tiles_per_branch = tiles.len() / branches;
        let (first_step, taken) = (format.step_of(self.depth.start), format.steps(self.depth.len()));
        let first_row = tiles[region.tiles.start].start;
        for t in region.tiles.clone() {
            let tile = tiles[t].clone();
            let x = &packed[tile.start * steps..tile.end * steps];
            let x = &x[first_step * tile.len()..(first_step + taken) * tile.len()];
            let y = &mut self.rows[tile.start - first_row..tile.end - first_row];
            let branch = t / tiles_per_branch;
            for (panel, buffers) in self.chunk.clone().zip(self.scratch.chunks_exact(branches * self.stride)) {
                let from = panel * width;
                let columns = (n - from).min(width);
                let job = Tile {
                    x,
                    panel: &buffers[branch * self.stride..][..taken * width],
                    y: &mut *y,
                    column: from - region.panels.start * width,
                    columns,
                    start,
                    bias: bias.map(|bias| &bias[from..from + columns]),
                };
                if S::BF16_DOT { tile::run::<S, true>(simd, job) } else { tile::run::<S, false>(simd, job) }
            }
        }
    }
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
