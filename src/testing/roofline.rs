//! What this machine can do at best, measured where a bench runs: the denominators of its percentages.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use rayon::prelude::*;

use crate::simd::{Isa, MAX_LANES, Simd, SimdOp};

/// Fused multiply-adds per second × 2 of all threads of the current rayon pool: independent chains in
/// registers, nothing else. The best of several rounds of `round` each.
pub fn fma_flops(isa: Isa, round: Duration) -> f64 {
    best(|| isa.dispatch(Chains { round, pairs: false }))
}

/// The same for profile `strict-bf16`: the dot product instruction where zofo uses it, else f32.
pub fn bf16_flops(isa: Isa, round: Duration) -> f64 {
    let f32 = best(|| isa.dispatch(Chains { round, pairs: false }));
    best(|| isa.dispatch_bf16(Chains { round, pairs: true })).max(f32)
}

/// Bytes per second that all threads read from memory: a buffer of `bytes`, much larger than any cache.
pub fn read_bandwidth(isa: Isa, bytes: usize) -> f64 {
    let buffer = vec![1.0_f32; bytes / size_of::<f32>()];
    let share = buffer.len().div_ceil(rayon::current_num_threads()).next_multiple_of(64);
    (0..5)
        .map(|_| {
            let start = Instant::now();
            buffer.par_chunks(share).for_each(|part| {
                black_box(isa.dispatch(Sum(part)));
            });
            bytes as f64 / start.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max)
}

/// The best of three rounds of the summed rates of all threads.
fn best(rate: impl Fn() -> f64 + Sync) -> f64 {
    (0..3).map(|_| rayon::broadcast(|_| rate()).into_iter().sum()).fold(0.0, f64::max)
}

struct Chains {
    round: Duration,
    pairs: bool,
}

impl SimdOp for Chains {
    type Output = f64;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> f64 {
        // 12 chains cover 2 units × 4 to 5 cycles of latency and fit 16 registers.
        const CHAINS: usize = 12;
        const STEPS: usize = 4096;
        let x = simd.splat(black_box(1e-3));
        let mut acc = [x; CHAINS];
        let mut steps = 0_usize;
        let start = Instant::now();
        while start.elapsed() < self.round {
            for _ in 0..STEPS {
                for acc in &mut acc {
                    *acc = if self.pairs && S::BF16_DOT {
                        simd.dot_bf16_pairs(simd.to_bits(x), simd.to_bits(x), *acc)
                    } else {
                        simd.mul_add(x, x, *acc)
                    };
                }
            }
            steps += STEPS;
        }
        let seconds = start.elapsed().as_secs_f64();
        let mut lanes = [0.0; MAX_LANES];
        for acc in acc {
            simd.store(acc, &mut lanes);
            black_box(lanes);
        }
        let per_step = CHAINS * S::LANES * if self.pairs && S::BF16_DOT { 4 } else { 2 };
        (steps * per_step) as f64 / seconds
    }
}

struct Sum<'a>(&'a [f32]);

impl SimdOp for Sum<'_> {
    type Output = f32;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> f32 {
        let mut acc = [simd.splat(0.0); 4];
        for part in self.0.chunks_exact(4 * S::LANES) {
            for (acc, lanes) in acc.iter_mut().zip(part.chunks_exact(S::LANES)) {
                *acc = simd.add(*acc, simd.load(lanes));
            }
        }
        let sum = simd.add(simd.add(acc[0], acc[1]), simd.add(acc[2], acc[3]));
        let mut lanes = [0.0; MAX_LANES];
        simd.store(sum, &mut lanes);
        lanes.iter().sum()
    }
}
