//! Numbers on an axis: where they lie, and which of them are written beside it.

/// From an interval of numbers to one of pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    numbers: (f64, f64),
    pixels: (f64, f64),
}

/// Seconds between marks of an axis of time, and their unit.
const TIMES: [(f64, f64, &str); 15] = [
    (1.0, 1.0, "s"),
    (2.0, 1.0, "s"),
    (5.0, 1.0, "s"),
    (10.0, 1.0, "s"),
    (20.0, 1.0, "s"),
    (30.0, 1.0, "s"),
    (60.0, 60.0, "min"),
    (120.0, 60.0, "min"),
    (300.0, 60.0, "min"),
    (600.0, 60.0, "min"),
    (1200.0, 60.0, "min"),
    (1800.0, 60.0, "min"),
    (3600.0, 3600.0, "h"),
    (7200.0, 3600.0, "h"),
    (14_400.0, 3600.0, "h"),
];

impl Scale {
    /// Maps `numbers` to `pixels`, both from the first to the second.
    pub(super) fn new(numbers: (f64, f64), pixels: (f64, f64)) -> Scale {
        Scale { numbers, pixels }
    }

    /// Where a number lies.
    pub(super) fn at(&self, number: f64) -> f64 {
        let ((low, high), (start, end)) = (self.numbers, self.pixels);
        start + (number - low) / (high - low) * (end - start)
    }

    /// About `count` round numbers of the interval, as they are written.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let step = round_step((self.numbers.1 - self.numbers.0) / count as f64);
        let decimals = (-step.log10() - 1e-9).ceil().max(0.0) as usize;
        self.multiples(step).map(|tick| (tick, format!("{tick:.decimals$}"))).collect()
    }

    /// The same for large counts.
    pub(super) fn count_ticks(&self, count: usize) -> Vec<(f64, String)> {
        let step = round_step((self.numbers.1 - self.numbers.0) / count as f64).max(1.0);
        self.multiples(step).map(|tick| (tick, grouped(tick as u64))).collect()
    }

    /// The same for seconds, in units that people use.
    pub(super) fn time_ticks(&self, count: usize) -> Vec<(f64, String)> {
        let least = (self.numbers.1 - self.numbers.0) / count as f64;
        if least < 1.0 {
            let of_seconds = self.ticks(count).into_iter();
            return of_seconds
                .map(|(tick, text)| (tick, if tick == 0.0 { "0".to_owned() } else { text + " s" }))
                .collect();
        }
        let longest = (round_step(least / 3600.0) * 3600.0, 3600.0, "h");
        let (step, unit, name) = TIMES.into_iter().find(|(step, ..)| *step >= least).unwrap_or(longest);
        let said = |tick: f64| match tick {
            0.0 => "0".to_owned(),
            // Between minutes of half their length.
            _ if name == "s" && tick % 60.0 == 0.0 => format!("{} min", tick / 60.0),
            _ => format!("{} {name}", tick / unit),
        };
        self.multiples(step).map(|tick| (tick, said(tick))).collect()
    }

    fn multiples(&self, step: f64) -> impl Iterator<Item = f64> + use<> {
        let (low, high) = self.numbers;
        // What rounding adds to a bound is not to cost its mark.
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        (first..=last).map(move |multiple| multiple as f64 * step)
    }
}

/// The smallest of 1, 2, 5, 10, … times a power of ten that is not less.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

/// A count with its digits in groups of three.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(ticks: Vec<(f64, String)>) -> Vec<String> {
        ticks.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn marks_stand_at_round_numbers_in_their_units() {
        let scale = |low, high| Scale::new((low, high), (0.0, 100.0));
        assert_eq!(texts(scale(0.47, 0.93).ticks(5)), ["0.5", "0.6", "0.7", "0.8", "0.9"]);
        assert_eq!(texts(scale(0.0, 300.0).time_ticks(6)), ["0", "1 min", "2 min", "3 min", "4 min", "5 min"]);
        assert_eq!(texts(scale(0.0, 45.0).time_ticks(5)), ["0", "10 s", "20 s", "30 s", "40 s"]);
        assert_eq!(texts(scale(0.0, 100.0).time_ticks(4)), ["0", "30 s", "1 min", "90 s"]);
        assert_eq!(texts(scale(0.0, 2.0).time_ticks(4)), ["0", "0.5 s", "1.0 s", "1.5 s", "2.0 s"]);
        assert_eq!(texts(scale(0.0, 200_000.0).time_ticks(3)), ["0", "20 h", "40 h"]);
        assert_eq!(texts(scale(0.0, 2500.0).count_ticks(3)), ["0", "1,000", "2,000"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    proptest! {
        #[test]
        fn marks_lie_on_the_axis_and_are_about_as_many_as_asked_for(low in -1e3..1e3_f64, width in 1e-3..1e6_f64) {
            let scale = Scale::new((low, low + width), (10.0, 20.0));
            let ticks = scale.ticks(5);
            // A step of at least a fifth, and of at most 2.5 fifths, of the width.
            prop_assert!((2..=6).contains(&ticks.len()), "{ticks:?}");
            for (tick, _) in ticks {
                let at = scale.at(tick);
                prop_assert!(at > 10.0 - 1e-6 && at < 20.0 + 1e-6, "{tick} lies at {at}");
            }
        }
    }
}
