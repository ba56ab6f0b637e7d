//! f64 elementary functions: the reference of the f32 ones and of finite differences, the angles of
//! position encodings, and every other place where speed does not matter and equal bits do.
//!
//! *What it is.* Scalar, branch-light code of correctly rounded operations (`f64::mul_add` included),
//! so the bits are the same on every machine.
//!
//! *What it is not.* Vectorised, or correctly rounded: `exp`, `ln`, `sin` and `cos` stay within 2 ulp,
//! `tanh` and `erf` within 4 (measured maxima beside the tests). `sin` and `cos` answer NaN beyond
//! |x| = [`LARGEST_ANGLE`] instead of a number whose digits mean nothing.
//!
//! *What must stay true.* Only the standard library's operators, bit casts and `mul_add` are called,
//! never its elementary functions: those are the platform's libm and differ between platforms.
//!
//! Everything is inlined, so that `mul_add` is one instruction where the caller was compiled for a CPU that
//! has it (within a `SimdOp`), and a call elsewhere; the bits are the same.
//!
//! Coefficients are minimax fits as described in [`super::math`], rounded to f64.

#[cfg(test)]
mod double_double;
mod exp;
mod log;
#[cfg(test)]
mod tests;
mod trigonometry;

pub use exp::{erf, exp, tanh};
pub use log::ln;
pub use trigonometry::{LARGEST_ANGLE, cos, sin};

/// `c[0] + c[1]·x + c[2]·x² + …` by Horner's rule.
#[inline(always)]
fn polynomial<const N: usize>(x: f64, c: [f64; N]) -> f64 {
    c[..N - 1].iter().rev().fold(c[N - 1], |sum, &c| sum.mul_add(x, c))
}

/// The tail of ln 2 beyond f64.
const LN_2_LOW: f64 = 2.319_046_813_846_299_6e-17;
/// 1.5·2⁵²: adding it rounds to an integer (halves to even) and leaves the integer in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
