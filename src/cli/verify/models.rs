//! Checks of whole models: an embedded golden checkpoint per family, on every instruction set.
//!
//! The definition here is the same forward pass on the portable instruction set with software fused multiply-adds:
//! what differs between the two is every line of every other instruction set, and the split over threads. That the
//! numbers are those of transformers is for the tests, which hold the recorded ones.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    check::{Bits, Check},
    kernels::check,
};
use crate::{
    direction::{Direction, DirectionSet, Displacement},
    kernels::{Context, cross_entropy::Vocabulary},
    model::{Batch, Config, Head, Model, Parts, Tensors, families},
    noise::{Law, NoiseKey, Role},
    objective::{Labelled, losses},
    simd::{Isa, IsaName},
    weights::{Store, header},
};

/// One check per family: a golden checkpoint of `tests/golden/models`, part of the program.
macro_rules! golden {
    ($($name:literal, $folder:literal;)*) => {
        /// The checks of whole models.
        pub(super) const CHECKS: &[Check] = &[$(check(
            $name,
            |cx| answers(cx, embedded!($folder)),
            || answers(&Context::new(portable()), embedded!($folder)),
        )),*];
    };
}

/// The files of a golden checkpoint: configuration, weights.
macro_rules! embedded {
    ($folder:literal) => {
        [
            include_bytes!(concat!("../../../tests/golden/models/", $folder, "/config.json")),
            include_bytes!(concat!("../../../tests/golden/models/", $folder, "/model.safetensors")),
        ]
    };
}

golden! {
    "model.bert", "bert-cls";
    "model.gpt2", "gpt2";
    "model.llama", "llama";
    "model.mistral", "mistral";
    "model.opt", "opt-postln-proj";
    "model.qwen2", "qwen2";
    "model.roberta", "roberta-mlm";
}

fn portable() -> Isa {
    Isa::new(IsaName::PortableSoft).expect("every machine has it")
}

fn model([config, weights]: [&[u8]; 2]) -> Model {
    let config = Config::parse(Path::new("config.json"), config).expect("an embedded configuration");
    let (spec, names) = families::read(&config).expect("a family of ours");
    let tensors: BTreeMap<_, _> = header::read(weights).expect("an embedded checkpoint").into_iter().collect();
    let (parts, params) = Parts::of(&spec, &Tensors::new(names, |name| tensors.contains_key(name)));
    let store = Store::in_memory(params, |param| {
        let words = weights[tensors[param.name()].bytes.clone()].as_chunks().0;
        words.iter().map(|&word| f32::from_le_bytes(word)).collect()
    });
    Model::new(spec, parts, store)
}

/// Logits and losses of a ragged batch at θ and at θ ± z.
fn answers(cx: &Context, files: [&[u8]; 2]) -> Bits {
    let model = model(files);
    let sequence = |first: u32, len: u32| (0..len).map(|i| (first + 37 * i) % 96).collect::<Vec<u32>>();
    let batch = Batch::new([sequence(5, 10), sequence(80, 4), sequence(41, 7)]);
    let (rows, labels): (Vec<usize>, Vec<Option<u32>>) = match model.spec().head {
        Head::Classifier { .. } => (batch.sequences().iter().map(|rows| rows.start).collect(), vec![Some(1); 3]),
        _ => ((0..batch.tokens()).collect(), batch.ids().iter().map(|&id| Some(id)).collect()),
    };
    let noise = Direction::Dense { key: NoiseKey::new(9, 4, Role::Dense, 0), law: Law::Gaussian };
    let set = Arc::new(DirectionSet::new(model.store().params().iter().map(|(id, _)| (id, noise.clone()))));
    let lanes = [0.0, 0.015_625, -0.015_625].map(|epsilon| Displacement::along(&set, epsilon));

    let hidden = model.forward(cx, &batch, &lanes, None, None).expect("tokens of the vocabulary");
    let width = model.parts().head.expect("a head").last.outputs;
    let logits = model.logits(cx, &hidden, &lanes, &rows, Vocabulary::Full(width)).expect("a head");
    let labelled = Labelled::of(model.spec(), &batch, &labels).expect("labels of the vocabulary");
    let sums = losses(&model, cx, &batch, &labelled, &lanes).expect("tokens of the vocabulary");
    (0..lanes.len()).fold(Bits::default(), |bits, lane| {
        let bits = (0..rows.len()).fold(bits, |bits, row| bits.and(logits.lane(lane).row(row)));
        bits.and_f64(&sums[lane].per_example).and_f64(&[sums[lane].total])
    })
}
