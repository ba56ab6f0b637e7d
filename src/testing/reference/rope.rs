//! Rotary positions (Su et al., 2021, arXiv:2104.09864) in the half-split layout of `transformers`.

use super::Rows;
use crate::kernels::rope::RopeScaling;

/// Radians per token of each pair of features.
///
/// They are f32 buffers in `transformers`: the power is rounded, then its reciprocal, then what scaling makes of it.
pub(super) fn frequencies(head_dim: usize, theta: f64, scaling: RopeScaling) -> Vec<f64> {
    let plain = (0..head_dim / 2).map(|pair| {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        1.0 / theta.powf(f64::from(exponent)) as f32
    });
    plain.map(|frequency| f64::from(scaled(f64::from(frequency), scaling) as f32)).collect()
}

fn scaled(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::Default => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let wavelength = std::f64::consts::TAU / frequency;
            if wavelength > original_context / low_freq_factor {
                frequency / factor
            } else if wavelength < original_context / high_freq_factor {
                frequency
            } else {
                let smooth = (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

/// Turns feature `i` of every head with feature `i + head_dim / 2` by the angle of the row's position.
pub(super) fn turn(frequencies: &[f64], rows: &mut Rows) {
    let half = frequencies.len();
    for (position, row) in rows.iter_mut().enumerate() {
        for head in row.chunks_exact_mut(2 * half) {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                let (x, y) = (head[i], head[i + half]);
                (head[i], head[i + half]) = (x * cos - y * sin, y * cos + x * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_fall_by_powers_of_theta() {
        assert_eq!(frequencies(4, 10_000.0, RopeScaling::Default), [1.0, f64::from(0.01_f32)]);
        let quarter = frequencies(4, 10_000.0, RopeScaling::Linear { factor: 4.0 });
        assert_eq!(quarter, [0.25, f64::from(0.01_f32) / 4.0]);
    }

    #[test]
    fn llama_3_keeps_short_waves_stretches_long_ones_and_blends_between() {
        let llama3 = |original_context| {
            let (factor, low_freq_factor, high_freq_factor) = (8.0, 1.0, 4.0);
            scaled(1.0, RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context })
        };
        // The wave of frequency 1 is 2π tokens long: longer than the context, a quarter of it or shorter, between.
        assert_eq!(llama3(6.0), 1.0 / 8.0);
        assert_eq!(llama3(26.0), 1.0);
        let smooth = (12.0 / std::f64::consts::TAU - 1.0) / 3.0;
        assert!((llama3(12.0) - (1.0 / 8.0 + smooth * 7.0 / 8.0)).abs() < 1e-15);
    }

    #[test]
    fn position_zero_stays_and_a_quarter_turn_swaps_the_halves() {
        let mut rows = vec![vec![3.0, 5.0]; 2];
        turn(&[std::f64::consts::FRAC_PI_2], &mut rows);
        assert_eq!(rows[0], [3.0, 5.0]);
        assert!((rows[1][0] + 5.0).abs() < 1e-15 && (rows[1][1] - 3.0).abs() < 1e-15, "{rows:?}");
    }
}
