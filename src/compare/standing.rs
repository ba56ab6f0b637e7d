//! How methods stand after a comparison: means over seeds, when each reached the target, who wins against whom.
//!
//! *What must stay true.* The seeds that count chose nothing: neither a rate nor, on `valid`, the weights. A method wins
//! against another only if on every seed it is ahead by more than the 95 % interval of the difference; all else is a tie.

use serde::Serialize;

use super::{CompareError, Ended, Measured, Outcome, Plan, Point, Scored, Stage};
use crate::{
    task::Metric,
    train::{CompareConfig, Method},
};

/// A comparison as far as it has come.
#[derive(Debug)]
pub struct Comparison<'c> {
    /// How methods are compared.
    pub config: &'c CompareConfig,
    /// The methods, the best first; behind them those without a run that counts.
    pub standings: Vec<Standing<'c>>,
    /// All cells that are over.
    pub cells: Vec<&'c Ended>,
    /// What is measured, once something was.
    pub metric: Option<Metric>,
    /// The score on dev whose time is taken.
    pub target: Option<f64>,
}

/// A method and what became of it.
#[derive(Clone, Debug)]
pub struct Standing<'c> {
    /// The method.
    pub method: &'c Method,
    /// The candidate that its rungs chose.
    pub chosen: Option<usize>,
    /// Its runs with further seeds that finished, by seed.
    pub runs: Vec<(u64, &'c Measured)>,
    /// Why it has none, or not all, if it cannot have them.
    pub failure: Option<String>,
    /// When each of its runs reached the target.
    pub reached: Vec<Option<Point>>,
}

/// How a method stands against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Ahead on every seed by more than the interval.
    Wins,
    /// Neither.
    Ties,
    /// Behind on every seed by more than the interval.
    Loses,
}

/// The share of the way from the base to the best method that is the target if nobody names one.
const TARGET: f64 = 0.75;

impl<'c> Comparison<'c> {
    /// The comparison of `plan`.
    ///
    /// # Errors
    /// As [`Plan::next`].
    pub fn of(plan: &Plan<'c>) -> Result<Comparison<'c>, CompareError> {
        let standings: Result<Vec<_>, _> = plan.methods.iter().map(|method| Standing::of(plan, method)).collect();
        let mut standings = standings?;
        let metric = plan.ledger.cells().find_map(|ended| Some(ended.measured()?.metric()));
        let is_better = |a: f64, b: f64| metric.is_some_and(|metric| metric.is_better(a, b));
        standings.sort_by(|a, b| match (a.value(), b.value()) {
            (Some(a), Some(b)) => is_better(b, a).cmp(&is_better(a, b)),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        let target = plan.config.target.or_else(|| target(&standings, metric?));
        if let (Some(metric), Some(target)) = (metric, target) {
            for standing in &mut standings {
                let reached = |(_, run): &(u64, &Measured)| reached(&run.curve, metric, target);
                standing.reached = standing.runs.iter().map(reached).collect();
            }
        }
        Ok(Comparison { config: plan.config, standings, cells: plan.ledger.cells().collect(), metric, target })
    }

    /// The methods with a run that counts, the best first.
    pub fn ranked(&self) -> impl Iterator<Item = &Standing<'c>> {
        self.standings.iter().filter(|standing| !standing.runs.is_empty())
    }

    /// How `a` stands against `b`.
    pub fn verdict(&self, a: &Standing<'_>, b: &Standing<'_>) -> Verdict {
        let Some(metric) = self.metric else { return Verdict::Ties };
        let is_ahead = |a: &Standing<'_>, b: &Standing<'_>| {
            let other = |seed| b.runs.iter().find(|(other, _)| *other == seed).map(|(_, run)| run.best);
            let seeds = a.runs.iter().filter_map(|(seed, run)| Some((run.best, other(*seed)?)));
            let all = seeds.clone().count() as u64 == self.config.seeds;
            all && seeds.into_iter().all(|(a, b)| is_clearly_better(a, b, metric))
        };
        match () {
            () if is_ahead(a, b) => Verdict::Wins,
            () if is_ahead(b, a) => Verdict::Loses,
            () => Verdict::Ties,
        }
    }
}

impl<'c> Standing<'c> {
    fn of(plan: &Plan<'c>, method: &'c Method) -> Result<Standing<'c>, CompareError> {
        let (mut runs, mut failure) = (Vec::new(), None);
        for ended in plan.runs(method)? {
            match (&ended.outcome, ended.stage) {
                (Outcome::Finished(measured), Stage::Seed(seed)) => runs.push((seed, &**measured)),
                (Outcome::Failed { message, .. }, _) => failure = Some(message.clone()),
                _ => {}
            }
        }
        // A method that never came to a run that counts: what the last of its others said.
        if runs.is_empty() && failure.is_none() && plan.is_out(method)? {
            let of_method = plan.ledger.cells().filter(|ended| ended.method == method.label);
            failure = of_method
                .filter_map(|ended| match &ended.outcome {
                    Outcome::Failed { message, .. } => Some(message.clone()),
                    Outcome::Finished(_) => None,
                })
                .last();
        }
        Ok(Standing { method, chosen: plan.chosen(method)?, runs, failure, reached: Vec::new() })
    }

    /// The mean of a number over runs; `None` if there is none.
    pub fn mean(&self, number: impl Fn(&Measured) -> f64) -> Option<f64> {
        let count = self.runs.len() as f64;
        (count > 0.0).then(|| self.runs.iter().map(|(_, run)| number(run)).sum::<f64>() / count)
    }

    /// The mean score of the weights that dev chose.
    pub fn value(&self) -> Option<f64> {
        self.mean(|run| run.best.value)
    }

    /// The most memory that a run of it held.
    pub fn peak(&self) -> Option<u64> {
        self.runs.iter().map(|(_, run)| run.peak_rss_bytes).max()
    }

    /// When it reached the target on the mean of its seeds; `None` if a seed did not.
    pub fn time_to_target(&self) -> Option<f64> {
        let times: Option<Vec<f64>> = self.reached.iter().map(|point| Some((*point)?.seconds)).collect();
        times.filter(|times| !times.is_empty()).map(|times| times.iter().sum::<f64>() / times.len() as f64)
    }

    /// What the rungs chose, as run files say it.
    pub fn chosen(&self) -> String {
        self.chosen.map(|candidate| said(&self.method.candidates[candidate])).unwrap_or_default()
    }
}

/// Options as run files say them.
pub fn said(options: &toml::Table) -> String {
    let value = |value: &toml::Value| match value {
        toml::Value::Float(small) if small.abs() < 1e-3 => format!("{small:e}"),
        value => value.to_string(),
    };
    options.iter().map(|(key, given)| format!("{key} = {}", value(given))).collect::<Vec<_>>().join(", ")
}

/// Whether `a` is better than `b` by more than the 95 % interval of the difference: from the intervals of both, as
/// Newcombe (1998, method 10) does it for proportions and Donner and Zou (2012) for anything else. It takes the two for
/// independent; methods that answered the same questions differ by less chance than that.
fn is_clearly_better(a: Scored, b: Scored, metric: Metric) -> bool {
    let (lead, a_side, b_side) = if metric.is_better(1.0, 0.0) {
        (a.value - b.value, a.value - a.ci95[0], b.ci95[1] - b.value)
    } else {
        (b.value - a.value, a.ci95[1] - a.value, b.value - b.ci95[0])
    };
    lead > a_side.hypot(b_side)
}

/// Three quarters of the way from the base to the best that any method reached on dev, means over its seeds.
fn target(standings: &[Standing<'_>], metric: Metric) -> Option<f64> {
    let better = |a: f64, b: f64| if metric.is_better(b, a) { b } else { a };
    let top = |run: &Measured| run.curve.iter().map(|point| point.value).reduce(better).unwrap_or(f64::NAN);
    let best = standings.iter().filter_map(|standing| standing.mean(top)).reduce(better)?;
    let bases: Vec<f64> = standings
        .iter()
        .flat_map(|standing| &standing.runs)
        .filter_map(|(_, run)| run.curve.first())
        .map(|point| point.value)
        .collect();
    let base = bases.iter().sum::<f64>() / bases.len() as f64;
    Some(base + TARGET * (best - base)).filter(|_| metric.is_better(best, base))
}

/// The first evaluation that meets the target: when exactly it was met between two of them, nobody measured.
fn reached(curve: &[Point], metric: Metric, target: f64) -> Option<Point> {
    curve.iter().find(|point| point.value == target || metric.is_better(point.value, target)).copied()
}

/// Which of `points` no other one beats: none has less of one coordinate and not more of the other. By the first one.
pub fn pareto_front(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (points[a], points[b]);
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let mut least = f64::INFINITY;
    order.retain(|&point| {
        let is_less = points[point].1 < least;
        least = least.min(points[point].1);
        is_less
    });
    order
}

#[cfg(test)]
mod tests;
