//! What tests of low-rank methods share: linear losses, on which slopes are exact and every estimate can be read off
//! the first update, and the moments of samples.

use super::*;
use crate::{
    direction::ParamId,
    linalg::orthogonalize::singular_values,
    tensor::MatRef,
    testing::worlds::{Dual, Facts, Tensor, World, uniform},
};

/// A linear loss `⟨G, θ⟩` from θ = 0, and its gradient.
pub(super) struct Linear {
    /// The loss.
    pub(super) world: World,
    /// `G` of each parameter.
    pub(super) gradient: Vec<Vec<f64>>,
}

/// `⟨G, θ⟩` over tensors of these shapes, from zero; `G` is uniform on (−1, 1).
pub(super) fn linear(shapes: &[&[usize]]) -> Linear {
    scaled(shapes, 1.0)
}

/// The same, `scale` times as steep.
pub(super) fn scaled(shapes: &[&[usize]], scale: f64) -> Linear {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let elements = |shape: &[usize]| shape.iter().product();
    let gradient: Vec<Vec<f64>> = shapes
        .iter()
        .enumerate()
        .map(|(at, shape)| uniform(elements(shape), 100 + at as u64).iter().map(|g| scale * f64::from(*g)).collect())
        .collect();
    let slopes = gradient.clone();
    let loss = move |values: &[Vec<Dual>], _| {
        let pairs = values.iter().flatten().zip(slopes.iter().flatten());
        vec![pairs.fold(Dual::from(0.0), |sum, (x, g)| sum + *x * Dual::from(*g))]
    };
    let tensors: Vec<Tensor<'_>> = NAMES
        .iter()
        .zip(shapes)
        .map(|(name, shape)| (*name, *shape, vec![0.0; elements(shape)], vec![0.0; elements(shape)]))
        .collect();
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    Linear { world: World::new(&tensors, &[], facts, Box::new(loss)), gradient }
}

/// A loss that nothing changes, over a tensor whose values are 0.5.
pub(super) fn flat(shape: &[usize]) -> World {
    let elements = shape.iter().product();
    let tensors = [("a", shape, vec![0.5; elements], vec![0.0; elements])];
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    World::new(&tensors, &[], facts, Box::new(|_, _| vec![Dual::from(1.0)]))
}

/// The optimizer of that name with these options.
pub(super) fn build(name: &str, options: &str) -> Box<dyn Optimizer> {
    find(name).and_then(|entry| entry.build(&options.parse().expect("TOML"))).expect("options of the test")
}

/// Steps `range` of an optimizer.
pub(super) fn run(
    optimizer: &mut dyn Optimizer,
    oracle: &mut dyn Oracle,
    seed: u64,
    range: std::ops::Range<u64>,
) -> Vec<StepReport> {
    let steps = range.end;
    range.map(|step| optimizer.step(oracle, Clock { seed, step, steps }).expect("finite losses")).collect()
}

/// The first step's update of the first parameter, over `−lr`, where the start was zero.
pub(super) fn estimate(name: &str, options: &str, shapes: &[&[usize]], seed: u64) -> Vec<f64> {
    let mut world = linear(shapes).world;
    let report = run(&mut *build(name, options), &mut world, seed, 0..1).remove(0);
    world.values()[0].iter().map(|x| f64::from(*x) / -report.lr).collect()
}

/// What each step of a run that starts at zero adds to the first parameter, over `−1`.
pub(super) fn updates(name: &str, options: &str, linear: &mut Linear, steps: u64) -> Vec<Vec<f64>> {
    let mut optimizer = build(name, options);
    let step = |step| {
        let before = wide(&linear.world.values()[0]);
        run(&mut *optimizer, &mut linear.world, 3, step..step + 1);
        before.iter().zip(wide(&linear.world.values()[0])).map(|(before, after)| before - after).collect()
    };
    (0..steps).map(step).collect()
}

/// The first parameter of a world.
pub(super) fn first(world: &World) -> (ParamId, &Param) {
    Space::params(world).iter().next().expect("a parameter")
}

/// The Frobenius product.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "a product of as many values");
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// `a · b` of `[m, k]` and `[k, n]`.
pub(super) fn product(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let n = b.len() / k;
    let element = |row: &[f64], col: usize| row.iter().enumerate().fold(0.0, |sum, (s, a)| sum + a * b[s * n + col]);
    a.chunks_exact(k).flat_map(|row| (0..n).map(move |col| element(row, col))).collect()
}

/// `aᵀ` of `[m, n]`.
pub(super) fn transposed(a: &[f64], n: usize) -> Vec<f64> {
    (0..n).flat_map(|col| a.iter().skip(col).step_by(n).copied()).collect()
}

/// In f64.
pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// How many singular values of `[rows, cols]` are above 2⁻²⁰ of the norm: a product of two thin factors is rounded by a
/// few 2⁻²⁴ of `‖L‖ ‖R‖`, which for random factors is less than four times its norm.
pub(super) fn rank(values: &[f32], rows: usize) -> usize {
    let singular = singular_values(MatRef::new(values, rows, values.len() / rows));
    let norm = singular.iter().map(|s| s * s).sum::<f64>().sqrt();
    singular.iter().filter(|s| **s > norm / f64::from(1 << 20)).count()
}

/// The mean of samples and the standard errors of its elements.
pub(super) struct Moments {
    pub(super) mean: Vec<f64>,
    pub(super) errors: Vec<f64>,
    /// The mean of the squared distance to `around`, and its standard error.
    pub(super) square: (f64, f64),
}

/// The moments of samples.
pub(super) fn moments(samples: &[Vec<f64>], around: &[f64]) -> Moments {
    let count = samples.len() as f64;
    let statistics = |values: &dyn Fn(&Vec<f64>) -> f64| {
        let mean = samples.iter().map(values).sum::<f64>() / count;
        let variance = samples.iter().map(|sample| (values(sample) - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, (variance / count).sqrt())
    };
    let (mean, errors) = (0..around.len()).map(|at| statistics(&|sample| sample[at])).unzip();
    let square = |sample: &Vec<f64>| sample.iter().zip(around).map(|(x, a)| (x - a).powi(2)).sum();
    Moments { mean, errors, square: statistics(&square) }
}

impl Moments {
    /// Asserts that the mean is `expected` to five standard errors in every element: 6e-7 each, were it normal.
    pub(super) fn assert_mean(&self, expected: &[f64]) {
        for ((mean, error), expected) in self.mean.iter().zip(&self.errors).zip(expected) {
            assert!((mean - expected).abs() < 5.0 * error, "{mean} ± {error} is not {expected}");
        }
    }
    /// Asserts that the mean square is `expected` to five standard errors.
    pub(super) fn assert_square(&self, expected: f64) {
        let (mean, error) = self.square;
        assert!((mean - expected).abs() < 5.0 * error, "{mean} ± {error} is not {expected}");
    }
}

/// Asserts, step by step on a linear loss of one matrix, that a step of rate `rate` along measured directions lowers
/// the loss by `rate Σ cᵢ² / q`: only a direction that was measured has the slope that was measured.
pub(super) fn assert_applies_what_it_measured(name: &str, options: &str, steps: u64, rate: f64) {
    let mut linear = linear(&[&[6, 5]]);
    let mut optimizer = build(name, options);
    for step in 0..steps {
        let before = linear.world.values()[0].clone();
        let report = run(&mut *optimizer, &mut linear.world, 3, step..step + 1).remove(0);
        let change: Vec<f64> =
            linear.world.values()[0].iter().zip(&before).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let slopes = &report.projected_grads;
        let fall = rate * slopes.iter().map(|c| c * c).sum::<f64>() / slopes.len() as f64;
        // Each of 30 weights, below 8 in magnitude, is rounded once a query, by 2⁻²² at most, and weighs 1 or less; so
        // is its probe at ε = 1, twice over, which moves a slope by as much, and with it both sides.
        let largest = before.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(largest < 8.0, "{largest}");
        let noise = 30.0 * 2_f64.powi(-22);
        let bound = noise * (slopes.len() as f64 + 4.0 * rate * slopes.iter().map(|c| c.abs() + 1.0).sum::<f64>());
        let found = -dot(&change, &linear.gradient[0]);
        assert!((found - fall).abs() <= bound, "{name} [{options}], step {step}: {found} against {fall} ± {bound}");
        assert!(fall > 10.0 * bound, "step {step} is too small to tell");
    }
}

/// Asserts that an optimizer's step `failing`, of two more that follow it, leaves nothing behind if its loss is not finite:
/// the run ends where one without that step does.
#[track_caller]
pub(super) fn fails_without_a_trace(name: &str, options: &str, failing: u64) {
    let values = |fails: bool| {
        let world = linear(&[&[6, 5]]).world;
        let mut world = if fails { world.failing([failing], f64::NAN) } else { world };
        let mut optimizer = build(name, options);
        run(&mut *optimizer, &mut world, 3, 0..failing);
        if fails {
            run(&mut *optimizer, &mut world, 3, failing..failing + 1);
        }
        run(&mut *optimizer, &mut world, 3, failing + 1..failing + 3);
        world.values().to_vec()
    };
    assert_eq!(values(true), values(false), "{name}");
}
