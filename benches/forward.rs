//! The forward pass of a model of SmolLM2-135M's shape, 16 sequences of 64 tokens, and generation from it.
//!
//! `cargo bench --bench forward` measures random weights in f32; `ZOFO_BENCH_MODEL=DIR` measures a checkpoint as it is
//! stored, `ZOFO_BENCH_PROFILE=strict-bf16` the other numeric profile. `RAYON_NUM_THREADS` sets the threads.
//!
//! Rows take turns, round after round, with the peak of the profile's arithmetic and the read bandwidth of the machine
//! measured in every round; figures are medians (and the best) over rounds of what was measured in the same round. FLOPs
//! are two for every weight and row, and four for every visible key, head and feature.

#[path = "shape/random.rs"]
mod random;
mod shape;

use std::{
    env,
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use zofo::{
    direction::{Direction, DirectionSet, Displacement},
    kernels::{Context, Profile},
    model::{Batch, BlockParts, Model},
    noise::{Law, NoiseKey, Role},
    objective::{Generator, Labelled, Sampler, losses},
    simd::Isa,
    task::Draws,
    testing::roofline,
};

use shape::{LENGTH, SEQUENCES, median};

const ROUNDS: usize = 7;
/// Tokens generated after the first, over which a token's time is averaged.
const GENERATED: usize = 16;
const PEAK_ROUND: Duration = Duration::from_millis(20);
/// Several times the caches of any CPU of today.
const BANDWIDTH_BYTES: usize = 1 << 30;

/// Weights that every row meets, those of the head, and their bytes together.
struct Size {
    blocks: f64,
    head: f64,
    bytes: f64,
}

fn size(model: &Model) -> Size {
    let (params, head) = (model.store().params(), model.parts().head.expect("a head").last.weight);
    let elements = |id| params[id].elements() as f64;
    let blocks = model.parts().blocks.iter().flat_map(BlockParts::params).map(elements).sum();
    let bytes = |id| {
        let weight = model.store().weight(id);
        (weight.rows() * weight.cols() * weight.dtype().size()) as f64
    };
    let all = model.parts().blocks.iter().flat_map(BlockParts::params).chain([head]).map(bytes).sum();
    Size { blocks, head: elements(head), bytes: all }
}

/// Arithmetic of a pass over the batch with `labelled` rows of logits.
fn flops(model: &Model, size: &Size, labelled: usize) -> f64 {
    let spec = model.spec();
    let visible = (SEQUENCES * LENGTH * (LENGTH + 1) / 2) as f64;
    let attention = 4.0 * visible * spec.query_width() as f64 * spec.layers as f64;
    2.0 * size.blocks * (SEQUENCES * LENGTH) as f64 + 2.0 * size.head * labelled as f64 + attention
}

/// One line of the table.
struct Row {
    name: &'static str,
    unit: &'static str,
    /// What is done per second, and its share of the limit, of every round.
    samples: Vec<(f64, f64)>,
}

fn main() {
    let isa = Isa::active().expect("ZOFO_ISA names an instruction set of this CPU");
    let profile = env::var("ZOFO_BENCH_PROFILE").map_or_else(|_| Ok(Profile::StrictF32), |name| name.parse());
    let cx = Context { profile: profile.expect("a numeric profile"), ..Context::new(isa) };
    let model = env::var_os("ZOFO_BENCH_MODEL")
        .map_or_else(random::model, |dir| Model::open(Path::new(&dir)).expect("a model directory"));
    let vocabulary = model.spec().vocab_size as u32;
    let batch = Batch::new(shape::ids(vocabulary));
    let ids = shape::ids(vocabulary);
    let every: Vec<Option<u32>> = batch.ids().iter().map(|&id| Some(id)).collect();
    let last: Vec<Option<u32>> = (0..batch.tokens()).map(|i| every[i].filter(|_| (i + 1) % LENGTH == 0)).collect();
    let labelled = |labels| Labelled::of(model.spec(), &batch, labels).expect("labels");
    let (every, last) = (labelled(&every), labelled(&last));
    let noise = Direction::Dense { key: NoiseKey::new(2, 0, Role::Dense, 0), law: Law::Gaussian };
    let set = Arc::new(DirectionSet::new(model.store().params().iter().map(|(id, _)| (id, noise.clone()))));
    let base = [Displacement::default()];
    let pair = [1e-3, -1e-3].map(|epsilon| Displacement::along(&set, epsilon));
    let size = size(&model);
    let greedy = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };

    let row = |name, unit| Row { name, unit, samples: Vec::new() };
    let mut rows = [
        row("all logits, loss", "tok/s"),
        row("needed logits, loss", "tok/s"),
        row("needed logits, ± pair", "tok/s a lane"),
        row("generation", "tok/s"),
    ];
    let tokens = (SEQUENCES * LENGTH) as f64;
    for round in 0..=ROUNDS {
        let peak = match cx.profile {
            Profile::StrictF32 => roofline::fma_flops(isa, PEAK_ROUND),
            Profile::StrictBf16 => roofline::bf16_flops(isa, PEAK_ROUND),
        };
        let bandwidth = roofline::read_bandwidth(isa, BANDWIDTH_BYTES);
        let pass = |labelled: &Labelled, lanes: &[Displacement]| {
            let begin = Instant::now();
            black_box(losses(&model, &cx, &batch, labelled, lanes).expect("losses"));
            let seconds = begin.elapsed().as_secs_f64() / lanes.len() as f64;
            (tokens / seconds, flops(&model, &size, labelled.count()) / seconds / peak)
        };
        let mut first = None;
        let count = &mut |_| {
            first.get_or_insert_with(Instant::now);
            true
        };
        let (lane, max_tokens) = (&Displacement::default(), GENERATED + 1);
        let generator = Generator { model: &model, cx: &cx, lane, max_tokens, ends: &[], sampler: greedy };
        generator.write(&ids[0][..8], count).expect("tokens");
        let seconds = first.expect("a first token").elapsed().as_secs_f64() / GENERATED as f64;
        let generation = (1.0 / seconds, size.bytes / seconds / bandwidth);
        let samples = [pass(&every, &base), pass(&last, &base), pass(&last, &pair), generation];
        // The first round warms caches and scratch memory.
        if round > 0 {
            rows.iter_mut().zip(samples).for_each(|(row, sample)| row.samples.push(sample));
        }
    }

    println!(
        "{isa}, {}, {} threads, {ROUNDS} rounds, {SEQUENCES} × {LENGTH} tokens\n",
        cx.profile,
        rayon::current_num_threads()
    );
    println!("| row | median | of the limit: median, best |\n| --- | ---: | ---: |");
    for row in &mut rows {
        let (mut speeds, mut shares): (Vec<f64>, Vec<f64>) = row.samples.iter().copied().unzip();
        let (speed, share) = (median(&mut speeds), median(&mut shares));
        let best = shares[shares.len() - 1];
        println!("| {} | {speed:.1} {} | {:.0} %, {:.0} % |", row.name, row.unit, 100.0 * share, 100.0 * best);
    }
    println!(
        "\nThe limit is the peak of the profile's arithmetic, for generation the read bandwidth ({:.0} MB of weights a token).",
        size.bytes / 1e6
    );
}
