//! Activations and gated activations (`SwiGLU` and its relatives), elementwise.
//!
//! Sources: GELU (Hendrycks and Gimpel, 2016, arXiv:1606.08415; `gelu_new` is its tanh form), `SiLU` (Elfwing et al.,
//! 2017, arXiv:1702.03118), gated linear units `act(gate) · up` (Shazeer, 2020, arXiv:2002.05202).
//!
//! *What it is not.* The projections around the gate: those are matmuls.
//!
//! *What must stay true.* Value and derivative are the lines of [`super::twin::activation`], operation by operation;
//! a NaN leaves through value and derivative alike, `ReLU` included.
//!
//! All functions take dense slices of equal length (any shape) and panic, naming both lengths, if they differ.
//! An elementwise Jacobian is diagonal: `tangent` and `backward` are one multiplication by `act′(x)`.

use std::{
    f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI},
    fmt,
    str::FromStr,
};

use super::{
    Context,
    lanewise::{self, Lanewise},
};
use crate::simd::{Simd, math};

/// The weight of the cube in the tanh form of GELU.
pub(super) const CUBIC: f64 = 0.044_715;

/// The activations of the supported families, under the names of Hugging Face configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `relu`: max(x, 0), with −0 kept; derivative 0 at 0.
    Relu,
    /// `gelu`: x·Φ(x), Φ by the error function.
    Gelu,
    /// `gelu_new`, `gelu_pytorch_tanh`: x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))).
    GeluTanh,
    /// `silu`, `swish`: x / (1 + e⁻ˣ).
    Silu,
    /// `tanh`: the poolers of BERT and `RoBERTa`.
    Tanh,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Activation; 5] =
        [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh];

    /// The first name Hugging Face has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Activation::Relu => "relu",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_new",
            Activation::Silu => "silu",
            Activation::Tanh => "tanh",
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is none of `relu`, `gelu`, `gelu_new`, `gelu_pytorch_tanh`, `silu`, `swish`, `tanh`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown activation {found:?}: expected one of relu, gelu, gelu_new, gelu_pytorch_tanh, silu, swish, tanh")]
pub struct UnknownActivation {
    /// What was asked for.
    pub found: String,
}

impl FromStr for Activation {
    type Err = UnknownActivation;
    fn from_str(text: &str) -> Result<Self, UnknownActivation> {
        match text {
            "relu" => Ok(Activation::Relu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "silu" | "swish" => Ok(Activation::Silu),
            "tanh" => Ok(Activation::Tanh),
            _ => Err(UnknownActivation { found: text.to_owned() }),
        }
    }
}

/// Runs `$body` with `$curve` bound to the type of the activation, so that the choice is made once per call.
macro_rules! with_curve {
    ($activation:expr, |$curve:ident| $body:expr) => {
        match $activation {
            Activation::Relu => {
                let $curve = Relu;
                $body
            }
            Activation::Gelu => {
                let $curve = Gelu;
                $body
            }
            Activation::GeluTanh => {
                let $curve = GeluTanh;
                $body
            }
            Activation::Silu => {
                let $curve = Silu;
                $body
            }
            Activation::Tanh => {
                let $curve = Tanh;
                $body
            }
        }
    };
}

/// `out = act(x)`.
pub fn forward(cx: &Context, activation: Activation, x: &[f32], out: &mut [f32]) {
    with_curve!(activation, |curve| lanewise::run(cx.isa, Value(curve), [x], out));
}

/// `x = act(x)`.
pub fn forward_in_place(cx: &Context, activation: Activation, x: &mut [f32]) {
    with_curve!(activation, |curve| lanewise::run(cx.isa, Value(curve), [], x));
}

/// `out = act′(x) · dx`.
pub fn tangent(cx: &Context, activation: Activation, x: &[f32], dx: &[f32], out: &mut [f32]) {
    with_curve!(activation, |curve| lanewise::run(cx.isa, Slope(curve), [x, dx], out));
}

/// `d = act′(x) · d`: from the gradient (or tangent) on one side to that on the other, in place.
pub fn backward_in_place(cx: &Context, activation: Activation, x: &[f32], d: &mut [f32]) {
    with_curve!(activation, |curve| lanewise::run(cx.isa, Slope(curve), [x], d));
}

/// `dx = act′(x) · dy`: [`tangent`] under its other name, the Jacobian being diagonal.
pub fn backward(cx: &Context, activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    tangent(cx, activation, x, dy, dx);
}

/// `out = act(gate) · up`.
pub fn gated_forward(cx: &Context, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    with_curve!(activation, |curve| lanewise::run(cx.isa, Gated(curve), [gate, up], out));
}

/// `gate = act(gate) · up`, for passes that keep nothing for a backward.
pub fn gated_forward_in_place(cx: &Context, activation: Activation, gate: &mut [f32], up: &[f32]) {
    with_curve!(activation, |curve| lanewise::run(cx.isa, Gated(curve), [up], gate));
}

/// The tangent of [`gated_forward`]: `out = fma(dgate · act′(gate), up, act(gate) · dup)`.
pub fn gated_tangent(
    cx: &Context,
    activation: Activation,
    [gate, up]: [&[f32]; 2],
    [dgate, dup]: [&[f32]; 2],
    out: &mut [f32],
) {
    with_curve!(activation, |curve| lanewise::run(cx.isa, GatedTangent(curve), [gate, up, dgate, dup], out));
}

/// The backward of [`gated_forward`]: writes `dgate = (dy · up) · act′(gate)` and `dup = dy · act(gate)`.
pub fn gated_backward(
    cx: &Context,
    activation: Activation,
    [gate, up]: [&[f32]; 2],
    dy: &[f32],
    gradients: [&mut [f32]; 2],
) {
    with_curve!(activation, |curve| lanewise::run_two(cx.isa, GatedBackward(curve), [gate, up, dy], gradients));
}

/// As [`gated_backward`], each gradient replacing its operand.
pub fn gated_backward_in_place(cx: &Context, activation: Activation, dy: &[f32], gate_and_up: [&mut [f32]; 2]) {
    with_curve!(activation, |curve| lanewise::run_two(cx.isa, GatedBackward(curve), [dy], gate_and_up));
}

/// One activation over lanes.
trait Curve: Copy + Send + Sync {
    /// `act(x)` and `act′(x)`; the one that is not used is not computed.
    fn at<S: Simd>(self, simd: S, x: S::F32) -> (S::F32, S::F32);
}

#[derive(Clone, Copy)]
struct Relu;
impl Curve for Relu {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::F32) -> (S::F32, S::F32) {
        let zero = simd.splat(0.0);
        // False for NaN, which therefore passes; below, NaN · 0 is NaN again.
        let value = simd.select(simd.lt(x, zero), zero, x);
        (value, simd.select(simd.gt(x, zero), simd.splat(1.0), simd.mul(value, zero)))
    }
}

#[derive(Clone, Copy)]
struct Gelu;
impl Curve for Gelu {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::F32) -> (S::F32, S::F32) {
        let half = simd.splat(0.5);
        let erf = math::erf(simd, simd.mul(x, simd.splat(FRAC_1_SQRT_2 as f32)));
        let cumulative = simd.mul_add(erf, half, half);
        let exp = math::exp(simd, simd.mul(simd.mul(x, x), simd.splat(-0.5)));
        // 1/√(2π).
        let density = simd.mul(exp, simd.splat((0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2) as f32));
        (simd.mul(x, cumulative), simd.mul_add(x, density, cumulative))
    }
}

#[derive(Clone, Copy)]
struct GeluTanh;
impl Curve for GeluTanh {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::F32) -> (S::F32, S::F32) {
        let (zero, half, one) = (simd.splat(0.0), simd.splat(0.5), simd.splat(1.0));
        // √(2/π).
        let root = simd.splat((FRAC_2_SQRT_PI * FRAC_1_SQRT_2) as f32);
        let square = simd.mul(x, x);
        let inner = simd.mul(simd.mul(root, x), simd.mul_add(square, simd.splat(CUBIC as f32), one));
        let tanh = math::tanh(simd, inner);
        let share = simd.mul_add(tanh, half, half);
        let inner_slope = simd.mul(root, simd.mul_add(square, simd.splat((3.0 * CUBIC) as f32), one));
        let steepness = simd.neg_mul_add(tanh, tanh, one);
        // Where tanh has become ±1 the bend is zero, also beyond 1.8e19 where x² has overflowed.
        let bend = simd.mul(simd.mul(simd.mul(half, x), steepness), inner_slope);
        let bend = simd.select(simd.eq(steepness, zero), zero, bend);
        (simd.mul(x, share), simd.add(share, bend))
    }
}

#[derive(Clone, Copy)]
struct Silu;
impl Curve for Silu {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::F32) -> (S::F32, S::F32) {
        let share = math::sigmoid(simd, x);
        let value = simd.mul(x, share);
        (value, simd.mul_add(value, simd.sub(simd.splat(1.0), share), share))
    }
}

#[derive(Clone, Copy)]
struct Tanh;
impl Curve for Tanh {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, x: S::F32) -> (S::F32, S::F32) {
        let value = math::tanh(simd, x);
        (value, simd.neg_mul_add(value, value, simd.splat(1.0)))
    }
}

#[derive(Clone, Copy)]
struct Value<C>(C);
impl<C: Curve> Lanewise<1, 1> for Value<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x]: [S::F32; 1], _: [S::F32; 1]) -> [S::F32; 1] {
        [self.0.at(simd, x).0]
    }
}
impl<C: Curve> Lanewise<0, 1> for Value<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, _: [S::F32; 0], [x]: [S::F32; 1]) -> [S::F32; 1] {
        [self.0.at(simd, x).0]
    }
}

#[derive(Clone, Copy)]
struct Slope<C>(C);
impl<C: Curve> Lanewise<2, 1> for Slope<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x, d]: [S::F32; 2], _: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul(self.0.at(simd, x).1, d)]
    }
}
impl<C: Curve> Lanewise<1, 1> for Slope<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x]: [S::F32; 1], [d]: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul(self.0.at(simd, x).1, d)]
    }
}

#[derive(Clone, Copy)]
struct Gated<C>(C);
impl<C: Curve> Lanewise<2, 1> for Gated<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [gate, up]: [S::F32; 2], _: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul(self.0.at(simd, gate).0, up)]
    }
}
impl<C: Curve> Lanewise<1, 1> for Gated<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [up]: [S::F32; 1], [gate]: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul(self.0.at(simd, gate).0, up)]
    }
}

#[derive(Clone, Copy)]
struct GatedTangent<C>(C);
impl<C: Curve> Lanewise<4, 1> for GatedTangent<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [gate, up, dgate, dup]: [S::F32; 4], _: [S::F32; 1]) -> [S::F32; 1] {
        let (value, slope) = self.0.at(simd, gate);
        [simd.mul_add(simd.mul(dgate, slope), up, simd.mul(value, dup))]
    }
}

#[derive(Clone, Copy)]
struct GatedBackward<C>(C);
impl<C: Curve> Lanewise<3, 2> for GatedBackward<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [gate, up, dy]: [S::F32; 3], _: [S::F32; 2]) -> [S::F32; 2] {
        let (value, slope) = self.0.at(simd, gate);
        [simd.mul(simd.mul(dy, up), slope), simd.mul(dy, value)]
    }
}
impl<C: Curve> Lanewise<1, 2> for GatedBackward<C> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [dy]: [S::F32; 1], [gate, up]: [S::F32; 2]) -> [S::F32; 2] {
        let (value, slope) = self.0.at(simd, gate);
        [simd.mul(simd.mul(dy, up), slope), simd.mul(dy, value)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        kernels::twin::activation as twin,
        simd::Isa,
        testing::{assert_same_bits, awkward_values, directional_derivative, edge_length, everywhere},
    };

    fn operands() -> impl Strategy<Value = (Activation, [Vec<f32>; 4])> {
        let vectors = edge_length().prop_flat_map(|n| [(); 4].map(|()| awkward_values(n)));
        (prop::sample::select(&Activation::ALL), vectors)
    }

    proptest! {
        #[test]
        fn every_function_gives_the_bits_of_its_definition((act, [x, up, dx, dup]) in operands()) {
            let each = |f: &dyn Fn(usize) -> f32| (0..x.len()).map(f).collect::<Vec<f32>>();
            let value = each(&|i| twin::value_and_slope(act, x[i]).0);
            let slope = each(&|i| twin::value_and_slope(act, x[i]).1 * dx[i]);
            let gated = each(&|i| twin::gated(act, x[i], up[i]));
            let tangents = each(&|i| twin::gated_tangent(act, [x[i], up[i]], [dx[i], dup[i]]));
            let [dgate, dups] = [0, 1].map(|k| each(&|i| twin::gated_backward(act, x[i], up[i], dx[i])[k]));
            everywhere(|cx, label| {
                let check = |kernel: &dyn Fn(&mut [f32]), start: &[f32], expected: &[f32], name: &str| {
                    let mut out = start.to_vec();
                    kernel(&mut out);
                    assert_same_bits(&out, expected, format_args!("{act} {name}, {label}"));
                };
                check(&|y| forward(cx, act, &x, y), &up, &value, "forward");
                check(&|y| forward_in_place(cx, act, y), &x, &value, "forward in place");
                check(&|y| tangent(cx, act, &x, &dx, y), &up, &slope, "tangent");
                check(&|y| backward(cx, act, &x, &dx, y), &up, &slope, "backward");
                check(&|y| backward_in_place(cx, act, &x, y), &dx, &slope, "backward in place");
                check(&|y| gated_forward(cx, act, &x, &up, y), &dx, &gated, "gated");
                check(&|y| gated_forward_in_place(cx, act, y, &up), &x, &gated, "gated in place");
                check(&|y| gated_tangent(cx, act, [&x, &up], [&dx, &dup], y), &x, &tangents, "gated tangent");
                for in_place in [false, true] {
                    let (mut a, mut b) = (x.clone(), up.clone());
                    if in_place {
                        gated_backward_in_place(cx, act, &dx, [&mut a, &mut b]);
                    } else {
                        gated_backward(cx, act, [&x, &up], &dx, [&mut a, &mut b]);
                    }
                    assert_same_bits(&a, &dgate, format_args!("{act} dgate, in place {in_place}, {label}"));
                    assert_same_bits(&b, &dups, format_args!("{act} dup, in place {in_place}, {label}"));
                }
            });
        }

        #[test]
        fn derivatives_are_those_of_the_values(
            (gate, up, dgate, dup) in (-6.0_f64..6.0, -3.0_f64..3.0, -1.0_f64..1.0, -1.0_f64..1.0),
        ) {
            for act in Activation::ALL {
                // ReLU is no curve within the reach of the differences, |dgate|·2⁻⁸, of its kink.
                prop_assume!(act != Activation::Relu || gate.abs() > 1.0 / 256.0);
                // A value is at most 6·3.1 here and comes of fewer than 16 roundings besides the elementary
                // function's, which errs by less than 16 units: 32·2⁻⁵³·20 < 8e-14.
                let estimates = directional_derivative(8e-14, |t| {
                    let (gate, up) = (gate + t * dgate, up + t * dup);
                    vec![twin::value_and_slope(act, gate).0, twin::gated(act, gate, up)]
                });
                let slope = twin::value_and_slope(act, gate).1 * dgate;
                prop_assert!(estimates[0].admits(slope), "{act} at {gate}: {:?} but {slope}", estimates[0]);
                let tangent = twin::gated_tangent(act, [gate, up], [dgate, dup]);
                prop_assert!(estimates[1].admits(tangent), "gated {act} at {gate}: {:?} but {tangent}", estimates[1]);
                // The adjoint identity for dy = 1: five roundings on the left, five on the right, each of terms
                // below 1.2·3 + 6.
                let [bgate, bup] = twin::gated_backward(act, gate, up, 1.0);
                prop_assert!((tangent - (bgate * dgate + bup * dup)).abs() <= 10.0 * f64::EPSILON * 10.0);
            }
        }
    }

    #[test]
    fn known_values_come_out() {
        // To 9 digits from 50-digit arithmetic; f32 results are within 4 units in the last place.
        let known = [
            (Activation::Relu, 1.5, 1.5, 1.0),
            (Activation::Gelu, 1.0, 0.841_344_746, 1.083_315_47),
            (Activation::GeluTanh, 1.0, 0.841_191_990_6, 1.082_964_084),
            (Activation::Silu, 1.0, 0.731_058_578_6, 0.927_670_511),
            (Activation::Tanh, 1.0, 0.761_594_156, 0.419_974_342),
        ];
        for (act, x, value, slope) in known {
            let got = twin::value_and_slope(act, x);
            for (got, exact) in [(got.0, value), (got.1, slope)] {
                assert!((got - exact as f32).abs() <= 4.0 * f32::EPSILON, "{act}: {got} is not {exact}");
            }
        }
    }

    #[test]
    fn extremes_are_limits_not_nans() {
        for act in Activation::ALL {
            for x in [1e20_f32, f32::MAX] {
                let (right, left) = if act == Activation::Tanh { ((1.0, 0.0), -1.0) } else { ((x, 1.0), 0.0) };
                assert_eq!(twin::value_and_slope(act, x), right, "{act} at {x}");
                let (value, slope) = twin::value_and_slope(act, -x);
                assert!(value == left && slope == 0.0, "{act} at {}: {value}, {slope}", -x);
            }
        }
    }

    #[test]
    fn a_nan_reaches_values_and_derivatives() {
        let cx = Context::new(Isa::fastest());
        for act in Activation::ALL {
            let (mut y, mut d) = ([f32::NAN; 5], [1.0; 5]);
            forward_in_place(&cx, act, &mut y);
            backward_in_place(&cx, act, &[f32::NAN; 5], &mut d);
            assert!(y.iter().chain(&d).all(|x| x.is_nan()), "{act}: {y:?} {d:?}");
        }
    }

    #[test]
    fn every_name_of_a_configuration_is_known_and_others_are_refused_with_the_list() {
        for act in Activation::ALL {
            assert_eq!(act.as_str().parse(), Ok(act));
        }
        assert_eq!("gelu_pytorch_tanh".parse(), Ok(Activation::GeluTanh));
        assert_eq!("swish".parse(), Ok(Activation::Silu));
        let message = "mish".parse::<Activation>().unwrap_err().to_string();
        assert!(message.contains("mish") && message.contains("gelu_new"), "{message}");
    }
}
