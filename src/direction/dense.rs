//! Directions with one value per weight element: where the values come from, what scales them, which take part.
//!
//! *What it is not.* A displacement: [`super::fuse`] adds these values to a weight, [`super::lanes`] to its rows.
//!
//! *What must stay true.* Sixteen rows asked for as a panel and a row asked for alone have the same bits: those of
//! [`super::materialize`].

use std::{ops::Range, sync::Arc};

use rayon::prelude::*;

use super::{RowFn, flips::Flips};
use crate::{
    kernels::{
        Context,
        elementwise::Store,
        embedding,
        matmul::{DEPTH_BLOCK, PanelSource},
    },
    noise::{Law, PANEL_ROWS, TensorNoise},
    simd::{Simd, SimdOp},
    tensor::{MatMut, MatRef, WeightRef},
};

/// Where the values of a direction come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Keyed noise: element `[row, col]` of the weight gets element `[row, col]` of the noise.
    Noise(TensorNoise, Law),
    /// Values of the weight's own shape `[n, k]`.
    Explicit(MatRef<'a>),
    /// The stored weight itself, whatever earlier terms added to it.
    Weights,
    /// The stored weight minus this one, one rounding.
    Drift(WeightRef<'a>),
    /// What a rule makes of row and columns.
    Rows(&'a dyn RowFn),
}

/// A direction with one value per weight element.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a> {
    /// Its values,
    pub source: Source<'a>,
    /// times these, of the weight's own shape, one rounding.
    pub scale: Option<MatRef<'a>>,
    /// Elements outside do not move.
    pub mask: Option<Mask<'a>>,
    /// Signs of rows and columns.
    pub flips: Flips,
}

/// The values of a source as they are, everywhere.
impl<'a> From<Source<'a>> for Dense<'a> {
    fn from(source: Source<'a>) -> Self {
        Dense { source, scale: None, mask: None, flips: Flips::default() }
    }
}

impl<'a> Dense<'a> {
    /// Asserts that it is a direction of such a weight.
    pub(super) fn check(&self, weight: WeightRef<'_>) {
        let (rows, cols) = (weight.rows(), weight.cols());
        let fits = |what: &str, shape: (usize, usize)| {
            assert!(shape == (rows, cols), "{what} [{}, {}] for a weight [{rows}, {cols}]", shape.0, shape.1);
        };
        match self.source {
            Source::Explicit(values) => fits("a direction", (values.rows(), values.cols())),
            Source::Drift(anchor) => fits("an anchor", (anchor.rows(), anchor.cols())),
            Source::Noise(..) | Source::Weights | Source::Rows(_) => {}
        }
        if let Some(scale) = self.scale {
            fits("a scale", (scale.rows(), scale.cols()));
        }
        if let Some(mask) = self.mask {
            fits("a mask", (mask.rows, mask.cols));
        }
    }

    /// Whether its values are made of those of the weight.
    pub(super) fn reads_stored(&self) -> bool {
        matches!(self.source, Source::Weights | Source::Drift(_))
    }

    /// Whether this is known to have the values of `other` but for their signs.
    pub(super) fn shares(&self, other: &Dense<'_>) -> bool {
        let same_source = match (self.source, other.source) {
            (Source::Noise(noise, law), Source::Noise(other, of)) => (noise, law) == (other, of),
            (Source::Explicit(values), Source::Explicit(other)) => std::ptr::eq(values.data(), other.data()),
            _ => false,
        };
        let scales = [self.scale, other.scale].map(|scale| scale.map(|scale| scale.data().as_ptr()));
        let masks = [self.mask, other.mask].map(|mask| mask.map(|mask| mask.words.as_ptr()));
        same_source && scales[0] == scales[1] && masks[0] == masks[1]
    }

    /// Its rows `rows`, one after the other and +0 outside of the mask: made in `z`, unless they lie somewhere. `stored`
    /// are those of the weight, for directions that read them.
    pub(super) fn rows<'z>(&self, cx: &Context, rows: Range<usize>, stored: &'z [f32], z: &'z mut [f32]) -> &'z [f32]
    where
        'a: 'z,
    {
        let plain = self.scale.is_none() && self.mask.is_none() && self.flips.is_empty();
        let cols = z.len() / rows.len();
        match self.source {
            Source::Noise(noise, law) => noise.fill(cx.isa, law, rows.start as u64..rows.end as u64, 0..cols, z),
            Source::Explicit(values) => {
                assert_eq!(values.stride(), cols, "a parameter's direction lies without gaps");
                let values = &values.data()[rows.start * cols..rows.end * cols];
                if plain {
                    return values;
                }
                z.copy_from_slice(values);
            }
            Source::Weights if plain => return stored,
            Source::Weights => z.copy_from_slice(stored),
            Source::Drift(anchor) => {
                widen_rows(cx, anchor, rows.clone(), z);
                z.iter_mut().zip(stored).for_each(|(z, stored)| *z = stored - *z);
            }
            Source::Rows(rule) => each_row(rows.clone(), z, |row, z| rule.row(row, 0..cols, z)),
        }
        if !plain {
            self.flips.apply(cx.isa, rows.clone(), z);
            each_row(rows, z, |row, z| self.scale_and_mask(row, z));
        }
        z
    }

    /// Scales row `row` of its source's values and sets those outside of the mask to +0.
    fn scale_and_mask(&self, row: usize, z: &mut [f32]) {
        if let Some(scale) = self.scale {
            z.iter_mut().zip(scale.row(row)).for_each(|(z, scale)| *z *= scale);
        }
        if let Some(mask) = self.mask {
            mask.outside(row).for_each(|col| z[col] = 0.0);
        }
    }
}

/// Writes rows `rows` of a weight to `out`, as f32.
pub(super) fn widen_rows(cx: &Context, weight: WeightRef<'_>, rows: Range<usize>, out: &mut [f32]) {
    let ids: Vec<u32> = rows.clone().map(|row| u32::try_from(row).expect("fewer than 2³² rows")).collect();
    embedding::forward(cx, weight, &ids, 1.0, Store::Write, MatMut::new(out, rows.len(), weight.cols()));
}

/// Calls `f(row, values)` for each of the rows that `z` holds.
fn each_row(rows: Range<usize>, z: &mut [f32], mut f: impl FnMut(usize, &mut [f32])) {
    let cols = z.len() / rows.len();
    rows.zip(z.chunks_exact_mut(cols)).for_each(|(row, z)| f(row, z));
}

/// Which elements of a weight `[n, k]` take part: one bit an element, row after row, each row starting
/// a new word.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    words: &'a [u32],
    words_per_row: usize,
    rows: usize,
    cols: usize,
}

impl<'a> Mask<'a> {
    /// A mask for `[rows, cols]`: bit `col % 32` of word `row · ⌈cols / 32⌉ + col / 32`. Bits past the last column
    /// say nothing.
    ///
    /// # Panics
    /// If `words` does not have `rows · ⌈cols / 32⌉` words.
    pub fn new(words: &'a [u32], rows: usize, cols: usize) -> Self {
        let words_per_row = cols.div_ceil(WORD);
        assert_eq!(words.len(), rows * words_per_row, "a mask of [{rows}, {cols}] over {} words", words.len());
        Mask { words, words_per_row, rows, cols }
    }

    /// The words of such a mask: an element takes part if `takes_part` says so of its value, of which `fill` writes some
    /// rows at a time.
    pub fn words(
        rows: usize,
        cols: usize,
        fill: impl Fn(Range<usize>, &mut [f32]) + Sync,
        takes_part: impl Fn(f32) -> bool + Sync,
    ) -> Arc<[u32]> {
        let words_per_row = cols.div_ceil(WORD);
        let mut words = vec![0; rows * words_per_row];
        let scratch = || vec![0.0; PANEL_ROWS.min(rows) * cols];
        let blocks = words.par_chunks_mut(PANEL_ROWS * words_per_row).enumerate();
        blocks.for_each_init(scratch, |values, (block, words)| {
            let rows = block * PANEL_ROWS..block * PANEL_ROWS + words.len() / words_per_row;
            let values = &mut values[..rows.len() * cols];
            fill(rows, values);
            for (values, words) in values.chunks_exact(cols).zip(words.chunks_exact_mut(words_per_row)) {
                for (values, word) in values.chunks(WORD).zip(words) {
                    *word = values.iter().rev().fold(0, |word, &value| word << 1 | u32::from(takes_part(value)));
                }
            }
        });
        words.into()
    }

    /// Whether element (`row`, `col`) takes part.
    pub fn contains(&self, row: usize, col: usize) -> bool {
        self.row(row)[col / WORD] >> (col % WORD) & 1 == 1
    }

    /// The columns of row `row` that do not take part, ascending.
    pub(super) fn outside(self, row: usize) -> impl Iterator<Item = usize> + 'a {
        let columns = self.row(row).iter().enumerate().flat_map(|(at, word)| {
            let mut left = !word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(at * WORD + bit as usize)
            })
        });
        columns.take_while(move |&col| col < self.cols)
    }

    /// Which of at most sixteen rows take part in each of some columns: bit `i` of `moving[k − depth.start]` is row
    /// `rows.start + i`, and no bit stands past the end of `rows`.
    #[inline(always)]
    pub(super) fn panel(&self, rows: Range<usize>, depth: Range<usize>, moving: &mut [u32]) {
        moving.fill(0);
        for (lane, row) in rows.enumerate() {
            let (words, mut from) = (self.row(row), depth.start);
            while from < depth.end {
                let to = depth.end.min((from / WORD + 1) * WORD);
                let word = words[from / WORD] >> (from % WORD);
                for (bit, moving) in moving[from - depth.start..to - depth.start].iter_mut().enumerate() {
                    *moving |= (word >> bit & 1) << lane;
                }
                from = to;
            }
        }
    }

    /// Sets what does not take part to +0 in sixteen rows in the order of a panel.
    #[inline(always)]
    pub(super) fn clear<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, z: &mut [f32]) {
        let mut moving = [0; DEPTH_BLOCK];
        let moving = &mut moving[..depth.len()];
        self.panel(rows, depth, moving);
        for (z, &mut moving) in z.chunks_exact_mut(PANEL_ROWS).zip(moving) {
            for (i, z) in z.chunks_exact_mut(S::LANES).enumerate() {
                simd.store(blend(simd, moving >> (i * S::LANES), simd.load(z), simd.splat(0.0)), z);
            }
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &'a [u32] {
        &self.words[row * self.words_per_row..][..self.words_per_row]
    }
}

/// Elements that share a word of a mask.
const WORD: usize = u32::BITS as usize;

/// `moved` in the lanes whose bit of `moving` is set, else `base`.
#[inline(always)]
pub(super) fn blend<S: Simd>(simd: S, moving: u32, moved: S::F32, base: S::F32) -> S::F32 {
    const LANE_BITS: [u32; PANEL_ROWS] = {
        let (mut bits, mut lane) = ([0; PANEL_ROWS], 0);
        while lane < PANEL_ROWS {
            bits[lane] = 1 << lane;
            lane += 1;
        }
        bits
    };
    simd.select(simd.test(simd.splat_u32(moving), simd.load_u32(&LANE_BITS)), moved, base)
}

/// Makes sixteen rows of a direction, in the order of a panel: `z[(k − depth.start) · 16 + row]`, whatever its mask
/// says. An operation of its own, compiled once an instruction set whatever operand it is part of.
pub(super) struct FillPanel<'a, 'z> {
    pub(super) weight: WeightRef<'a>,
    pub(super) direction: Dense<'a>,
    pub(super) rows: Range<usize>,
    pub(super) depth: Range<usize>,
    pub(super) z: &'z mut [f32],
}

impl SimdOp for FillPanel<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let FillPanel { weight, direction, rows, depth, z } = self;
        match direction.source {
            Source::Noise(noise, law) => noise.fill_panel(simd, law, rows.start as u64, depth.clone(), z),
            Source::Explicit(values) => values.fill(simd, rows.clone(), depth.clone(), &mut [&mut *z]),
            Source::Weights | Source::Drift(_) => weight.fill(simd, rows.clone(), depth.clone(), &mut [&mut *z]),
            Source::Rows(rule) => {
                let mut scratch = [0.0; DEPTH_BLOCK * PANEL_ROWS];
                let values = &mut scratch[..rows.len() * depth.len()];
                for (row, out) in rows.clone().zip(values.chunks_exact_mut(depth.len())) {
                    rule.row(row, depth.clone(), out);
                }
                let values = MatRef::new(values, rows.len(), depth.len());
                values.fill(simd, 0..rows.len(), 0..depth.len(), &mut [&mut *z]);
            }
        }
        if let Source::Drift(anchor) = direction.source {
            combine(
                simd,
                &anchor,
                (rows.clone(), depth.clone()),
                z,
                #[inline(always)]
                |stored, anchor| simd.sub(stored, anchor),
            );
        }
        direction.flips.apply_panel(simd, rows.clone(), depth.clone(), z);
        if let Some(scale) = direction.scale {
            combine(
                simd,
                &scale,
                (rows, depth),
                z,
                #[inline(always)]
                |z, scale| simd.mul(z, scale),
            );
        }
    }
}

/// `z = with(z, panel)`, where `panel` is sixteen rows of `operand` in the order of `z`.
#[inline(always)]
fn combine<S: Simd>(
    simd: S,
    operand: &impl PanelSource,
    (rows, depth): (Range<usize>, Range<usize>),
    z: &mut [f32],
    with: impl Fn(S::F32, S::F32) -> S::F32,
) {
    let mut scratch = [0.0; DEPTH_BLOCK * PANEL_ROWS];
    let panel = &mut scratch[..z.len()];
    operand.fill(simd, rows, depth, &mut [&mut *panel]);
    for (z, x) in z.chunks_exact_mut(S::LANES).zip(panel.chunks_exact(S::LANES)) {
        simd.store(with(simd.load(z), simd.load(x)), z);
    }
}
