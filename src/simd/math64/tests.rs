//! Against double-double series, which are themselves anchored to 30 values of an arbitrary-precision
//! library.

use std::f64::consts::{FRAC_2_SQRT_PI, FRAC_PI_2, LN_2};

use super::double_double::DoubleDouble;
use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Exp,
    Ln,
    Sin,
    Cos,
    Tanh,
    Erf,
}

const FUNCTIONS: [Function; 6] =
    [Function::Exp, Function::Ln, Function::Sin, Function::Cos, Function::Tanh, Function::Erf];

impl Function {
    fn value(self, x: f64) -> f64 {
        match self {
            Function::Exp => exp(x),
            Function::Ln => ln(x),
            Function::Sin => sin(x),
            Function::Cos => cos(x),
            Function::Tanh => tanh(x),
            Function::Erf => erf(x),
        }
    }

    /// The value as m·2ᵉ for finite arguments in the function's domain.
    fn exact(self, x: f64) -> (DoubleDouble, i32) {
        match self {
            Function::Exp => exact_exp(x.into()),
            Function::Ln => (exact_ln(x), 0),
            Function::Sin => (exact_sin_of_quarters(x, 0), 0),
            Function::Cos => (exact_sin_of_quarters(x, 1), 0),
            Function::Tanh => (exact_tanh(x), 0),
            Function::Erf => (exact_erf(x), 0),
        }
    }

    /// The error at `x` in units of the last place of the exact value (2⁻¹⁰⁷⁴ among the subnormals).
    fn ulps(self, x: f64) -> f64 {
        let (exact, exponent) = self.exact(x);
        let mantissa_exponent = ((exact.high.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        let last_place = (mantissa_exponent + exponent).max(-1022) - 52;
        // Unscaled in two exact steps, because 2⁻ᵉ itself may overflow.
        let half = -exponent / 2;
        let value = self.value(x) * 2.0_f64.powi(half) * 2.0_f64.powi(-exponent - half);
        ((value - exact.high) - exact.low).abs() * 2.0_f64.powi(exponent - last_place)
    }
}

/// e^r − 1 = r·(1 + r/2·(1 + r/3·(…))) for |r| ≤ 0.35; the first term left out is below 2⁻¹⁴⁰·r.
fn exact_expm1(r: DoubleDouble) -> DoubleDouble {
    let one = DoubleDouble::from(1.0);
    (2..30).rev().fold(one, |sum, k| one + sum * r / f64::from(k)) * r
}

fn exact_exp(x: DoubleDouble) -> (DoubleDouble, i32) {
    let n = (x.high / LN_2).round();
    let r = x - DoubleDouble::product(n, LN_2) - DoubleDouble::product(n, LN_2_LOW) - n * 5.707_708_438_416_212e-34;
    (exact_expm1(r) + 1.0, n as i32)
}

/// n·ln 2 + 2·artanh s with s = (m − 1)/(m + 1) and |s| ≤ 0.172; the first term left out is below 2⁻¹²⁰·s.
fn exact_ln(x: f64) -> DoubleDouble {
    let (x, bias) = if x < f64::MIN_POSITIVE { (x * 2.0_f64.powi(60), 60) } else { (x, 0) };
    let exponent = (x.to_bits() >> 52) as i32 - 1023;
    let mantissa = f64::from_bits((x.to_bits() & ((1 << 52) - 1)) | 1.0_f64.to_bits());
    let (mantissa, exponent) = if mantissa > 1.4 { (mantissa / 2.0, exponent + 1) } else { (mantissa, exponent) };
    let s = DoubleDouble::from(mantissa - 1.0) / DoubleDouble::sum(mantissa, 1.0);
    let z = s * s;
    let series =
        (0..24).rev().fold(DoubleDouble::from(0.0), |sum, k| sum * z + DoubleDouble::from(1.0) / f64::from(2 * k + 1));
    let n = f64::from(exponent - bias);
    DoubleDouble::product(n, LN_2) + DoubleDouble::product(n, LN_2_LOW) + s * series * 2.0
}

/// sin(x + quarters·π/2), π/2 to 212 bits, by the Taylor series on |r| ≤ 0.786.
fn exact_sin_of_quarters(x: f64, quarters: i64) -> DoubleDouble {
    const PI_HALVES: [f64; 4] =
        [FRAC_PI_2, 6.123_233_995_736_766e-17, -1.497_384_904_859_169_8e-33, 5.562_271_104_311_117e-50];
    let n = (x / FRAC_PI_2).round();
    let r = PI_HALVES.iter().fold(DoubleDouble::from(x), |r, &part| r - DoubleDouble::product(n, part));
    let z = -(r * r);
    let one = DoubleDouble::from(1.0);
    // 1 + z/(a·(a+1))·(1 + z/((a+2)·(a+3))·(…)): a = 2 for sin r / r, a = 1 for cos r.
    let series = |a: i32| (0..15).rev().fold(one, |sum, k| one + sum * z / f64::from((a + 2 * k) * (a + 2 * k + 1)));
    let quadrant = (n as i64 + quarters).rem_euclid(4);
    let value = if quadrant % 2 == 0 { series(2) * r } else { series(1) };
    if quadrant < 2 { value } else { -value }
}

fn exact_tanh(x: f64) -> DoubleDouble {
    let argument = -2.0 * x.abs();
    let expm1 = if argument > -0.35 {
        exact_expm1(argument.into())
    } else {
        let (mantissa, exponent) = exact_exp(argument.into());
        mantissa * 2.0_f64.powi(exponent) - 1.0
    };
    let tanh = -expm1 / (expm1 + 2.0);
    if x < 0.0 { -tanh } else { tanh }
}

/// 2/√π·e^(−x²)·Σ 2ᵏ·x²ᵏ⁺¹/(1·3·…·(2k+1)), all terms of one sign, for |x| ≤ 6.
fn exact_erf(x: f64) -> DoubleDouble {
    let square = DoubleDouble::product(x, x);
    let mut term = DoubleDouble::from(x);
    let mut sum = term;
    for k in 0..250 {
        term = term * square * 2.0 / f64::from(2 * k + 3);
        sum = sum + term;
    }
    let (mantissa, exponent) = exact_exp(-square);
    let factor = DoubleDouble::new(FRAC_2_SQRT_PI, 1.533_545_961_316_588e-17);
    sum * factor * mantissa * 2.0_f64.powi(exponent)
}

/// x and f(x) = (high + low)·2ᵉ: mpmath at 60 digits, `high` the value rounded to f64, `low` the rest.
#[rustfmt::skip]
#[expect(clippy::approx_constant, reason = "numbers of a table, whatever they resemble")]
const GOLDEN: [(Function, f64, f64, f64, i32); 30] = [
    (Function::Exp, 1.0, 2.718_281_828_459_045, 1.445_646_891_729_250_2e-16, 0),
    (Function::Exp, -0.3, 0.740_818_220_681_717_9, -1.805_530_505_953e-18, 0),
    (Function::Exp, 37.25, 1.504_767_666_846_084e+16, 0.439_172_453_695_712_34, 0),
    (Function::Exp, -745.0, 1.142_500_294_942_108_4, -3.168_228_304_494_958e-17, -1075),
    (Function::Exp, 709.5, 1.507_472_318_870_940_5, -2.169_846_945_243_557e-18, 1023),
    (Function::Ln, 0.75, -0.287_682_072_451_780_9, -2.607_160_616_442_564e-17, 0),
    (Function::Ln, 1.000_000_000_1, 1.000_000_082_690_371e-10, -4.216_917_065_895_480_5e-27, 0),
    (Function::Ln, 1.414_213_562_373_095_1, 0.346_573_590_279_972_7, 2.444_216_941_459_289_8e-17, 0),
    (Function::Ln, 3.0e-310, -712.702_766_539_486_1, 5.060_294_180_236_257e-14, 0),
    (Function::Ln, 1.0e+300, 690.775_527_898_213_7, 2.374_766_002_880_024_3e-14, 0),
    (Function::Sin, 0.5, 0.479_425_538_604_203, -5.103_969_860_556_013e-18, 0),
    (Function::Sin, 3.141_592_653_589_793, 1.224_646_799_147_353_2e-16, -2.994_769_809_718_34e-33, 0),
    (Function::Sin, 100_000.0, 0.035_748_797_972_016_51, 1.542_974_370_610_986_1e-18, 0),
    (Function::Sin, 1_048_575.9, 0.234_618_434_316_949_6, -1.041_164_363_797_061_9e-20, 0),
    (Function::Sin, 355.0, -3.014_435_335_948_845e-05, 1.301_264_399_104_634_7e-21, 0),
    (Function::Cos, 0.5, 0.877_582_561_890_372_8, -4.262_314_986_427_999_7e-17, 0),
    (Function::Cos, 1.570_796_326_794_896_6, 6.123_233_995_736_766e-17, -1.497_384_904_859_169_8e-33, 0),
    (Function::Cos, 100_000.0, -0.999_360_807_438_212_4, -2.344_708_890_518_740_2e-17, 0),
    (Function::Cos, 1_048_575.9, 0.972_087_542_497_414_8, -1.035_818_893_641_639_7e-17, 0),
    (Function::Cos, 177.5, -1.507_217_668_145_62e-05, -8.214_626_853_704_554e-22, 0),
    (Function::Tanh, 1.0e-09, 1.0e-09, -3.333_333_333_333_333_8e-28, 0),
    (Function::Tanh, 0.25, 0.244_918_662_403_709_13, -1.603_622_884_988_269_3e-18, 0),
    (Function::Tanh, 0.75, 0.635_148_952_387_287_3, 1.701_297_700_656_483_6e-17, 0),
    (Function::Tanh, 3.5, 0.998_177_897_611_198_7, 2.587_017_124_612_458_4e-17, 0),
    (Function::Tanh, 15.0, 0.999_999_999_999_812_8, 3.114_257_501_541_364e-17, 0),
    (Function::Erf, 1.0e-09, 1.128_379_167_095_512_7e-09, -1.624_992_790_279_848e-26, 0),
    (Function::Erf, 0.25, 0.276_326_390_168_236_96, -2.422_707_622_118_416_3e-17, 0),
    (Function::Erf, 1.0, 0.842_700_792_949_714_9, -2.480_101_178_911_860_2e-17, 0),
    (Function::Erf, 2.5, 0.999_593_047_982_555, 4.692_515_109_704_223_4e-17, 0),
    (Function::Erf, 5.0, 0.999_999_999_998_462_6, -2.294_992_711_807_301e-17, 0),
];

#[test]
fn the_double_double_reference_agrees_with_arbitrary_precision() {
    for (function, x, high, low, exponent) in GOLDEN {
        let (exact, found) = function.exact(x);
        let exact = exact * 2.0_f64.powi(found - exponent);
        let error = ((exact.high - high) + (exact.low - low)).abs() / high.abs();
        // 2⁻⁷⁹ is what cancellation leaves of sin near a multiple of π/2; `low` itself is good to 2⁻¹⁰⁶.
        assert!(error < 2.0_f64.powi(-79), "{function:?}({x}) is off by {error:e}");
    }
}

/// Arguments of every size, and those where each function is hard.
fn arguments(function: Function, count: u64) -> Vec<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // ±2ᵏ·[1, 2) with k uniform, and uniform numbers up to a limit, in turn.
    let mut of_size = |smallest: i32, largest: i32, uniform: f64| {
        let word = word();
        let unit = f64::from_bits((word >> 12) | 1.0_f64.to_bits());
        let sign = if word & 1 == 0 { 1.0 } else { -1.0 };
        if word & 2 == 0 {
            let exponent = smallest + ((word >> 2) & 0x3ff) as i32 % (largest - smallest);
            sign * unit * 2.0_f64.powi(exponent)
        } else {
            sign * (unit - 1.0) * uniform
        }
    };
    let mut xs: Vec<f64> = (0..count)
        .map(|i| match function {
            Function::Exp => of_size(-60, 9, 745.0).min(709.7),
            Function::Ln if i % 4 == 0 => 1.0 + of_size(-40, -1, 0.3),
            Function::Ln => of_size(-1022, 1023, 4.0).abs() + f64::from_bits(1),
            Function::Sin | Function::Cos => of_size(-30, 19, LARGEST_ANGLE),
            Function::Tanh => of_size(-60, 4, 20.0),
            Function::Erf => of_size(-60, 2, 6.0),
        })
        .collect();
    match function {
        // The f64 nearest to multiples of π/2, where most of the angle cancels.
        Function::Sin | Function::Cos => xs.extend((1..667_543).step_by(17).map(|n| f64::from(n) * FRAC_PI_2)),
        // Subnormal results, and subnormal arguments.
        Function::Exp => xs.extend((0..2000).map(|i| -708.0 - f64::from(i) * 0.018_5)),
        Function::Ln => xs.extend((0..2000).map(|i| f64::from_bits(1 + i * 2_251_799_813))),
        Function::Tanh | Function::Erf => {}
    }
    xs
}

#[test]
fn errors_stay_within_the_stated_bounds() {
    for function in FUNCTIONS {
        let bound = if matches!(function, Function::Tanh | Function::Erf) { 4.0 } else { 2.0 };
        let (mut worst, mut at) = (0.0, 0.0);
        for x in arguments(function, 50_000) {
            let error = function.ulps(x);
            assert!(error <= bound, "{function:?}({x:e}) is off by {error} ulp");
            if error > worst {
                (worst, at) = (error, x);
            }
        }
        println!("{function:?}: {worst:.3} ulp at {at:e}");
    }
}

#[test]
fn special_values_follow_ieee_754() {
    const INF: f64 = f64::INFINITY;
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    for (function, x, expected) in [
        (Function::Exp, -0.0, 1.0),
        (Function::Exp, INF, INF),
        (Function::Exp, -INF, 0.0),
        (Function::Exp, 709.782_712_893_384_1, INF),
        (Function::Exp, -745.133_219_101_941_2, 0.0),
        (Function::Ln, 1.0, 0.0),
        (Function::Ln, 0.0, -INF),
        (Function::Ln, -0.0, -INF),
        (Function::Ln, INF, INF),
        (Function::Ln, -f64::from_bits(1), f64::NAN),
        (Function::Ln, -INF, f64::NAN),
        (Function::Sin, -0.0, -0.0),
        (Function::Sin, f64::from_bits(1), f64::from_bits(1)),
        (Function::Sin, INF, f64::NAN),
        (Function::Sin, LARGEST_ANGLE.next_up(), f64::NAN),
        (Function::Cos, -0.0, 1.0),
        (Function::Cos, -INF, f64::NAN),
        (Function::Tanh, -0.0, -0.0),
        (Function::Tanh, f64::from_bits(1), f64::from_bits(1)),
        (Function::Tanh, -INF, -1.0),
        (Function::Erf, -0.0, -0.0),
        (Function::Erf, f64::from_bits(1), f64::from_bits(1)),
        (Function::Erf, -INF, -1.0),
    ] {
        assert!(same(function.value(x), expected), "{function:?}({x:e}) = {:e}", function.value(x));
    }
    for function in FUNCTIONS {
        assert!(function.value(f64::NAN).is_nan() && function.value(-f64::NAN).is_nan(), "{function:?}(NaN)");
    }
    assert!(exp(709.782_712_893_384).is_finite() && exp(-745.133_219_101_941) > 0.0);
}
