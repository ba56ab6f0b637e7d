use proptest::prelude::*;

use super::*;

fn scored(value: f64, [low, high]: [f64; 2]) -> Scored {
    Scored { value, ci95: [low, high], loss: 1.0, count: 100 }
}

#[test]
fn ahead_is_ahead_by_more_than_the_interval_of_the_difference() {
    // 0.9 - 0.8 against √(0.06² + 0.08²), which is 0.1 but for rounding.
    let (a, b) = (scored(0.9, [0.84, 0.95]), scored(0.8, [0.7, 0.88]));
    let by = |lead: f64| {
        is_clearly_better(Scored { value: a.value + lead, ci95: [a.ci95[0] + lead, 0.99], ..a }, b, Metric::Accuracy)
    };
    assert!(by(1e-9) && !by(-1e-9));
    assert!(!is_clearly_better(b, a, Metric::Accuracy));
    // Less is better: 8 - 7.5 against √(0.2² + 0.3²) = 0.36.
    let (less, more) = (scored(7.5, [7.4, 7.7]), scored(8.0, [7.7, 8.1]));
    assert!(is_clearly_better(less, more, Metric::Perplexity) && !is_clearly_better(less, more, Metric::Accuracy));
    assert!(!is_clearly_better(scored(f64::NAN, [0.0, 1.0]), b, Metric::Accuracy));
}

#[test]
fn the_target_is_met_at_the_first_evaluation_that_is_as_good() {
    let point = |step, value| Point { step, seconds: step as f64, forwards: step, value, loss: 1.0 };
    let curve = [point(0, 0.5), point(1, 0.7), point(2, 0.8), point(3, 0.75), point(4, 0.9)];
    let step = |metric, target| reached(&curve, metric, target).map(|point| point.step);
    assert_eq!([0.5, 0.75, 0.8, 0.81].map(|target| step(Metric::Accuracy, target)), [0, 2, 2, 4].map(Some));
    assert_eq!(step(Metric::Accuracy, 0.91), None);
    assert_eq!(step(Metric::Perplexity, 0.5), Some(0));
    assert_eq!(reached(&[point(0, f64::NAN)], Metric::Accuracy, 0.5), None);
}

#[test]
fn a_front_is_what_nothing_beats() {
    let points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.0, 2.5), (3.0, 3.0), (4.0, 1.0)];
    assert_eq!(pareto_front(&points), [1, 2, 0]);
    assert!(pareto_front(&[]).is_empty());
}

proptest! {
    #[test]
    fn no_point_of_the_front_is_beaten_and_every_other_is(
        points in prop::collection::vec((0_u8..9, 0_u8..9), 0..12),
    ) {
        let points: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (f64::from(x), f64::from(y))).collect();
        let front = pareto_front(&points);
        let beats = |a: (f64, f64), b: (f64, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
        for (number, &point) in points.iter().enumerate() {
            let is_beaten = points.iter().any(|&other| beats(other, point));
            if front.contains(&number) {
                prop_assert!(!is_beaten);
            } else {
                // Of equal points the first stands for all.
                prop_assert!(is_beaten || front.iter().any(|&other| points[other] == point));
            }
        }
    }
}
