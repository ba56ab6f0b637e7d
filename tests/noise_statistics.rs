//! The distribution of noise, and the independence of everything that should be independent.
//!
//! Seeds are fixed, so these tests are deterministic; bounds are multiples of the sampling error of an ideal
//! generator. A bound of 5 standard errors is exceeded by chance with probability 6·10⁻⁷ per comparison, and
//! a few hundred comparisons are made: a failure means a defect.

use rayon::prelude::*;
use zofo::{
    noise::{Law, NoiseKey, Role},
    simd::Isa,
};

/// Standard errors allowed.
const ERRORS: f64 = 5.0;

fn key() -> NoiseKey {
    NoiseKey::new(2026, 7, Role::Dense, 0)
}

fn matrix(key: NoiseKey, tensor: u64, law: Law, rows: std::ops::Range<u64>, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; (rows.end - rows.start) as usize * columns];
    key.tensor(tensor).fill(Isa::fastest(), law, rows, 0..columns, &mut out);
    out
}

/// The standard normal distribution function by its everywhere convergent series
/// Φ(x) = 1/2 + φ(x)·Σ x^(2k+1)/(2k+1)!! (all terms of one sign: no cancellation).
fn normal_cdf(x: f64) -> f64 {
    let (mut term, mut sum, mut k) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        k += 2.0;
        term *= x * x / k;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// P(|z| > x) for x ≥ 2 by the continued fraction of Mills' ratio, 1/(x + 1/(x + 2/(x + 3/…))).
fn two_sided_tail(x: f64) -> f64 {
    let ratio = (1..200).rev().fold(x, |below, k| x + f64::from(k) / below).recip();
    2.0 * ratio * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// The mean of zᵏ is its expectation within the sampling error √((E z²ᵏ − (E zᵏ)²) / n), k = 1 … 8.
fn check_moments(law: Law, expected: impl Fn(i32) -> f64) {
    let z = matrix(key(), 1, law, 0..2_500, 4_000);
    for k in 1..=8 {
        let mean = z.iter().map(|z| f64::from(*z).powi(k)).sum::<f64>() / z.len() as f64;
        let error = ((expected(2 * k) - expected(k).powi(2)) / z.len() as f64).sqrt();
        // 1e-12: an even power of ±1 has no sampling error, and ten million sums round.
        let bound = ERRORS * error + 1e-12;
        assert!((mean - expected(k)).abs() <= bound, "{law:?}: E z^{k} = {mean}, expected {} ± {bound}", expected(k));
    }
}

#[test]
fn gaussian_moments_to_the_eighth_are_those_of_the_normal_distribution() {
    // Double factorials. The cut at 6.56 takes 2·10⁻⁴ from E z⁸, whose sampling error is 0.45.
    check_moments(Law::Gaussian, |k| if k % 2 == 1 { 0.0 } else { (1..k).step_by(2).map(f64::from).product() });
}

#[test]
fn uniform_moments_to_the_eighth_are_those_of_the_uniform_distribution() {
    check_moments(Law::Uniform, |k| if k % 2 == 1 { 0.0 } else { 1.0 / f64::from(k + 1) });
}

#[test]
fn rademacher_moments_to_the_eighth_are_those_of_a_fair_sign() {
    check_moments(Law::Rademacher, |k| f64::from((k + 1) % 2));
}

#[test]
fn the_uniform_law_lies_strictly_inside_its_interval_on_odd_multiples() {
    for z in matrix(key(), 1, Law::Uniform, 0..100, 1_000) {
        let steps = z * 16_777_216.0;
        assert!(z.abs() < 1.0 && steps.fract() == 0.0 && steps % 2.0 != 0.0, "{z:e}");
    }
}

/// Kolmogorov-Smirnov on a grid of 1/64 and χ² over its cells, for a law with distribution function `cdf`
/// on (−`half_width`, `half_width`).
fn check_distribution(law: Law, half_width: f64, cdf: impl Fn(f64) -> f64) {
    const CELLS_PER_UNIT: f64 = 64.0;
    let z = matrix(key(), 2, law, 0..2_500, 4_000);
    let n = z.len() as f64;
    let mut counts = vec![0_u64; (2.0 * half_width * CELLS_PER_UNIT) as usize];
    for z in &z {
        counts[((f64::from(*z) + half_width) * CELLS_PER_UNIT) as usize] += 1;
    }
    let (mut below, mut largest, mut chi_squared, mut cells) = (0_u64, 0.0_f64, 0.0, 0.0);
    for (cell, &count) in counts.iter().enumerate() {
        let edge = |i: usize| cdf(i as f64 / CELLS_PER_UNIT - half_width);
        below += count;
        largest = largest.max((below as f64 / n - edge(cell + 1)).abs());
        let expected = n * (edge(cell + 1) - edge(cell));
        // χ² needs cells that are roughly normal; the tails have a test of their own.
        if expected >= 20.0 {
            chi_squared += (count as f64 - expected).powi(2) / expected;
            cells += 1.0;
        }
    }
    // P(√n·D > x) ≈ 2·exp(−2x²): 2.8 is 3·10⁻⁷ (a grid only lowers D).
    assert!(largest * n.sqrt() < 2.8, "{law:?}: Kolmogorov-Smirnov distance {}", largest * n.sqrt());
    // χ² with f degrees of freedom has mean f and variance 2f.
    let excess = (chi_squared - cells) / (2.0_f64 * cells).sqrt();
    assert!(excess.abs() < ERRORS, "{law:?}: χ² = {chi_squared} over {cells} cells");
}

#[test]
fn gaussian_values_follow_the_normal_distribution_function() {
    check_distribution(Law::Gaussian, 7.0, normal_cdf);
}

#[test]
fn uniform_values_follow_the_uniform_distribution_function() {
    check_distribution(Law::Uniform, 1.0, |x| (x + 1.0) / 2.0);
}

/// Counts |z| > x over `rows` × 65,536 samples against a Poisson variable of the normal law's mean.
fn check_tails(rows: u64, thresholds: &[f64]) {
    const COLUMNS: usize = 1 << 16;
    const CHUNK: u64 = 64;
    let counts: Vec<Vec<u64>> = (0..rows.div_ceil(CHUNK))
        .into_par_iter()
        .map(|chunk| {
            let z = matrix(key(), 3, Law::Gaussian, chunk * CHUNK..rows.min((chunk + 1) * CHUNK), COLUMNS);
            // Few values pass even the first threshold.
            let far: Vec<f64> = z.into_iter().map(|z| f64::from(z.abs())).filter(|z| *z > thresholds[0]).collect();
            thresholds.iter().map(|x| far.iter().filter(|z| *z > x).count() as u64).collect()
        })
        .collect();
    for (i, x) in thresholds.iter().enumerate() {
        let count = counts.iter().map(|chunk| chunk[i]).sum::<u64>() as f64;
        let expected = (rows * COLUMNS as u64) as f64 * two_sided_tail(*x);
        // A Poisson variable has variance λ; its upper tail is longer than normal's by about ERRORS²/6.
        let bound = ERRORS * expected.sqrt() + ERRORS * ERRORS / 6.0;
        assert!((count - expected).abs() <= bound, "{count} values beyond {x}, expected {expected} ± {bound}");
    }
}

#[test]
fn tails_hold_their_share_to_five_and_a_half_sigma() {
    check_tails(1 << 10, &[3.0, 3.5, 4.0, 4.5, 5.0, 5.25, 5.5]);
}

#[test]
#[ignore = "4.3 billion samples, some 15 core-seconds"]
fn tails_hold_their_share_to_six_sigma() {
    check_tails(1 << 16, &[3.0, 4.0, 4.5, 5.0, 5.5, 5.75, 6.0]);
}

/// Correlations of values and of squares of two equally long sequences of unit-variance noise: each product
/// of independent terms has the standard error 1/√n.
fn check_uncorrelated(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let (mut values, mut squares) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        values += a * b;
        // z² − 1 has variance 2.
        squares += (a * a - 1.0) * (b * b - 1.0) / 2.0;
    }
    let root = (a.len() as f64).sqrt();
    assert!((values / root).abs() < ERRORS, "{what}: values correlate, {} standard errors", values / root);
    assert!((squares / root).abs() < ERRORS, "{what}: squares correlate, {} standard errors", squares / root);
}

#[test]
fn neighbouring_elements_are_uncorrelated_along_rows_and_across_them() {
    const COLUMNS: usize = 1_024;
    for law in [Law::Gaussian, Law::Rademacher] {
        let z = matrix(key(), 4, law, 0..2_048, COLUMNS);
        // In a row: within a pair, between pairs, lanes apart, draws of signs apart, blocks apart; then one
        // row on, its neighbours, and further rows.
        let lags = [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 127, 128, 255, 256, 257, 512];
        let rows = [COLUMNS - 1, COLUMNS, COLUMNS + 1, 2 * COLUMNS, 15 * COLUMNS, 16 * COLUMNS, 17 * COLUMNS];
        for lag in lags.into_iter().chain(rows) {
            check_uncorrelated(&format!("{law:?}, lag {lag}"), &z[lag..], &z[..z.len() - lag]);
        }
    }
}

#[test]
fn neighbouring_names_are_uncorrelated() {
    let base = key();
    let draw = |key: NoiseKey, tensor: u64| matrix(key, tensor, Law::Gaussian, 0..1_024, 1_024);
    let z = draw(base, 5);
    check_uncorrelated("tensor + 1", &z, &draw(base, 6));
    check_uncorrelated("tensor + 2^32", &z, &draw(base, 5 + (1 << 32)));
    check_uncorrelated("seed + 1", &z, &draw(NoiseKey { seed: base.seed + 1, ..base }, 5));
    check_uncorrelated("epoch + 1", &z, &draw(NoiseKey { epoch: base.epoch + 1, ..base }, 5));
    check_uncorrelated("probe + 1", &z, &draw(NoiseKey { probe: base.probe + 1, ..base }, 5));
    for role in Role::ALL.into_iter().filter(|role| *role != base.role) {
        check_uncorrelated(&format!("role {role:?}"), &z, &draw(NoiseKey { role, ..base }, 5));
    }
    for part in [0, 1, 2] {
        let extended = draw(base.extended(part), 5);
        check_uncorrelated(&format!("extended by {part}"), &z, &extended);
        check_uncorrelated("extended further", &extended, &draw(base.extended(part + 1), 5));
    }
}

#[test]
fn first_columns_of_all_streams_are_as_good_as_any() {
    // One value a stream: what a weak seeding hash would spoil first.
    let z = matrix(key(), 6, Law::Gaussian, 0..1 << 20, 1);
    let n = z.len() as f64;
    let sum = |power: i32| z.iter().map(|z| f64::from(*z).powi(power)).sum::<f64>();
    assert!((sum(1) / n.sqrt()).abs() < ERRORS);
    assert!(((sum(2) - n) / (2.0 * n).sqrt()).abs() < ERRORS);
    // Var z⁴ = 105 − 9.
    assert!(((sum(4) - 3.0 * n) / (96.0 * n).sqrt()).abs() < ERRORS);
    for lag in [1, 2, 3, 4, 8, 16, 256, 4_096] {
        check_uncorrelated(&format!("rows {lag} apart"), &z[lag..], &z[..z.len() - lag]);
    }
}
