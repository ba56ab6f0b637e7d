//! Directions of examples: which rows of a pass are whose, and what of a direction each example has to itself.
//!
//! *What must stay true* (contract C1). What an example is given depends on its number in the batch alone, never on where
//! its rows lie in a pass or whose lie beside them.

use std::ops::Range;

use super::{Direction, Param, thin::Part};

/// Rows of a lane, one after the other, that belong to one example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleRows {
    /// The example's number in its batch.
    pub example: usize,
    /// Its rows.
    pub rows: Range<usize>,
}

impl ExampleRows {
    /// Rows by their examples, in order.
    pub fn of(examples: impl IntoIterator<Item = usize>) -> Vec<ExampleRows> {
        let mut runs: Vec<ExampleRows> = Vec::new();
        for (row, example) in examples.into_iter().enumerate() {
            match runs.last_mut() {
                Some(last) if last.example == example => last.rows.end = row + 1,
                _ => runs.push(ExampleRows { example, rows: row..row + 1 }),
            }
        }
        runs
    }

    /// The same for `rows` of these, in the order asked for.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select(runs: &[ExampleRows], rows: &[usize]) -> Vec<ExampleRows> {
        ExampleRows::of(rows.iter().map(|row| runs[runs.partition_point(|run| run.rows.end <= *row)].example))
    }
}

/// What all examples of a batch have in common, or each has to itself.
#[derive(Clone, Debug)]
pub(super) enum ByExample<T> {
    Shared(T),
    /// In the order of the batch.
    Each(Vec<T>),
}

impl<T> ByExample<T> {
    /// That of one example.
    pub(super) fn of(&self, example: usize) -> &T {
        match self {
            ByExample::Shared(value) => value,
            ByExample::Each(values) => &values[example],
        }
    }

    pub(super) fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> ByExample<U> {
        match self {
            ByExample::Shared(value) => ByExample::Shared(f(value)),
            ByExample::Each(values) => ByExample::Each(values.iter().map(f).collect()),
        }
    }

    pub(super) fn is_each(&self) -> bool {
        matches!(self, ByExample::Each(_))
    }
}

impl<'a> ByExample<Part<'a>> {
    /// A parameter's direction.
    ///
    /// # Panics
    /// As [`Part::of`].
    pub(super) fn parts(direction: &'a Direction, param: &Param) -> Self {
        match direction {
            Direction::PerExample(each) => ByExample::Each(each.iter().map(|z| Part::of(z, param)).collect()),
            _ => ByExample::Shared(Part::of(direction, param)),
        }
    }
}

/// The rows of a lane of `rows` that have values of their own: all at once, or `each` example's.
///
/// # Panics
/// If the examples have not that many rows.
pub(super) fn spans(examples: &[ExampleRows], rows: usize, each: bool) -> Vec<ExampleRows> {
    if !each {
        return vec![ExampleRows { example: 0, rows: 0..rows }];
    }
    let held = examples.last().map_or(0, |last| last.rows.end);
    assert_eq!(held, rows, "examples of {held} rows for directions of {rows}");
    examples.to_vec()
}

/// The example of each row, if `each` has directions of its own.
///
/// # Panics
/// As [`spans`].
pub(super) fn owners(examples: &[ExampleRows], rows: usize, each: bool) -> Vec<usize> {
    let of_span = |ExampleRows { example, rows }: ExampleRows| rows.map(move |_| example);
    spans(examples, rows, each).into_iter().flat_map(of_span).collect()
}
