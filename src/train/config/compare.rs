//! The section `[compare]`: which methods are compared on the job of a run file, for how long, and what each has
//! otherwise.
//!
//! *What it is.* A method is the run file with an optimizer of its own and whatever `[compare.methods.LABEL]` says
//! instead; it stands for as many candidates as its grid has points.
//!
//! *What must stay true.* All methods learn from the same data: no method can say otherwise. Of the run file's
//! `[optimizer]` another optimizer takes the course of its rate alone, because that belongs to the job.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{
    Budget, RunConfig, TUNE_KEYS,
    document::{Document, Given, Keys, Section, TOP, dotted, is_name},
};
use crate::{
    optim::{self, Entry, schedule::Schedule},
    train::{Place, TrainError},
};

/// The section.
pub(super) const NAME: &str = "compare";
/// Its key of what methods have otherwise.
pub(super) const METHODS: &str = "methods";
/// Its keys.
pub(super) const KEYS: &[&str] = &[
    "output",
    "optimizers",
    "budget",
    "rungs",
    "rehearsal",
    "seeds",
    "evaluations",
    "target",
    "keep_weights",
    "grid",
    METHODS,
];
/// What a method can have otherwise.
pub(super) const METHOD_SECTIONS: &[Section] = &[
    (TOP, &["profile", "precision"], Keys::Closed),
    (GRID, &[], Keys::Open),
    ("optimizer", &["name"], Keys::Open),
    ("tune", TUNE_KEYS, Keys::Closed),
    ("train", &["objective", "batch_size", "activation_mb"], Keys::Closed),
];
const GRID: &str = "grid";
/// The option whose values are tried if nobody says otherwise.
const RATE: &str = "lr";

/// The budget of the last stage, and the shares of it that the rungs before it have: 5 minutes, 40 s and 2 minutes.
const BUDGET: Budget = Budget::Seconds(300);
const RUNGS: [(u64, u64); 2] = [(2, 15), (2, 5)];
/// Around the rate that a method has if nobody says otherwise.
const RATES: [f64; 4] = [0.3, 1.0, 3.0, 10.0];

/// The values that options may have.
type Grid = BTreeMap<String, Axis>;

/// The values that an option may have, and where they stand.
#[derive(Clone, Debug, PartialEq)]
struct Axis {
    values: Vec<Value>,
    place: Box<Place>,
}

/// The section `[compare]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareConfig {
    /// The directory of the comparison.
    pub output: PathBuf,
    /// The methods, by their labels.
    pub labels: Vec<String>,
    /// How long each trains in the end.
    pub budget: Budget,
    /// How long its candidates train before that; of those of a rung, the better half goes on.
    pub rungs: Vec<Budget>,
    /// How many steps measure what a step takes.
    pub rehearsal: u64,
    /// How many seeds it then trains with, which chose nothing.
    pub seeds: u64,
    /// How many times it is evaluated on the way.
    pub evaluations: u64,
    /// The score on dev whose time is taken; three quarters of the way from the base to the best method if not said.
    pub target: Option<f64>,
    /// Whether the weights of runs that are over are kept: their journals make them again.
    pub keep_weights: bool,
    /// The values of options that are tried, where a method has no grid of its own.
    grid: Grid,
}

/// A method of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// What it is called.
    pub label: String,
    /// Its run, with options that no candidate says otherwise.
    pub config: RunConfig,
    /// Options of which the best are looked for: at least one candidate, which may say nothing.
    pub candidates: Vec<Table>,
}

impl CompareConfig {
    pub(super) fn resolve(document: &mut Document, task: &str, base: &Path) -> Result<CompareConfig, TrainError> {
        let budget = |value: &Value| Budget::parse(value.as_str()?);
        let label = |value: &Value| value.as_str().filter(|text| is_name(text)).map(str::to_owned);
        let grid = shared_grid(document)?;
        document.take(NAME, METHODS, "a section for each method", |_| None::<()>)?;
        let whole = document.take(NAME, "budget", Budget::EXPECTED, budget)?.unwrap_or(BUDGET);
        let like = format!("a list of budgets of the kind of {NAME}.budget, \"{whole}\", at least one");
        let rungs = document.list(NAME, "rungs", &like, |rung| budget(rung).filter(|rung| rung.is_like(whole)))?;
        let labels = document.list(NAME, "optimizers", "a list of names, at least one", label)?;
        Ok(CompareConfig {
            output: document
                .path(NAME, "output", base)?
                .unwrap_or_else(|| base.join("runs").join(format!("{task}-compare"))),
            labels: distinct(labels.unwrap_or_else(|| document.methods().map(str::to_owned).collect())),
            budget: whole,
            rungs: rungs.unwrap_or_else(|| RUNGS.map(|share| whole.share(share)).to_vec()),
            rehearsal: document.integer(NAME, "rehearsal", 1..=10_000)?.unwrap_or(8),
            seeds: document.integer(NAME, "seeds", 1..=1_000)?.unwrap_or(2),
            evaluations: document.integer(NAME, "evaluations", 1..=10_000)?.unwrap_or(8),
            target: document.take(NAME, "target", "a number", Value::as_float)?,
            keep_weights: document.take(NAME, "keep_weights", "true or false", Value::as_bool)?.unwrap_or(false),
            grid,
        })
    }
}

impl Method {
    /// The method `label` of the run file `run`, which `path` names.
    fn resolve(run: &Document, label: &str, (path, base): (&Path, &Path), shared: &Grid) -> Result<Method, TrainError> {
        let (mut document, mut own) = (run.clone(), run.method(label).cloned().unwrap_or_default());
        let place = own.place("optimizer", "name").or(run.place(NAME, "optimizers")).cloned();
        let name = own.name("optimizer", "name")?.unwrap_or_else(|| label.to_owned());
        let unknown = |error| TrainError::Optimizer { place: place.map(Box::new), error };
        let entry = optim::find(&name).map_err(unknown)?;
        let knows = |option: &str| entry.options().any(|spec| spec.name == option);
        let grid = match own.take_section(GRID) {
            given if given.is_empty() => shared
                .iter()
                .filter(|(option, _)| knows(option))
                .map(|(option, axis)| (option.clone(), axis.clone()))
                .collect(),
            given => {
                given.into_iter().map(|(option, given)| Axis::read(option, &given)).collect::<Result<Grid, _>>()?
            }
        };
        if document.name("optimizer", "name")?.unwrap_or_else(|| super::OPTIMIZER.to_owned()) != name {
            let is_course = |option: &str| Schedule::SPECS.iter().any(|spec| spec.name == option) && knows(option);
            document.retain("optimizer", is_course);
        }
        if own.has("tune") {
            document.retain("tune", |_| false);
        }
        document.extend(own);
        let mut places = document.places();
        places.extend(grid.iter().map(|(option, axis)| (dotted("optimizer", option), Place::clone(&axis.place))));
        let mut config = RunConfig::resolve(&mut document, path, base)?;
        config.optimizer.name = name;
        let candidates = candidates(&grid, &config.optimizer.options, entry);
        for candidate in &candidates {
            let mut options = config.optimizer.options.clone();
            options.extend(candidate.clone());
            entry.build(&options).map_err(|error| {
                let place = error.option().and_then(|option| places.get(&dotted("optimizer", option)));
                TrainError::Optimizer { place: place.cloned().map(Box::new), error }
            })?;
        }
        Ok(Method { label: label.to_owned(), config, candidates })
    }
}

impl Axis {
    /// An axis of a method's own grid.
    fn read(option: String, given: &Given) -> Result<(String, Axis), TrainError> {
        let values = given.read(GRID, &option, LIST, values)?;
        Ok((option, Axis { values, place: given.place.clone() }))
    }
}

impl super::RunFile {
    /// The methods of its comparison.
    ///
    /// # Errors
    /// [`TrainError`] with the place of the first thing that is wrong; [`TrainError::Missing`] if there is none.
    pub fn methods(&self) -> Result<Vec<Method>, TrainError> {
        if self.compare.labels.is_empty() {
            return Err(TrainError::Missing {
                path: self.path.clone(),
                key: "compare.optimizers",
                example: "optimizers = [\"mezo\", \"lozo\"] under [compare], or --optimizers mezo,lozo",
            });
        }
        let method =
            |label: &String| Method::resolve(&self.document, label, (&self.path, &self.base), &self.compare.grid);
        self.compare.labels.iter().map(method).collect()
    }
}

const LIST: &str = "a list of values, at least one";

/// The values of one option.
fn values(value: &Value) -> Option<Vec<Value>> {
    value.as_array().filter(|values| !values.is_empty()).cloned()
}

/// The grid of methods that have none of their own.
fn shared_grid(document: &mut Document) -> Result<Grid, TrainError> {
    let Some(place) = document.place(NAME, GRID).cloned().map(Box::new) else { return Ok(Grid::new()) };
    let axis = |given: &Value| Some(Axis { values: values(given)?, place: place.clone() });
    let grid = |value: &Value| -> Option<Grid> {
        value.as_table()?.iter().map(|(option, given)| Some((option.clone(), axis(given)?))).collect()
    };
    Ok(document.take(NAME, GRID, "a list of values for each option", grid)?.unwrap_or_default())
}

/// The points of a grid; without one, rates around that of the method, if it has any.
fn candidates(grid: &Grid, options: &Table, entry: &Entry) -> Vec<Table> {
    let mut lists: Vec<(&str, Vec<Value>)> =
        grid.iter().map(|(option, axis)| (&**option, axis.values.clone())).collect();
    if lists.is_empty() {
        lists.extend(
            rate(options, entry).map(|rate| (RATE, RATES.map(|factor| rounded(factor * rate).into()).to_vec())),
        );
    }
    lists.into_iter().fold(vec![Table::new()], |points, (option, values)| {
        let with = |point: &Table, value: &Value| {
            let mut point = point.clone();
            point.insert(option.to_owned(), value.clone());
            point
        };
        points.iter().flat_map(|point| values.iter().map(|value| with(point, value))).collect()
    })
}

/// The rate of a method that nobody gave a grid: that of its options, or its default; of a method around another one, which
/// leaves it to that one, the default of the one that is usually within.
fn rate(options: &Table, entry: &Entry) -> Option<f64> {
    let default = |entry: &Entry| entry.options().find(|spec| spec.name == RATE).map(|spec| (spec.default)());
    let own = default(entry)?;
    let given =
        options.get(RATE).and_then(|rate| rate.as_float().or_else(|| rate.as_integer().map(|rate| rate as f64)));
    let usual = || default(optim::find(super::OPTIMIZER).ok()?)?.parse().ok();
    given.or_else(|| own.parse().ok()).or_else(usual).filter(|rate| *rate > 0.0)
}

/// To three digits: what a product in binary adds is no part of a rate.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.2e}").parse().expect("a number was written")
}

/// The names, each once, where it stood first.
fn distinct(mut names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
mod tests;
