//! What the best weights of each run score, with 95 % intervals: a row a method, a point a seed, a bar at their mean.

use super::{
    super::{
        labels::width,
        scale::Scale,
        svg::{Anchor, Svg},
        words,
    },
    Plot, range, widened,
};
use crate::compare::Comparison;

const WIDTH: f64 = 880.0;
const TOP: f64 = 44.0;
/// A row's height: for its name, and more for each of its seeds.
const ROW: f64 = 22.0;
const SEED: f64 = 9.0;

/// The drawing; `None` if no run is over.
pub(in super::super) fn scores(comparison: &Comparison<'_>) -> Option<String> {
    let ranked: Vec<_> = comparison.ranked().collect();
    let runs = || ranked.iter().flat_map(|standing| standing.runs.iter().map(|(_, run)| *run));
    let ends = runs().flat_map(|run| [run.best.ci95[0], run.best.ci95[1], run.base.value]);
    let range = widened(range(ends)?, 0.03);
    let names = ranked.iter().map(|standing| width(&standing.method.label)).fold(0.0, f64::max);
    let heights: Vec<f64> = ranked.iter().map(|standing| ROW + SEED * (standing.runs.len() as f64 - 1.0)).collect();
    let plot = Plot { x: (names + 28.0, WIDTH - 70.0), y: (TOP, TOP + heights.iter().sum::<f64>() + 10.0) };
    let x = Scale::new(range, plot.x);

    let mut svg = Svg::new((WIDTH, plot.y.1 + 50.0), "Scores of the best weights with 95 % intervals");
    plot.axes(&mut svg, (x, &x.ticks(8)), (x, &[]));
    let first = runs().next()?;
    let metric = &first.metric;
    svg.label("title", (plot.x.1, plot.y.1 + 38.0), Anchor::End, &format!("{metric} on {}", first.split));
    let base = runs().map(|run| run.base.value).sum::<f64>() / runs().count() as f64;
    svg.line("base", (x.at(base), plot.y.0), (x.at(base), plot.y.1));
    svg.label("tick", (x.at(base), plot.y.0 - 8.0), Anchor::Middle, "base");
    svg.label("tick", (WIDTH, plot.y.0 - 8.0), Anchor::End, "mean");

    let mut top = plot.y.0 + 5.0;
    for (series, (standing, height)) in ranked.iter().zip(heights).enumerate() {
        let (label, middle) = (&standing.method.label, top + height / 2.0);
        let mean = standing.value()?;
        svg.label("name", (plot.x.0 - 14.0, middle + 4.5), Anchor::End, label);
        svg.label("value", (WIDTH, middle + 4.5), Anchor::End, &words::score(mean));
        svg.series(series);
        svg.line("mean", (x.at(mean), top + 4.0), (x.at(mean), top + height - 4.0));
        let offset = (standing.runs.len() as f64 - 1.0) / 2.0;
        for (place, (seed, run)) in standing.runs.iter().enumerate() {
            let y = middle + (place as f64 - offset) * SEED;
            let [low, high] = run.best.ci95;
            svg.line("whisker", (x.at(low), y), (x.at(high), y));
            let says = words::interval(&run.best);
            svg.mark("point", series, (x.at(run.best.value), y), 4.0, &format!("{label}, seed {seed}: {says}"));
        }
        svg.end();
        top += height;
    }
    Some(svg.finish())
}
