//! Unevaluated sums of two f64, about 104 bits: the reference of the f64 functions, for tests only.
//!
//! Dekker, "A floating-point technique for extending the available precision", 1971.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// `high + low`, |low| at most half an ulp of `high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DoubleDouble {
    pub(super) high: f64,
    pub(super) low: f64,
}

impl DoubleDouble {
    pub(super) fn new(high: f64, low: f64) -> Self {
        let sum = high + low;
        DoubleDouble { high: sum, low: low - (sum - high) }
    }
    /// The exact sum of any two f64 (Knuth's `TwoSum`).
    pub(super) fn sum(a: f64, b: f64) -> Self {
        let high = a + b;
        let from_b = high - a;
        DoubleDouble { high, low: (a - (high - from_b)) + (b - from_b) }
    }
    /// The exact product of two f64.
    pub(super) fn product(a: f64, b: f64) -> Self {
        let high = a * b;
        DoubleDouble { high, low: a.mul_add(b, -high) }
    }
}

impl From<f64> for DoubleDouble {
    fn from(high: f64) -> Self {
        DoubleDouble { high, low: 0.0 }
    }
}

impl Neg for DoubleDouble {
    type Output = Self;
    fn neg(self) -> Self {
        DoubleDouble { high: -self.high, low: -self.low }
    }
}

impl<T: Into<DoubleDouble>> Add<T> for DoubleDouble {
    type Output = Self;
    fn add(self, other: T) -> Self {
        let other = other.into();
        let (high, low) = (Self::sum(self.high, other.high), Self::sum(self.low, other.low));
        let first = Self::new(high.high, high.low + low.high);
        Self::new(first.high, first.low + low.low)
    }
}

impl<T: Into<DoubleDouble>> Sub<T> for DoubleDouble {
    type Output = Self;
    fn sub(self, other: T) -> Self {
        self + -other.into()
    }
}

impl<T: Into<DoubleDouble>> Mul<T> for DoubleDouble {
    type Output = Self;
    fn mul(self, other: T) -> Self {
        let other = other.into();
        let product = Self::product(self.high, other.high);
        let cross = self.high.mul_add(other.low, self.low * other.high);
        Self::new(product.high, product.low + cross)
    }
}

impl<T: Into<DoubleDouble>> Div<T> for DoubleDouble {
    type Output = Self;
    fn div(self, other: T) -> Self {
        let other = other.into();
        let first = self.high / other.high;
        let rest = self - other * first;
        let second = rest.high / other.high;
        let rest = rest - other * second;
        Self::new(first, second) + rest.high / other.high
    }
}
