//! Equality of f32 slices bit for bit, all NaNs being one.

use std::fmt::Display;

/// The bits of `x`; all NaNs are 0x7FC00000 (contract C1: NaNs count as equal bits).
pub fn canonical_bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

/// Asserts that two slices hold the same bits, NaNs canonicalised.
///
/// # Panics
/// If the lengths differ, or naming `what`, the first index where the bits differ and both values there.
#[track_caller]
pub fn assert_same_bits(got: &[f32], expected: &[f32], what: impl Display) {
    assert_eq!(got.len(), expected.len(), "{what}: {} values where {} were expected", got.len(), expected.len());
    let differs = |&i: &usize| canonical_bits(got[i]) != canonical_bits(expected[i]);
    if let Some(i) = (0..got.len()).find(differs) {
        let (got, expected) = (got[i], expected[i]);
        panic!(
            "{what}: index {i} holds {got:?} ({:#010x}) where {expected:?} ({:#010x}) was expected",
            got.to_bits(),
            expected.to_bits()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nans_of_any_payload_are_equal() {
        assert_same_bits(&[f32::from_bits(0xffc0_0001)], &[f32::NAN], "nan");
    }

    #[test]
    #[should_panic(expected = "zeros: index 1 holds -0.0 (0x80000000) where 0.0 (0x00000000) was expected")]
    fn the_two_zeros_differ_and_the_message_names_index_and_values() {
        assert_same_bits(&[1.0, -0.0], &[1.0, 0.0], "zeros");
    }
}
