//! How long a method of a comparison trains: seconds of its steps, or forward passes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest budget: a year in seconds, and no product of it with a share overflows.
const MOST: u64 = 31_536_000;
/// The word behind a number of forward passes.
const FORWARDS: &str = "-forwards";
/// Units of time, longest first.
const UNITS: [(&str, u64); 3] = [("h", 3600), ("m", 60), ("s", 1)];

/// How long a method trains. Evaluation, loading and saving are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Budget {
    /// So many seconds of steps.
    Seconds(u64),
    /// So many forward passes, each branch counted.
    Forwards(u64),
}

impl Budget {
    /// What [`Budget::parse`] understands.
    pub(super) const EXPECTED: &str = "a time (\"40s\", \"5m\", \"1h\") or a number of passes (\"2000-forwards\")";

    /// Reads `40s`, `5m`, `1h` or `2000-forwards`.
    pub(super) fn parse(text: &str) -> Option<Budget> {
        let number = |digits: &str| digits.parse().ok().filter(|number| (1..=MOST).contains(number));
        if let Some(passes) = text.strip_suffix(FORWARDS) {
            return number(passes).map(Budget::Forwards);
        }
        let of = |(unit, seconds): (&str, u64)| number(text.strip_suffix(unit)?)?.checked_mul(seconds);
        UNITS.into_iter().find_map(of).filter(|seconds| *seconds <= MOST).map(Budget::Seconds)
    }

    /// How much it is, in its unit.
    pub fn amount(self) -> u64 {
        match self {
            Budget::Seconds(amount) | Budget::Forwards(amount) => amount,
        }
    }

    /// That share of it, rounded up.
    pub(super) fn share(self, (numerator, denominator): (u64, u64)) -> Budget {
        let share = |amount: u64| (amount * numerator).div_ceil(denominator);
        match self {
            Budget::Seconds(amount) => Budget::Seconds(share(amount)),
            Budget::Forwards(amount) => Budget::Forwards(share(amount)),
        }
    }

    /// Whether both count the same thing.
    pub(super) fn is_like(self, other: Budget) -> bool {
        matches!(self, Budget::Seconds(_)) == matches!(other, Budget::Seconds(_))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Budget::Forwards(passes) => write!(f, "{passes}{FORWARDS}"),
            Budget::Seconds(seconds) => {
                let (unit, length) =
                    UNITS.into_iter().find(|(_, length)| seconds.is_multiple_of(*length)).expect("1 s");
                write!(f, "{}{unit}", seconds / length)
            }
        }
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> String {
        budget.to_string()
    }
}

impl TryFrom<String> for Budget {
    type Error = String;
    fn try_from(text: String) -> Result<Budget, String> {
        Budget::parse(&text).ok_or_else(|| format!("{text:?} is no budget; expected {}", Budget::EXPECTED))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_and_numbers_of_passes_are_read() {
        for (text, budget) in [
            ("40s", Budget::Seconds(40)),
            ("10m", Budget::Seconds(600)),
            ("2h", Budget::Seconds(7200)),
            ("2000-forwards", Budget::Forwards(2000)),
        ] {
            assert_eq!((Budget::parse(text), budget.to_string()), (Some(budget), text.to_owned()));
        }
        for bad in ["", "s", "0s", "-1m", "1.5m", "10", "5 m", "1d", "0-forwards", "forwards", "9000h", "99999999999s"]
        {
            assert_eq!(Budget::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_share_is_rounded_up_so_that_none_is_nothing() {
        assert_eq!(Budget::Seconds(300).share((2, 15)), Budget::Seconds(40));
        assert_eq!(Budget::Forwards(1).share((2, 15)), Budget::Forwards(1));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_equal(amount in 1..=MOST, time: bool) {
            let budget = if time { Budget::Seconds(amount) } else { Budget::Forwards(amount) };
            prop_assert_eq!(Budget::parse(&budget.to_string()), Some(budget));
        }
    }
}
