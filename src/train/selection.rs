//! Which weights of a run are the best, and when it has gone on for long enough without gain.
//!
//! *What must stay true.* Everything follows from the recorded evaluations, in order: a run that is resumed selects and
//! stops as the unbroken one.

use crate::task::Metric;

/// What the weights scored on the examples that select.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// How many steps were complete.
    pub step: u64,
    /// The metric.
    pub value: f64,
    /// The mean loss, which decides between equal values: less is better.
    pub loss: f64,
}

impl Mark {
    /// Whether weights are preferred to others: of equal values by their loss. Those with a loss that is not finite never
    /// are: a model that answers NaN chooses the first of all options, which may often be right.
    pub fn beats(self, other: Mark, metric: Metric) -> bool {
        if !self.loss.is_finite() || !other.loss.is_finite() {
            return self.loss.is_finite();
        }
        metric.is_better(self.value, other.value) || self.value == other.value && self.loss < other.loss
    }
}

/// The evaluations of a run so far.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    metric: Metric,
    patience: u64,
    best: Option<Mark>,
    without_gain: u64,
}

impl Selection {
    /// Before the first evaluation by `metric`; after `patience` in a row without gain the run is over, never if 0.
    pub fn new(metric: Metric, patience: u64) -> Self {
        Selection { metric, patience, best: None, without_gain: 0 }
    }

    /// Takes note of an evaluation; answers whether it is the best so far.
    pub fn add(&mut self, mark: Mark) -> bool {
        let gains = self.best.is_none_or(|best| mark.beats(best, self.metric));
        if gains {
            self.best = Some(mark);
        }
        self.without_gain = if gains { 0 } else { self.without_gain + 1 };
        gains
    }

    /// The best evaluation so far.
    pub fn best(&self) -> Option<Mark> {
        self.best
    }
    /// Whether patience has run out.
    pub fn exhausted(&self) -> bool {
        self.patience > 0 && self.without_gain >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(step: u64, value: f64, loss: f64) -> Mark {
        Mark { step, value, loss }
    }

    #[test]
    fn the_loss_decides_between_equal_values_and_the_first_of_equals_stays() {
        let mut selection = Selection::new(Metric::Accuracy, 3);
        let marks = [(0.5, 1.0), (0.6, 2.0), (0.6, 2.0), (0.6, 1.5), (0.5, 0.1)];
        let gains: Vec<bool> =
            marks.iter().zip(0..).map(|(&(value, loss), step)| selection.add(mark(step, value, loss))).collect();
        assert_eq!(gains, [true, true, false, true, false]);
        assert_eq!(selection.best(), Some(mark(3, 0.6, 1.5)));
    }

    #[test]
    fn patience_counts_evaluations_in_a_row_without_gain() {
        let mut selection = Selection::new(Metric::Accuracy, 2);
        for (step, value, exhausted) in [(0, 0.5, false), (1, 0.4, false), (2, 0.6, false), (3, 0.6, false)] {
            selection.add(mark(step, value, 1.0));
            assert_eq!(selection.exhausted(), exhausted, "step {step}");
        }
        selection.add(mark(4, 0.1, 1.0));
        assert!(selection.exhausted());
        let mut endless = Selection::new(Metric::Accuracy, 0);
        for step in 0..100 {
            endless.add(mark(step, 0.0, 1.0));
        }
        assert!(!endless.exhausted());
    }

    #[test]
    fn a_nan_never_wins() {
        let mut selection = Selection::new(Metric::Accuracy, 1);
        selection.add(mark(0, 0.5, 1.0));
        assert!(!selection.add(mark(1, 0.5, f64::NAN)));
        assert!(!selection.add(mark(1, 0.9, f64::NAN)));
        assert!(!selection.add(mark(2, f64::NAN, 0.0)));
    }

    #[test]
    fn the_least_perplexity_is_the_best() {
        let mut selection = Selection::new(Metric::Perplexity, 0);
        let gains = [f64::NAN, 9.0, 8.0, 8.5].map(|value| selection.add(mark(0, value, value.ln())));
        assert_eq!((gains, selection.best().map(|mark| mark.value)), ([true, true, true, false], Some(8.0)));
    }
}
