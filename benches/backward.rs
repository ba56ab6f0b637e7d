//! Gradients of a model of SmolLM2-135M's shape beside its forward pass, 16 sequences of 64 tokens, every token labelled.
//!
//! `cargo bench --bench backward` measures random weights in f32; `ZOFO_BENCH_MODEL=DIR` measures a checkpoint as it is
//! stored. `RAYON_NUM_THREADS` sets the threads.
//!
//! Rows take turns, round after round, with a forward pass and its losses; the way back is what a gradient takes more than
//! the forward pass of its own round. Figures are medians over rounds. The bound is twice the forward pass, a product for
//! the inputs and one for the weights beside each product of it, and a tenth for attention, whose scores are made again.
//! Last comes what there is to gain if two branches of a step, which have a pass each, shared one.

#[path = "shape/random.rs"]
mod random;
mod shape;

use std::{env, hint::black_box, path::Path, time::Instant};

use zofo::{
    direction::{Displacement, ParamId},
    kernels::Context,
    model::{Batch, Gradients, Kept, Model, Summand},
    objective::{Labelled, gradients, losses},
    simd::Isa,
};

use shape::{LENGTH, SEQUENCES, median};

const ROUNDS: usize = 5;

fn main() {
    let isa = Isa::active().expect("ZOFO_ISA names an instruction set of this CPU");
    let cx = Context::new(isa);
    let model = env::var_os("ZOFO_BENCH_MODEL")
        .map_or_else(random::model, |dir| Model::open(Path::new(&dir)).expect("a model directory"));
    let labelled = |batch: Batch| {
        let labels: Vec<Option<u32>> = batch.ids().iter().map(|&id| Some(id)).collect();
        let labelled = Labelled::of(model.spec(), &batch, &labels).expect("labels");
        (batch, labelled)
    };
    let ids = shape::ids(model.spec().vocab_size as u32);
    let (once, twice) = (labelled(Batch::new(ids.clone())), labelled(Batch::new([ids.clone(), ids].concat())));
    let at = [Displacement::default()];
    let all: Vec<ParamId> = model.store().params().iter().map(|(id, _)| id).collect();
    let last: Vec<ParamId> = model.parts().blocks.last().expect("a block").params().collect();

    let forward = || {
        let begin = Instant::now();
        black_box(losses(&model, &cx, &once.0, &once.1, &at).expect("losses"));
        begin.elapsed().as_secs_f64()
    };
    let gradient = |(batch, labelled): &(Batch, Labelled), wrt: &[ParamId], kept| {
        let (begin, mut sums) = (Instant::now(), Gradients::new(wrt, kept));
        let summand = Summand { cx: &cx, at: &at[0], is_last: true };
        let factor = 1.0 / labelled.count() as f64;
        let mut of = (&model, |id, gradient| drop(black_box((id, gradient))));
        gradients(&mut of, &mut sums, summand, (batch, labelled), factor).expect("gradients");
        begin.elapsed().as_secs_f64()
    };
    let rows = [
        ("all parameters", &all, Kept::All),
        ("all parameters, blocks computed twice", &all, Kept::BlockInputs),
        ("the last block", &last, Kept::All),
    ];
    let mut forwards = Vec::new();
    let (mut samples, mut shares) = (rows.map(|_| Vec::new()), Vec::new());
    for round in 0..=ROUNDS {
        let plain = forward();
        let found = rows.map(|(_, wrt, kept)| gradient(&once, wrt, kept));
        let of_both = gradient(&twice, &all, Kept::All);
        // The first round warms caches and scratch memory.
        if round > 0 {
            forwards.push(plain);
            shares.push(of_both / (2.0 * found[0]));
            samples.iter_mut().zip(found).for_each(|(samples, seconds)| samples.push((seconds, seconds / plain - 1.0)));
        }
    }
    println!("{isa}, {} threads, {ROUNDS} rounds, {SEQUENCES} × {LENGTH} tokens\n", rayon::current_num_threads());
    println!("A forward pass takes {:.3} s.\n", median(&mut forwards));
    println!("| gradient by | seconds | way back in forward passes |\n| --- | ---: | ---: |");
    for ((name, ..), samples) in rows.iter().zip(samples) {
        let (mut seconds, mut ratios): (Vec<f64>, Vec<f64>) = samples.into_iter().unzip();
        println!("| {name} | {:.3} | {:.2} |", median(&mut seconds), median(&mut ratios));
    }
    println!("\nTwo batches in one pass take {:.3} of two passes.", median(&mut shares));
}
