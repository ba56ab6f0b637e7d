//! Seconds as people say them.

/// Seconds as people say them: `5 s`, `2 min 05 s`, `1 h 30 min`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_largest_units_are_said() {
        let said = [0.4, 59.4, 59.6, 125.0, 3600.0, 5400.0, 360_000.0].map(duration);
        assert_eq!(said, ["0 s", "59 s", "1 min 00 s", "2 min 05 s", "1 h 00 min", "1 h 30 min", "100 h 00 min"]);
    }
}
