//! What models make of recorded sequences: of whole batches, under any displacements.

use std::sync::Arc;

use super::reference::golden::Sequence;
use crate::{
    direction::{Direction, DirectionSet, Displacement, ParamId},
    kernels::{Context, cross_entropy::Vocabulary},
    model::{ArchSpec, Batch, Head, Model},
    noise::{Law, NoiseKey, Role},
    objective::Labelled,
};

/// Sequences as a batch, and their labels.
///
/// # Panics
/// If they do not fit the model.
pub fn labelled<'s>(
    spec: &ArchSpec,
    sequences: impl IntoIterator<Item = &'s Sequence, IntoIter: Clone>,
) -> (Batch, Labelled) {
    let sequences = sequences.into_iter();
    let batch = Batch::new(sequences.clone().map(|sequence| &sequence.tokens));
    // Raw labels below zero are none.
    let labels: Vec<_> = sequences.flat_map(|sequence| &sequence.labels).map(|&raw| u32::try_from(raw).ok()).collect();
    let labelled = Labelled::of(spec, &batch, &labels).expect("labels");
    (batch, labelled)
}

/// The logits `[rows, outputs]` of all tokens, or of all sequences for a classifier, in every lane.
///
/// # Panics
/// If the model does not compute them.
pub fn logits(model: &Model, cx: &Context, batch: &Batch, lanes: &[Displacement]) -> Vec<Vec<f32>> {
    let rows: Vec<usize> = match model.spec().head {
        Head::Classifier { .. } => batch.sequences().iter().map(|rows| rows.start).collect(),
        _ => (0..batch.tokens()).collect(),
    };
    let hidden = model.forward(cx, batch, lanes, None, None).expect("a forward pass");
    let vocabulary = Vocabulary::Full(model.spec().outputs());
    let logits = model.logits(cx, &hidden, lanes, &rows, vocabulary).expect("a head");
    (0..lanes.len()).map(|lane| (0..rows.len()).flat_map(|row| logits.lane(lane).row(row).to_vec()).collect()).collect()
}

/// A direction by noise of some parameters.
pub fn noise(params: impl IntoIterator<Item = ParamId>, probe: u32) -> Arc<DirectionSet> {
    let z = Direction::Dense { key: NoiseKey::new(7, 1, Role::Dense, probe), law: Law::Gaussian };
    Arc::new(DirectionSet::new(params.into_iter().map(|id| (id, z.clone()))))
}

/// The largest magnitude.
pub fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |largest, value: f64| largest.max(value.abs()))
}
