//! Long texts, cut to what a model reads at once.

use std::ops::Range;

/// A piece of a text: its tokens, of which all but the first are predicted.
pub type Window = Range<usize>;

/// Cuts a text of `tokens` tokens into windows of at most `context`: consecutive ones share one token, so that every
/// token but the text's first is predicted exactly once, with at least one token before it.
///
/// # Panics
/// If `context` is below 2: nothing could be predicted.
pub fn windows(tokens: usize, context: usize) -> impl Iterator<Item = Window> {
    assert!(context >= 2, "windows of {context} tokens");
    (0..tokens.saturating_sub(1)).step_by(context - 1).map(move |start| start..tokens.min(start + context))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_token_but_the_first_is_predicted_once(tokens in 0_usize..200, context in 2_usize..20) {
            let windows: Vec<Window> = windows(tokens, context).collect();
            let predicted: Vec<usize> = windows.iter().flat_map(|window| window.clone().skip(1)).collect();
            prop_assert_eq!(predicted, (1..tokens).collect::<Vec<_>>());
            prop_assert!(windows.iter().all(|window| (2..=context).contains(&window.len())));
        }
    }
}
