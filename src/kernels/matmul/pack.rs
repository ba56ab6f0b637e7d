//! Operand formats: how the rows of `x` and the filled panels lie in scratch memory.
//!
//! Steps are padded to a multiple of [`DEPTH_UNROLL`] with −0 in `x` and +0 in the panel: their
//! product is −0, and adding −0 changes no value, not even a −0 left by an underflow.

use std::{array, ops::Range};

use super::{PanelSource, panel::DEPTH_BLOCK, tile::DEPTH_UNROLL};
use crate::{
    kernels::{Context, Profile, round_bf16},
    simd::{Simd, SimdOp},
    tensor::MatRef,
};

/// How a step of the micro-tile reads its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One f32 a step, `k` ascending.
    F32,
    /// `strict-bf16` on f32 instructions: rounded operands, each pair's odd element first.
    OddFirst,
    /// `strict-bf16` on the dot product instruction: a step is a pair, odd element in the high half.
    Pairs,
}

impl Format {
    pub(super) fn of(cx: &Context) -> Format {
        match cx.profile {
            Profile::StrictF32 => Format::F32,
            Profile::StrictBf16 if cx.isa.has_bf16_dot() => Format::Pairs,
            Profile::StrictBf16 => Format::OddFirst,
        }
    }

    /// Steps that `depth` inputs take, padding included.
    pub(super) fn steps(self, depth: usize) -> usize {
        match self {
            Format::F32 | Format::OddFirst => depth.next_multiple_of(DEPTH_UNROLL),
            Format::Pairs => depth.div_ceil(2).next_multiple_of(DEPTH_UNROLL),
        }
    }

    /// First step of input `k`, a multiple of [`DEPTH_BLOCK`].
    pub(super) fn step_of(self, k: usize) -> usize {
        if self == Format::Pairs { k / 2 } else { k }
    }
}

/// The left operand of a product.
#[derive(Clone, Copy, Debug)]
pub(super) enum Left<'a> {
    /// `x` as `[m, k]`.
    Rows(MatRef<'a>),
    /// `x` as `[k, m]`, used transposed.
    Columns(MatRef<'a>),
}

impl Left<'_> {
    pub(super) fn rows(&self) -> usize {
        match self {
            Left::Rows(x) => x.rows(),
            Left::Columns(x) => x.cols(),
        }
    }
    pub(super) fn depth(&self) -> usize {
        match self {
            Left::Rows(x) => x.cols(),
            Left::Columns(x) => x.rows(),
        }
    }
}

/// Packs the rows of one tile: `out[(step / DEPTH_UNROLL · rows + row) · DEPTH_UNROLL + step % DEPTH_UNROLL]`.
pub(super) struct PackRows<'a> {
    pub(super) x: Left<'a>,
    pub(super) rows: Range<usize>,
    pub(super) format: Format,
    pub(super) out: &'a mut [f32],
}

/// Inputs taken at a time: a whole number of pairs and of unrolled steps, and long enough a run of a row
/// to stream; all rows of a tile together (14 KB) stay in the L1.
const STAGE: usize = 256;
/// Rows of the tallest tile of any instruction set, and of a product of few rows.
const TILE_ROWS: usize = 16;
/// Rows packed together: as many of their runs fill whole vectors.
const GROUP: usize = 4;

impl SimdOp for PackRows<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let PackRows { x, rows, format, out } = self;
        let (depth, height) = (x.depth(), rows.len());
        assert!(height <= TILE_ROWS, "a tile of {height} rows");
        let mut transposed;
        let stage: &mut [f32] = match x {
            Left::Rows(_) => &mut [],
            Left::Columns(x) if format == Format::F32 => return interleave_columns(simd, x, rows, out),
            Left::Columns(_) => {
                transposed = [0.0; TILE_ROWS * STAGE];
                &mut transposed
            }
        };
        // Stage by stage over all rows: their runs share cache lines.
        for k in (0..depth.max(1)).step_by(STAGE) {
            let len = STAGE.min(depth - k);
            let out = &mut out[format.step_of(k) * height..];
            if let Left::Columns(x) = x {
                // Input by input, so that each cache line is met once: inputs may lie a multiple of a page apart, where a
                // cache holds few of them at a time.
                for i in 0..len {
                    let run = &x.data()[(k + i) * x.stride() + rows.start..][..height];
                    run.iter().zip(stage[i..].iter_mut().step_by(STAGE)).for_each(|(value, staged)| *staged = *value);
                }
            }
            let inputs = |r: usize| match x {
                Left::Rows(x) => &x.row(rows.start + r)[k..k + len],
                Left::Columns(_) => &stage[r * STAGE..][..len],
            };
            for first in (0..height).step_by(GROUP) {
                let group = GROUP.min(height - first);
                if format == Format::F32 && len % DEPTH_UNROLL == 0 {
                    let steps = array::from_fn::<_, GROUP, _>(|i| if i < group { inputs(first + i) } else { &[] });
                    spread(simd, &steps[..group], first, height, out);
                    continue;
                }
                let mut padded = [[-0.0; STAGE]; GROUP];
                let mut steps = 0;
                for (i, padded) in padded[..group].iter_mut().enumerate() {
                    padded[..len].copy_from_slice(inputs(first + i));
                    steps = format_row(simd, format, padded, len);
                }
                let padded = padded.each_ref().map(|row| &row[..steps]);
                spread(simd, &padded[..group], first, height, out);
            }
        }
    }
}

/// Packs a tile of columns of `x` in f32, [`DEPTH_UNROLL`] inputs at a time.
#[inline(always)]
fn interleave_columns<S: Simd>(simd: S, x: MatRef<'_>, columns: Range<usize>, out: &mut [f32]) {
    let height = columns.len();
    let padding = [-0.0; TILE_ROWS];
    for k in (0..x.rows()).step_by(DEPTH_UNROLL) {
        let [a, b, c, d] = [k, k + 1, k + 2, k + 3].map(|k| match x.rows() {
            rows if k < rows => &x.row(k)[columns.clone()],
            _ => &padding[..height],
        });
        for from in (0..height).step_by(S::LANES) {
            let part = from..height.min(from + S::LANES);
            let (a, c) = (load_up_to(simd, &a[part.clone()]), load_up_to(simd, &c[part.clone()]));
            let (b, d) = (load_up_to(simd, &b[part.clone()]), load_up_to(simd, &d[part.clone()]));
            let (even, odd) = (simd.interleave(a, c), simd.interleave(b, d));
            let (low, high) = (simd.interleave(even[0], odd[0]), simd.interleave(even[1], odd[1]));
            // What lies behind the part is still to be written.
            let out = &mut out[k * height + from * DEPTH_UNROLL..];
            let end = part.len() * DEPTH_UNROLL;
            store_before(simd, low[0], 0, end, out);
            store_before(simd, low[1], S::LANES, end, out);
            store_before(simd, high[0], 2 * S::LANES, end, out);
            store_before(simd, high[1], 3 * S::LANES, end, out);
        }
    }
}

#[inline(always)]
fn load_up_to<S: Simd>(simd: S, part: &[f32]) -> S::F32 {
    if part.len() == S::LANES { simd.load(part) } else { simd.load_partial(part) }
}

/// Stores at `at`, unless that is at `end` or behind it, as many lanes as there is room for.
#[inline(always)]
fn store_before<S: Simd>(simd: S, x: S::F32, at: usize, end: usize, out: &mut [f32]) {
    if at >= end {
        return;
    }
    match &mut out[at..] {
        whole if whole.len() >= S::LANES => simd.store(x, whole),
        part => simd.store_partial(x, part),
    }
}

/// Brings up to `STAGE` inputs into `format`, in place; returns the steps they take.
#[inline(always)]
fn format_row<S: Simd>(simd: S, format: Format, stage: &mut [f32; STAGE], len: usize) -> usize {
    if format == Format::F32 {
        return format.steps(len);
    }
    for lanes in stage.chunks_exact_mut(S::LANES) {
        simd.store(round_bf16::operand(simd, simd.load(lanes)), lanes);
    }
    if format == Format::OddFirst {
        stage.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.swap(0, 1));
    } else {
        for i in 0..STAGE / 2 {
            stage[i] = f32::from_bits(stage[2 * i].to_bits() >> 16 | stage[2 * i + 1].to_bits());
        }
    }
    format.steps(len)
}

/// Copies the steps of the rows from `first` on into the tile, in runs of [`DEPTH_UNROLL`]: those of a whole group by vectors.
#[inline(always)]
fn spread<S: Simd>(simd: S, rows: &[&[f32]], first: usize, height: usize, out: &mut [f32]) {
    let place = |step: usize| (step / DEPTH_UNROLL * height + first) * DEPTH_UNROLL;
    let mut done = 0;
    if let ([a, b, c, d], true) = (rows, S::LANES >= DEPTH_UNROLL) {
        done = a.len() - a.len() % S::LANES;
        let vectors_per_run = GROUP * DEPTH_UNROLL / S::LANES;
        for from in (0..done).step_by(S::LANES) {
            // Written out: `map` is a call, and compiled without the set's instructions.
            let inputs = [&a[from..], &b[from..], &c[from..], &d[from..]];
            let runs = simd.transpose_quads([
                simd.load(inputs[0]),
                simd.load(inputs[1]),
                simd.load(inputs[2]),
                simd.load(inputs[3]),
            ]);
            for (i, vector) in runs.into_iter().enumerate() {
                let at = place(from + i / vectors_per_run * DEPTH_UNROLL) + i % vectors_per_run * S::LANES;
                simd.store(vector, &mut out[at..]);
            }
        }
    }
    for (r, row) in rows.iter().enumerate() {
        for (run, step) in row[done..].as_chunks::<DEPTH_UNROLL>().0.iter().zip((done..).step_by(DEPTH_UNROLL)) {
            out[place(step) + r * DEPTH_UNROLL..][..DEPTH_UNROLL].copy_from_slice(run);
        }
    }
}

/// Fills the panels of all branches for inputs `depth` and brings them into `format`.
pub(super) struct PackPanels<'a, P> {
    pub(super) source: &'a P,
    /// Output features of the panel, at most its width.
    pub(super) rows: Range<usize>,
    pub(super) depth: Range<usize>,
    pub(super) format: Format,
    /// One buffer a branch, `depth` padded to even and to [`DEPTH_UNROLL`] × the panel width.
    pub(super) panels: Vec<&'a mut [f32]>,
    pub(super) width: usize,
}

impl<P: PanelSource> SimdOp for PackPanels<'_, P> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let PackPanels { source, rows, depth, format, mut panels, width } = self;
        for from in depth.clone().step_by(DEPTH_BLOCK) {
            let to = (from + DEPTH_BLOCK).min(depth.end);
            let span = (from - depth.start) * width..(to - depth.start) * width;
            let mut parts: Vec<&mut [f32]> = panels.iter_mut().map(|panel| &mut panel[span.clone()]).collect();
            source.fill(simd, rows.clone(), from..to, &mut parts);
        }
        let filled = depth.len() * width;
        for panel in &mut panels {
            panel[filled..].fill(0.0);
            match format {
                Format::F32 => {}
                Format::OddFirst => odd_first(simd, panel, width),
                Format::Pairs => pairs(simd, panel, width),
            }
        }
    }
}

/// Rounds every value and exchanges the two inputs of each pair.
#[inline(always)]
fn odd_first<S: Simd>(simd: S, panel: &mut [f32], width: usize) {
    for pair in panel.chunks_exact_mut(2 * width) {
        let (even, odd) = pair.split_at_mut(width);
        for (even, odd) in even.chunks_exact_mut(S::LANES).zip(odd.chunks_exact_mut(S::LANES)) {
            let first = round_bf16::operand(simd, simd.load(odd));
            let second = round_bf16::operand(simd, simd.load(even));
            simd.store(first, even);
            simd.store(second, odd);
        }
    }
}

/// Rounds every value and joins each pair in one word: step `i` is written where step `2i` was read.
#[inline(always)]
fn pairs<S: Simd>(simd: S, panel: &mut [f32], width: usize) {
    for step in 0..panel.len() / (2 * width) {
        for at in (0..width).step_by(S::LANES) {
            let load = |k: usize| simd.to_bits(round_bf16::operand(simd, simd.load(&panel[k * width + at..])));
            let joined = simd.or(simd.shr(load(2 * step), 16), load(2 * step + 1));
            simd.store(simd.from_bits(joined), &mut panel[step * width + at..]);
        }
    }
}
