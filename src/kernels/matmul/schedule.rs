//! What one thread does: pack a chunk of panels, meet it with every row tile, go on to the next.

use std::ops::Range;

use super::{
    Chain, Context, PanelSource, Tail,
    blocking::{self, Region},
    few_rows::FewRows,
    pack::{Format, PackPanels},
    panel::Groups,
    tile::{self, DEPTH_UNROLL, Start, Tile, TileShape},
};
use crate::{
    simd::{Simd, SimdOp},
    tensor::WeightRef,
};

/// A product with its left operand packed: tile after tile, each its main steps, then its tail steps.
pub(super) struct Product<'a, P> {
    pub(super) cx: &'a Context,
    pub(super) packed: &'a [f32],
    /// The rows of each tile.
    pub(super) tiles: &'a [Range<usize>],
    pub(super) source: &'a P,
    pub(super) tail: Option<Tail<'a>>,
    pub(super) chain: Chain<'a>,
    pub(super) format: Format,
    pub(super) shape: TileShape,
    /// Packed steps of a row, tail included.
    pub(super) steps: usize,
}

/// A stretch of the chains: which inputs, where their steps begin, and whether chains begin or end in it.
struct Stretch {
    depth: Range<usize>,
    first_step: usize,
    first: bool,
    last: bool,
}

impl<P: PanelSource> Product<'_, P> {
    /// Computes one region of `y`; `rows` are its rows restricted to its columns.
    pub(super) fn run(&self, mut rows: Vec<&mut [f32]>, region: &Region) {
        let Product { cx, source, tail, format, shape, .. } = *self;
        let (k, rank) = (source.cols(), tail.map_or(0, |tail| tail.x.cols()));
        let branches = source.branches().max(tail.map_or(1, |tail| tail.groups.len()));
        let longest = blocking::longest_depth_block(k.max(rank));
        let per_chunk = blocking::panels_per_chunk(longest, shape.width, branches).min(region.panels.len().max(1));
        let panel = longest.next_multiple_of(DEPTH_UNROLL) * shape.width;
        let mut scratch = cx.workspace.take::<f32>(per_chunk * branches * panel);
        for first in region.panels.clone().step_by(per_chunk) {
            let chunk = first..(first + per_chunk).min(region.panels.end);
            for depth in blocking::depth_blocks(k) {
                let (first, last) = (depth.start == 0, rank == 0 && depth.end == k);
                let stretch = Stretch { first_step: format.step_of(depth.start), depth, first, last };
                self.meet(source, stretch, region, &chunk, &mut scratch, &mut rows);
            }
            for depth in blocking::depth_blocks(rank) {
                let (first, last) = (k == 0 && depth.start == 0, depth.end == rank);
                let first_step = format.steps(k) + format.step_of(depth.start);
                let groups = Groups(tail.map_or(&[], |tail| tail.groups));
                let stretch = Stretch { depth, first_step, first, last };
                self.meet(&groups, stretch, region, &chunk, &mut scratch, &mut rows);
            }
        }
    }

    /// Computes one region of all rows straight from the stored weight.
    pub(super) fn run_unpacked(&self, w: WeightRef<'_>, y: Vec<&mut [f32]>, region: &Region) {
        let Product { cx, packed, tiles, chain: Chain { start, bias }, shape: TileShape { width, .. }, .. } = *self;
        let features = region.panels.start * width..(region.panels.end * width).min(w.rows());
        cx.isa.dispatch(FewRows { packed, tiles, w, bias, start, features, y });
    }

    /// Packs one stretch of a chunk of panels and meets it with every row tile of the region.
    fn meet<Q: PanelSource>(
        &self,
        source: &Q,
        stretch: Stretch,
        region: &Region,
        chunk: &Range<usize>,
        scratch: &mut [f32],
        rows: &mut [&mut [f32]],
    ) {
        let Product { cx, format, shape, .. } = *self;
        let (n, width, branches) = (source.rows(), shape.width, source.branches());
        let Stretch { depth, first_step, first, last } = stretch;
        let panel = depth.len().next_multiple_of(DEPTH_UNROLL) * width;
        for (index, buffers) in chunk.clone().zip(scratch.chunks_exact_mut(branches * panel)) {
            let features = index * width..((index + 1) * width).min(n);
            let panels = buffers.chunks_exact_mut(panel).collect();
            cx.isa.dispatch(PackPanels { source, rows: features, depth: depth.clone(), format, panels, width });
        }
        let block = Block {
            packed: self.packed,
            row_steps: self.steps,
            steps: first_step..first_step + format.steps(depth.len()),
            tiles: self.tiles,
            branches,
            chain: Chain {
                start: if first { self.chain.start } else { Start::Continue },
                bias: self.chain.bias.filter(|_| last),
            },
            columns: n,
            region,
            chunk: chunk.clone(),
            scratch,
            panel,
            rows,
        };
        if format == Format::Pairs { cx.isa.dispatch_bf16(block) } else { cx.isa.dispatch(block) }
    }
}

/// One stretch of a packed chunk against the row tiles of a region. Does not know where the panels came
/// from, so there is one copy of it for all sources.
struct Block<'a, 'y> {
    packed: &'a [f32],
    /// Packed steps of a row.
    row_steps: usize,
    /// The steps to take.
    steps: Range<usize>,
    tiles: &'a [Range<usize>],
    branches: usize,
    chain: Chain<'a>,
    /// Columns of the whole output.
    columns: usize,
    region: &'a Region,
    chunk: Range<usize>,
    scratch: &'a [f32],
    /// Elements of a packed panel.
    panel: usize,
    rows: &'a mut [&'y mut [f32]],
}

impl SimdOp for Block<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Block { packed, row_steps, steps, tiles, branches, chain: Chain { start, bias }, region, .. } = self;
        let width = TileShape::of::<S>().width;
        let tiles_per_branch = tiles.len() / branches;
        let first_row = tiles[region.tiles.start].start;
        for t in region.tiles.clone() {
            let tile = tiles[t].clone();
            let x = &packed[tile.start * row_steps..][steps.start * tile.len()..steps.end * tile.len()];
            let y = &mut self.rows[tile.start - first_row..tile.end - first_row];
            let branch = t / tiles_per_branch;
            for (index, buffers) in self.chunk.clone().zip(self.scratch.chunks_exact(branches * self.panel)) {
                let from = index * width;
                let columns = (self.columns - from).min(width);
                let job = Tile {
                    x,
                    panel: &buffers[branch * self.panel..][..steps.len() * width],
                    y: &mut *y,
                    column: from - region.panels.start * width,
                    columns,
                    start,
                    bias: bias.map(|bias| &bias[from..from + columns]),
                };
                // Operands are pairs exactly where the token has the instruction (`Format::of`).
                if S::BF16_DOT { tile::run::<S, true>(simd, job) } else { tile::run::<S, false>(simd, job) }
            }
        }
    }
}
