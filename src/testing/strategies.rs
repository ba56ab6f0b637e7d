//! Inputs where kernels break: lengths at the edges of vectors and floats at the edges of the format.

use proptest::{collection::vec, prelude::*};

/// Lengths at the edges of the vectors (4, 8, 16 lanes), primes beyond them, and zero.
pub(crate) fn edge_length() -> impl Strategy<Value = usize> + Clone {
    const EDGES: &[usize] = &[0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33, 47, 48, 61, 64, 67, 97, 127, 131];
    prop::sample::select(EDGES)
}

/// Any f32: mostly of moderate size, often zeros, subnormals, extremes, infinities, NaN and raw bit patterns.
pub(crate) fn awkward() -> impl Strategy<Value = f32> + Clone {
    const SPECIAL: &[f32] = &[
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::EPSILON,
        16_777_217.0,
        88.722_84,
        -103.972_08,
    ];
    prop_oneof![
        6 => -4.0_f32..4.0,
        1 => prop::sample::select(SPECIAL),
        1 => any::<u32>().prop_map(f32::from_bits),
    ]
}

/// `n` values of [`awkward`].
pub(crate) fn awkward_values(n: usize) -> impl Strategy<Value = Vec<f32>> + Clone {
    vec(awkward(), n)
}

/// `n` values in −3..3: inputs of differentiable references, where no infinity hides an error.
pub(crate) fn moderate_values(n: usize) -> impl Strategy<Value = Vec<f64>> + Clone {
    vec(-3.0_f64..3.0, n)
}
