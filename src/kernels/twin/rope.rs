//! The definition of rotary position embedding: one pair of features.

use super::Real;

/// (a, b) turned by the angle whose cosine and sine are given.
pub fn rotate<R: Real>([a, b]: [R; 2], cos: R, sin: R) -> [R; 2] {
    [(-b).mul_add(sin, a * cos), a.mul_add(sin, b * cos)]
}

/// The inverse turn: the transpose.
pub fn rotate_back<R: Real>(pair: [R; 2], cos: R, sin: R) -> [R; 2] {
    rotate(pair, cos, -sin)
}
