//! The driver of elementwise kernels: one operation on lanes, run over equally long slices.
//!
//! *What it is not.* Public: [`super::elementwise`] and [`super::activation`] give the operations names.
//!
//! *What must stay true.* Element `i` of the outputs depends on element `i` of the operands only, so neither the
//! vectors nor the chunks that threads work on can change a bit.

use std::slice::ChunksExactMut;

use rayon::prelude::*;

use crate::simd::{Isa, Simd, SimdOp};

/// Elements of each slice that a task works on: 64 KiB. In `benches/kernels.rs` that many take from about 8 µs (`axpy`)
/// to 60 µs (`gelu_backward`) on one core of a busy machine, long beside rayon's handing over of a task; shorter
/// slices stay on the calling thread, where there is too little work to wake another for.
pub(super) const CHUNK: usize = 1 << 14;

/// An operation on lanes: `I` operands that are read, `O` that are read and written.
pub(super) trait Lanewise<const I: usize, const O: usize>: Copy + Send + Sync {
    /// The new values of the outputs from the operands and the values the outputs held. Implementations are
    /// `#[inline(always)]`; one that ignores `held` costs no loads.
    fn at<S: Simd>(self, simd: S, read: [S::F32; I], held: [S::F32; O]) -> [S::F32; O];
}

/// Runs `op` over slices of equal length with one output.
///
/// # Panics
/// If a length differs.
pub(super) fn run<const I: usize>(isa: Isa, op: impl Lanewise<I, 1>, read: [&[f32]; I], out: &mut [f32]) {
    check_lengths(&read, out.len());
    if out.len() <= CHUNK {
        return isa.dispatch(Pass { op, read, out: [out] });
    }
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
        let read = read.map(|x| &x[i * CHUNK..][..out.len()]);
        isa.dispatch(Pass { op, read, out: [out] });
    });
}

/// As [`run`] with two outputs.
pub(super) fn run_two<const I: usize>(
    isa: Isa,
    op: impl Lanewise<I, 2>,
    read: [&[f32]; I],
    [first, second]: [&mut [f32]; 2],
) {
    check_lengths(&read, first.len());
    check_lengths(&[second], first.len());
    if first.len() <= CHUNK {
        return isa.dispatch(Pass { op, read, out: [first, second] });
    }
    first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)).enumerate().for_each(|(i, (first, second))| {
        let read = read.map(|x| &x[i * CHUNK..][..first.len()]);
        isa.dispatch(Pass { op, read, out: [first, second] });
    });
}

#[track_caller]
fn check_lengths(read: &[&[f32]], len: usize) {
    for (i, x) in read.iter().enumerate() {
        assert_eq!(x.len(), len, "operand {i} has {} values, the output {len}", x.len());
    }
}

/// One chunk: slices of equal length.
struct Pass<'a, const I: usize, const O: usize, F> {
    op: F,
    read: [&'a [f32]; I],
    out: [&'a mut [f32]; O],
}

impl<const I: usize, const O: usize, F: Lanewise<I, O>> SimdOp for Pass<'_, I, O, F> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        apply(simd, self.op, self.read, self.out);
    }
}

/// `op` over slices of equal length, for kernels that already hold an instruction set.
#[inline(always)]
pub(super) fn apply<S: Simd, const I: usize, const O: usize>(
    simd: S,
    op: impl Lanewise<I, O>,
    read: [&[f32]; I],
    out: [&mut [f32]; O],
) {
    let len = out[0].len();
    let zero = simd.splat(0.0);
    let mut read = read.map(|x| x.chunks_exact(S::LANES));
    let mut out = out.map(|y| y.chunks_exact_mut(S::LANES));
    for _ in 0..len / S::LANES {
        let mut operands = [zero; I];
        for (operand, chunks) in operands.iter_mut().zip(&mut read) {
            *operand = simd.load(chunks.next().expect(EQUAL));
        }
        let chunks = out.each_mut().map(|chunks| chunks.next().expect(EQUAL));
        let mut held = [zero; O];
        for (held, chunk) in held.iter_mut().zip(&chunks) {
            *held = simd.load(chunk);
        }
        for (chunk, new) in chunks.into_iter().zip(op.at(simd, operands, held)) {
            simd.store(new, chunk);
        }
    }
    if len.is_multiple_of(S::LANES) {
        return;
    }
    let mut operands = [zero; I];
    for (operand, chunks) in operands.iter_mut().zip(&read) {
        *operand = simd.load_partial(chunks.remainder());
    }
    let tails = out.map(ChunksExactMut::into_remainder);
    let mut held = [zero; O];
    for (held, tail) in held.iter_mut().zip(&tails) {
        *held = simd.load_partial(tail);
    }
    for (tail, new) in tails.into_iter().zip(op.at(simd, operands, held)) {
        simd.store_partial(new, tail);
    }
}

const EQUAL: &str = "operands as long as the first output";
