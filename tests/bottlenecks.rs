//! Models with bottlenecks of tensor trains: against the reference in f64, whose matrices are whole, against their base,
//! and under displacements, slopes and gradients.

use std::sync::Arc;

use proptest::prelude::*;
use zofo::{
    direction::{DirectionSet, Displacement, ParamId, materialize},
    kernels::{Context, cross_entropy::Sums},
    model::{AdapterProblem, Batch, Gradients, Kept, Model, ModelError, Summand},
    noise::{NoiseKey, Role},
    objective::{Labelled, gradients, losses, slopes},
    simd::Isa,
    tensor::Block,
    testing::{
        THREAD_COUNTS,
        adapters::{bottlenecked, whole_bottleneck},
        assert_same_bits, directional_derivative, on_threads,
        reference::{
            self,
            golden::{Golden, NAMES, Sequence, Weights, directory},
            loss,
        },
        sequences::{labelled, largest, logits, noise},
    },
    weights::BottleneckSizes,
};

fn context() -> Context {
    Context::new(Isa::fastest())
}

/// A model with bottlenecks, the base for the reference, and sequences.
struct Case {
    model: Model,
    base: Weights,
    sequences: Vec<Sequence>,
}

/// Parameters and their gradients, in the order in which they were handed over.
type Handed = Vec<(ParamId, Vec<f32>)>;

impl Case {
    /// `name` with bottlenecks of width 6 and rank 2.
    fn open(name: &'static str) -> Case {
        Case::new(name, bottlenecked(&directory(name), (6, 2), None, 5))
    }

    fn new(name: &'static str, model: Model) -> Case {
        let dir = directory(name);
        let sequences = Golden::open(&dir.join("golden.safetensors")).sequences("right.");
        Case { model, base: Weights::open(&dir), sequences }
    }

    /// Some of its sequences as a batch, and their labels.
    fn batch(&self, sequences: &[Sequence]) -> (Batch, Labelled) {
        labelled(self.model.spec(), sequences)
    }

    /// The parameters of the adapters.
    fn own(&self) -> Vec<ParamId> {
        self.model.adapters().expect("bottlenecks").params()
    }

    fn all(&self) -> Vec<ParamId> {
        self.model.store().params().iter().map(|(id, _)| id).collect()
    }

    fn logits(&self, cx: &Context, lanes: &[Displacement]) -> Vec<Vec<f32>> {
        logits(&self.model, cx, &self.batch(&self.sequences).0, lanes)
    }

    /// The logits of a sequence that the reference computes at `θ + t·z`, where `z` moves adapters alone.
    fn reference(&self, along: &DirectionSet, t: f64, sequence: &Sequence) -> Vec<Vec<f64>> {
        let source = |slot, layer, part| self.base.values(slot, layer, part);
        let bottleneck = |slot, layer| whole_bottleneck(&self.model, &self.base, (along, t), (slot, layer));
        reference::adapted(self.model.spec(), &source, &bottleneck, &sequence.tokens).logits.expect("a head")
    }

    fn loss(&self, logits: &Vec<Vec<f64>>, sequence: &Sequence) -> f64 {
        loss::of_head(&self.model.spec().head, logits, &sequence.labels).iter().sum()
    }

    fn slopes(&self, cx: &Context, along: &[Arc<DirectionSet>]) -> (Sums, Vec<Sums>) {
        let (batch, labelled) = self.batch(&self.sequences);
        let found = slopes(&self.model, cx, &batch, &labelled, along).expect("slopes");
        (found.value, found.slopes)
    }

    /// The gradients of the summed loss at each of `at`, of the sequences in batches of so many.
    fn gradients(&self, cx: &Context, at: &[Displacement], wrt: &[ParamId], (kept, cut): (Kept, usize)) -> Handed {
        let mut handed = Handed::new();
        let mut of = (&self.model, |id, gradient: Block<f32>| handed.push((id, gradient.to_vec())));
        let mut sums = Gradients::new(wrt, kept);
        let batches: Vec<&[Sequence]> = self.sequences.chunks(cut).collect();
        for (lane, displacement) in at.iter().enumerate() {
            for (number, sequences) in batches.iter().enumerate() {
                let is_last = (lane + 1, number + 1) == (at.len(), batches.len());
                let (batch, labelled) = self.batch(sequences);
                let summand = Summand { cx, at: displacement, is_last };
                gradients(&mut of, &mut sums, summand, (&batch, &labelled), 1.0).expect("gradients");
            }
        }
        handed
    }
}

/// How far a logit may be, in roundings of the largest: a plain model errs by up to 32
/// (`testing/reference/tests.rs`: 25 operations of √32 roundings). A bottleneck is four products, whose matrices are two
/// products each, two biases and a sum, and at most six stand in two blocks: √(25 + 6 · 15) · √32 = 61.
const LOGIT: f64 = 61.0 / (1 << 24) as f64;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_adapted_model_computes_what_the_reference_does_with_whole_matrices(
        name in prop::sample::select(NAMES.to_vec()),
        (width, rank, seed) in (1_usize..13).prop_flat_map(|width| (Just(width), 1..=width.min(4), any::<u64>())),
    ) {
        let case = Case::new(name, bottlenecked(&directory(name), (width, rank), None, seed));
        let found = case.logits(&context(), &[Displacement::default()]).remove(0);
        let mut plain = Vec::new();
        let expected: Vec<f64> = case.sequences.iter().flat_map(|it| {
            let source = |slot, layer, part| case.base.values(slot, layer, part);
            plain.extend(reference::forward(case.model.spec(), &source, &it.tokens).logits.expect("a head").concat());
            case.reference(&DirectionSet::default(), 0.0, it).concat()
        }).collect();
        let bound = LOGIT * largest(expected.iter().copied());
        for (found, expected) in found.iter().zip(&expected) {
            prop_assert!((f64::from(*found) - expected).abs() <= bound, "{name}: {found} for {expected} ± {bound}");
        }
        let change = largest(expected.iter().zip(&plain).map(|(a, b)| a - b));
        prop_assert!(change > bound, "{name}: adapters that change {change} say nothing beside {bound}");
    }
}

#[test]
fn a_model_is_its_base_until_its_adapters_are_written_to() {
    for name in NAMES {
        let base = Model::open(&directory(name)).expect("a golden checkpoint");
        let mut model = Model::open(&directory(name)).expect("a golden checkpoint");
        let own = model.add_bottlenecks(BottleneckSizes { width: 6, rank: 2, seed: 5 }, None).expect("bottlenecks");
        assert!(base.base_params().eq(model.base_params()) && own == model.adapters().expect("bottlenecks").params());
        let (case, lanes) = (Case::new(name, model), [Displacement::default()]);
        let (batch, labelled) = case.batch(&case.sequences);
        // A sum with +0 is the same number.
        assert_eq!(case.logits(&context(), &lanes), logits(&base, &context(), &batch, &lanes), "{name}");
        let [plain, found] =
            [&base, &case.model].map(|it| losses(it, &context(), &batch, &labelled, &lanes).expect("losses"));
        assert_eq!(plain[0].per_example, found[0].per_example, "{name}");
    }
}

#[test]
fn displaced_lanes_have_the_bits_of_displaced_adapters_in_any_company() {
    for name in ["llama", "opt", "gpt2", "bert-cls"] {
        let case = Case::open(name);
        let own = case.own();
        let all = noise(own.clone(), 0);
        let mut both = Displacement::along(&all, 3e-2);
        both.terms.extend(Displacement::along(&noise(case.model.base_params(), 1), 1e-2).terms);
        let lanes = [
            Displacement::along(&all, 1e-1),
            Displacement::along(&all, -1e-1),
            Displacement::along(&noise([own[own.len() - 1]], 2), 0.5),
            Displacement::along(&noise([own[2]], 3), 0.5),
            both,
            Displacement::default(),
        ];
        let together = case.logits(&context(), &lanes);
        for (lane, found) in lanes.iter().zip(&together) {
            let mut displaced = Case::open(name);
            for id in case.all() {
                let (param, weight) = (&case.model.store().params()[id], case.model.store().weight(id));
                let values: Vec<f32> =
                    (0..param.elements()).map(|at| weight.at(at / param.cols(), at % param.cols())).collect();
                let moved = materialize::displaced(&values, id, param, lane);
                let write = |first: usize, values: &mut [f32]| {
                    values.copy_from_slice(&moved[first * param.cols()..][..values.len()]);
                };
                let key = NoiseKey::new(0, 0, Role::Rounding, 0);
                displaced.model.store_mut().update_rows(id, Isa::fastest(), key, write).expect("a private copy");
            }
            let expected = displaced.logits(&context(), &[Displacement::default()]);
            assert_same_bits(found, &expected[0], format_args!("{name}: {lane:?}"));
        }
        let plain = &together[lanes.len() - 1];
        assert!(together[..lanes.len() - 1].iter().all(|moved| moved != plain), "{name}: a lane moved nothing");
    }
}

#[test]
fn slopes_along_cores_and_biases_are_the_derivatives_of_the_reference() {
    /// Reach of the differences, as in `tests/slopes.rs`.
    const REACH: f64 = 1.0 / 4096.0;
    // As there, of a model whose logits err by 61 roundings instead of 32.
    let row = 6.0 * LOGIT;
    for name in ["llama", "opt", "gpt2", "bert-mlm", "roberta-cls"] {
        let case = Case::open(name);
        let of = |kind: &str| -> Vec<ParamId> {
            let is_kind = |id: &ParamId| case.model.store().params()[*id].name().contains(kind);
            case.own().into_iter().filter(is_kind).collect()
        };
        let kinds = ["down.cores", "down.bias", "up.cores", "up.bias", "adapter"];
        let along: Vec<_> = kinds.iter().zip(0..).map(|(kind, probe)| noise(of(kind), probe)).collect();
        let (_, found) = case.slopes(&context(), &along);
        let mut told = [false; 5];
        for (at, (set, found)) in along.iter().zip(&found).enumerate() {
            for (i, sequence) in case.sequences.iter().enumerate().take(2) {
                let flat = |t: f64| case.reference(set, t, sequence).concat();
                let curve = |t: f64| vec![case.loss(&case.reference(set, t * REACH, sequence), sequence)];
                let estimate = directional_derivative(1e-14, curve)[0];
                let (expected, error) = (estimate.value / REACH, estimate.error / REACH);
                let (ahead, behind) = (flat(REACH), flat(-REACH));
                let change = largest(ahead.iter().zip(&behind).map(|(a, b)| (a - b) / (2.0 * REACH)));
                let scale = (1.0 + largest(ahead)) * change;
                let bound = error + sequence.labels.len() as f64 * row * scale;
                let found = found.per_example[i];
                assert!(
                    (found - expected).abs() <= bound,
                    "{name}, {}, sequence {i}: {found} for {expected} ± {bound}",
                    kinds[at]
                );
                told[at] |= bound < expected.abs();
            }
        }
        assert_eq!(told, [true; 5], "{name}: some bounds say nothing");
    }
}

#[test]
fn gradients_are_those_of_the_slopes_and_no_cut_of_the_batch_changes_a_bit() {
    for name in ["llama", "opt", "gpt2", "roberta-cls"] {
        let case = Case::open(name);
        let (cx, at) = (context(), [Displacement::default()]);
        for wrt in [case.all(), case.own()] {
            let z = noise(wrt.clone(), 0);
            let whole = case.gradients(&cx, &at, &wrt, (Kept::All, usize::MAX));
            let terms = whole.iter().flat_map(|(id, gradient)| {
                let param = &case.model.store().params()[*id];
                let z = materialize::direction(z.get(*id).expect("a direction"), param, &vec![0.0; param.elements()]);
                gradient.iter().zip(z).map(|(g, z)| f64::from(*g) * f64::from(z)).collect::<Vec<_>>()
            });
            let (product, magnitude) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            let slope = case.slopes(&cx, std::slice::from_ref(&z)).1[0].total;
            // The bound of `tests/gradients.rs`.
            assert!((product - slope).abs() <= 1e-5 * magnitude, "{name}: {product} for {slope}");

            for kept in [Kept::All, Kept::BlockInputs] {
                assert_same(&case.gradients(&cx, &at, &wrt, (kept, 1)), &whole, name);
            }
        }
        let displaced = [Displacement::along(&noise(case.own(), 1), 1e-1), Displacement::default()];
        let whole = case.gradients(&cx, &displaced, &case.own(), (Kept::All, usize::MAX));
        assert_same(&case.gradients(&cx, &displaced, &case.own(), (Kept::BlockInputs, 1)), &whole, name);
        assert_ne!(whole, case.gradients(&cx, &at, &case.own(), (Kept::All, usize::MAX)), "{name}");
    }
}

/// Checks that every parameter was handed over once, with these bits.
fn assert_same(found: &Handed, expected: &Handed, what: &str) {
    let ids = |handed: &Handed| handed.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(found), ids(expected), "{what}");
    for ((id, found), (_, expected)) in found.iter().zip(expected) {
        assert_same_bits(found, expected, format_args!("{what}, {id:?}"));
    }
}

#[test]
fn instruction_sets_threads_and_company_change_no_bit() {
    let bits = |sums: &Sums| sums.per_example.iter().map(|value| value.to_bits()).collect::<Vec<u64>>();
    for name in ["llama", "gpt2"] {
        let case = Case::open(name);
        let own = case.own();
        // Directions that begin at different blocks, those of adapters and others mixed.
        let mixed = [case.model.parts().blocks[1].out.weight, own[0]];
        let along = [
            noise(case.model.base_params(), 0),
            noise(own.clone(), 1),
            noise([own[own.len() - 1]], 2),
            noise(mixed, 3),
        ];
        let (_, expected) = case.slopes(&context(), &along);
        for (at, set) in along.iter().enumerate() {
            let (_, alone) = case.slopes(&context(), std::slice::from_ref(set));
            assert_eq!(bits(&alone[0]), bits(&expected[at]), "{name}: direction {at}");
        }
        let lanes: Vec<_> = along.iter().map(|set| Displacement::along(set, 1e-2)).collect();
        let of = |cx: &Context| {
            let gradients = case.gradients(cx, &lanes[1..2], &own, (Kept::All, usize::MAX));
            (case.slopes(cx, &along).1, case.logits(cx, &lanes), gradients)
        };
        let (_, logits, handed) = of(&context());
        for isa in Isa::available() {
            for threads in THREAD_COUNTS {
                let (slopes, found, gradients) = on_threads(threads, || of(&Context::new(isa)));
                let label = format!("{name} on {isa}, {threads} threads");
                assert!(slopes.iter().map(bits).eq(expected.iter().map(bits)), "{label}");
                for (found, expected) in found.iter().zip(&logits) {
                    assert_same_bits(found, expected, format_args!("{label}"));
                }
                assert_same(&gradients, &handed, &label);
            }
        }
    }
}

#[test]
fn adapters_stand_where_the_authors_put_them_and_cannot_stand_elsewhere() {
    for (name, expected) in [
        ("llama", &["gate_proj", "up_proj", "down_proj"][..]),
        ("opt", &["fc1", "fc2"]),
        ("gpt2", &["attn.c_proj", "mlp.c_proj"]),
        ("bert-cls", &["attention.output.dense", "output.dense"]),
    ] {
        let case = Case::open(name);
        let params = case.model.store().params();
        let names: Vec<&str> = case.own().iter().map(|&id| params[id].name()).collect();
        assert_eq!(names.len(), 14 * expected.len() * case.model.spec().layers, "{name}");
        for (adapter, module) in names.chunks(14).zip(expected.iter().cycle()) {
            let (first, last) = (format!("{module}.adapter_down.cores.0"), format!("{module}.adapter_up.bias"));
            assert!(adapter[0].ends_with(&first) && adapter[13].ends_with(&last), "{name}: {adapter:?}");
        }
    }
    let error = |rank, target: &str| {
        let mut model = Model::open(&directory("llama")).expect("a golden checkpoint");
        let sizes = BottleneckSizes { width: 6, rank, seed: 1 };
        let error = model.add_bottlenecks(sizes, Some(&[target.to_owned()])).expect_err("no such adapters");
        assert!(model.adapters().is_none() && model.store().params().len() == model.base_params().count());
        error
    };
    assert!(matches!(error(2, "q_proj"), ModelError::Adapter(AdapterProblem::Target { .. })));
    for rank in [0, 7] {
        let found = error(rank, "down_proj");
        assert!(matches!(found, ModelError::Adapter(AdapterProblem::TrainRank { limit: 6, .. })), "{found}");
    }
}
