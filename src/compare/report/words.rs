//! Numbers as a report writes them.

use crate::{
    compare::Scored,
    train::{Budget, duration},
};

/// A score: thousands are what a thousand examples tell apart.
pub fn score(value: f64) -> String {
    format!("{value:.3}")
}

/// A score with its interval.
pub fn interval(scored: &Scored) -> String {
    let Scored { value, ci95: [low, high], .. } = *scored;
    format!("{} ({} to {})", score(value), score(low), score(high))
}

/// Seconds, of short times a tenth as well.
pub fn seconds(seconds: f64) -> String {
    if seconds < 10.0 && seconds.fract() > 0.0 { format!("{seconds:.1} s") } else { duration(seconds) }
}

/// A budget in words.
pub fn budget(budget: Budget) -> String {
    match budget {
        Budget::Forwards(passes) => format!("{} forward passes", super::scale::grouped(passes)),
        Budget::Seconds(time) if time.is_multiple_of(3600) => format!("{} h", time / 3600),
        Budget::Seconds(time) if time.is_multiple_of(60) => format!("{} min", time / 60),
        Budget::Seconds(time) => seconds(time as f64),
    }
}

/// Bytes as MB of 2²⁰, rounded up.
pub fn megabytes(bytes: u64) -> String {
    format!("{} MB", super::scale::grouped(bytes.div_ceil(1 << 20)))
}
