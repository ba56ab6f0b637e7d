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

    /// The derivative of each loss of [`Scores::of_choices`] where the scores change by `changes`.
    pub(super) fn slopes(&self, changes: &[Vec<f64>], gold: &[&[usize]]) -> Vec<f64> {
        let of_example = self.scores.iter().zip(changes).zip(gold);
        of_example.map(|((scores, changes), gold)| cross_entropy_slope(scores, changes, gold[0])).collect()
    }
}

/// The derivative of each loss of [`Scores::of_choices`] by each of its scores.
pub(super) fn derivatives(scores: &[Vec<f64>], gold: &[&[usize]]) -> Vec<Vec<f64>> {
    scores.iter().zip(gold).map(|(scores, gold)| cross_entropy_gradient(scores, gold[0])).collect()
}

/// `−ln softmax(scores)[gold]`: an f64 chain in the order of the scores, with the kernels' own exponential.
fn cross_entropy(scores: &[f64], gold: usize) -> f64 {
    let largest = largest(scores);
    let sum = scores.iter().fold(0.0, |sum, score| sum + Real::exp(score - largest));
    (largest - scores[gold]) + Real::ln(sum)
}

/// `Σ softmax(scores)[i] · changes[i] − changes[gold]`: the derivative of [`cross_entropy`], by chains of the same order.
fn cross_entropy_slope(scores: &[f64], changes: &[f64], gold: usize) -> f64 {
    let largest = largest(scores);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (score, change) in scores.iter().zip(changes) {
        let e: f64 = Real::exp(score - largest);
        sum += e;
        weighted += e * change;
    }
    weighted / sum - changes[gold]
}

/// `softmax(scores) − onehot(gold)`: the gradient of [`cross_entropy`], by a chain of the same order.
fn cross_entropy_gradient(scores: &[f64], gold: usize) -> Vec<f64> {
    let largest = largest(scores);
    let mut gradient: Vec<f64> = scores.iter().map(|score| Real::exp(score - largest)).collect();
    let sum = gradient.iter().fold(0.0, |sum, e| sum + e);
    // 1 − p would cancel where the model is sure.
    gradient[gold] -= sum;
    gradient.iter_mut().for_each(|e| *e /= sum);
    gradient
}

/// The largest score; NaN if one is.
fn largest(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, |a, b| if b.is_nan() || b > a { b } else { a })
}

fn first_largest(scores: &[f64]) -> usize {
    (0..scores.len()).reduce(|best, at| if scores[at] > scores[best] { at } else { best }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_choice_is_that_of_its_loss() {
        // softmax(0, ln 3) = (1/4, 3/4): 1/4 · 8 + 3/4 · 4 − 8, a few roundings of values below 8.
        assert!((cross_entropy_slope(&[0.0, 3.0_f64.ln()], &[8.0, 4.0], 0) + 3.0).abs() < 1e-14);
        assert_eq!(cross_entropy_slope(&[1e3, -1e3], &[5.0, 7.0], 1), -2.0);
        let gradient = cross_entropy_gradient(&[0.0, 3.0_f64.ln()], 0);
        assert!((gradient[0] + 0.75).abs() < 1e-15 && (gradient[1] - 0.75).abs() < 1e-15, "{gradient:?}");
        assert_eq!(cross_entropy_gradient(&[1e3, -1e3], 1), [1.0, -1.0]);
        assert_eq!(cross_entropy_slope(&[1.0, 2.0], &[-0.0, -0.0], 0).to_bits(), 0);
    }

    #[test]
    fn nan_scores_reach_the_loss_and_its_slope() {
        assert!(cross_entropy_gradient(&[f64::NAN, 1.0], 1).iter().all(|x| x.is_nan()));
        assert!(cross_entropy_slope(&[f64::NAN, 1.0], &[0.0, 0.0], 1).is_nan());
        assert!(cross_entropy_slope(&[0.0, 1.0], &[f64::NAN, 0.0], 1).is_nan());
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
