//! What a model makes of examples: the score of every answer, the loss, and which answer it chooses.

use crate::kernels::twin::Real;

/// What a model makes of some examples in one lane, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Of every answer there is to choose from: a mean log-probability per token, or a logit.
    pub scores: Vec<Vec<f64>>,
    /// The loss of each example in nats: the sum over what its weight counts.
    pub losses: Vec<f64>,
    /// Whether a right answer has the highest score, the first of equals winning.
    pub correct: Vec<bool>,
}

impl Scores {
    /// What `scores` amount to where one of several answers is chosen, `gold` naming the right ones of each example: the
    /// loss is the cross-entropy of the softmax over the scores.
    pub(super) fn of_choices(scores: Vec<Vec<f64>>, gold: &[&[usize]]) -> Scores {
        let losses = scores.iter().zip(gold).map(|(scores, gold)| cross_entropy(scores, gold[0])).collect();
        Scores::new(scores, losses, gold)
    }

    /// The same with losses of their own.
    pub(super) fn new(scores: Vec<Vec<f64>>, losses: Vec<f64>, gold: &[&[usize]]) -> Scores {
        let correct = scores.iter().zip(gold).map(|(scores, gold)| gold.contains(&first_largest(scores))).collect();
        Scores { scores, losses, correct }
    }
}

/// `−ln softmax(scores)[gold]`: an f64 chain in the order of the scores, with the kernels' own exponential.
fn cross_entropy(scores: &[f64], gold: usize) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, |a, b| if b.is_nan() || b > a { b } else { a });
    let sum = scores.iter().fold(0.0, |sum, score| sum + Real::exp(score - largest));
    (largest - scores[gold]) + Real::ln(sum)
}

fn first_largest(scores: &[f64]) -> usize {
    (0..scores.len()).reduce(|best, at| if scores[at] > scores[best] { at } else { best }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_scores_reach_the_loss() {
        assert!(cross_entropy(&[1.0, f64::NAN], 0).is_nan());
        assert!(cross_entropy(&[f64::NAN, 1.0], 1).is_nan());
        assert!((cross_entropy(&[0.0, 0.0], 1) - 2.0_f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn any_right_answer_may_be_chosen_and_the_first_of_equals_is() {
        let scores = || vec![vec![0.0, 2.0, 2.0], vec![1.0]];
        let correct = |gold: &[usize]| Scores::of_choices(scores(), &[gold, &[0]]).correct;
        assert_eq!(correct(&[0, 1]), [true, true]);
        assert_eq!(correct(&[2]), [false, true]);
    }
}
