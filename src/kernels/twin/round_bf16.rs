//! The definition of bf16 rounding: the `half` crate's, and the operand rule of profile `strict-bf16`.

use half::bf16;

/// The nearest bf16, ties to even, widened.
pub fn round(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// The nearest bf16; magnitudes below 2⁻⁵⁵ become zero of the same sign.
pub fn operand(x: f32) -> f32 {
    let rounded = round(x);
    if rounded.abs() < 2_f32.powi(-55) { 0_f32.copysign(x) } else { rounded }
}
