//! Scores of answers, and what a number of them says about the model.

mod text;

use serde::Deserialize;

pub use text::{exact_match, f1, final_number, rouge_1, rouge_l};

/// How predictions are scored: answers from 0 to 1, texts by their loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Metric {
    /// 1 for the gold answer.
    Accuracy,
    /// Overlap of words with the gold answer ([`f1`]).
    F1,
    /// 1 for the words of the gold answer ([`exact_match`]).
    ExactMatch,
    /// 1 for the number that the gold answer ends with ([`final_number`]).
    FinalNumber,
    /// Overlap of words with the gold answer ([`rouge_1`]).
    #[serde(rename = "rouge-1")]
    Rouge1,
    /// Longest common subsequence of words with the gold answer ([`rouge_l`]).
    RougeL,
    /// The exponential of the mean loss of a token: of texts, which are not right or wrong.
    #[serde(skip)]
    Perplexity,
}

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 7] = [
        Metric::Accuracy,
        Metric::F1,
        Metric::ExactMatch,
        Metric::FinalNumber,
        Metric::Rouge1,
        Metric::RougeL,
        Metric::Perplexity,
    ];

    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1 => "f1",
            Metric::ExactMatch => "exact-match",
            Metric::FinalNumber => "final-number",
            Metric::Rouge1 => "rouge-1",
            Metric::RougeL => "rouge-l",
            Metric::Perplexity => "perplexity",
        }
    }

    /// Whether a model with the value `a` is better than one with `b`; nothing is better than a model without a number,
    /// but one with a number.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        match self {
            _ if a.is_nan() || b.is_nan() => !a.is_nan() && b.is_nan(),
            Metric::Perplexity => a < b,
            _ => a > b,
        }
    }

    /// The score of a generated text.
    ///
    /// # Panics
    /// For the perplexity, which no single answer has.
    pub fn score(self, prediction: &str, golds: &[String]) -> f64 {
        match self {
            Metric::F1 => f1(prediction, golds),
            Metric::Rouge1 => rouge_1(prediction, golds),
            Metric::RougeL => rouge_l(prediction, golds),
            Metric::FinalNumber => f64::from(u8::from(final_number(prediction, golds))),
            Metric::Accuracy | Metric::ExactMatch => f64::from(u8::from(exact_match(prediction, golds))),
            Metric::Perplexity => panic!("the perplexity of {prediction:?}"),
        }
    }
}

/// Scores of a data set, added up in order: the ratio of what was counted to what it is counted of, examples or tokens.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    metric: Metric,
    count: u64,
    /// Of scores or losses, of their weights, and of all products of the two.
    sum: f64,
    weight: f64,
    squares: f64,
    products: f64,
    weight_squares: f64,
}

impl Tally {
    /// No scores yet.
    pub fn new(metric: Metric) -> Tally {
        Tally { metric, count: 0, sum: 0.0, weight: 0.0, squares: 0.0, products: 0.0, weight_squares: 0.0 }
    }

    /// One more score of an answer.
    ///
    /// # Panics
    /// If it is not within 0 and 1, or, where answers are right or wrong, neither of them, or the metric is the perplexity.
    pub fn add(&mut self, score: f64) {
        let possible = match self.metric {
            Metric::F1 | Metric::Rouge1 | Metric::RougeL => (0.0..=1.0).contains(&score),
            Metric::Accuracy | Metric::ExactMatch | Metric::FinalNumber => [0.0, 1.0].contains(&score),
            Metric::Perplexity => false,
        };
        assert!(possible, "a score of {score} for {}", self.metric.name());
        self.add_weighted(score, 1.0);
    }

    /// One more text: its loss in nats, summed over so many tokens.
    ///
    /// # Panics
    /// If the metric is another than the perplexity.
    pub fn add_loss(&mut self, loss: f64, tokens: usize) {
        assert_eq!(self.metric, Metric::Perplexity, "a loss of {loss}");
        self.add_weighted(loss, tokens as f64);
    }

    fn add_weighted(&mut self, value: f64, weight: f64) {
        self.count += 1;
        self.sum += value;
        self.weight += weight;
        self.squares += value * value;
        self.products += value * weight;
        self.weight_squares += weight * weight;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What they amount to: the mean of scores, the perplexity of losses; of none the worst there is.
    pub fn value(&self) -> f64 {
        match self.metric {
            Metric::Perplexity if self.count == 0 => f64::INFINITY,
            Metric::Perplexity => self.mean().exp(),
            _ if self.count == 0 => 0.0,
            _ => self.mean(),
        }
    }

    fn mean(&self) -> f64 {
        self.sum / self.weight
    }

    /// The interval that holds the value of all such examples with a probability of 95 %: Wilson's where a score is 0 or
    /// 1, else the normal approximation, for the perplexity of the mean loss.
    pub fn ci95(&self) -> [f64; 2] {
        match self.metric {
            Metric::Accuracy | Metric::ExactMatch | Metric::FinalNumber => wilson95(self.sum, self.count),
            Metric::F1 | Metric::Rouge1 | Metric::RougeL if self.count < 2 => [0.0, 1.0],
            Metric::F1 | Metric::Rouge1 | Metric::RougeL => {
                let [low, high] = self.normal95();
                [low.max(0.0), high.min(1.0)]
            }
            Metric::Perplexity if self.count < 2 => [1.0, f64::INFINITY],
            Metric::Perplexity => self.normal95().map(f64::exp),
        }
    }

    /// The mean and 1.96 standard errors to either side: those of a ratio of sums over examples (Cochran, Sampling
    /// Techniques, 1977, section 6.4), since examples, not tokens, are independent. With equal weights it is the
    /// standard error of a mean.
    fn normal95(&self) -> [f64; 2] {
        let (n, mean) = (self.count as f64, self.mean());
        let residuals = self.squares - 2.0 * mean * self.products + mean * mean * self.weight_squares;
        let half = Z95 * (n / (n - 1.0) * residuals.max(0.0)).sqrt() / self.weight;
        [mean - half, mean + half]
    }
}

/// The 97.5 % quantile of the normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// Wilson's interval for `correct` of `count` (Wilson, "Probable inference, the law of succession, and statistical
/// inference", 1927): unlike the normal approximation never beyond 0 and 1, and not empty at either.
fn wilson95(correct: f64, count: u64) -> [f64; 2] {
    if count == 0 {
        return [0.0, 1.0];
    }
    let n = count as f64;
    let (p, z2) = (correct / n, Z95 * Z95);
    let centre = p + z2 / (2.0 * n);
    let half = Z95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // The ends are exact where all or none are correct, which rounding would miss.
    let low = if p == 0.0 { 0.0 } else { (centre - half) / (1.0 + z2 / n) };
    let high = if p == 1.0 { 1.0 } else { (centre + half) / (1.0 + z2 / n) };
    [low, high]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wilson_intervals_agree_with_published_ones() {
        // Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3: four digits.
        for (correct, count, low, high) in [
            (81.0, 263, 0.2553, 0.3662),
            (15.0, 148, 0.0624, 0.1605),
            (0.0, 20, 0.0, 0.1611),
            (1.0, 29, 0.0061, 0.1718),
        ] {
            let [a, b] = wilson95(correct, count);
            // Half a unit of the fourth digit.
            assert!((a - low).abs() <= 5e-5 && (b - high).abs() <= 5e-5, "{correct} of {count}: [{a}, {b}]");
        }
        assert_eq!(wilson95(20.0, 20)[1], 1.0);
        assert_eq!(Tally::new(Metric::Accuracy).ci95(), [0.0, 1.0]);
    }

    #[test]
    fn the_error_of_equal_texts_is_that_of_their_mean() {
        let mut tally = Tally::new(Metric::Perplexity);
        assert_eq!((tally.value(), tally.ci95()), (f64::INFINITY, [1.0, f64::INFINITY]));
        [1.0, 2.0, 4.0, 5.0].into_iter().for_each(|loss| tally.add_loss(loss, 1));
        // A mean of 3 with the error √(Σ(x − 3)² / 3 / 4) = √(10/12).
        let half = Z95 * (10.0_f64 / 12.0).sqrt();
        assert_eq!(tally.value(), 3.0_f64.exp());
        for (found, expected) in tally.ci95().map(f64::ln).into_iter().zip([3.0 - half, 3.0 + half]) {
            // A dozen operations of 2⁻⁵³ on numbers below 50.
            assert!((found - expected).abs() < 1e-13, "{found}, expected {expected}");
        }
    }

    #[test]
    fn losses_that_are_their_tokens_times_one_number_have_no_error() {
        let mut tally = Tally::new(Metric::Perplexity);
        [3, 1, 8].into_iter().for_each(|tokens| tally.add_loss(0.5 * tokens as f64, tokens));
        assert_eq!((tally.value(), tally.ci95()), (0.5_f64.exp(), [0.5_f64.exp(); 2]));
    }

    #[test]
    fn less_perplexity_and_more_of_all_else_is_better_and_no_number_is_worst() {
        assert!(Metric::Perplexity.is_better(1.0, 2.0) && !Metric::Perplexity.is_better(2.0, 2.0));
        assert!(Metric::F1.is_better(0.5, 0.4) && !Metric::Accuracy.is_better(0.4, 0.4));
        for metric in [Metric::Perplexity, Metric::F1] {
            assert!(metric.is_better(9.0, f64::NAN) && !metric.is_better(f64::NAN, 9.0));
            assert!(!metric.is_better(f64::NAN, f64::NAN));
        }
    }

    proptest! {
        #[test]
        fn intervals_hold_the_mean_and_stay_within_0_and_1(scores in prop::collection::vec(0_u8..=4, 1..40)) {
            for metric in [Metric::Accuracy, Metric::F1, Metric::ExactMatch] {
                let mut tally = Tally::new(metric);
                for &score in &scores {
                    tally.add(if metric == Metric::F1 { f64::from(score) / 4.0 } else { f64::from(score & 1) });
                }
                let ([low, high], value) = (tally.ci95(), tally.value());
                prop_assert!((0.0..=value).contains(&low) && (value..=1.0).contains(&high), "{low} {value} {high}");
                prop_assert_eq!(tally.count(), scores.len() as u64);
            }
        }
    }
}
