//! Models with low-rank adapters: against the reference in f64, against their base, and under displacements and slopes.

use proptest::prelude::*;
use zofo::{
    direction::{DirectionSet, Displacement, ParamId, materialize},
    kernels::{Context, cross_entropy::Sums},
    model::{AdapterProblem, Batch, Model, ModelError},
    noise::{NoiseKey, Role},
    objective::{Labelled, losses, slopes},
    simd::Isa,
    testing::{
        THREAD_COUNTS,
        adapters::{adapted, merged, saved_bare},
        assert_same_bits, directional_derivative, on_threads,
        reference::{
            self,
            golden::{Golden, NAMES, Sequence, Weights, directory},
            loss,
        },
        sequences::{labelled, largest, logits, noise},
    },
};

fn context() -> Context {
    Context::new(Isa::fastest())
}

/// The linear layers of a family's blocks.
fn layers(name: &str) -> &'static [&'static str] {
    match name {
        "gpt2" => &["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"],
        "opt" | "opt-postln-proj" => &["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
        "bert-cls" | "bert-mlm" | "roberta-cls" | "roberta-mlm" => &["query", "key", "value", "dense"],
        _ => &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    }
}

/// An adapted model, the base for the reference, and sequences.
struct Case {
    model: Model,
    base: Weights,
    sequences: Vec<Sequence>,
}

impl Case {
    /// `name` with adapters of rank 3 beside all its layers.
    fn whole(name: &'static str) -> Case {
        Case::new(name, adapted(&directory(name), 3, 6.0, Some(layers(name)), 5))
    }

    fn new(name: &'static str, model: Model) -> Case {
        let dir = directory(name);
        let sequences = Golden::open(&dir.join("golden.safetensors")).sequences("right.");
        Case { model, base: Weights::open(&dir), sequences }
    }

    fn batch(&self) -> Batch {
        labelled(self.model.spec(), &self.sequences).0
    }

    fn labelled(&self) -> Labelled {
        labelled(self.model.spec(), &self.sequences).1
    }

    fn factors(&self) -> Vec<ParamId> {
        self.model.lora().expect("adapters").params().collect()
    }

    /// The logits `[rows, outputs]` of all tokens, or of all sequences for a classifier, in every lane.
    fn logits(&self, cx: &Context, lanes: &[Displacement]) -> Vec<Vec<f32>> {
        logits(&self.model, cx, &self.batch(), lanes)
    }

    fn losses(&self, lanes: &[Displacement]) -> Vec<Sums> {
        losses(&self.model, &context(), &self.batch(), &self.labelled(), lanes).expect("losses")
    }

    /// The logits of a sequence that the reference computes at `θ + t·z`.
    fn reference(&self, along: &DirectionSet, t: f64, sequence: &Sequence) -> Vec<Vec<f64>> {
        let source = |slot, layer, part| merged(&self.model, &self.base, (along, t), (slot, layer, part));
        reference::forward(self.model.spec(), &source, &sequence.tokens).logits.expect("a head")
    }

    fn loss(&self, logits: &Vec<Vec<f64>>, sequence: &Sequence) -> f64 {
        loss::of_head(&self.model.spec().head, logits, &sequence.labels).iter().sum()
    }
}

/// How far a logit may be, in roundings of the largest: a plain model errs by up to 32
/// (`testing/reference/tests.rs`: 25 operations of √32 roundings). The adapters of seven layers in two blocks are 3 · 14
/// operations more: √67 · √32 = 46. That counts operations, not what an adapter multiplies the roundings before it by: of
/// scales up to 4 it holds in 20,000 random cases (`PROPTEST_CASES=20000`), of 28 not in all.
const LOGIT: f64 = 46.0 / (1 << 24) as f64;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_adapted_model_computes_what_the_reference_does_with_its_factors_folded_in(
        name in prop::sample::select(NAMES.to_vec()),
        (rank, seed) in (1_usize..9, any::<u64>()),
        scale in 0.5_f64..4.0,
        chosen in 1_usize..128,
    ) {
        let all = layers(name);
        let targets: Vec<&str> = (0..all.len()).filter(|at| chosen >> at & 1 == 1).map(|at| all[at]).collect();
        let targets = (!targets.is_empty()).then_some(&targets[..]);
        let case = Case::new(name, adapted(&directory(name), rank, scale * rank as f64, targets, seed));
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
        let mut case = Case::whole(name);
        let ids = case.factors();
        case.model.store_mut().tune(&ids, Default::default()).expect("initial values");
        let lanes = [Displacement::default()];
        // A sum with +0 is the same number.
        assert_eq!(case.logits(&context(), &lanes), logits(&base, &context(), &case.batch(), &lanes), "{name}");
        let plain = losses(&base, &context(), &case.batch(), &case.labelled(), &lanes).expect("losses");
        assert_eq!(case.losses(&lanes)[0].per_example, plain[0].per_example, "{name}");
        assert_eq!(base.base_params().collect::<Vec<_>>(), case.model.base_params().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn displaced_lanes_have_the_bits_of_displaced_adapters_in_any_company() {
    for name in NAMES {
        let case = Case::whole(name);
        let ids = case.factors();
        let (first_a, last_b) = (ids[0], ids[ids.len() - 1]);
        let tokens = case.model.parts().tokens;
        let all = noise(ids.clone(), 0);
        let mut both = Displacement::along(&all, 3e-2);
        both.terms.extend(Displacement::along(&noise(case.model.base_params(), 1), 1e-2).terms);
        let lanes = [
            Displacement::along(&all, 1e-1),
            Displacement::along(&all, -1e-1),
            Displacement::along(&noise([last_b], 2), 0.5),
            Displacement::along(&noise([first_a], 3), 0.5),
            Displacement::along(&noise([tokens], 4), 0.1),
            both,
            Displacement::default(),
        ];
        let together = case.logits(&context(), &lanes);
        for (lane, found) in lanes.iter().zip(&together) {
            let mut displaced = Case::whole(name);
            for id in (0..case.model.store().params().len()).map(|at| nth(&case.model, at)) {
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

fn nth(model: &Model, at: usize) -> ParamId {
    model.store().params().iter().nth(at).expect("a parameter").0
}

#[test]
fn slopes_along_factors_are_the_derivatives_of_the_reference() {
    /// Reach of the differences, as in `tests/slopes.rs`.
    const REACH: f64 = 1.0 / 4096.0;
    // As there, of a model whose logits err by 46 roundings instead of 32.
    let row = 6.0 * LOGIT;
    for name in NAMES {
        let case = Case::whole(name);
        let ids = case.factors();
        let of = |kind: &str| -> Vec<ParamId> {
            let is_kind = |id: &&ParamId| case.model.store().params()[**id].name().contains(kind);
            ids.iter().filter(is_kind).copied().collect()
        };
        let along = [
            noise(of("lora_A"), 0),
            noise(of("lora_B"), 1),
            noise([ids[ids.len() - 1]], 2),
            noise(ids.iter().copied().chain(case.model.base_params()), 3),
            noise([case.model.parts().tokens], 4),
        ];
        let found = slopes(&case.model, &context(), &case.batch(), &case.labelled(), &along).expect("slopes");
        let mut told = [false; 5];
        let flat = |set: &DirectionSet, t: f64, sequence: &Sequence| case.reference(set, t, sequence).concat();
        for (at, (set, found)) in along.iter().zip(&found.slopes).enumerate() {
            for (i, sequence) in case.sequences.iter().enumerate().take(2) {
                let curve = |t: f64| vec![case.loss(&case.reference(set, t * REACH, sequence), sequence)];
                let estimate = directional_derivative(1e-14, curve)[0];
                let (expected, error) = (estimate.value / REACH, estimate.error / REACH);
                let (ahead, behind) = (flat(set, REACH, sequence), flat(set, -REACH, sequence));
                let change = largest(ahead.iter().zip(&behind).map(|(a, b)| (a - b) / (2.0 * REACH)));
                let scale = (1.0 + largest(ahead)) * change;
                let bound = error + sequence.labels.len() as f64 * row * scale;
                let found = found.per_example[i];
                assert!(
                    (found - expected).abs() <= bound,
                    "{name}, direction {at}, sequence {i}: {found} for {expected} ± {bound}"
                );
                told[at] |= bound < expected.abs();
            }
        }
        assert_eq!(told, [true; 5], "{name}: some bounds say nothing");
    }
}

#[test]
fn instruction_sets_threads_and_company_change_no_bit() {
    let bits = |sums: &Sums| sums.per_example.iter().map(|value| value.to_bits()).collect::<Vec<u64>>();
    for name in ["llama", "gpt2", "bert-cls"] {
        let case = Case::whole(name);
        let ids = case.factors();
        // Directions that begin at different blocks, those of adapters and others mixed.
        let mut along = vec![noise(case.model.base_params(), 0), noise(ids.clone(), 1), noise([ids[ids.len() - 1]], 2)];
        along.push(noise([case.model.parts().blocks[1].out.weight, ids[0]], 3));
        let all = |cx: &Context| slopes(&case.model, cx, &case.batch(), &case.labelled(), &along).expect("slopes");
        let expected = all(&context());
        assert_eq!(bits(&expected.value), bits(&case.losses(&[Displacement::default()])[0]), "{name}: the loss");
        for (at, set) in along.iter().enumerate() {
            let alone = slopes(&case.model, &context(), &case.batch(), &case.labelled(), std::slice::from_ref(set));
            assert_eq!(bits(&alone.expect("slopes").slopes[0]), bits(&expected.slopes[at]), "{name}: direction {at}");
        }
        let lanes: Vec<_> = along.iter().map(|set| Displacement::along(set, 1e-2)).collect();
        let plain = case.logits(&context(), &lanes);
        for isa in Isa::available() {
            for threads in THREAD_COUNTS {
                let cx = Context::new(isa);
                let (slopes, logits) = on_threads(threads, || (all(&cx), case.logits(&cx, &lanes)));
                assert_eq!(
                    slopes.slopes.iter().map(bits).collect::<Vec<_>>(),
                    expected.slopes.iter().map(bits).collect::<Vec<_>>(),
                    "{name} on {isa}, {threads} threads"
                );
                for (found, expected) in logits.iter().zip(&plain) {
                    assert_same_bits(found, expected, format_args!("{name} on {isa}, {threads} threads"));
                }
            }
        }
    }
}

#[test]
fn adapters_are_named_by_the_modules_of_transformers_and_heads_have_none() {
    for (name, targets, expected) in [
        ("llama", &["q_proj", "v_proj"][..], "model.layers.0.self_attn.q_proj"),
        ("gpt2", &["c_attn"], "transformer.h.0.attn.c_attn"),
        ("opt", &["q_proj", "v_proj"], "model.decoder.layers.0.self_attn.q_proj"),
        ("roberta-mlm", &["query", "value"], "roberta.encoder.layer.0.attention.self.query"),
        ("bert-cls", &["query", "value"], "bert.encoder.layer.0.attention.self.query"),
    ] {
        let mut model = Model::open(&directory(name)).expect("a golden checkpoint");
        let ids = model.adapt(2, 4.0, None, 1).expect("adapters");
        let lora = model.lora().expect("adapters");
        assert_eq!(lora.modules, targets, "{name}");
        assert_eq!(lora.adapters.len(), targets.len() * model.spec().layers, "{name}");
        let names: Vec<&str> = ids.iter().map(|&id| model.store().params()[id].name()).collect();
        assert_eq!(names[..2], [format!("{expected}.lora_A.weight"), format!("{expected}.lora_B.weight")], "{name}");
    }
    for (name, kept) in [("llama", 0), ("bert-mlm", 0), ("bert-cls", 2), ("roberta-cls", 4)] {
        let model = adapted(&directory(name), 2, 4.0, None, 1);
        assert_eq!(
            model.lora().expect("adapters").kept_beside.len(),
            kept,
            "{name}: weights and biases of a classifier"
        );
    }
    for (name, outside) in [("bert-mlm", "cls."), ("roberta-cls", "classifier."), ("bert-cls", "bert.pooler.")] {
        let model = adapted(&directory(name), 2, 4.0, Some(&["dense"]), 1);
        let lora = model.lora().expect("adapters");
        assert_eq!(lora.modules.len(), 3 * model.spec().layers, "{name}: a head has a layer of that name");
        assert!(lora.modules.iter().all(|module| !module.starts_with(outside)), "{name}: {:?}", lora.modules);
    }
}

#[test]
fn a_checkpoint_without_the_first_part_of_its_names_has_the_same_adapters() {
    for (name, prefix) in [("gpt2", "transformer."), ("bert-mlm", "bert."), ("roberta-cls", "roberta.")] {
        let scratch = tempfile::tempdir().expect("a directory");
        saved_bare(&directory(name), prefix, scratch.path());
        let whole = Case::whole(name);
        let bare = adapted(scratch.path(), 3, 6.0, Some(layers(name)), 5);
        let tokens = bare.parts().tokens;
        assert!(!bare.store().params()[tokens].name().starts_with(prefix), "{name}");
        let names = |model: &Model| -> Vec<String> {
            let factors = model.lora().expect("adapters").params();
            factors.map(|id| model.store().params()[id].name().to_owned()).collect()
        };
        assert_eq!(names(&bare), names(&whole.model), "{name}");
        assert_eq!(bare.lora().expect("adapters").modules, whole.model.lora().expect("adapters").modules, "{name}");
        let lanes = [Displacement::default()];
        let found = logits(&bare, &context(), &whole.batch(), &lanes);
        assert_same_bits(&found[0], &whole.logits(&context(), &lanes)[0], name);
    }
}

#[test]
fn initial_values_depend_on_the_seed_and_the_name_and_lie_within_the_bound() {
    let model = |seed| {
        let mut model = Model::open(&directory("llama")).expect("a golden checkpoint");
        model.adapt(4, 8.0, None, seed).expect("adapters");
        model
    };
    let values = |model: &Model, id: ParamId| -> Vec<f32> {
        let weight = model.store().weight(id);
        (0..weight.rows()).flat_map(|row| (0..weight.cols()).map(move |col| weight.at(row, col))).collect()
    };
    let (one, same, other) = (model(1), model(1), model(2));
    let bound = 1.0 / 32.0_f32.sqrt();
    for adapter in &one.lora().expect("adapters").adapters {
        let a = values(&one, adapter.a);
        assert_same_bits(&a, &values(&same, adapter.a), "the same seed");
        assert_ne!(a, values(&other, adapter.a));
        assert!(a.iter().all(|value| value.abs() < bound));
        // Of 128 uniform values none beyond three quarters of the bound is once in 10¹⁵.
        assert!(a.iter().any(|value| value.abs() > 0.75 * bound));
        assert!(values(&one, adapter.b).iter().all(|value| value.to_bits() == 0));
    }
    let [first, second] = [0, 1].map(|at| values(&one, one.lora().expect("adapters").adapters[at].a));
    assert_ne!(first, second);
}

#[test]
fn adapters_that_cannot_be_are_errors_that_say_what_can() {
    let error = |rank, alpha, target: &str| {
        let mut model = Model::open(&directory("gpt2")).expect("a golden checkpoint");
        let error = model.adapt(rank, alpha, Some(&[target.to_owned()]), 1).expect_err("no such adapters");
        assert_eq!((model.lora(), model.store().params().len()), (None, model.base_params().count()));
        error
    };
    let target = error(2, 4.0, "q_proj");
    assert_eq!(
        target.to_string(),
        "adapters: the target is \"q_proj\", expected the end of the name of a block's linear layer (c_attn, c_proj, \
         c_fc); the nearest is \"c_proj\""
    );
    // Ends are whole words.
    assert!(matches!(error(2, 4.0, "attn"), ModelError::Adapter(AdapterProblem::Target { .. })));
    assert!(matches!(error(2, 4.0, "lm_head"), ModelError::Adapter(AdapterProblem::Target { .. })));
    assert!(matches!(error(0, 4.0, "c_attn"), ModelError::Adapter(AdapterProblem::Rank { inputs: 32, .. })));
    assert!(matches!(error(33, 4.0, "c_attn"), ModelError::Adapter(AdapterProblem::Rank { found: 33, .. })));
    for alpha in [0.0, -1.0, f64::NAN, 1e300, 1e-300] {
        assert!(matches!(error(2, alpha, "c_attn"), ModelError::Adapter(AdapterProblem::Scale { .. })), "{alpha}");
    }
}
