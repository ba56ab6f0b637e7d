//! A step of `MeZO` beside the two forward passes that it cannot do without: a model of SmolLM2-135M's shape, 16 sequences
//! of 64 tokens.
//!
//! `cargo bench --bench step` measures random weights in f32; `ZOFO_BENCH_MODEL=DIR` measures a checkpoint, and
//! `ZOFO_BENCH_PROFILE=strict-bf16` the other numeric profile. `RAYON_NUM_THREADS` sets the threads.
//!
//! In every round the parts take turns: two passes at the weights, one pass of both sides of a pair, one pass of an exact
//! slope along thin factors, and the update. Figures are medians over rounds; a ratio is that of one round.

#[path = "shape/random.rs"]
mod random;
mod shape;

use std::{env, hint::black_box, path::Path, sync::Arc, time::Instant};

use zofo::{
    direction::{Direction, DirectionSet, Displacement},
    kernels::Context,
    model::{Batch, Model},
    noise::{Law, NoiseKey, Role},
    objective::{Labelled, losses, slopes},
    optim::{Oracle, Space},
    simd::Isa,
    train::{Resident, Tuned},
    weights::Precision,
};

use shape::{LENGTH, SEQUENCES, median};

const ROUNDS: u32 = 9;
/// The rank of thin factors.
const RANK: usize = 8;

/// Seconds of the parts of a step.
#[derive(Clone, Copy)]
struct Parts {
    forwards: f64,
    pair: f64,
    slope: f64,
    update: f64,
}

fn seconds<T>(work: impl FnOnce() -> T) -> f64 {
    let begin = Instant::now();
    black_box(work());
    begin.elapsed().as_secs_f64()
}

fn main() {
    let isa = Isa::active().expect("ZOFO_ISA names an instruction set of this CPU");
    let profile = env::var("ZOFO_BENCH_PROFILE").map_or_else(|_| Ok(Default::default()), |name| name.parse());
    let cx = Context { profile: profile.expect("a numeric profile"), ..Context::new(isa) };
    let model = env::var_os("ZOFO_BENCH_MODEL")
        .map_or_else(random::model, |dir| Model::open(Path::new(&dir)).expect("a model directory"));
    let trainable: Vec<_> = model.store().params().iter().map(|(id, _)| id).collect();
    let tuned = Tuned::new(model, cx.clone(), trainable.clone());
    let mut tuned = tuned.with_precision(Precision::F32, 0).expect("private copies");

    let batch = Batch::new(shape::ids(tuned.model().spec().vocab_size as u32));
    let every: Vec<Option<u32>> = batch.ids().iter().map(|&id| Some(id)).collect();
    let last = (0..batch.tokens()).map(|i| every[i].filter(|_| i % LENGTH >= LENGTH - 2)).collect();
    let jobs = [("loss of every token", every), ("loss of the last two tokens of each sequence", last)];
    println!(
        "{isa}, {}, {} threads, {ROUNDS} rounds, {SEQUENCES} × {LENGTH} tokens\n",
        cx.profile,
        rayon::current_num_threads()
    );
    println!("| job | two passes | pair | update | step | step / two passes | slope pass / pair |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, labels) in jobs {
        let labelled = Labelled::of(tuned.model().spec(), &batch, &labels).expect("labels");
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            let key = NoiseKey::new(2, u64::from(round), Role::Dense, 0);
            let noise = |&id| (id, Direction::Dense { key, law: Law::Gaussian });
            let dense = Arc::new(DirectionSet::new(trainable.iter().map(noise)));
            let thin = Arc::new(DirectionSet::new(trainable.iter().map(|&id| {
                let param = &tuned.params()[id];
                let factor = |role, rows: usize| {
                    let mut values = vec![0.0; rows * RANK];
                    let noise = NoiseKey::new(2, u64::from(round), role, 0).tensor(param.noise_name());
                    noise.fill(isa, Law::Gaussian, 0..rows as u64, 0..RANK, &mut values);
                    Arc::from(values)
                };
                let (left, right) = (factor(Role::U, param.rows()), factor(Role::V, param.cols()));
                (id, Direction::LowRank { left, right, rank: RANK })
            })));
            let base = [Displacement::default()];
            let pair = [1e-3, -1e-3].map(|epsilon| Displacement::along(&dense, epsilon));
            let pass = |lanes: &[Displacement]| losses(tuned.model(), &cx, &batch, &labelled, lanes).expect("losses");
            let parts = Parts {
                forwards: seconds(|| [pass(&base), pass(&base)]),
                pair: seconds(|| pass(&pair)),
                slope: seconds(|| {
                    slopes(tuned.model(), &cx, &batch, &labelled, std::slice::from_ref(&thin)).expect("slopes")
                }),
                update: seconds(|| tuned.commit(&Displacement::along(&dense, 1e-7)).expect("an update")),
            };
            // The first round warms caches and scratch memory, and makes private copies.
            if round > 0 {
                rounds.push(parts);
            }
        }
        let of = |figure: &dyn Fn(&Parts) -> f64| median(&mut rounds.iter().map(figure).collect::<Vec<_>>());
        println!(
            "| {name} | {:.3} s | {:.3} s | {:.3} s | {:.3} s | {:.3} | {:.3} |",
            of(&|parts| parts.forwards),
            of(&|parts| parts.pair),
            of(&|parts| parts.update),
            of(&|parts| parts.pair + parts.update),
            of(&|parts| (parts.pair + parts.update) / parts.forwards),
            of(&|parts| parts.slope / parts.pair),
        );
    }
    println!("\nPeak of the process: {} MB.", Resident::measure().peak >> 20);
}
