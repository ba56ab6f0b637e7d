//! Losses as `transformers` computes them: cross-entropies of the labelled positions, to be averaged over all of them.

use super::Rows;
use crate::model::Head;

/// The label of a position without a loss.
pub const IGNORED: i64 = -100;

/// The losses of next tokens: row `t` predicts label `t + 1`.
pub fn next_tokens(logits: &Rows, labels: &[i64]) -> Vec<f64> {
    assert_eq!(logits.len(), labels.len(), "a label for every row");
    labelled(logits, labels.get(1..).unwrap_or_default())
}

/// The losses of masked tokens: row `t` predicts label `t`.
pub fn masked_tokens(logits: &Rows, labels: &[i64]) -> Vec<f64> {
    assert_eq!(logits.len(), labels.len(), "a label for every row");
    labelled(logits, labels)
}

fn labelled(logits: &Rows, labels: &[i64]) -> Vec<f64> {
    let pairs = logits.iter().zip(labels).filter(|(_, label)| **label != IGNORED);
    pairs.map(|(row, &label)| cross_entropy(row, usize::try_from(label).expect("a class"))).collect()
}

/// The negative logarithm of the softmax of `logits` at `label`.
pub fn cross_entropy(logits: &[f64], label: usize) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    total.ln() + largest - logits[label]
}

/// The losses of a sequence by the head of its model: of tokens, of masked tokens, or of the one class.
///
/// # Panics
/// If there is no head.
pub fn of_head(head: &Head, logits: &Rows, labels: &[i64]) -> Vec<f64> {
    match head {
        Head::CausalLm { .. } => next_tokens(logits, labels),
        Head::MaskedLm { .. } => masked_tokens(logits, labels),
        Head::Classifier { .. } => vec![cross_entropy(&logits[0], labels[0] as usize)],
        Head::None => panic!("no losses without a head"),
    }
}

/// The mean of the losses of a batch.
pub fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_cost_the_logarithm_of_their_number() {
        assert!((cross_entropy(&[3.0; 8], 5) - 8.0_f64.ln()).abs() < 1e-15);
        // ln(1 + e⁻²⁰⁰⁰) is 0 and the other label costs all of the distance: nothing overflows.
        assert_eq!((cross_entropy(&[1e3, -1e3], 0), cross_entropy(&[1e3, -1e3], 1)), (0.0, 2e3));
    }

    #[test]
    fn only_labelled_rows_count_and_next_tokens_are_one_ahead() {
        let logits = vec![vec![0.0, 0.0], vec![0.0, 5.0], vec![7.0, 0.0]];
        assert_eq!(masked_tokens(&logits, &[IGNORED, 1, IGNORED]), [cross_entropy(&logits[1], 1)]);
        let expected = [cross_entropy(&logits[0], 1), cross_entropy(&logits[1], 0)];
        assert_eq!(next_tokens(&logits, &[0, 1, 0]), expected);
        assert_eq!(next_tokens(&Rows::new(), &[]), [0.0; 0]);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
    }
}
