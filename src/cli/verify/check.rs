//! What a check is, and the bits it compares.

use sha2::{Digest, Sha256};

use crate::kernels::Context;

/// One line of [`CHECKS`](super::registry::CHECKS).
#[derive(Debug)]
pub(super) struct Check {
    /// `family.kernel`, as the table and `--json` spell it.
    pub(super) name: &'static str,
    /// What must hold.
    pub(super) claim: Claim,
}

/// What a check asserts.
#[derive(Debug)]
pub(super) enum Claim {
    /// On every instruction set and for every thread count, `kernel` gives the bits of `twin`.
    SameBits {
        /// The kernel on fixed inputs, split over the current rayon pool as it splits itself.
        kernel: fn(&Context) -> Bits,
        /// The scalar definition on the same inputs.
        twin: fn() -> Bits,
    },
    /// Independent ways to one derivative agree, in f64 and on no instruction set in particular.
    Agreement(fn() -> Agreement),
}

/// The distance between independent ways to one number, and the most that rounding explains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreement {
    /// |a − b|.
    pub(super) error: f64,
    /// The derived bound.
    pub(super) bound: f64,
}

impl Agreement {
    /// Whether the error is within its bound; never if it is NaN.
    pub(super) fn holds(self) -> bool {
        self.error <= self.bound
    }
}

/// A check's outputs as little-endian bytes, all NaNs equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u8>);

impl Bits {
    /// The bits of f32 values; every NaN becomes 0x7FC00000.
    pub(super) fn of(values: &[f32]) -> Self {
        Bits::default().and(values)
    }

    /// These bits, then those of more values.
    pub(super) fn and(self, values: &[f32]) -> Self {
        self.words(values.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }))
    }

    /// These bits, then those of f64 values; every NaN becomes 0x7FF8000000000000.
    pub(super) fn and_f64(mut self, values: &[f64]) -> Self {
        let bits = |x: &f64| if x.is_nan() { 0x7ff8_0000_0000_0000 } else { x.to_bits() };
        self.0.extend(values.iter().flat_map(|x| bits(x).to_le_bytes()));
        self
    }

    /// These bits, then u32 words.
    pub(super) fn words(mut self, words: impl IntoIterator<Item = u32>) -> Self {
        self.0.extend(words.into_iter().flat_map(u32::to_le_bytes));
        self
    }

    /// Adds the name and these bits to the digest of all results.
    pub(super) fn digest_into(&self, name: &str, digest: &mut Sha256) {
        for part in [name.as_bytes(), self.0.as_slice()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nans_are_equal_and_zeros_of_different_sign_are_not() {
        assert_eq!(Bits::of(&[f32::NAN]), Bits::of(&[-f32::NAN]));
        assert_ne!(Bits::of(&[0.0]), Bits::of(&[-0.0]));
        assert_ne!(Bits::of(&[0.0]), Bits::of(&[0.0, 0.0]));
    }

    #[test]
    fn a_nan_error_never_holds() {
        assert!(Agreement { error: 0.0, bound: 0.0 }.holds());
        assert!(!Agreement { error: f64::NAN, bound: 1.0 }.holds());
    }
}
