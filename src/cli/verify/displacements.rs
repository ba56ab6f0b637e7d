//! Checks of perturbed products and of the derivatives of a product.

use super::{
    check::{Bits, Check},
    inputs::Inputs,
    kernels::check,
};
use crate::{
    direction::{
        fuse::{Perturbed, Source, Term},
        materialize,
    },
    kernels::{
        Context,
        matmul::{self, backward, low_rank},
        twin::matmul::product,
    },
    noise::{Law, NoiseKey, Role, TensorNoise},
    tensor::{MatMut, MatRef, Sequences, WeightRef},
};

/// The checks of displaced weights and of derivatives with respect to them.
pub(super) const CHECKS: &[Check] = &[
    check("matmul.derivatives", derivatives_kernel, derivatives_twin),
    check("matmul.low_rank", low_rank_kernel, low_rank_twin),
    check("direction.dense", dense_kernel, dense_twin),
];

/// m × k × n: rows of one branch, a `k` beyond one stream of noise, a ragged last panel.
const SHAPE: (usize, usize, usize) = (9, 300, 37);
const RANK: usize = 5;
const PAIR: [f32; 2] = [0.015_625, -0.015_625];

/// `x` for two branches, the weight, a second weight.
fn operands() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (m, k, n) = SHAPE;
    let mut inputs = Inputs::new(70);
    (inputs.values(2 * m * k, 1.0), inputs.values(n * k, 1.0), inputs.values(n * k, 1.0))
}

fn derivatives_kernel(cx: &Context) -> Bits {
    let ((m, k, n), (x, w, w_dot)) = (SHAPE, operands());
    let (x, x_dot) = x.split_at(m * k);
    let (weight, direction) = (WeightRef::f32(&w, n, k), WeightRef::f32(&w_dot, n, k));
    let (mut y_dot, mut dx, mut dw) = (vec![0.0; m * n], vec![0.0; m * k], w_dot.clone());
    let (x, x_dot) = (MatRef::new(x, m, k), MatRef::new(x_dot, m, k));
    backward::tangent(cx, (x, Some(x_dot)), (&weight, Some(&direction)), None, MatMut::new(&mut y_dot, m, n));
    let dy = MatRef::new(&y_dot, m, n);
    backward::input(cx, dy, &weight, false, MatMut::new(&mut dx, m, k));
    backward::weight(cx, dy, x, &Sequences::from_lengths([4, m - 4]), MatMut::new(&mut dw, n, k));
    Bits::of(&y_dot).and(&dx).and(&dw)
}

fn derivatives_twin() -> Bits {
    let ((m, k, n), (x, w, w_dot)) = (SHAPE, operands());
    let (x, x_dot) = x.split_at(m * k);
    let zero = |_, _| 0.0;
    let moved = product((m, k, n), |i, l| x_dot[i * k + l], |j, l| w[j * k + l], zero);
    let y_dot = product((m, k, n), |i, l| x[i * k + l], |j, l| w_dot[j * k + l], |i, j| moved[i * n + j]);
    let dx = product((m, n, k), |i, j| y_dot[i * n + j], |l, j| w[j * k + l], zero);
    let dw = product((n, m, k), |j, i| y_dot[i * n + j], |l, i| x[i * k + l], |j, l| w_dot[j * k + l]);
    Bits::of(&y_dot).and(&dx).and(&dw)
}

fn low_rank_kernel(cx: &Context) -> Bits {
    let ((m, k, n), (x, w, _)) = (SHAPE, operands());
    let factors = low_rank_factors();
    let probes = [probe(&factors[0], PAIR[0]), probe(&factors[1], PAIR[1])];
    let mut y = vec![0.0; 2 * m * n];
    let (x, w) = (MatRef::new(&x, 2 * m, k), WeightRef::f32(&w, n, k));
    low_rank::forward(cx, x, &w, &probes, None, MatMut::new(&mut y, 2 * m, n));
    Bits::of(&y)
}

fn low_rank_twin() -> Bits {
    let ((m, k, n), (x, w, _)) = (SHAPE, operands());
    let zero = |_, _| 0.0;
    (low_rank_factors().iter().zip(PAIR).zip(x.chunks(m * k))).fold(Bits::default(), |bits, (((left, right), c), x)| {
        let side = product((m, k, RANK), |i, l| x[i * k + l], |r, l| right[l * RANK + r], zero);
        let main = product((m, k, n), |i, l| x[i * k + l], |j, l| w[j * k + l], zero);
        let of_side = |i, r| side[i * RANK + r] * c;
        bits.and(&product((m, RANK, n), of_side, |j, r| left[j * RANK + r], |i, j| main[i * n + j]))
    })
}

fn probe((left, right): &(Vec<f32>, Vec<f32>), coefficient: f32) -> low_rank::LowRank<'_> {
    let (_, k, n) = SHAPE;
    low_rank::LowRank { left: MatRef::new(left, n, RANK), right: MatRef::new(right, k, RANK), coefficient }
}

/// Left and right factors of two probes.
fn low_rank_factors() -> [(Vec<f32>, Vec<f32>); 2] {
    let (_, k, n) = SHAPE;
    let mut inputs = Inputs::new(71);
    std::array::from_fn(|_| (inputs.values(n * RANK, 1.0), inputs.values(k * RANK, 1.0)))
}

fn dense_noise() -> TensorNoise {
    NoiseKey::new(11, 2, Role::Dense, 0).tensor(9)
}

fn dense_kernel(cx: &Context) -> Bits {
    let ((m, k, n), (x, w, _)) = (SHAPE, operands());
    let direction = Source::Noise(dense_noise(), Law::Gaussian).into();
    let terms = [Term { direction, coefficients: &PAIR }];
    let perturbed = Perturbed::new(WeightRef::f32(&w, n, k), &terms, 2);
    let mut y = vec![0.0; 2 * m * n];
    matmul::forward(cx, MatRef::new(&x, 2 * m, k), &perturbed, None, MatMut::new(&mut y, 2 * m, n));
    Bits::of(&y)
}

fn dense_twin() -> Bits {
    let ((m, k, n), (x, w, _)) = (SHAPE, operands());
    let direction = Source::Noise(dense_noise(), Law::Gaussian).into();
    let terms = [Term { direction, coefficients: &PAIR }];
    let perturbed = Perturbed::new(WeightRef::f32(&w, n, k), &terms, 2);
    x.chunks(m * k).enumerate().fold(Bits::default(), |bits, (branch, x)| {
        let w = materialize::dense(&perturbed, branch);
        bits.and(&product((m, k, n), |i, l| x[i * k + l], |j, l| w[j * k + l], |_, _| 0.0))
    })
}
