//! Which name was meant.

/// The candidate with the fewest edits to `found`, the first of several.
///
/// # Panics
/// If there is no candidate.
pub(super) fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> &'a str {
    candidates
        .into_iter()
        .min_by_key(|candidate| strsim::levenshtein(found, candidate))
        .expect("something to choose from")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_edits_win_and_of_equals_the_first() {
        assert_eq!(nearest("stpes", ["batch_size", "steps", "step"]), "steps");
        assert_eq!(nearest("x", ["a", "b"]), "a");
    }
}
