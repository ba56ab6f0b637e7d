//! Drawings as SVG text. Colours and line widths are the page's: a shape has classes, not a style.

use std::fmt::{Display, Write};

/// A drawing under way, in units of pixels.
#[derive(Debug)]
pub(super) struct Svg {
    text: String,
}

/// Where a text ends or begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// The shapes that points have, so that series differ by more than their colour.
const MARKS: [Mark; 4] = [Mark::Circle, Mark::Square, Mark::Diamond, Mark::Triangle];
const COLOURS: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Mark {
    Circle,
    Square,
    Diamond,
    Triangle,
}

impl Svg {
    /// An empty drawing that is read aloud as `title`.
    pub(super) fn new((width, height): (f64, f64), title: &str) -> Svg {
        let title = escaped(title);
        let text = format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">\n");
        Svg { text }
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.path(class, &[from, to]);
    }

    /// A line through points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let list = coordinates(points);
        self.add(format_args!("<polyline class=\"{class}\" points=\"{list}\"/>"));
    }

    /// The area within points.
    pub(super) fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        let list = coordinates(points);
        self.add(format_args!("<polygon class=\"{class}\" points=\"{list}\"/>"));
    }

    /// The mark of a series, with what it says when it is pointed at.
    pub(super) fn mark(&mut self, class: &str, series: usize, (x, y): (f64, f64), radius: f64, title: &str) {
        let shape = match MARKS[series % MARKS.len()] {
            Mark::Circle => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>"),
            // Sides such that all shapes seem equally large.
            Mark::Square => polygon((x, y), 0.88 * radius, &[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]),
            Mark::Diamond => polygon((x, y), 1.25 * radius, &[(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]),
            Mark::Triangle => polygon((x, y), 1.2 * radius, &[(0.0, -1.0), (0.95, 0.7), (-0.95, 0.7)]),
        };
        let title = if title.is_empty() { String::new() } else { format!("<title>{}</title>", escaped(title)) };
        self.add(format_args!("<g class=\"mark {class} {}\">{shape}{title}</g>", series_class(series)));
    }

    pub(super) fn label(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// What follows is one series, up to [`Svg::end`].
    pub(super) fn series(&mut self, series: usize) {
        self.add(format_args!("<g class=\"series {}\">", series_class(series)));
    }

    /// A rectangle with a name of its own on the page.
    pub(super) fn window(&mut self, name: &str, (left, right): (f64, f64), (top, bottom): (f64, f64)) {
        let (width, height) = (right - left, bottom - top);
        self.add(format_args!(
            "<clipPath id=\"{name}\"><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>\
             </clipPath>"
        ));
    }

    /// What follows is seen within that rectangle only, up to [`Svg::end`].
    pub(super) fn clip(&mut self, window: &str) {
        self.add(format_args!("<g clip-path=\"url(#{window})\">"));
    }

    pub(super) fn end(&mut self) {
        self.add("</g>");
    }

    /// The drawing.
    pub(super) fn finish(self) -> String {
        self.text + "</svg>\n"
    }

    fn add(&mut self, element: impl Display) {
        writeln!(self.text, "{element}").expect("a text grows");
    }
}

/// The mark of a series for a table.
pub(super) fn swatch(series: usize) -> String {
    let mut svg = Svg { text: "<svg class=\"swatch\" viewBox=\"0 0 14 14\" aria-hidden=\"true\">".to_owned() };
    svg.mark("point", series, (7.0, 7.0), 5.0, "");
    svg.finish().replace('\n', "")
}

/// The classes of a series: its colour, and the dashes of its lines.
fn series_class(series: usize) -> String {
    format!("s{} d{}", series % COLOURS, series / COLOURS % 3)
}

fn coordinates(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

fn polygon((x, y): (f64, f64), radius: f64, corners: &[(f64, f64)]) -> String {
    let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + radius * dx, y + radius * dy)).collect();
    format!("<polygon points=\"{}\"/>", coordinates(&corners))
}

/// A text as it stands in HTML and its attributes.
pub(super) fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let mut svg = Svg::new((10.0, 20.0), "a \"title\"");
        svg.label("axis", (1.0, 2.0), Anchor::End, "<b>&'");
        svg.mark("point", 9, (1.0, 2.0), 3.0, "x < y");
        let text = svg.finish();
        for part in ["aria-label=\"a &quot;title&quot;\"", ">&lt;b&gt;&amp;&#39;</text>", "x &lt; y", "s1 d1"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_is_opened_is_closed() {
        let mut svg = Svg::new((10.0, 10.0), "");
        svg.window("inside", (0.0, 10.0), (0.0, 10.0));
        svg.clip("inside");
        svg.series(0);
        (0..4).for_each(|series| svg.mark("point", series, (5.0, 5.0), 2.0, ""));
        svg.end();
        svg.end();
        let text = svg.finish();
        assert_eq!(text.matches("<g").count(), text.matches("</g>").count(), "{text}");
    }
}
