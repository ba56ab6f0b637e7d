//! Rotary position embedding (Su et al., 2021, arXiv:2104.09864) in the half-split convention of `transformers`:
//! feature `i` of a head turns with feature `i + head_dim / 2` by the angle `position · frequency[i]`.
//!
//! *What it is not.* Attention: queries and keys are turned in place before it.
//!
//! *What must stay true.* The angles are those of `transformers`, f32 rounding by f32 rounding (power, reciprocal,
//! scaling, product with the position); cosine and sine of that f32 angle are taken in f64 and rounded. A rotation
//! is linear and orthogonal: its tangent is itself, its backward the inverse rotation.

use super::{
    Context,
    lanewise::{self, Lanewise},
    rows,
};
use crate::{
    simd::{Simd, SimdOp, math64},
    tensor::MatMut,
};

/// How the frequencies of a trained model are stretched to longer contexts: `rope_scaling`, or the `rope_type` of
/// `rope_parameters`, in a Hugging Face configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// `default`: frequency `i` is `base^(−2i / head_dim)`.
    Default,
    /// `linear`: all frequencies divided by a factor.
    Linear {
        /// `factor`.
        factor: f64,
    },
    /// `llama3`: low frequencies divided by `factor`, high ones kept, interpolated in between
    /// (Llama Team, 2024, arXiv:2407.21783; the formula is `transformers`').
    Llama3 {
        /// `factor`.
        factor: f64,
        /// `low_freq_factor`: wavelengths above `original_context / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// `high_freq_factor`: wavelengths below `original_context / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// `original_max_position_embeddings`, in tokens.
        original_context: f64,
    },
}

/// Cosines and sines of every position below a limit: `[positions, head_dim / 2]` each, 4·`head_dim` bytes a position.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    positions: usize,
}

impl RopeTable {
    /// The table for heads of `head_dim` features, `rope_theta` `base` and positions `0..positions`.
    ///
    /// # Panics
    /// If `head_dim` is zero or odd.
    pub fn new(head_dim: usize, base: f64, scaling: RopeScaling, positions: usize) -> Self {
        let frequencies = frequencies(head_dim, base, scaling);
        let angles = (0..positions).flat_map(|position| frequencies.iter().map(move |f| f * position as f32));
        let (cos, sin) =
            angles.map(f64::from).map(|angle| (math64::cos(angle) as f32, math64::sin(angle) as f32)).unzip();
        RopeTable { cos, sin, half: head_dim / 2, positions }
    }

    /// Features of one head.
    pub fn head_dim(&self) -> usize {
        2 * self.half
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Cosines and sines of one position, `head_dim / 2` each.
    ///
    /// # Panics
    /// If the table does not reach that position.
    pub fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let position = position as usize;
        assert!(position < self.positions, "position {position} in a table of {} positions", self.positions);
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// The `head_dim / 2` frequencies in radians per token, every operation rounded to f32 in the order of
/// `transformers.modeling_rope_utils` (a Python number divided by a tensor is there the tensor's reciprocal times
/// the number).
fn frequencies(head_dim: usize, base: f64, scaling: RopeScaling) -> Vec<f32> {
    assert!(head_dim > 0 && head_dim.is_multiple_of(2), "rotary embedding of a head of {head_dim} features");
    let ln_base = math64::ln(f64::from(base as f32));
    let unscaled = (0..head_dim).step_by(2).map(|i| {
        let exponent = i as f32 / head_dim as f32;
        1.0 / (math64::exp(ln_base * f64::from(exponent)) as f32)
    });
    match scaling {
        RopeScaling::Default => unscaled.collect(),
        RopeScaling::Linear { factor } => unscaled.map(|f| f / factor as f32).collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let longest = (original_context / low_freq_factor) as f32;
            let shortest = (original_context / high_freq_factor) as f32;
            let band = (high_freq_factor - low_freq_factor) as f32;
            unscaled
                .map(|f| {
                    let wavelength = (1.0 / f) * std::f32::consts::TAU;
                    if wavelength > longest {
                        f / factor as f32
                    } else if wavelength < shortest {
                        f
                    } else {
                        let smooth = ((1.0 / wavelength) * original_context as f32 - low_freq_factor as f32) / band;
                        ((1.0 - smooth) * f) / factor as f32 + smooth * f
                    }
                })
                .collect()
        }
    }
}

/// Turns every head of every row of `x` by the angles of its position: `x` is `[T, heads · head_dim]`, queries or
/// keys, and row `t` stands at `positions[t]` of its sequence.
///
/// # Panics
/// If `x` has not one row per position or its columns are no multiple of `head_dim`, or if a position is not in the
/// table; so do the other functions of this module.
pub fn forward(cx: &Context, table: &RopeTable, positions: &[u32], x: MatMut<'_>) {
    run::<false>(cx, table, positions, x);
}

/// The tangent of [`forward`] in place: a rotation is linear, so it is the same rotation.
pub fn tangent(cx: &Context, table: &RopeTable, positions: &[u32], dx: MatMut<'_>) {
    run::<false>(cx, table, positions, dx);
}

/// The backward of [`forward`] in place: the inverse rotation.
pub fn backward(cx: &Context, table: &RopeTable, positions: &[u32], dx: MatMut<'_>) {
    run::<true>(cx, table, positions, dx);
}

fn run<const BACK: bool>(cx: &Context, table: &RopeTable, positions: &[u32], x: MatMut<'_>) {
    let (rows, cols) = (x.rows(), x.cols());
    assert_eq!(rows, positions.len(), "x [{rows}, {cols}] and {} positions", positions.len());
    assert!(cols.is_multiple_of(table.head_dim()), "x [{rows}, {cols}] in heads of {} features", table.head_dim());
    rows::for_each_block(x, cols, |first, x| {
        let positions = &positions[first..][..x.rows()];
        cx.isa.dispatch(Turn::<BACK> { table, positions, x });
    });
}

struct Turn<'a, const BACK: bool> {
    table: &'a RopeTable,
    positions: &'a [u32],
    x: MatMut<'a>,
}

impl<const BACK: bool> SimdOp for Turn<'_, BACK> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for (row, &position) in self.x.into_rows().zip(self.positions) {
            let (cos, sin) = self.table.at(position);
            for head in row.chunks_exact_mut(self.table.head_dim()) {
                let (first, second) = head.split_at_mut(self.table.half);
                lanewise::apply(simd, Rotate::<BACK>, [cos, sin], [first, second]);
            }
        }
    }
}

/// The rotation of pairs (a, b); `BACK` negates the angle.
#[derive(Clone, Copy)]
struct Rotate<const BACK: bool>;

impl<const BACK: bool> Lanewise<2, 2> for Rotate<BACK> {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [cos, sin]: [S::F32; 2], [a, b]: [S::F32; 2]) -> [S::F32; 2] {
        let sin = if BACK { simd.neg(sin) } else { sin };
        [simd.neg_mul_add(b, sin, simd.mul(a, cos)), simd.mul_add(a, sin, simd.mul(b, cos))]
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        kernels::twin::rope as twin,
        testing::{assert_same_bits, awkward, everywhere},
    };

    /// Head size, base, scaling, and bits of some frequencies by index.
    type Known = (usize, f64, RopeScaling, &'static [(usize, u32)]);
    type Rotation = fn(&Context, &RopeTable, &[u32], MatMut<'_>);

    /// Head size, heads, positions and the rows that stand there.
    fn case() -> impl Strategy<Value = (usize, usize, Vec<u32>, Vec<f32>)> {
        let head_dim = prop::sample::select(&[2_usize, 6, 8, 16, 30, 32, 34, 64]);
        (head_dim, 0_usize..4, vec(0_u32..50, 0..20)).prop_flat_map(|(head_dim, heads, positions)| {
            let len = positions.len() * heads * head_dim;
            (Just(head_dim), Just(heads), Just(positions), vec(awkward(), len))
        })
    }

    proptest! {
        #[test]
        fn rotations_give_the_bits_of_their_definition((head_dim, heads, positions, x) in case()) {
            let table = RopeTable::new(head_dim, 1e4, RopeScaling::Default, 50);
            let (cols, half) = (heads * head_dim, head_dim / 2);
            let mut expected = [x.clone(), x.clone()];
            for (t, &position) in positions.iter().enumerate() {
                let (cos, sin) = table.at(position);
                for i in (0..heads).flat_map(|head| (0..half).map(move |i| (head * head_dim, i))) {
                    let (a, b) = (t * cols + i.0 + i.1, t * cols + i.0 + i.1 + half);
                    let (cos, sin) = (cos[i.1], sin[i.1]);
                    [expected[0][a], expected[0][b]] = twin::rotate([x[a], x[b]], cos, sin);
                    [expected[1][a], expected[1][b]] = twin::rotate_back([x[a], x[b]], cos, sin);
                }
            }
    everywhere(|cx, label| {
                let rotations: [(&str, &[f32], Rotation); 3] = [
                    ("forward", &expected[0], forward),
                    ("tangent", &expected[0], tangent),
                    ("backward", &expected[1], backward),
                ];
                for (name, expected, kernel) in rotations {
                    let mut y = x.clone();
                    kernel(cx, &table, &positions, MatMut::new(&mut y, positions.len(), cols));
                    assert_same_bits(&y, expected, format_args!("{name}, {label}"));
                }
            });
        }

        #[test]
        fn backward_is_the_adjoint_of_tangent(
            (a, b, c, d) in (-3.0_f64..3.0, -3.0_f64..3.0, -3.0_f64..3.0, -3.0_f64..3.0),
            position in 0_u32..50,
        ) {
            let table = RopeTable::new(2, 1e4, RopeScaling::Default, 50);
            let (cos, sin) = (f64::from(table.at(position).0[0]), f64::from(table.at(position).1[0]));
            let turned = twin::rotate([a, b], cos, sin);
            let back = twin::rotate_back([c, d], cos, sin);
            // Each component is two roundings of terms up to 2·3; a component of 6·2⁻⁵³ noise meets factors up to 3,
            // while the terms may be far smaller: the bound is absolute.
            let gap = (turned[0] * c + turned[1] * d - (a * back[0] + b * back[1])).abs();
            prop_assert!(gap <= 8.0 * 6.0 * 3.0 * f64::EPSILON, "{gap}");
        }
    }

    #[test]
    fn a_block_of_rows_starts_at_its_own_positions() {
        // Enough rows for several tasks; position 0 turns nothing.
        let (rows, cols) = (1000, 64);
        let table = RopeTable::new(64, 1e4, RopeScaling::Default, 2);
        let positions: Vec<u32> = (0..rows as u32).map(|t| u32::from(t >= 700)).collect();
        everywhere(|cx, label| {
            let mut x = vec![1.0; rows * cols];
            forward(cx, &table, &positions, MatMut::new(&mut x, rows, cols));
            let turned = x.chunks(cols).position(|row| row != [1.0; 64]);
            assert_eq!(turned, Some(700), "{label}");
        });
    }

    #[test]
    fn frequencies_are_those_of_transformers_bit_for_bit() {
        // From 50-digit powers rounded to f32 where torch rounds; the last list meets all three bands.
        let known: [Known; 3] = [
            (
                64,
                1e4,
                RopeScaling::Default,
                &[(0, 0x3f80_0000), (1, 0x3f3f_f911), (2, 0x3f0f_f59a), (17, 0x3bf5_b9b0), (31, 0x390b_d472)],
            ),
            (64, 1e4, RopeScaling::Linear { factor: 3.0 }, &[(0, 0x3eaa_aaab), (1, 0x3e7f_f6c1), (31, 0x383a_7098)]),
            (
                128,
                5e5,
                RopeScaling::Llama3 {
                    factor: 8.0,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_context: 8192.0,
                },
                &[
                    (1, 0x3f50_8ac1),
                    (28, 0x3b52_7720),
                    (29, 0x3b0d_fd06),
                    (31, 0x3a60_979e),
                    (34, 0x393b_2dd2),
                    (35, 0x38c8_6886),
                    (63, 0x34a4_c2ff),
                ],
            ),
        ];
        for (head_dim, base, scaling, expected) in known {
            let frequencies = frequencies(head_dim, base, scaling);
            assert_eq!(frequencies.len(), head_dim / 2);
            for &(i, bits) in expected {
                assert_eq!(frequencies[i].to_bits(), bits, "frequency {i} of {scaling:?}: {:?}", frequencies[i]);
            }
        }
    }

    #[test]
    fn a_table_entry_is_the_rounded_cosine_of_the_f32_angle() {
        let table = RopeTable::new(64, 1e4, RopeScaling::Default, 8193);
        for position in [0, 1, 511, 8192_u32] {
            let (cos, sin) = table.at(position);
            for (i, frequency) in frequencies(64, 1e4, RopeScaling::Default).into_iter().enumerate() {
                // The platform's f64 functions and ours err by less than 2⁻⁵⁰; after rounding to f32 they may differ
                // by one unit, at most 2⁻²⁴ below 1.
                let angle = f64::from(frequency * position as f32);
                for (got, exact) in [(cos[i], angle.cos()), (sin[i], angle.sin())] {
                    assert!((f64::from(got) - exact).abs() <= 2_f64.powi(-24), "position {position}, {i}: {got}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "position 7 in a table of 7 positions")]
    fn a_position_beyond_the_table_is_named() {
        RopeTable::new(4, 1e4, RopeScaling::Default, 7).at(7);
    }
}
