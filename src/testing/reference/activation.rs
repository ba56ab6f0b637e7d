//! Activations by their definitions, and the error function they need.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_2_SQRT_PI};

use crate::kernels::activation::Activation;

pub(super) fn value(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * (1.0 + erf(x * FRAC_1_SQRT_2)) / 2.0,
        Activation::GeluTanh => x / 2.0 * (1.0 + (FRAC_2_PI.sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

/// The error function, within 1e-15 (Abramowitz and Stegun, 1964, 7.1.6 and 7.1.14).
///
/// Below 2 its series of positive terms, `2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!`: nothing cancels, and the term
/// of n = 60 is below 1e-40. From 2 on the continued fraction of the complement, whose 60 levels leave less than
/// 1e-18 there (the error falls as `e^(−2x√(2n))`).
fn erf(x: f64) -> f64 {
    const TERMS: u32 = 60;
    let square = x * x;
    if x.abs() < 2.0 {
        let (mut term, mut series) = (x, x);
        for n in 1..=TERMS {
            term *= 2.0 * square / f64::from(2 * n + 1);
            series += term;
        }
        return FRAC_2_SQRT_PI * (-square).exp() * series;
    }
    let size = x.abs();
    let fraction = (1..=TERMS).rev().fold(size, |below, n| size + f64::from(n) / 2.0 / below);
    let complement = (-square).exp() / fraction * FRAC_2_SQRT_PI / 2.0;
    (1.0 - complement).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_its_values() {
        // To 20 digits, by 40-digit arithmetic (mpmath).
        let known = [
            (0.0, 0.0),
            (0.001, 0.001_128_378_790_969_236_4),
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (1.5, 0.966_105_146_475_310_7),
            (1.999, 0.995_301_556_651_370_5),
            (2.0, 0.995_322_265_018_952_7),
            (2.5, 0.999_593_047_982_555),
            (3.0, 0.999_977_909_503_001_4),
            (4.0, 0.999_999_984_582_742_1),
            (5.5, 0.999_999_999_999_992_6),
            (30.0, 1.0),
            (f64::INFINITY, 1.0),
        ];
        for (x, expected) in known {
            assert!((erf(x) - expected).abs() <= 1e-15, "erf({x}) is {}", erf(x));
            assert_eq!(erf(-x), -erf(x), "odd at {x}");
        }
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn activations_have_their_limits_and_a_known_value() {
        // At 1, to 17 digits, by 40-digit arithmetic (mpmath).
        let at_one =
            [1.0, 0.841_344_746_068_542_9, 0.841_191_990_608_276_8, 0.731_058_578_630_004_9, 0.761_594_155_955_764_9];
        for (activation, expected) in Activation::ALL.into_iter().zip(at_one) {
            let found = value(activation, 1.0);
            assert!((found - expected).abs() <= 1e-15, "{activation} of 1 is {found}");
            assert_eq!(value(activation, 0.0), 0.0, "{activation}");
            let (above, below) = if activation == Activation::Tanh { (1.0, -1.0) } else { (50.0, 0.0) };
            assert!((value(activation, 50.0) - above).abs() <= 1e-14, "{activation}");
            assert!((value(activation, -50.0) - below).abs() <= 1e-14, "{activation}");
        }
    }
}
