//! Which values of a tensor take part in a step: the smallest in magnitude, or some at random.
//!
//! *What it is.* [`Thresholds`] are measured once, on the weights a run begins with, and answer the [`Masks`] of the
//! weights as they are; [`Masks::random`] are drawn. [`Masks::over`] restricts directions.
//!
//! *What must stay true.* Magnitudes are compared by their bits, which are ordered as they are, so that masks do not
//! depend on the instruction set. The masks of a step restrict its probes and its update alike.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use crate::{
    direction::{Direction, DirectionSet, Param, ParamId, fuse::Mask},
    kernels::{Context, elementwise::Store, embedding},
    noise::{Law, NoiseKey, PANEL_ROWS},
    optim::{Share, Space, StateVisitor},
    tensor::{MatMut, WeightRef},
};

/// The magnitude up to which the values of each trainable tensor take part.
#[derive(Debug, Default)]
pub struct Thresholds {
    values: BTreeMap<String, Arc<[f32]>>,
}

impl Thresholds {
    /// The masks of the weights as they are, by thresholds that the first call measures: at most so much of a tensor is
    /// above its own, and one value at least is not.
    pub fn masks(&mut self, space: &dyn Space, sparsity: Share) -> Masks {
        let tensors: Vec<_> =
            space.trainable().iter().map(|&id| (id, &space.params()[id], space.inspect(id))).collect();
        if self.values.is_empty() {
            let measured = |&(_, param, weight): &(ParamId, &Param, WeightRef<'_>)| {
                (param.name().to_owned(), Arc::from([threshold(space.context(), weight, sparsity)]))
            };
            self.values = tensors.iter().map(measured).collect();
        }
        let words = |(id, param, weight): (ParamId, &Param, WeightRef<'_>)| {
            let threshold = self.values[param.name()][0];
            (threshold < f32::INFINITY).then(|| (id, up_to(space.context(), weight, threshold)))
        };
        Masks { words: tensors.into_iter().filter_map(words).collect() }
    }

    /// Shows `visitor` the thresholds.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.factors("threshold", &mut self.values, &|_| 1);
    }
}

/// Which values of each tensor take part: all of one that has no mask.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    words: BTreeMap<ParamId, Arc<[u32]>>,
}

impl Masks {
    /// Masks that leave each value of the trainable tensors out with the probability `sparsity`.
    pub fn random(space: &dyn Space, key: NoiseKey, sparsity: Share) -> Masks {
        // Uniform on (−1, 1).
        let below = (1.0 - 2.0 * sparsity.get()) as f32;
        let isa = space.context().isa;
        let words = |&id: &ParamId| {
            let param = &space.params()[id];
            let (cols, noise) = (param.cols(), key.tensor(param.noise_name()));
            let draw = |rows: Range<usize>, values: &mut [f32]| {
                noise.fill(isa, Law::Uniform, rows.start as u64..rows.end as u64, 0..cols, values);
            };
            (id, Mask::words(param.rows(), cols, draw, |u| u < below))
        };
        Masks { words: space.trainable().iter().map(words).collect() }
    }

    /// The same directions where the masks let them.
    pub fn over(&self, set: &DirectionSet) -> Arc<DirectionSet> {
        let masked = |id| {
            let direction = set.get(id).expect("a parameter of the set").clone();
            let direction = match self.words.get(&id) {
                Some(mask) => Direction::Masked { of: Box::new(direction), mask: Arc::clone(mask) },
                None => direction,
            };
            (id, direction)
        };
        Arc::new(DirectionSet::new(set.params().map(masked)))
    }
}

/// The magnitude up to which all but `sparsity` of a tensor's values are; infinite where all of them take part.
fn threshold(cx: &Context, weight: WeightRef<'_>, sparsity: Share) -> f32 {
    let values = weight.rows() * weight.cols();
    let part = ((1.0 - sparsity.get()) * values as f64).round() as usize;
    match part.max(1) {
        all if all >= values => f32::INFINITY,
        part => match nth_magnitude(cx, weight, part - 1) {
            // A tensor of zeros, as an adapter's factor is before its first step, would stay where that step leads.
            0.0 => f32::INFINITY,
            threshold => threshold,
        },
    }
}

/// Bits of a magnitude that are counted together, and the rest of its 31 bits.
const LOWER: u32 = 15;

/// The magnitude that exactly `nth` values would precede in order. The first of two passes over the weight finds its
/// upper bits, the second its lower ones: nothing of the weight's size is kept.
fn nth_magnitude(cx: &Context, weight: WeightRef<'_>, nth: usize) -> f32 {
    let mut rest = nth;
    let upper = bucket(cx, weight, &mut rest, |magnitude| Some(magnitude >> LOWER));
    let lower = (1 << LOWER) - 1;
    let lower = bucket(cx, weight, &mut rest, |magnitude| (magnitude >> LOWER == upper).then_some(magnitude & lower));
    f32::from_bits(upper << LOWER | lower)
}

/// The bucket of the value that `rest` others precede, of those that have one; `rest` is left as its place within it.
fn bucket(cx: &Context, weight: WeightRef<'_>, rest: &mut usize, of: impl Fn(u32) -> Option<u32>) -> u32 {
    let mut counts = vec![0; 1 << (31 - LOWER)];
    let cols = weight.cols();
    let mut values = vec![0.0; PANEL_ROWS.min(weight.rows()) * cols];
    for first in (0..weight.rows()).step_by(PANEL_ROWS) {
        let rows = first..weight.rows().min(first + PANEL_ROWS);
        let values = &mut values[..rows.len() * cols];
        read(cx, weight, rows, values);
        for bucket in values.iter().filter_map(|&value| of(magnitude(value))) {
            counts[bucket as usize] += 1;
        }
    }
    let mut buckets = (0..).zip(counts);
    let holds = |&(_, count): &(u32, usize)| {
        let holds = *rest < count;
        *rest -= if holds { 0 } else { count };
        holds
    };
    buckets.find(holds).expect("fewer than all values precede it").0
}

/// The bits of `|value|`: ordered as magnitudes are, with infinity and then NaN above all others.
fn magnitude(value: f32) -> u32 {
    value.abs().to_bits()
}

/// The words of the mask of the values up to a magnitude.
fn up_to(cx: &Context, weight: WeightRef<'_>, threshold: f32) -> Arc<[u32]> {
    let read = |rows: Range<usize>, values: &mut [f32]| read(cx, weight, rows, values);
    Mask::words(weight.rows(), weight.cols(), read, |value| magnitude(value) <= magnitude(threshold))
}

/// Rows of a weight, widened.
fn read(cx: &Context, weight: WeightRef<'_>, rows: Range<usize>, values: &mut [f32]) {
    let ids: Vec<u32> = rows.map(|row| u32::try_from(row).expect("fewer than 2³² rows")).collect();
    embedding::forward(cx, weight, &ids, 1.0, Store::Write, MatMut::new(values, ids.len(), weight.cols()));
}

#[cfg(test)]
mod tests;
