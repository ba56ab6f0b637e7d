//! The definitions of the activations: value and derivative of one element.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::Real;
use crate::kernels::activation::{Activation, CUBIC};

/// `act(x)` and `act′(x)`.
pub fn value_and_slope<R: Real>(activation: Activation, x: R) -> (R, R) {
    let (zero, half, one) = (R::default(), R::from_f64(0.5), R::from_f64(1.0));
    match activation {
        Activation::Relu => {
            let value = if x < zero { zero } else { x };
            let slope = if x > zero { one } else { value * zero };
            (value, slope)
        }
        Activation::Gelu => {
            // Φ(x) and the density φ(x) of the normal distribution.
            let cumulative = (x * R::from_f64(FRAC_1_SQRT_2)).erf().mul_add(half, half);
            let density = ((x * x) * R::from_f64(-0.5)).exp() * R::from_f64(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            (x * cumulative, x.mul_add(density, cumulative))
        }
        Activation::GeluTanh => {
            let root = R::from_f64(FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
            let square = x * x;
            let tanh = ((root * x) * square.mul_add(R::from_f64(CUBIC), one)).tanh();
            let share = tanh.mul_add(half, half);
            let inner_slope = root * square.mul_add(R::from_f64(3.0 * CUBIC), one);
            let steepness = (-tanh).mul_add(tanh, one);
            let bend = if steepness == zero { zero } else { ((half * x) * steepness) * inner_slope };
            (x * share, share + bend)
        }
        Activation::Silu => {
            let share = x.sigmoid();
            let value = x * share;
            (value, value.mul_add(one - share, share))
        }
        Activation::Tanh => {
            let value = x.tanh();
            (value, (-value).mul_add(value, one))
        }
    }
}

/// `act(gate) · up`.
pub fn gated<R: Real>(activation: Activation, gate: R, up: R) -> R {
    value_and_slope(activation, gate).0 * up
}

/// The tangent of [`gated`].
pub fn gated_tangent<R: Real>(activation: Activation, [gate, up]: [R; 2], [dgate, dup]: [R; 2]) -> R {
    let (value, slope) = value_and_slope(activation, gate);
    (dgate * slope).mul_add(up, value * dup)
}

/// The gradients of `gate` and `up` from that of the product.
pub fn gated_backward<R: Real>(activation: Activation, gate: R, up: R, dy: R) -> [R; 2] {
    let (value, slope) = value_and_slope(activation, gate);
    [(dy * up) * slope, dy * value]
}
