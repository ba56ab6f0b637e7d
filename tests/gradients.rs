//! Gradients against those of transformers, against slopes and differences of the reference in f64, and against
//! themselves: subsets, displaced lanes, cuts of a batch, instruction sets.

use std::sync::Arc;

use zofo::{
    direction::{Direction, DirectionSet, Displacement, ParamId},
    kernels::{Context, cross_entropy::Sums},
    model::{Batch, Differentiated, Gradients, Kept, Model, Part},
    objective::{Labelled, gradients},
    simd::Isa,
    testing::{
        assert_same_bits,
        reference::golden::{Golden, NAMES, Sequence, directory},
    },
};

fn context() -> Context {
    Context::new(Isa::fastest())
}

/// A model and what was recorded of it.
struct Case {
    name: &'static str,
    model: Model,
    golden: Golden,
    sequences: Vec<Sequence>,
}

impl Case {
    fn open(name: &'static str) -> Case {
        let model = Model::open(&directory(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        // The shards are those of `llama`, whose outputs were recorded.
        let golden = directory(name.strip_suffix("-sharded").unwrap_or(name)).join("golden.safetensors");
        let golden = Golden::open(&golden);
        let sequences = golden.sequences("right.");
        Case { name, model, golden, sequences }
    }

    fn all() -> impl Iterator<Item = Case> {
        NAMES.into_iter().chain(["llama-sharded"]).map(Case::open)
    }

    fn params(&self) -> Vec<ParamId> {
        self.model.store().params().iter().map(|(id, _)| id).collect()
    }

    fn batch(&self) -> Batch {
        Batch::new(self.sequences.iter().map(|sequence| &sequence.tokens))
    }

    fn labelled(&self) -> Labelled {
        let labels = self.sequences.iter().flat_map(|sequence| &sequence.labels).map(|&raw| u32::try_from(raw).ok());
        Labelled::of(self.model.spec(), &self.batch(), &labels.collect::<Vec<_>>()).expect("labels")
    }

    /// The gradients of the mean loss at `at`, in the order in which they are handed over, and the losses.
    fn gradients(&self, cx: &Context, at: &Displacement, wrt: &[ParamId], kept: Kept) -> (Sums, Handed) {
        let (labelled, mut handed) = (self.labelled(), Handed::new());
        let mut of = (&self.model, |id, gradient| handed.push((id, gradient)));
        let part = Part { cx, at, is_last: true };
        let (mut sums, factor) = (Gradients::new(wrt, kept), 1.0 / labelled.count() as f64);
        let losses = gradients(&mut of, &mut sums, part, (&self.batch(), &labelled), factor).expect("gradients");
        (losses, handed)
    }
}

/// Parameters and their gradients, in the order in which they were handed over.
type Handed = Vec<(ParamId, Vec<f32>)>;

/// How far an f32 engine's gradient may be from a recorded one, relative to the largest entry of its tensor; and relative
/// to the model's largest where the true gradient is zero (`tests/golden/models/README.md`).
const GRADIENT: f64 = 1e-4;
const ZERO: f64 = 1e-6;

#[test]
fn gradients_are_those_of_transformers() {
    let mut compared = 0;
    for case in Case::all() {
        let recorded: Vec<_> = case.golden.gradients().collect();
        if recorded.is_empty() {
            continue;
        }
        let largest = |values: &[f64]| values.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let of_model = recorded.iter().map(|(_, array)| largest(&array.values)).fold(0.0, f64::max);
        let (_, handed) = case.gradients(&context(), &Displacement::default(), &case.params(), Kept::All);
        assert_eq!(handed.len(), recorded.len(), "{}: a tied tensor stands once", case.name);
        for (id, found) in handed {
            let name = case.model.store().params()[id].name();
            let expected =
                &recorded.iter().find(|(recorded, _)| *recorded == name).expect("a recorded tensor").1.values;
            assert_eq!(found.len(), expected.len(), "{}: {name}", case.name);
            let own = largest(expected);
            let bound = if own < ZERO * of_model { ZERO * of_model } else { GRADIENT * own };
            let error = found.iter().zip(expected).fold(0.0_f64, |error, (x, y)| error.max((f64::from(*x) - y).abs()));
            assert!(error <= bound, "{}: {name} is off by {error}, at most {bound}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared} tensors were recorded");
}
