use proptest::prelude::*;

use super::*;
use crate::{
    direction::{Displacement, Stored},
    kernels::{Context, Isa, Mask},
    model::{
        Gradients, Kept, Summand,
        backward::{
            Rows,
            operation::{ATTEND_BACK, ELEMENTWISE},
            tape::Step,
        },
    },
    testing::{
        adapters::{adapted, bottlenecked},
        reference::golden::{NAMES, directory},
    },
};

/// Three sequences, one of which is empty, and the rows of theirs that have a loss.
fn batch(model: &Model) -> (Batch, Vec<usize>) {
    let batch = Batch::new([&[5_u32, 6, 7, 8, 9][..], &[], &[10, 11]]);
    let rows = if model.spec.predicts_next() { vec![1, 3, 5] } else { vec![0, 5] };
    (batch, rows)
}

/// What a recorded pass for `wrt` unwinds.
fn unwound(model: &Model, wrt: &[ParamId]) -> u64 {
    let (cx, at) = (Context::new(Isa::fastest()), Displacement::default());
    let (batch, read) = batch(model);
    let gradients = Gradients::new(wrt, Kept::All);
    let rows = Rows::new(model, &batch, vec![0; batch.sequences().len()]).expect("a batch");
    let summand = Summand { cx: &cx, at: &at, is_last: true };
    let (tape, x) = gradients.record(model, summand, &rows, &read).expect("a head");
    let HeadParts { dense, last, .. } = model.parts.head.expect("a head");

    let product = |rows: usize, inputs: usize, outputs: usize| 2 * rows * inputs * outputs;
    let of_last = product(read.len(), x.width(), last.outputs);
    let mut sum = if x.node.is_some() { of_last } else { 0 };
    sum += if wrt.contains(&last.weight) { of_last } else { 0 };
    sum += last.bias.filter(|bias| wrt.contains(bias)).map_or(0, |_| read.len() * last.outputs);
    for noted in &tape.steps {
        sum += match &noted.step {
            Step::Gather { table, ids } => ids.len() * model.store.params()[*table].cols(),
            Step::Linear { part, from, .. } => {
                let rows = if dense == Some(*part) { read.len() } else { batch.tokens() };
                let weight = &model.store.params()[part.weight];
                let inputs = if part.stored == Stored::OutIn { weight.cols() } else { weight.rows() };
                let of = |wanted: bool, flops: usize| if wanted { flops } else { 0 };
                of(from.is_some(), product(rows, inputs, part.outputs))
                    + of(noted.params.contains(&part.weight), product(rows, inputs, part.outputs))
                    + of(part.bias.is_some_and(|bias| noted.params.contains(&bias)), rows * part.outputs)
            }
            Step::TensorTrain { part, from, .. } => {
                let product = product(batch.tokens(), part.inputs, part.outputs);
                let wanted = |id: &ParamId| noted.params.contains(id);
                let products = usize::from(from.is_some()) + usize::from(part.cores.iter().any(wanted));
                products * product + part.bias.filter(|id| wanted(id)).map_or(0, |_| batch.tokens() * part.outputs)
            }
            Step::Norm { part, x } => {
                let values = x.rows() * x.width();
                let of = |wanted: bool, each: usize| if wanted { each * values } else { 0 };
                of(x.node.is_some(), ELEMENTWISE)
                    + of(noted.params.contains(&part.weight), ELEMENTWISE)
                    + of(part.bias.is_some_and(|bias| noted.params.contains(&bias)), 1)
            }
            Step::Activate { x, .. } => ELEMENTWISE * x.rows() * x.width(),
            Step::Gate { gate, up, .. } => ELEMENTWISE * (gate.values().len() + up.values().len()),
            Step::Attend { columns, .. } => ATTEND_BACK * pairs(&model.spec, &batch) * columns[0].len(),
            Step::Turn { columns } | Step::AddScaled { columns, .. } => ELEMENTWISE * batch.tokens() * columns.len(),
            Step::Add { .. } | Step::Select { .. } => 0,
            Step::Block { .. } => unreachable!("everything is kept"),
        };
    }
    sum as u64
}

/// What the parameters `wrt` cost according to the model's list.
fn counted(model: &Model, wrt: &[ParamId]) -> u64 {
    let (batch, read) = batch(model);
    let work = model.work(&batch, read.len(), model.spec.outputs(), Unit::Flops).expect("a head");
    let is_asked = |work: &Work| work.parameter.is_some_and(|id| wrt.contains(&id));
    let deepest = work.iter().rposition(is_asked).expect("every parameter is in the list");
    let above = work[..deepest].iter().map(|work| work.through).sum::<u64>();
    above + work.iter().filter(|work| is_asked(work)).map(|work| work.into).sum::<u64>()
}

fn open(name: &str) -> Option<Model> {
    let model = Model::open(&directory(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    model.parts.head.is_some().then_some(model)
}

fn params(model: &Model) -> Vec<ParamId> {
    model.store.params().iter().map(|(id, _)| id).collect()
}

#[test]
fn each_parameter_alone_and_all_together_cost_what_their_tape_unwinds() {
    for (name, model) in NAMES.into_iter().filter_map(|name| Some((name, open(name)?))) {
        let all = params(&model);
        let alone = all.iter().map(std::slice::from_ref);
        for wrt in alone.chain([&all[..]]) {
            let first = model.store.params()[wrt[0]].name();
            assert_eq!(counted(&model, wrt), unwound(&model, wrt), "{name}: {} from {first}", wrt.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_parameters_cost_what_their_tape_unwinds(
        name in prop::sample::select(&NAMES[..]),
        draws in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        if let Some(model) = open(name) {
            let all = params(&model);
            let mut wrt: Vec<ParamId> = draws.iter().map(|draw| all[draw.index(all.len())]).collect();
            wrt.sort_unstable();
            wrt.dedup();
            prop_assert_eq!(counted(&model, &wrt), unwound(&model, &wrt), "{}: {:?}", name, wrt);
        }
    }
}

#[test]
fn every_parameter_stands_once() {
    let adapted = ["llama", "bert-cls"].map(|name| bottlenecked(&directory(name), (6, 2), None, 3));
    for model in NAMES.into_iter().filter_map(open).chain(adapted) {
        let (batch, read) = batch(&model);
        let work = model.work(&batch, read.len(), model.spec.outputs(), Unit::Flops).expect("a head");
        let mut found: Vec<ParamId> = work.iter().filter_map(|work| work.parameter).collect();
        found.sort_unstable();
        assert_eq!(found, params(&model));
        assert!(work.iter().all(|work| work.parameter.is_none() || (work.forward, work.through) == (0, 0)));
    }
}

#[test]
fn adapters_never_cost_more_than_is_counted_and_exactly_that_together() {
    let model = adapted(&directory("llama"), 2, 4.0, Some(&["q_proj", "v_proj", "down_proj"]), 3);
    let all = params(&model);
    assert_eq!(counted(&model, &all), unwound(&model, &all));
    for id in &all {
        let (counted, unwound) = (counted(&model, &[*id]), unwound(&model, &[*id]));
        assert!(counted >= unwound, "{}: {counted} {unwound}", model.store.params()[*id].name());
    }
}

#[test]
fn bottlenecks_never_cost_more_than_is_counted() {
    for name in ["llama", "opt", "gpt2"] {
        let model = bottlenecked(&directory(name), (6, 2), None, 3);
        let all = params(&model);
        assert!(counted(&model, &all) >= unwound(&model, &all), "{name}");
        for id in &all {
            let (counted, unwound) = (counted(&model, &[*id]), unwound(&model, &[*id]));
            assert!(counted >= unwound, "{name}, {}: {counted} {unwound}", model.store.params()[*id].name());
        }
    }
}

#[test]
fn a_query_is_counted_with_the_keys_that_it_sees() {
    let spec = |mask| {
        let mut spec = open("llama").expect("a model with a head").spec;
        spec.attention.mask = mask;
        spec
    };
    let batch = Batch::new([&[1_u32; 7][..], &[], &[1; 2]]);
    let sum = |n: usize| n * (n + 1) / 2;
    assert_eq!(pairs(&spec(Mask::Bidirectional), &batch), 49 + 4);
    assert_eq!(pairs(&spec(Mask::Causal), &batch), sum(7) + sum(2));
    // Queries 0, 1 and 2 see 1, 2 and 3 keys, all others 3.
    assert_eq!(pairs(&spec(Mask::Window(3)), &batch), (sum(3) + 4 * 3) + sum(2));
}

#[test]
fn times_are_those_of_the_same_operations_and_nothing_that_counts_is_free() {
    let cx = Context::new(Isa::fastest());
    for (name, model) in NAMES.into_iter().filter_map(|name| Some((name, open(name)?))) {
        let (batch, read) = batch(&model);
        let of = |unit| model.work(&batch, read.len(), model.spec.outputs(), unit).expect("a head");
        let (counted, timed) = (of(Unit::Flops), of(Unit::Nanoseconds(&cx)));
        assert_eq!(counted.len(), timed.len(), "{name}");
        for (at, (counted, timed)) in counted.iter().zip(&timed).enumerate() {
            assert_eq!(counted.parameter, timed.parameter, "{name}, {at}");
            let has = |work: &Work| [work.forward, work.through, work.into].map(|cost| cost > 0);
            assert_eq!(has(counted), has(timed), "{name}, {at}: {counted:?} {timed:?}");
        }
    }
}
