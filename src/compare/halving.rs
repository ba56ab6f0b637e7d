//! Successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943): of the candidates that have trained equally long
//! the better half trains longer.

use std::cmp::Ordering;

use crate::{task::Metric, train::Mark};

/// The better half of candidates, best first: by what each scored at its end, a loss between equal scores, and of equals
/// the one that came first. One without a score did not finish and is never in it.
pub(super) fn better_half(candidates: &[(usize, Option<Mark>)], metric: Metric) -> Vec<usize> {
    let mut ranked: Vec<(usize, Mark)> =
        candidates.iter().filter_map(|&(number, mark)| Some((number, mark?))).collect();
    ranked.sort_by(|(_, a), (_, b)| match (a.beats(*b, metric), b.beats(*a, metric)) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => Ordering::Equal,
    });
    ranked.truncate(half(candidates.len()));
    ranked.into_iter().map(|(number, _)| number).collect()
}

/// How many of so many go on.
pub(super) fn half(candidates: usize) -> usize {
    candidates.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(value: f64, loss: f64) -> Mark {
        Mark { step: 9, value, loss }
    }

    #[test]
    fn scores_decide_then_losses_then_the_order() {
        let candidates = [
            (0, Some(mark(0.7, 1.0))),
            (1, Some(mark(0.8, 2.0))),
            (2, None),
            (3, Some(mark(0.8, 1.5))),
            (4, Some(mark(0.8, 1.5))),
            (5, Some(mark(0.9, f64::NAN))),
        ];
        assert_eq!(better_half(&candidates, Metric::Accuracy), [3, 4, 1]);
        assert_eq!(better_half(&candidates, Metric::Perplexity), [0, 3, 4], "less is better of this one");
    }

    #[test]
    fn one_goes_on_alone_and_none_where_none_finished() {
        assert_eq!(better_half(&[(7, Some(mark(0.5, 1.0)))], Metric::Accuracy), [7]);
        assert!(better_half(&[(0, None), (1, None), (2, None)], Metric::Accuracy).is_empty());
    }

    proptest! {
        #[test]
        fn none_that_stays_behind_beats_one_that_goes_on(
            marks in prop::collection::vec(prop::option::of((0_u8..4, 0_u8..4)), 1..9),
        ) {
            let scored = |(value, loss): (u8, u8)| {
                mark(f64::from(value), if loss == 3 { f64::INFINITY } else { f64::from(loss) })
            };
            let candidates: Vec<_> = marks.iter().map(|mark| mark.map(scored)).enumerate().collect();
            let kept = better_half(&candidates, Metric::F1);
            let finished = candidates.iter().filter(|(_, mark)| mark.is_some()).count();
            prop_assert_eq!(kept.len(), half(candidates.len()).min(finished));
            for (number, mark) in &candidates {
                if let (Some(mark), false) = (mark, kept.contains(number)) {
                    for &better in &kept {
                        prop_assert!(!mark.beats(candidates[better].1.expect("it goes on"), Metric::F1));
                    }
                }
            }
        }
    }
}
