//! What a step of each method costs beside the passes that it cannot do without, and the memory that it holds: a model of
//! SmolLM2-135M's shape, 16 sequences of 64 tokens, the loss of every token, all parameters trained.
//!
//! `cargo bench --bench methods` measures random weights in f32; `ZOFO_BENCH_MODEL=DIR` measures a checkpoint, whose memory
//! is that of a run. `-- lozo bszo` picks the rows of some methods. `RAYON_NUM_THREADS` sets the threads.
//!
//! Every row has a process of its own. In each round a forward pass of the batch and a step take turns; a figure in passes is the
//! median of ratios of one round. Ideal are the passes that a step asked for and nothing else: a loss is one, an exact slope
//! one beside that of its loss, a gradient the one that it begins with, so that over ideal its way back shows. What happens
//! every so many steps, such as new factors or a projection, happens in the round that warms up or not at all.

#[path = "shape/random.rs"]
mod random;
mod shape;
#[path = "shape/texts.rs"]
mod texts;

use std::{
    env,
    hint::black_box,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use zofo::{
    direction::Displacement,
    kernels::Context,
    model::Model,
    optim::{Clock, Oracle, Pool, REGISTRY, Tunes, find},
    simd::Isa,
    train::{LiveOracle, Resident, TuneConfig, Tuned, trainable},
    weights::Precision,
};

use shape::{LENGTH, SEQUENCES, median};

const ROUNDS: u64 = 5;
/// `train.activation_mb` of a run file that does not say.
const ACTIVATIONS: u64 = 96 << 20;
/// Environment of a row's process: the method and its options.
const ROW: [&str; 2] = ["ZOFO_BENCH_METHOD", "ZOFO_BENCH_OPTIONS"];

/// Rows beside those of the registry's defaults: several probes a step, and those that examples have of their own.
const MORE: [(&str, &str); 8] = [
    ("mezo", "queries = 4"),
    ("mezo", "estimator = \"slope\""),
    ("mezo", "directions = \"per-example\""),
    ("lozo", "queries = 4"),
    ("lozo", "directions = \"per-example\""),
    ("subzero", "queries = 4"),
    ("tezo", "queries = 4"),
    ("adamw", "in_place = true"),
];

/// What a row's process found.
struct Found {
    /// Passes that a step asked for.
    ideal: usize,
    /// Seconds of a step.
    seconds: f64,
    /// The same in passes.
    passes: f64,
    /// Bytes that the process held at most.
    peak: u64,
}

impl Found {
    /// Measures a method in this process, and writes what is found to standard output.
    fn measure(name: &str, options: &str) {
        // So small a rate leaves the loss as it is.
        let options = format!("{options}\nlr = 1e-12").parse().expect("TOML");
        let mut optimizer = find(name).and_then(|entry| entry.build(&options)).expect("a method and its options");
        let mut model = env::var_os("ZOFO_BENCH_MODEL")
            .map_or_else(random::model, |dir| Model::open(Path::new(&dir)).expect("a model directory"));
        let tune = match optimizer.tunes() {
            Tunes::Model => TuneConfig::Full,
            Tunes::TensorTrains => TuneConfig::TensorTrain { rank: 5, width: 64, targets: None },
        };
        let trainable = trainable(&mut model, &tune, 0).expect("parameters");
        let cx = Context::new(Isa::active().expect("ZOFO_ISA names an instruction set of this CPU"));
        let tuned = Tuned::new(model, cx, trainable).with_precision(Precision::F32, 0).expect("private copies");
        let texts = texts::texts(tuned.model());
        let mut oracle = LiveOracle::new(tuned, texts, (SEQUENCES, 0), ACTIVATIONS);
        let (mut ideal, mut seconds, mut passes) = (0, Vec::new(), Vec::new());
        for step in 0..=ROUNDS {
            let batch = oracle.draw(Pool::Train, None).expect("a batch");
            let begin = Instant::now();
            black_box(oracle.losses(batch, &[Displacement::default()]).expect("a loss"));
            let pass = begin.elapsed().as_secs_f64();
            let begin = Instant::now();
            let report = optimizer.step(&mut oracle, Clock { seed: 0, step, steps: ROUNDS + 1 }).expect("a step");
            let took = begin.elapsed().as_secs_f64();
            assert!(!report.nonfinite, "a step of {name} met what is not finite");
            // The first round warms caches and scratch memory, and draws what lives longer than a step.
            if step > 0 {
                ideal = report.evaluations;
                seconds.push(took);
                passes.push(took / pass);
            }
        }
        println!("{ideal} {} {} {}", median(&mut seconds), median(&mut passes), Resident::measure().peak);
    }

    /// What a process of its own finds of a method.
    fn by_process(name: &str, options: &str) -> Found {
        let program = env::current_exe().expect("this program");
        let output = Command::new(program).envs(ROW.into_iter().zip([name, options])).stderr(Stdio::inherit()).output();
        let output = output.expect("a process");
        assert!(output.status.success(), "{name}: {}", output.status);
        let line = String::from_utf8(output.stdout).expect("numbers");
        let words: Vec<&str> = line.split_whitespace().collect();
        let [ideal, seconds, passes, peak] = words[..] else { panic!("four numbers: {line:?}") };
        let number = |word: &str| word.parse().expect("a number");
        Found {
            ideal: ideal.parse().expect("passes"),
            seconds: number(seconds),
            passes: number(passes),
            peak: peak.parse().expect("bytes"),
        }
    }
}

fn main() {
    if let [Ok(name), Ok(options)] = ROW.map(env::var) {
        return Found::measure(&name, &options);
    }
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let plain = REGISTRY.iter().map(|entry| (entry.name, ""));
    let mut rows: Vec<_> =
        plain.chain(MORE).filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|it| it == name)).collect();
    rows.sort_by_key(|&(name, _)| name);
    let isa = Isa::active().expect("ZOFO_ISA names an instruction set of this CPU");
    println!("{isa}, {} threads, {ROUNDS} rounds, {SEQUENCES} × {LENGTH} tokens\n", rayon::current_num_threads());
    println!("| method | ideal passes | step | in passes | over ideal | peak | over `mezo` |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mezo = Found::by_process("mezo", "").peak;
    for (name, options) in rows {
        let Found { ideal, seconds, passes, peak } = Found::by_process(name, options);
        let label = if options.is_empty() { format!("`{name}`") } else { format!("`{name}`, `{options}`") };
        println!(
            "| {label} | {ideal} | {seconds:.3} s | {passes:.2} | {:.3} | {} MB | {:.3} |",
            passes / ideal as f64,
            peak / 1_000_000,
            peak as f64 / mezo as f64,
        );
    }
}
