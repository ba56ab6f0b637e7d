//! The drawings of a report.

mod curves;
mod decision;
mod scores;

pub(super) use curves::{Course, Quantity, curves};
pub(super) use decision::decision;
pub(super) use scores::scores;

use super::{
    scale::Scale,
    svg::{Anchor, Svg},
};

/// The rectangle that data are drawn in.
#[derive(Clone, Copy, Debug)]
struct Plot {
    x: (f64, f64),
    y: (f64, f64),
}

impl Plot {
    /// Draws marks and grid of both axes, and what they are.
    fn axes(self, svg: &mut Svg, (x, x_ticks): (Scale, &[(f64, String)]), (y, y_ticks): (Scale, &[(f64, String)])) {
        for (tick, text) in y_ticks {
            let at = y.at(*tick);
            svg.line("rule", (self.x.0, at), (self.x.1, at));
            svg.label("tick", (self.x.0 - 8.0, at + 4.0), Anchor::End, text);
        }
        for (tick, text) in x_ticks {
            let at = x.at(*tick);
            svg.line("rule", (at, self.y.0), (at, self.y.1));
            svg.label("tick", (at, self.y.1 + 18.0), Anchor::Middle, text);
        }
        svg.line("axis", (self.x.0, self.y.1), (self.x.1, self.y.1));
    }

    /// Says what the axes are: that of `y` above its marks, where it is read without turning one's head.
    fn titles(self, svg: &mut Svg, x: &str, y: &str) {
        svg.label("title", (self.x.1, self.y.1 + 38.0), Anchor::End, x);
        svg.label("title", (self.x.0, self.y.0 - 14.0), Anchor::Start, y);
    }
}

/// An interval with a margin on both sides.
fn widened((low, high): (f64, f64), share: f64) -> (f64, f64) {
    let margin = if high > low { share * (high - low) } else { share.max(low.abs() * share) };
    (low - margin, high + margin)
}

/// The least and the greatest of numbers that are finite; nothing if there is none.
fn range(numbers: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    numbers.filter(|number| number.is_finite()).fold(None, |range, number| match range {
        None => Some((number, number)),
        Some((low, high)) => Some((number.min(low), number.max(high))),
    })
}
