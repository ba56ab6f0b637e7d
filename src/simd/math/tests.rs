use rayon::prelude::*;

use super::*;
use crate::simd::{Isa, MAX_LANES, Scalar, SimdOp, math64};

/// One of the five functions, to be run on every instruction set.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Exp,
    Ln,
    Tanh,
    Erf,
    Sigmoid,
}

const FUNCTIONS: [Function; 5] = [Function::Exp, Function::Ln, Function::Tanh, Function::Erf, Function::Sigmoid];

impl Function {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        match self {
            Function::Exp => exp(simd, x),
            Function::Ln => ln(simd, x),
            Function::Tanh => tanh(simd, x),
            Function::Erf => erf(simd, x),
            Function::Sigmoid => sigmoid(simd, x),
        }
    }

    /// The value in f64, wrong by a few f64 ulp: 2⁻²⁷ of an f32 ulp.
    fn reference(self, x: f64) -> f64 {
        match self {
            Function::Exp => math64::exp(x),
            Function::Ln => math64::ln(x),
            Function::Tanh => math64::tanh(x),
            Function::Erf => math64::erf(x),
            // e/(1 + e) for negative x: 1/(1 + e⁻ˣ) would be as good, but overflows where the result is subnormal.
            Function::Sigmoid if x < 0.0 => math64::exp(x) / (1.0 + math64::exp(x)),
            Function::Sigmoid => 1.0 / (1.0 + math64::exp(-x)),
        }
    }
}

/// `function` over the inputs, in place; the length is a multiple of [`MAX_LANES`].
struct Apply<'a> {
    function: Function,
    values: &'a mut [f32],
}

impl SimdOp for Apply<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for chunk in self.values.chunks_exact_mut(S::LANES) {
            let y = self.function.apply(simd, simd.load(chunk));
            simd.store(y, chunk);
        }
    }
}

/// |`value` − `exact`| in units of the last place of f32 at `exact` (2⁻¹⁴⁹ among the subnormals, and
/// 2¹⁰⁴ from 2¹²⁷ on, where ∞ counts as 2¹²⁸).
fn ulps(value: f32, exact: f64) -> f64 {
    if value.is_nan() || exact.is_nan() {
        return if value.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let top = 2.0_f64.powi(128);
    let (value, exact) = (f64::from(value).clamp(-top, top), exact.clamp(-top, top));
    let exponent = ((exact.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    (value - exact).abs() / 2.0_f64.powi(exponent.clamp(-126, 127) - 23)
}

/// The largest error of `function` over `inputs` on `isa`, and where it is.
fn largest_error(function: Function, isa: Isa, inputs: &[f32]) -> (f64, f32) {
    let mut values = inputs.to_vec();
    isa.dispatch(Apply { function, values: &mut values });
    let errors = inputs.iter().zip(&values).map(|(&x, &y)| (ulps(y, function.reference(f64::from(x))), x));
    errors.fold((0.0, 0.0), |worst, error| if error.0 > worst.0 { error } else { worst })
}

#[test]
#[ignore = "sweeps all 2^32 floats five times: about N minutes; cargo test --release -- --ignored exhaustive"]
fn exhaustive_errors_stay_within_two_ulp() {
    const CHUNK: u64 = 1 << 16;
    for function in FUNCTIONS {
        let start = std::time::Instant::now();
        let errors: Vec<_> = (0..(1_u64 << 32) / CHUNK)
            .into_par_iter()
            .map(|chunk| {
                let inputs: Vec<f32> =
                    (chunk * CHUNK..(chunk + 1) * CHUNK).map(|bits| f32::from_bits(bits as u32)).collect();
                largest_error(function, Isa::fastest(), &inputs)
            })
            .collect();
        let (ulp, x) = errors.into_iter().fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        eprintln!("{function:?}: {ulp:.4} ulp at {x:e} ({:#010x}), {:.0?}", x.to_bits(), start.elapsed());
        assert!(ulp <= 2.0, "{function:?} is off by {ulp} ulp at {x:e}");
    }
}
