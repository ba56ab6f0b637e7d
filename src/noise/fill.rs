//! The orders in which a tensor's noise is asked for: panels, rows, single elements, whole tensors.

use std::{marker::PhantomData, ops::Range};

use rand_pcg::{Lcg64Xsh32, rand_core::Rng};
use rayon::prelude::*;

use super::{
    PANEL_ROWS, TensorNoise,
    law::{Gaussian, Law, PairLaw, SIGNS_PER_DRAW, Uniform, bit_of_lane, sign},
    stream::{BLOCK_COLUMNS, Chain, Lanes, MAX_COLUMNS, MAX_ROWS},
};
use crate::simd::{Isa, Scalar, Simd, SimdOp, VIRTUAL_LANES, tree_sum};

/// Pairs of columns generated together in a panel; `benches/noise.rs` found it.
const UNROLL: usize = 4;

/// The raw draws, for [`TensorNoise::fill_row_draws`].
struct Draws;

impl PairLaw for Draws {
    #[inline(always)]
    fn pairs<S: Simd, const N: usize>(simd: S, even: [S::U32; N], odd: [S::U32; N]) -> [[S::F32; 2]; N] {
        let mut z = [[simd.splat(0.0); 2]; N];
        for i in 0..N {
            z[i] = [simd.from_bits(even[i]), simd.from_bits(odd[i])];
        }
        z
    }
}

/// The blocks that `columns` touch, each with the touched columns counted from the block's first.
#[inline(always)]
fn blocks(columns: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    // No columns touch no block, wherever the empty range starts.
    let end = if columns.is_empty() { 0 } else { columns.end.div_ceil(BLOCK_COLUMNS) };
    (columns.start / BLOCK_COLUMNS..end).map(move |block| {
        let first = block * BLOCK_COLUMNS;
        (block, columns.start.max(first) - first..columns.end.min(first + BLOCK_COLUMNS) - first)
    })
}

/// The value of column `within` of the block whose stream `generator` begins.
fn pair_at<L: PairLaw>(mut generator: Lcg64Xsh32, within: usize) -> f32 {
    generator.advance((within & !1) as u64);
    let (even, odd) = (generator.next_u32(), generator.next_u32());
    let [pair] = L::pairs(Scalar, [even], [odd]);
    pair[within % 2]
}

#[inline(always)]
fn check(row: u64, columns: &Range<usize>) {
    assert!(
        row < MAX_ROWS && columns.end <= MAX_COLUMNS,
        "row {row}, columns {columns:?} of a noise tensor of at most {MAX_ROWS} rows and {MAX_COLUMNS} columns"
    );
}

impl TensorNoise {
    /// One element: the definition, through `rand_pcg`.
    ///
    /// # Panics
    /// If `row` or `column` is beyond [`MAX_ROWS`] or [`MAX_COLUMNS`].
    pub fn at(&self, law: Law, row: u64, column: usize) -> f32 {
        check(row, &(column..column + 1));
        let mut generator = self.generator(row, column / BLOCK_COLUMNS);
        let within = column % BLOCK_COLUMNS;
        match law {
            Law::Gaussian => pair_at::<Gaussian>(generator, within),
            Law::Uniform => pair_at::<Uniform>(generator, within),
            Law::Rademacher => {
                generator.advance((within / SIGNS_PER_DRAW) as u64);
                sign(Scalar, bit_of_lane(Scalar, generator.next_u32(), within % SIGNS_PER_DRAW))
            }
        }
    }

    /// Sixteen rows from `row` on, column by column: calls `emit(column, lane, values)` for every column of
    /// `columns` and each vector of lanes, where lane `i` of `values` is row `row + lane + i` and `lane`
    /// counts 0, `LANES`, … below [`PANEL_ROWS`]. All columns of the first vector come before the next.
    ///
    /// This is the order of a packed panel and of generation: values reach `emit` in registers, to be fused
    /// with a weight. Rows beyond the tensor's last are generated like any other and ignored by the caller.
    ///
    /// `emit` is inlined at several places: write it as `#[inline(always)] |column, lane, z| …` in the call
    /// itself, or it may be compiled without the instruction set's features, at a thirtieth of the speed.
    ///
    /// # Panics
    /// If `row` or `columns` are beyond [`MAX_ROWS`] or [`MAX_COLUMNS`].
    #[inline(always)]
    pub fn columns<S: Simd>(
        &self,
        simd: S,
        law: Law,
        row: u64,
        columns: Range<usize>,
        emit: impl FnMut(usize, usize, S::F32),
    ) {
        check(row, &columns);
        match law {
            Law::Gaussian => self.pair_columns::<S, Gaussian>(simd, row, columns, emit),
            Law::Uniform => self.pair_columns::<S, Uniform>(simd, row, columns, emit),
            Law::Rademacher => self.sign_columns(simd, row, columns, emit),
        }
    }

    /// Sixteen rows from `row` on, column-major: `out[k * 16 + i]` is row `row + i`, column `columns.start + k`.
    ///
    /// # Panics
    /// If `out` does not hold [`PANEL_ROWS`] values a column, or beyond the limits of [`TensorNoise::columns`].
    #[inline(always)]
    pub fn fill_panel<S: Simd>(&self, simd: S, law: Law, row: u64, columns: Range<usize>, out: &mut [f32]) {
        assert_eq!(
            out.len(),
            columns.len() * PANEL_ROWS,
            "a panel of {} values for {} columns",
            out.len(),
            columns.len()
        );
        let first = columns.start;
        self.columns(
            simd,
            law,
            row,
            columns,
            #[inline(always)]
            |column, lane, z| {
                simd.store(z, &mut out[(column - first) * PANEL_ROWS + lane..]);
            },
        );
    }

    /// The columns `columns` of one row, in order.
    ///
    /// # Panics
    /// If `out` is not as long as `columns`, or beyond the limits of [`TensorNoise::columns`].
    #[inline(always)]
    pub fn fill_row<S: Simd>(&self, simd: S, law: Law, row: u64, columns: Range<usize>, out: &mut [f32]) {
        match law {
            Law::Gaussian => self.row::<S, Pairs<S, Gaussian>>(simd, row, columns, out),
            Law::Uniform => self.row::<S, Pairs<S, Uniform>>(simd, row, columns, out),
            Law::Rademacher => self.row::<S, Signs>(simd, row, columns, out),
        }
    }

    /// The raw 32-bit draws of one row: column `j` of a block is draw `j` of its stream.
    ///
    /// # Panics
    /// As [`TensorNoise::fill_row`].
    #[inline(always)]
    pub fn fill_row_draws<S: Simd>(&self, simd: S, row: u64, columns: Range<usize>, out: &mut [u32]) {
        self.row::<S, Pairs<S, Draws>>(simd, row, columns, bytemuck::cast_slice_mut(out));
    }

    /// The `rows` × `columns` matrix in row-major order, split over rayon's threads by rows.
    ///
    /// # Panics
    /// If `out` does not hold that matrix, or beyond the limits of [`TensorNoise::columns`].
    pub fn fill(&self, isa: Isa, law: Law, rows: Range<u64>, columns: Range<usize>, out: &mut [f32]) {
        let height = usize::try_from(rows.end.saturating_sub(rows.start)).expect("rows that fit in memory");
        assert_eq!(
            out.len(),
            height * columns.len(),
            "a buffer of {} values for {height} rows of {} columns",
            out.len(),
            columns.len()
        );
        if columns.is_empty() {
            return;
        }
        out.par_chunks_mut(PANEL_ROWS * columns.len()).enumerate().for_each(|(panel, out)| {
            let row = rows.start + (panel * PANEL_ROWS) as u64;
            isa.dispatch(Matrix { noise: self, law, row, columns: columns.clone(), out });
        });
    }

    /// Σ z² over the first `rows` × `columns` of this noise, in a fixed order: each block of a row is a
    /// canonical 16-lane f32 sum, and an f64 chain runs over the blocks of a row and then over the rows.
    /// The square norm of a set of tensors is the f64 chain over its tensors in the set's order.
    ///
    /// Costs one generation of the tensor. A direction on the unit sphere is the Gaussian one divided by
    /// the root of this.
    pub fn squared_norm(&self, isa: Isa, law: Law, rows: usize, columns: usize) -> f64 {
        let sums: Vec<f64> = (0..rows)
            .into_par_iter()
            .map(|row| isa.dispatch(RowSquares { noise: self, law, row: row as u64, columns }))
            .collect();
        sums.into_iter().fold(0.0, |sum, row| sum + row)
    }

    #[inline(always)]
    fn pair_columns<S: Simd, L: PairLaw>(
        &self,
        simd: S,
        row: u64,
        columns: Range<usize>,
        mut emit: impl FnMut(usize, usize, S::F32),
    ) {
        for lane in (0..PANEL_ROWS).step_by(S::LANES) {
            for (block, within) in blocks(columns.clone()) {
                let start = within.start & !1;
                let lanes = Lanes::rows(simd, self, row + lane as u64, block, start);
                let mut pairs = Pairs::<S, L>::new(lanes.two_by_two(simd, 1));
                let first = block * BLOCK_COLUMNS;
                let (mut column, end) = (first + start, first + within.end);
                if start < within.start {
                    let [[_, z]] = pairs.next::<1>(simd);
                    emit(column + 1, lane, z);
                    column += 2;
                }
                while column + 2 * UNROLL <= end {
                    for (pair, z) in pairs.next::<UNROLL>(simd).into_iter().enumerate() {
                        emit(column + 2 * pair, lane, z[0]);
                        emit(column + 2 * pair + 1, lane, z[1]);
                    }
                    column += 2 * UNROLL;
                }
                while column < end {
                    let [[even, odd]] = pairs.next::<1>(simd);
                    emit(column, lane, even);
                    if column + 1 < end {
                        emit(column + 1, lane, odd);
                    }
                    column += 2;
                }
            }
        }
    }

    #[inline(always)]
    fn sign_columns<S: Simd>(
        &self,
        simd: S,
        row: u64,
        columns: Range<usize>,
        mut emit: impl FnMut(usize, usize, S::F32),
    ) {
        for lane in (0..PANEL_ROWS).step_by(S::LANES) {
            for (block, within) in blocks(columns.clone()) {
                let draw = within.start / SIGNS_PER_DRAW;
                let mut chain = Lanes::rows(simd, self, row + lane as u64, block, draw).one_by_one(simd);
                let mut group = draw * SIGNS_PER_DRAW;
                while group < within.end {
                    let bits = chain.draw(simd);
                    let end = within.end.min(group + SIGNS_PER_DRAW);
                    for column in within.start.max(group)..end {
                        let z = sign(simd, simd.shl(bits, 31 - (column - group) as u32));
                        emit(block * BLOCK_COLUMNS + column, lane, z);
                    }
                    group += SIGNS_PER_DRAW;
                }
            }
        }
    }

    #[inline(always)]
    fn row<S: Simd, G: RowGroups<S>>(&self, simd: S, row: u64, columns: Range<usize>, out: &mut [f32]) {
        check(row, &columns);
        assert_eq!(out.len(), columns.len(), "a row of {} values for {} columns", out.len(), columns.len());
        let mut rest = out;
        for (block, within) in blocks(columns) {
            let mut at = within.start / G::WIDTH * G::WIDTH;
            let mut groups = G::new(simd, self, row, block, at);
            while at < within.end {
                let take = within.start.max(at)..within.end.min(at + G::WIDTH);
                let (group, after) = rest.split_at_mut(take.len());
                if group.len() == G::WIDTH {
                    groups.write(simd, group);
                } else {
                    // Cut by an end of `columns`.
                    let mut whole = [0.0; 2 * VIRTUAL_LANES];
                    groups.write(simd, &mut whole[..G::WIDTH]);
                    group.copy_from_slice(&whole[take.start - at..take.end - at]);
                }
                rest = after;
                at += G::WIDTH;
            }
        }
    }
}

/// The values of a block's columns in order, some at a time.
trait RowGroups<S: Simd> {
    /// Columns of a group: a divisor of the block's, at most 32.
    const WIDTH: usize;
    /// Groups of `row` and `block` from the one at column `start` on, a multiple of `WIDTH`.
    fn new(simd: S, noise: &TensorNoise, row: u64, block: usize, start: usize) -> Self;
    /// Writes the next `WIDTH` values.
    fn write(&mut self, simd: S, group: &mut [f32]);
}

/// Pairs of neighbouring columns, from the draws of even and of odd columns.
struct Pairs<S: Simd, L> {
    chains: [Chain<S>; 2],
    law: PhantomData<L>,
}

impl<S: Simd, L: PairLaw> Pairs<S, L> {
    #[inline(always)]
    fn new(chains: [Chain<S>; 2]) -> Self {
        Pairs { chains, law: PhantomData }
    }
    #[inline(always)]
    fn next<const N: usize>(&mut self, simd: S) -> [[S::F32; 2]; N] {
        let [even_chain, odd_chain] = &mut self.chains;
        let mut even = [simd.splat_u32(0); N];
        let mut odd = even;
        for (even, odd) in even.iter_mut().zip(&mut odd) {
            *even = even_chain.draw(simd);
            *odd = odd_chain.draw(simd);
        }
        L::pairs(simd, even, odd)
    }
}

/// Lanes hold every other column of one stream; the even and the odd ones are merged in registers.
impl<S: Simd, L: PairLaw> RowGroups<S> for Pairs<S, L> {
    const WIDTH: usize = 2 * S::LANES;
    #[inline(always)]
    fn new(simd: S, noise: &TensorNoise, row: u64, block: usize, start: usize) -> Self {
        Pairs::new(Lanes::pairs(simd, noise, row, block, start / 2).two_by_two(simd, S::LANES))
    }
    #[inline(always)]
    fn write(&mut self, simd: S, group: &mut [f32]) {
        let [[even, odd]] = self.next::<1>(simd);
        let [first, rest] = simd.interleave(even, odd);
        simd.store(first, group);
        simd.store(rest, &mut group[S::LANES..]);
    }
}

/// The signs of one stream.
struct Signs {
    generator: Lcg64Xsh32,
}

impl<S: Simd> RowGroups<S> for Signs {
    const WIDTH: usize = SIGNS_PER_DRAW;
    #[inline(always)]
    fn new(_: S, noise: &TensorNoise, row: u64, block: usize, start: usize) -> Self {
        let mut generator = noise.generator(row, block);
        generator.advance((start / SIGNS_PER_DRAW) as u64);
        Signs { generator }
    }
    #[inline(always)]
    fn write(&mut self, simd: S, group: &mut [f32]) {
        let draw = self.generator.next_u32();
        for (chunk, bit) in group.chunks_exact_mut(S::LANES).zip((0..).step_by(S::LANES)) {
            simd.store(sign(simd, bit_of_lane(simd, draw, bit)), chunk);
        }
    }
}

/// Below this width a row costs more in unused lanes and seeding than a transposition does.
const NARROW: usize = 2 * VIRTUAL_LANES;

/// Up to sixteen consecutive rows, row-major.
struct Matrix<'a> {
    noise: &'a TensorNoise,
    law: Law,
    row: u64,
    columns: Range<usize>,
    out: &'a mut [f32],
}

impl SimdOp for Matrix<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let width = self.columns.len();
        if width < NARROW {
            let mut panel = [0.0; NARROW * PANEL_ROWS];
            let panel = &mut panel[..width * PANEL_ROWS];
            self.noise.fill_panel(simd, self.law, self.row, self.columns, panel);
            for (lane, out) in self.out.chunks_exact_mut(width).enumerate() {
                for (out, column) in out.iter_mut().zip(panel.chunks_exact(PANEL_ROWS)) {
                    *out = column[lane];
                }
            }
            return;
        }
        for (out, row) in self.out.chunks_exact_mut(width).zip(self.row..) {
            self.noise.fill_row(simd, self.law, row, self.columns.clone(), out);
        }
    }
}

/// Σ z² of one row.
struct RowSquares<'a> {
    noise: &'a TensorNoise,
    law: Law,
    row: u64,
    columns: usize,
}

impl SimdOp for RowSquares<'_> {
    type Output = f64;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> f64 {
        let mut sum = 0.0;
        for start in (0..self.columns).step_by(BLOCK_COLUMNS) {
            let end = self.columns.min(start + BLOCK_COLUMNS);
            let mut values = [0.0; BLOCK_COLUMNS];
            self.noise.fill_row(simd, self.law, self.row, start..end, &mut values[..end - start]);
            let mut lanes = [0.0_f32; VIRTUAL_LANES];
            for chunk in values.chunks_exact(VIRTUAL_LANES) {
                for (lanes, z) in lanes.chunks_exact_mut(S::LANES).zip(chunk.chunks_exact(S::LANES)) {
                    let z = simd.load(z);
                    simd.store(simd.mul_add(z, z, simd.load(lanes)), lanes);
                }
            }
            sum += f64::from(tree_sum(lanes));
        }
        sum
    }
}
