//! What users decide by: the time that a method takes to the target against the memory that it takes, a point a method,
//! and the front of those that no other beats in both.

use super::{
    super::{
        labels::{Frame, width},
        scale::Scale,
        svg::{Anchor, Svg},
        words,
    },
    Plot,
};
use crate::compare::{Comparison, standing::pareto_front};

const SIZE: (f64, f64) = (880.0, 500.0);
const PLOT: Plot = Plot { x: (70.0, 850.0), y: (44.0, 440.0) };
/// The strip above the plot for methods that did not reach the target.
const STRIP: f64 = 36.0;
const RADIUS: f64 = 7.0;
const MEGABYTE: f64 = 1_048_576.0;

/// The drawing; `None` if no method has reached the target, or there is none.
pub(in super::super) fn decision(comparison: &Comparison<'_>) -> Option<String> {
    let methods: Vec<(usize, &str, f64, Option<f64>)> = comparison
        .ranked()
        .enumerate()
        .filter_map(|(series, standing)| {
            let memory = standing.peak()? as f64 / MEGABYTE;
            Some((series, &*standing.method.label, memory, standing.time_to_target()))
        })
        .collect();
    let reached: Vec<(f64, f64)> =
        methods.iter().filter_map(|(_, _, memory, time)| Some((*memory, (*time)?))).collect();
    let longest = super::range(reached.iter().map(|point| point.1))?.1;
    let largest = super::range(methods.iter().map(|method| method.2))?.1;
    let is_whole = reached.len() == methods.len();
    let top = PLOT.y.0 + if is_whole { 0.0 } else { STRIP };
    let x = Scale::new((0.0, 1.12 * largest), PLOT.x);
    let y = Scale::new((0.0, 1.12 * longest.max(1e-3)), (PLOT.y.1, top));
    let plot = Plot { x: PLOT.x, y: (top, PLOT.y.1) };

    let mut svg = Svg::new(SIZE, "Time to the target against peak memory");
    plot.axes(&mut svg, (x, &x.count_ticks(7)), (y, &y.time_ticks(6)));
    Plot { x: PLOT.x, y: PLOT.y }.titles(&mut svg, "peak memory in MB", "training time to the target");
    let at = |(memory, time): (f64, f64)| (x.at(memory), y.at(time));
    let front: Vec<(f64, f64)> = pareto_front(&reached).into_iter().map(|point| at(reached[point])).collect();
    // Behind the front points are beaten.
    let front = front_steps(&front, plot);
    svg.area("beaten", &[&front[..], &[(plot.x.1, plot.y.0)]].concat());
    svg.path("front", &front);
    svg.label("hint", (PLOT.x.0 + 12.0, PLOT.y.1 - 12.0), Anchor::Start, "better: less of both");

    let mut taken: Vec<Frame> = Vec::new();
    let place = |time: Option<f64>, memory: f64| match time {
        Some(time) => at((memory, time)),
        None => (x.at(memory), PLOT.y.0 + STRIP / 2.0 - 2.0),
    };
    taken.extend(front.windows(2).map(|corners| along((corners[0], corners[1]))));
    for (_, _, memory, time) in &methods {
        taken.push(around(place(*time, *memory), RADIUS + 2.0));
    }
    if !is_whole {
        svg.line("axis", (PLOT.x.0, top - 4.0), (PLOT.x.1, top - 4.0));
        svg.label("tick", (PLOT.x.1, PLOT.y.0 - 14.0), Anchor::End, "upper strip: target not reached on every seed");
    }
    for (series, label, memory, time) in methods {
        let point = place(time, memory);
        let (class, when) = match time {
            Some(time) => ("point", format!("target after {}", words::seconds(time))),
            None => ("point hollow", "target not reached".to_owned()),
        };
        svg.mark(class, series, point, RADIUS, &format!("{label}: {memory:.0} MB, {when}"));
        // Of those that are beside the point only their memory is drawn: there is no room for the names of many.
        if time.is_some() {
            let (frame, anchor, baseline) = beside(point, label, &taken);
            svg.label("name", baseline, anchor, label);
            taken.push(frame);
        }
    }
    Some(svg.finish())
}

/// The corners of the front, from above the first of its points to beside the last.
fn front_steps(front: &[(f64, f64)], plot: Plot) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (front.first(), front.last()) else { return Vec::new() };
    let mut steps = vec![(first.0, plot.y.0), *first];
    for pair in front.windows(2) {
        steps.extend([(pair[1].0, pair[0].1), pair[1]]);
    }
    steps.push((plot.x.1, last.1));
    steps
}

/// What a line covers.
fn along((from, to): ((f64, f64), (f64, f64))) -> Frame {
    let between = |a: f64, b: f64| (a.min(b) - 2.0, a.max(b) + 2.0);
    Frame { x: between(from.0, to.0), y: between(from.1, to.1) }
}

fn around((x, y): (f64, f64), margin: f64) -> Frame {
    Frame { x: (x - margin, x + margin), y: (y - margin, y + margin) }
}

/// Where the label of a point stands: right, left, above or below, whichever covers least of what is there.
fn beside((x, y): (f64, f64), label: &str, taken: &[Frame]) -> (Frame, Anchor, (f64, f64)) {
    const HEIGHT: f64 = 14.0;
    const AWAY: f64 = RADIUS + 5.0;
    let (wide, page) = (width(label), Frame { x: (PLOT.x.0, SIZE.0), y: (PLOT.y.0 - STRIP, PLOT.y.1) });
    let level = (y - HEIGHT / 2.0, y + HEIGHT / 2.0);
    let over = (x - wide / 2.0, x + wide / 2.0);
    let places = [
        (Anchor::Start, (x + AWAY, y + 4.5), Frame { x: (x + AWAY, x + AWAY + wide), y: level }),
        (Anchor::End, (x - AWAY, y + 4.5), Frame { x: (x - AWAY - wide, x - AWAY), y: level }),
        (Anchor::Middle, (x, y - AWAY), Frame { x: over, y: (y - AWAY - HEIGHT, y - AWAY) }),
        (Anchor::Middle, (x, y + AWAY + 9.0), Frame { x: over, y: (y + AWAY, y + AWAY + HEIGHT) }),
    ];
    let covered = |frame: &Frame| frame.outside(&page) + taken.iter().map(|other| frame.overlap(other)).sum::<f64>();
    let best = places.into_iter().min_by(|a, b| covered(&a.2).total_cmp(&covered(&b.2))).expect("four places");
    (best.2, best.0, best.1)
}
