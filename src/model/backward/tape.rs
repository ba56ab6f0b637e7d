//! What a pass did, in order: each operation with what its way back needs (a Wengert list; Wengert, 1964).
//!
//! *What it is not.* The values of parameters: they are read from the model when the tape is unwound.
//!
//! *What must stay true.* Values are numbered as they come to be. So when a step has been undone, those from its own
//! number on are not met again, and their gradients can go.

use std::{collections::BTreeMap, ops::Range};

use crate::{
    direction::ParamId,
    kernels::{Context, activation::Activation},
    model::{LinearPart, NormPart, TrainPart, layers::Columns, stream::Stream},
};

/// An operation on rows. Rows that are kept know their own number, if they have one.
pub(super) enum Step<'w> {
    /// Rows of a table.
    Gather { table: ParamId, ids: Vec<u32> },
    /// A linear layer into columns; `x` is kept if the weight's gradient is wanted.
    Linear { part: LinearPart, from: Option<usize>, x: Option<Stream<'w>>, columns: Range<usize> },
    /// A product with a train of cores; `x` is kept if the gradient of a core is wanted.
    TensorTrain { part: TrainPart, from: Option<usize>, x: Option<Stream<'w>> },
    /// A normalisation.
    Norm { part: NormPart, x: Stream<'w> },
    /// An activation.
    Activate { activation: Activation, x: Stream<'w> },
    /// A gated activation.
    Gate { activation: Activation, gate: Stream<'w>, up: Stream<'w> },
    /// Attention.
    Attend { x: Stream<'w>, columns: Columns },
    /// Rotary positions, in place.
    Turn { columns: Range<usize> },
    /// A sum.
    Add { from: [Option<usize>; 2] },
    /// A scaled sum into columns.
    AddScaled { scale: f32, from: usize, columns: Range<usize> },
    /// Some rows.
    Select { from: usize, rows: Vec<usize> },
    /// A whole block, of which nothing else is kept.
    Block { index: usize, x: Stream<'w> },
}

/// A step that was noted.
pub(super) struct Noted<'w> {
    pub(super) step: Step<'w>,
    /// The number of its result.
    pub(super) to: usize,
    /// How many values there were before it.
    pub(super) before: usize,
    /// The parameters whose gradients it adds to.
    pub(super) params: Vec<ParamId>,
}

/// The steps of a pass.
#[derive(Default)]
pub(super) struct Tape<'w> {
    pub(super) steps: Vec<Noted<'w>>,
    /// How many values there are.
    pub(super) values: usize,
    /// How many steps add to the gradient of each parameter that is wanted.
    pub(super) pending: BTreeMap<ParamId, usize>,
}

impl<'w> Tape<'w> {
    /// Gives rows a number, if they have none.
    pub(super) fn number(&mut self, rows: &mut Stream<'w>) -> usize {
        *rows.node.get_or_insert_with(|| {
            self.values += 1;
            self.values - 1
        })
    }

    /// Notes the step that made `result`, which adds to the gradients of `params`.
    pub(super) fn note(&mut self, result: &mut Stream<'w>, params: Vec<ParamId>, step: Step<'w>) {
        let before = self.values;
        let to = self.number(result);
        self.expect(&params);
        self.steps.push(Noted { step, to, before, params });
    }

    /// Counts a step that adds to the gradients of `params`.
    pub(super) fn expect(&mut self, params: &[ParamId]) {
        params.iter().for_each(|&id| *self.pending.entry(id).or_default() += 1);
    }
}

/// Which of `params` no step adds to any more, now that one more has.
pub(super) fn settle(pending: &mut BTreeMap<ParamId, usize>, params: &[ParamId]) -> Vec<ParamId> {
    let mut is_complete = |id: &ParamId| {
        let left = pending.get_mut(id).expect("every step was counted");
        *left -= 1;
        *left == 0
    };
    params.iter().copied().filter(|id| is_complete(id)).collect()
}

/// The gradients of a tape's values, by number; those that nothing read have none.
pub(super) struct Bars<'w>(Vec<Option<Stream<'w>>>);

impl<'w> Bars<'w> {
    pub(super) fn of(tape: &Tape<'w>) -> Self {
        Bars((0..tape.values).map(|_| None).collect())
    }

    /// Adds to the gradient of a value, if it is one of the tape's.
    pub(super) fn add(&mut self, cx: &'w Context, value: Option<usize>, bar: Stream<'w>) {
        let Some(value) = value else { return };
        match &mut self.0[value] {
            Some(sum) => sum.add(cx, &bar),
            none => *none = Some(bar),
        }
    }

    /// The gradient of a value, which has none then.
    pub(super) fn take(&mut self, value: usize) -> Option<Stream<'w>> {
        self.0[value].take()
    }

    /// The gradient of a value.
    pub(super) fn share(&self, value: usize) -> Option<Stream<'w>> {
        self.0[value].as_ref().map(Stream::share)
    }

    /// Forgets all but the first `values`.
    pub(super) fn truncate(&mut self, values: usize) {
        self.0.truncate(values);
    }
}
