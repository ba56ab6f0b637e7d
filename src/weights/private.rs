//! The private copy of one parameter: what training writes.
//!
//! *What it is not.* It knows no file and no name. *What must stay true*: how rows are shared between threads changes no
//! bit; every value is one that the kept type has; a NaN is the canonical one.

use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;

use super::rounding;
use crate::{
    noise::{PANEL_ROWS, TensorNoise},
    simd::{Isa, Simd, SimdOp, VIRTUAL_LANES},
    tensor::{Block, DType, WeightRef},
};

/// What an update did to a parameter: sums over all its values, those of each row by themselves and then a chain over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    /// Of the squared changes that were asked for.
    pub squares: f64,
    /// Of the squared changes that rounding made on top: 0 where values are kept as f32.
    pub rounding_squares: f64,
}

/// The values of a parameter.
#[derive(Debug)]
pub(super) struct Private {
    rows: usize,
    cols: usize,
    values: Values,
    /// The type that every value has. Vectors are computed with in f32, so that is how they lie, whatever this says.
    kept: DType,
}

#[derive(Debug)]
enum Values {
    F32(Block<f32>),
    Bf16(Block<bf16>),
    F16(Block<f16>),
}

impl Private {
    /// A matrix, or a vector of one row, of zeros, kept as `kept`.
    pub(super) fn zeros((rows, cols): (usize, usize), is_vector: bool, kept: DType) -> Private {
        let elements = rows * cols;
        let values = match kept {
            DType::BF16 if !is_vector => Values::Bf16(Block::zeroed(elements)),
            DType::F16 if !is_vector => Values::F16(Block::zeroed(elements)),
            _ => Values::F32(Block::zeroed(elements)),
        };
        Private { rows, cols, values, kept }
    }

    /// These values, kept as f32.
    pub(super) fn from_f32((rows, cols): (usize, usize), values: &[f32]) -> Private {
        Private { rows, cols, values: Values::F32(values.into()), kept: DType::F32 }
    }

    /// As a matmul reads it.
    pub(super) fn weight(&self) -> WeightRef<'_> {
        match &self.values {
            Values::F32(values) => WeightRef::f32(values, self.rows, self.cols),
            Values::Bf16(values) => WeightRef::bf16(values, self.rows, self.cols),
            Values::F16(values) => WeightRef::f16(values, self.rows, self.cols),
        }
    }

    /// The values, if they lie as f32.
    pub(super) fn as_f32(&self) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) => Some(values),
            Values::Bf16(_) | Values::F16(_) => None,
        }
    }

    /// Takes the values from their bytes in a file of type `stored`, which `read(first, bytes)` brings: those from byte
    /// `first` on. They are brought in pieces where they have to be widened.
    pub(super) fn fill<E>(
        &mut self,
        stored: DType,
        mut read: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match (&mut self.values, stored) {
            (Values::F32(values), DType::F32) => read(0, bytemuck::cast_slice_mut(values)),
            (Values::Bf16(values), DType::BF16) => read(0, bytemuck::cast_slice_mut(values)),
            (Values::F16(values), DType::F16) => read(0, bytemuck::cast_slice_mut(values)),
            (Values::F32(values), DType::BF16) => widened::<bf16, E>(values, bf16::ZERO, read),
            (Values::F32(values), DType::F16) => widened::<f16, E>(values, f16::ZERO, read),
            (Values::Bf16(_) | Values::F16(_), stored) => unreachable!("{stored} is no {}", self.kept),
        }
    }

    /// Has `change(first, rows)` write all rows over, some from row `first` on at a time, and keeps what comes out: as it
    /// is, or rounded at random by `noise` to the kept type.
    pub(super) fn update_rows(
        &mut self,
        isa: Isa,
        noise: &TensorNoise,
        change: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Change {
        let (cols, noise) = (self.cols, Some(noise));
        match (&mut self.values, self.kept) {
            (Values::F32(values), DType::F32) => update(isa, values, cols, (None, exactly), change),
            (Values::F32(values), DType::BF16) => update(isa, values, cols, (noise, widened_bf16), change),
            (Values::F32(values), DType::F16) => update(isa, values, cols, (noise, widened_f16), change),
            (Values::Bf16(values), _) => update(isa, values, cols, (noise, rounding::to_bf16), change),
            (Values::F16(values), _) => update(isa, values, cols, (noise, rounding::to_f16), change),
        }
    }
}

/// Reads halves in pieces and widens them into `values`.
fn widened<T: bytemuck::Pod, E>(
    values: &mut [f32],
    zero: T,
    mut read: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
) -> Result<(), E>
where
    [T]: HalfFloatSliceExt,
{
    /// Values of a piece: 128 KB to read, in a cache still when they are widened.
    const PIECE: usize = 1 << 16;
    let mut piece = vec![zero; PIECE.min(values.len())];
    let mut first = 0;
    for values in values.chunks_mut(PIECE) {
        let piece = &mut piece[..values.len()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(piece);
        read(first, bytes)?;
        first += bytes.len();
        piece.convert_to_f32_slice(values);
    }
    Ok(())
}

/// [`Private::update_rows`] for one way that values lie. Column `j` of a row is rounded by draw `j` of its noise.
fn update<T: Copy + Into<f32> + Send>(
    isa: Isa,
    values: &mut [T],
    cols: usize,
    (noise, round): (Option<&TensorNoise>, impl Fn(f32, u32) -> T + Copy + Sync),
    change: impl Fn(usize, &mut [f32]) + Sync,
) -> Change {
    let blocks: Vec<_> = values.chunks_mut(PANEL_ROWS * cols).enumerate().collect();
    let buffers = || (vec![0.0; PANEL_ROWS * cols], vec![0; if noise.is_some() { cols } else { 0 }]);
    let changes: Vec<Vec<Change>> = blocks
        .into_par_iter()
        .map_init(buffers, |(new, draws), (block, values)| {
            let (first, new) = (block * PANEL_ROWS, &mut new[..values.len()]);
            new.iter_mut().zip(&*values).for_each(|(new, &old)| *new = old.into());
            change(first, new);
            let rows = new.chunks_exact_mut(cols).zip(values.chunks_exact_mut(cols)).zip(first as u64..);
            rows.map(|((new, values), row)| isa.dispatch(Keep { new, values, row, noise, draws, round })).collect()
        })
        .collect();
    changes.into_iter().flatten().fold(Change::default(), |sum, row| Change {
        squares: sum.squares + row.squares,
        rounding_squares: sum.rounding_squares + row.rounding_squares,
    })
}

/// Keeps the new values of a row in the place of the old. An operation, so that the compiler has the instruction set's
/// vectors for its plain loops, and draws come sixteen at a time.
struct Keep<'a, T, R> {
    new: &'a mut [f32],
    values: &'a mut [T],
    row: u64,
    noise: Option<&'a TensorNoise>,
    draws: &'a mut [u32],
    round: R,
}

impl<T: Copy + Into<f32>, R: Fn(f32, u32) -> T> SimdOp for Keep<'_, T, R> {
    type Output = Change;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> Change {
        let Keep { new, values, row, noise, draws, round } = self;
        new.iter_mut().for_each(|new| *new = if new.is_nan() { f32::NAN } else { *new });
        let mut change = Change { squares: squared_distance(new, values), rounding_squares: 0.0 };
        if let Some(noise) = noise {
            noise.fill_row_draws(simd, row, 0..draws.len(), draws);
            values.iter_mut().zip(&*new).zip(&*draws).for_each(|((kept, &new), &draw)| *kept = round(new, draw));
            change.rounding_squares = squared_distance(new, values);
        } else {
            values.iter_mut().zip(&*new).for_each(|(kept, &new)| *kept = round(new, 0));
        }
        change
    }
}

#[inline(always)]
fn exactly(x: f32, _: u32) -> f32 {
    x
}

#[inline(always)]
fn widened_bf16(x: f32, draw: u32) -> f32 {
    rounding::to_bf16(x, draw).to_f32()
}

#[inline(always)]
fn widened_f16(x: f32, draw: u32) -> f32 {
    rounding::to_f16(x, draw).to_f32()
}

/// `Σ (aᵢ − bᵢ)²`: element `i` in lane `i % 16`, then the lanes in order. One chain would wait four cycles for each weight,
/// which was a seventh of a step of `MeZO`.
#[inline(always)]
fn squared_distance<T: Copy + Into<f32>>(a: &[f32], b: &[T]) -> f64 {
    let mut lanes = [0.0; VIRTUAL_LANES];
    // Whole chunks have a length that the compiler knows.
    let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<VIRTUAL_LANES>(), b.as_chunks::<VIRTUAL_LANES>());
    whole_a.iter().zip(whole_b).for_each(|(a, b)| add_squares(&mut lanes, a, b));
    add_squares(&mut lanes, rest_a, rest_b);
    lanes.into_iter().sum()
}

#[inline(always)]
fn add_squares<T: Copy + Into<f32>>(lanes: &mut [f64; VIRTUAL_LANES], a: &[f32], b: &[T]) {
    for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
        let difference = f64::from(a) - f64::from(b.into());
        // Not fused: without the instruction that would be a call of the C library for each weight.
        *lane += difference * difference;
    }
}
