//! The batch of that size as examples of a run, each token but the first of a sequence labelled.

use std::path::Path;

use zofo::{
    model::Model,
    objective::{Criterion, Examples, Minimised},
    task::{Encoded, Example, Input, Objective, Place, Sequence},
};

use super::shape::{self, LENGTH};

pub(crate) fn texts(model: &Model) -> Minimised {
    let place = |line| Place { path: Path::new("bench").into(), line };
    let text = |(line, ids)| {
        let input = Input::Text { text: String::new() };
        let sequence = Sequence { scored: 1..LENGTH, ids, dropped: 0 };
        (Example { place: place(line), input }, Encoded::Text(sequence))
    };
    let ids = shape::ids(model.spec().vocab_size as u32);
    let encoded: Vec<_> = ids.into_iter().enumerate().map(text).collect();
    let examples = Examples::new(model.spec(), Objective::LanguageModel, None, &encoded).expect("examples");
    examples.minimising(Criterion::Loss).expect("a loss")
}
