//! A batch of the size that steps are measured at.

pub(crate) const SEQUENCES: usize = 16;
pub(crate) const LENGTH: usize = 64;

pub(crate) fn ids(vocabulary: u32) -> Vec<Vec<u32>> {
    let token = |at: usize| (at as u32).wrapping_mul(7919) % vocabulary;
    (0..SEQUENCES).map(|s| (0..LENGTH).map(|t| token(s * LENGTH + t)).collect()).collect()
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
