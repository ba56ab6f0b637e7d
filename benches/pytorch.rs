//! Steps of `MeZO` beside those of the published code in `PyTorch`, and of `AdamW` beside `torch.optim`'s, on the same weights,
//! tokens and threads.
//!
//! `ZOFO_PYTHON=python3 ZOFO_SMOLLM2=DIR ZOFO_SST2=train.jsonl cargo bench --bench pytorch`, with a Python that has
//! `torch` and `transformers` and an f32 checkpoint; without them it says so. `RAYON_NUM_THREADS` sets the threads of both; `mezo`
//! or `adamw` after `--` picks the jobs of one.
//!
//! The two take turns, step by step, with a pause before each so that threads of the other have stopped waiting; what is
//! quoted is the median of the ratios of one turn. The jobs: (a) the mean loss of every token of 16 × 64 tokens; (b) that
//! of the last two tokens of each sequence; (c) consecutive batches of 16 sentences of SST-2 with two candidates each;
//! (d) `AdamW` of all parameters on the loss of (a), (e) the same where each tensor moves as soon as its gradient is there.

mod shape;
#[path = "shape/texts.rs"]
mod texts;
#[path = "shape/torch.rs"]
mod torch;

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use zofo::{
    direction::{Direction, DirectionSet, Displacement},
    kernels::Context,
    model::{Batch, Model},
    noise::{Law, NoiseKey, Role},
    objective::{Criterion, Examples, Labelled, Minimised, losses},
    optim::{Clock, Oracle, Space, find},
    simd::Isa,
    task::{Encoded, Encoder, Style, Task, read_rows},
    text::Tokenizer,
    train::{LiveOracle, Tuned},
};

use shape::{LENGTH, SEQUENCES, median};
use torch::{Step, Torch};

/// Turns of a job whose batch is always the same.
const TURNS: usize = 9;
/// Batches of real sentences.
const BATCHES: usize = 20;
const BATCH_SIZE: usize = 16;
const EPSILON: f32 = 1e-3;
/// OpenMP's threads spin for 0.2 s after a parallel region, unless told otherwise.
const PAUSE: Duration = Duration::from_millis(300);

/// One step of zofo: both sides of a pair in one pass, and the update.
fn step(tuned: &mut Tuned, seed: u64, mean: impl Fn(&Model, &Context, &[Displacement]) -> Vec<f64>) -> Step {
    let begin = Instant::now();
    let key = NoiseKey::new(2, seed, Role::Dense, 0);
    let noise = tuned.trainable().iter().map(|&id| (id, Direction::Dense { key, law: Law::Gaussian }));
    let z = Arc::new(DirectionSet::new(noise));
    let pair = [EPSILON, -EPSILON].map(|scale| Displacement::along(&z, scale));
    let losses = mean(tuned.model(), tuned.context(), &pair);
    let slope = (losses[0] - losses[1]) / f64::from(2.0 * EPSILON);
    tuned.commit(&Displacement::along(&z, (-1e-6 * slope) as f32)).expect("an update");
    Step { seconds: begin.elapsed().as_secs_f64(), loss: (losses[0] + losses[1]) / 2.0 }
}

/// A turn of both: zofo's seconds and `PyTorch`'s.
///
/// # Panics
/// If the two do not compute the same loss. Each adds noise of its own, ε²·tr(H)/2 on average: some thousandths.
fn turn(torch: &mut Torch, job: &str, ours: impl FnOnce() -> Step) -> (f64, f64) {
    thread::sleep(PAUSE);
    let theirs = torch.step(job);
    thread::sleep(PAUSE);
    let ours = ours();
    let (a, b) = (ours.loss, theirs.loss);
    assert!((a - b).abs() < 0.01 * b.abs(), "zofo's loss is {a}, PyTorch's {b}");
    (ours.seconds, theirs.seconds)
}

fn report(name: &str, turns: &[(f64, f64)]) {
    let of = |figure: &dyn Fn(&(f64, f64)) -> f64| median(&mut turns.iter().map(figure).collect::<Vec<_>>());
    let sum = |side: fn(&(f64, f64)) -> f64| turns.iter().map(side).sum::<f64>();
    println!(
        "| {name} | {} | {:.3} s | {:.3} s | {:.1} % | {:.1} % |",
        turns.len(),
        of(&|turn| turn.0),
        of(&|turn| turn.1),
        100.0 * of(&|turn| turn.0 / turn.1),
        100.0 * sum(|turn| turn.0) / sum(|turn| turn.1),
    );
}

/// Real sentences, for both sides.
struct Sentences {
    examples: Minimised,
    encoded: Vec<Encoded>,
}

fn sentences(checkpoint: &Path, data: &Path, model: &Model) -> Sentences {
    let tokenizer = Arc::new(Tokenizer::open(checkpoint).expect("a tokenizer"));
    let task = Task::named("sst2", Style::Causal).expect("a task of this name");
    let encoder = Encoder::new(&tokenizer, None, LENGTH * SEQUENCES);
    let rows = read_rows(data, BATCHES * BATCH_SIZE).expect("sentences");
    let encode = |row| {
        let example = task.example(row).expect("a sentence and its label");
        let encoded = encoder.encode(&example).expect("tokens");
        (example, encoded)
    };
    let encoded: Vec<_> = rows.iter().map(encode).collect();
    let examples = Examples::new(model.spec(), task.objective(), task.judge(&tokenizer), &encoded).expect("examples");
    let examples = examples.minimising(Criterion::Loss).expect("a loss");
    Sentences { examples, encoded: encoded.into_iter().map(|(_, encoded)| encoded).collect() }
}

/// The sequences whose tokens from `first` on have a loss, as the other side reads them.
fn fixed(vocabulary: u32, first: usize) -> String {
    let scored = vec![[first, LENGTH]; SEQUENCES];
    json!({ "sequences": shape::ids(vocabulary), "scored": scored, "gold": [] }).to_string()
}

/// (a), (b) and (c).
fn mezo(torch: &mut Torch, mut tuned: Tuned, sentences: &Sentences) {
    let vocabulary = tuned.model().spec().vocab_size as u32;
    let batch = Batch::new(shape::ids(vocabulary));
    for (name, first) in [("(a) every token", 1), ("(b) the last two tokens", LENGTH - 2)] {
        let label = |at: usize| batch.ids()[at];
        let labels: Vec<_> = (0..batch.tokens()).map(|at| Some(label(at)).filter(|_| at % LENGTH >= first)).collect();
        let labelled = Labelled::of(tuned.model().spec(), &batch, &labels).expect("labels");
        let job = fixed(vocabulary, first);
        let mut ours = |seed| {
            step(&mut tuned, seed, |model, cx, lanes| {
                let sums = losses(model, cx, &batch, &labelled, lanes).expect("losses");
                sums.iter().map(|sums| sums.total / labelled.count() as f64).collect()
            })
        };
        // The first turn warms caches and makes private copies.
        let turns: Vec<_> = (0..=TURNS as u64).map(|seed| turn(torch, &job, || ours(seed))).collect();
        report(name, &turns[1..]);
    }

    let numbers: Vec<usize> = (0..BATCHES * BATCH_SIZE).collect();
    let turns: Vec<_> = numbers
        .chunks(BATCH_SIZE)
        .zip(sentences.encoded.chunks(BATCH_SIZE))
        .enumerate()
        .map(|(seed, (numbers, encoded))| {
            let ours = || {
                step(&mut tuned, seed as u64, |model, cx, lanes| {
                    let losses = sentences.examples.losses(model, cx, (0, numbers), lanes).expect("losses");
                    losses.iter().map(|lane| lane.iter().sum::<f64>() / numbers.len() as f64).collect()
                })
            };
            turn(torch, &candidates(encoded), ours)
        })
        .collect();
    report("(c) SST-2, two candidates", &turns);
}

/// (d) and (e): one step at a time of the optimizer that a run file names. So small a rate leaves the loss as it is.
fn adamw(torch: &mut Torch, mut tuned: Tuned, _: &Sentences) {
    let job = fixed(tuned.model().spec().vocab_size as u32, 1);
    for (name, options) in [("(d) `AdamW`", ""), ("(e) `AdamW`, in place", "in_place = true\n")] {
        tuned.return_to_base().expect("the checkpoint");
        let texts = texts::texts(tuned.model());
        let mut oracle = LiveOracle::new(tuned, texts, (SEQUENCES, 0), u64::MAX);
        let options = format!("{options}lr = 1e-9").parse().expect("TOML");
        let mut optimizer = find("adamw").and_then(|entry| entry.build(&options)).expect("options");
        let mut step = |step| {
            let begin = Instant::now();
            let clock = Clock { seed: 0, step, steps: TURNS as u64 + 1 };
            let loss = optimizer.step(&mut oracle, clock).expect("a step").loss;
            Step { seconds: begin.elapsed().as_secs_f64(), loss }
        };
        let turns: Vec<_> = (0..=TURNS as u64).map(|number| turn(torch, &job, || step(number))).collect();
        report(name, &turns[1..]);
        tuned = oracle.into_tuned();
    }
}

/// The candidates of some sentences, as the other side reads them.
fn candidates(encoded: &[Encoded]) -> String {
    let (mut tokens, mut scored, mut golds) = (Vec::new(), Vec::new(), Vec::new());
    for one in encoded {
        let Encoded::Candidates { sequences, gold, .. } = one else { panic!("SST-2 has candidates") };
        golds.push(gold[0]);
        for sequence in sequences {
            tokens.push(sequence.ids.clone());
            scored.push([sequence.scored.start, sequence.scored.end]);
        }
    }
    json!({ "sequences": tokens, "scored": scored, "gold": golds }).to_string()
}

fn main() {
    let path = |name| env::var_os(name).map(PathBuf::from);
    let paths = (path("ZOFO_PYTHON"), path("ZOFO_SMOLLM2"), path("ZOFO_SST2"));
    let (Some(python), Some(checkpoint), Some(data)) = paths else {
        println!("Set ZOFO_PYTHON, ZOFO_SMOLLM2 and ZOFO_SST2: see benches/pytorch.rs.");
        return;
    };
    let wanted = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, jobs) in [("mezo", mezo as fn(&mut Torch, Tuned, &Sentences)), ("adamw", adamw)] {
        if wanted.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let isa = Isa::active().expect("ZOFO_ISA names an instruction set of this CPU");
        let model = Model::open(&checkpoint).expect("a checkpoint");
        let sentences = sentences(&checkpoint, &data, &model);
        let trainable: Vec<_> = model.store().params().iter().map(|(id, _)| id).collect();
        let tuned = Tuned::new(model, Context::new(isa), trainable);
        let mut torch = Torch::start(&python, &checkpoint, name);
        println!("{isa}, {} threads, torch {}\n", rayon::current_num_threads(), torch.version);
        println!("| job | turns | zofo | PyTorch | zofo / PyTorch | of the sums |");
        println!("| --- | ---: | ---: | ---: | ---: | ---: |");
        jobs(&mut torch, tuned, &sentences);
        println!("\nPeak of the other process: {} MB.\n", torch.peak() >> 20);
    }
}
