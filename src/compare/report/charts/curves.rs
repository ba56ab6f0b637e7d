//! How scores and losses on dev go with time and with forward passes: a line a method, the mean of its seeds, which stand
//! behind it.

use super::{
    super::{
        labels::{spread, width},
        scale::Scale,
        svg::{Anchor, Svg},
    },
    Plot, range, widened,
};
use crate::compare::{Comparison, Point, standing::Standing};

const SIZE: (f64, f64) = (640.0, 420.0);
const BOTTOM: f64 = SIZE.1 - 50.0;
/// Between two labels.
const GAP: f64 = 15.0;

/// What is drawn upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Quantity {
    /// The metric.
    Score,
    /// The loss.
    Loss,
}

/// What is drawn to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Course {
    /// Seconds of steps.
    Time,
    /// Forward passes.
    Forwards,
}

/// The drawing; `None` if no run is over.
pub(in super::super) fn curves(comparison: &Comparison<'_>, quantity: Quantity, course: Course) -> Option<String> {
    let ranked: Vec<_> = comparison.ranked().collect();
    let line = |points: &[Point]| -> Vec<(f64, f64)> {
        let coordinates = points.iter().map(|point| (along(point, course), of(point, quantity)));
        coordinates.filter(|(_, value)| value.is_finite()).collect()
    };
    let seeds = || ranked.iter().flat_map(|standing| standing.runs.iter().map(|(_, run)| line(&run.curve)));
    let end = range(seeds().flatten().map(|(x, _)| x))?.1;
    let values = range(seeds().flatten().map(|(_, value)| value))?;
    let values = match quantity {
        Quantity::Score => widened(values, 0.05),
        Quantity::Loss => widened((values.0, seen(values, seeds().filter_map(|line| Some(line.first()?.1)))), 0.05),
    };
    let names = ranked.iter().map(|standing| width(&standing.method.label)).fold(0.0, f64::max);
    let plot = Plot { x: (56.0, SIZE.0 - names - 26.0), y: (44.0, BOTTOM) };
    let (x, y) = (Scale::new((0.0, end.max(1e-3)), plot.x), Scale::new(values, (plot.y.1, plot.y.0)));

    let (what, against) = (what(comparison, quantity), against(course));
    let mut svg = Svg::new(SIZE, &format!("{what} against {against}"));
    let ticks = match course {
        Course::Time => x.time_ticks(6),
        Course::Forwards => x.count_ticks(5),
    };
    plot.axes(&mut svg, (x, &ticks), (y, &y.ticks(6)));
    plot.titles(&mut svg, against, &what);
    if let (Quantity::Score, Some(target)) = (quantity, comparison.target) {
        let at = y.at(target);
        if (plot.y.0..=plot.y.1).contains(&at) {
            svg.line("target", (plot.x.0, at), (plot.x.1, at));
            svg.label("tick", (plot.x.0 + 6.0, at - 5.0), Anchor::Start, "target");
        }
    }
    let at = |line: &[(f64, f64)]| -> Vec<(f64, f64)> { line.iter().map(|&(a, b)| (x.at(a), y.at(b))).collect() };
    let window = format!("{quantity:?}{course:?}").to_lowercase();
    svg.window(&window, (plot.x.0 - 6.0, plot.x.1 + 6.0), (plot.y.0 - 6.0, plot.y.1 + 6.0));
    let means = ranked.iter().enumerate().map(|(series, standing)| (series, *standing, line(&mean(standing))));
    let means: Vec<_> = means.filter(|(.., mean)| !mean.is_empty()).collect();
    let inside = |y: f64| y.clamp(plot.y.0, plot.y.1);
    let ends: Vec<f64> = means.iter().filter_map(|(.., mean)| Some(inside(y.at(mean.last()?.1)))).collect();
    // The best on top.
    for ((series, standing, mean), label) in means.iter().zip(spread(&ends, GAP, plot.y)).rev() {
        let (points, name) = (at(mean), &standing.method.label);
        svg.series(*series);
        svg.clip(&window);
        for (_, run) in &standing.runs {
            svg.path("seed", &at(&line(&run.curve)));
        }
        svg.path("line", &points);
        for (&(when, value), &point) in mean.iter().zip(&points) {
            svg.mark("point", *series, point, 3.2, &format!("{name}: {value:.4} after {}", said(when, course)));
        }
        svg.end();
        let knee = (plot.x.1 + 8.0, label);
        svg.path("leader", &[points.last().map_or(knee, |end| (end.0, inside(end.1))), knee]);
        svg.label("name", (knee.0 + 4.0, label + 4.5), Anchor::Start, name);
        svg.end();
    }
    Some(svg.finish())
}

fn along(point: &Point, course: Course) -> f64 {
    match course {
        Course::Time => point.seconds,
        Course::Forwards => point.forwards as f64,
    }
}

fn of(point: &Point, quantity: Quantity) -> f64 {
    match quantity {
        Quantity::Score => point.value,
        Quantity::Loss => point.loss,
    }
}

fn what(comparison: &Comparison<'_>, quantity: Quantity) -> String {
    match (quantity, comparison.metric) {
        (Quantity::Score, Some(metric)) => format!("{} on dev", metric.name()),
        _ => "loss on dev".to_owned(),
    }
}

fn against(course: Course) -> &'static str {
    match course {
        Course::Time => "training time",
        Course::Forwards => "forward passes",
    }
}

fn said(when: f64, course: Course) -> String {
    match course {
        Course::Time => super::super::words::seconds(when),
        Course::Forwards => format!("{when:.0} forward passes"),
    }
}

/// The greatest loss that is shown: a run that diverges is not to press all others together, so a quarter more of what
/// methods gain on the base is enough.
fn seen((least, greatest): (f64, f64), bases: impl Iterator<Item = f64>) -> f64 {
    match range(bases) {
        Some((_, base)) => greatest.min(base + 0.25 * (base - least)),
        None => greatest,
    }
}

/// The means over seeds, which have the same evaluations; up to the first that a seed does not have.
fn mean(standing: &Standing<'_>) -> Vec<Point> {
    let count = standing.runs.len() as f64;
    let common = standing.runs.iter().map(|(_, run)| run.curve.len()).min().unwrap_or(0);
    let at = |place: usize| {
        let points = || standing.runs.iter().map(|(_, run)| run.curve[place]);
        let mean = |number: fn(&Point) -> f64| points().map(|point| number(&point)).sum::<f64>() / count;
        Point {
            step: standing.runs[0].1.curve[place].step,
            seconds: mean(|point| point.seconds),
            forwards: mean(|point| point.forwards as f64).round() as u64,
            value: mean(|point| point.value),
            loss: mean(|point| point.loss),
        }
    };
    (0..common).map(at).collect()
}
