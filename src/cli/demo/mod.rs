//! `zofo demo`: training without a gradient, in seconds, with a result checked to the bit.
//!
//! A network of two layers learns which arm of a spiral each of 2,000 points belongs to by two-point
//! steps (Spall 1992; MeZO, Malladi et al. 2023, arXiv 2305.17333): per step one Gaussian direction `z`
//! and two forward passes, never a backward one.
//!
//! ```text
//! g = (L(θ + εz) − L(θ − εz)) / 2ε
//! θ ← θ − lr · g · z
//! ```
//!
//! *What must stay true*: the final parameters are those behind [`EXPECTED`] on every machine. Whoever
//! changes the bits of a kernel or of the noise on purpose changes that line and the changelog with it.

mod network;
mod points;

use std::time::Instant;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Exit, Failure, console::Console};
use crate::{
    kernels::{Context, elementwise},
    noise::{Law, NoiseKey, Role},
};
use network::{Network, PARAMETERS};
use points::Points;

/// SHA-256 of the reported losses and the final parameters.
const EXPECTED: &str = "unset";

const SEED: u64 = 1;
const STEPS: u32 = 6000;
/// Steps between two reported losses.
const REPORT_EVERY: u32 = 250;
/// Small against the curvature of the loss, large against the rounding of f32 sums.
const EPSILON: f32 = 1e-3;
/// The largest rate of {0.005, 0.01, 0.02, 0.04} at which the loss fell in every report; it decays to a tenth.
const RATE: f32 = 0.02;

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Outcome {
    ok: bool,
    digest: String,
    expected: &'static str,
    parameters: usize,
    points: usize,
    steps: u32,
    base: Score,
    #[serde(rename = "final")]
    last: Score,
    losses: Vec<f64>,
    isa: String,
    threads: usize,
    seconds: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Score {
    loss: f64,
    accuracy: f64,
}

/// Trains and checks the digest: exit code 1 if it differs, 3 if the loss is not finite.
pub(super) fn run(context: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let points = Points::embedded();
    let mut network = Network::new(context, &points);
    let mut parameters = network::initial(context, SEED);
    let base = Score { loss: network.loss(&parameters), accuracy: network.accuracy(&parameters) };
    let mut losses = vec![base.loss];
    for step in 0..STEPS {
        let loss = two_point_step(context, &mut network, &mut parameters, step);
        if !loss.is_finite() {
            return Err(Failure::NonFinite { step: u64::from(step), loss });
        }
        if (step + 1) % REPORT_EVERY == 0 {
            losses.push(network.loss(&parameters));
            show(console, step + 1, &losses);
        }
    }
    let last = Score { loss: losses[losses.len() - 1], accuracy: network.accuracy(&parameters) };
    let digest = digest(&losses, &parameters);
    let outcome = Outcome {
        ok: digest == EXPECTED,
        digest,
        expected: EXPECTED,
        parameters: PARAMETERS,
        points: points.len(),
        steps: STEPS,
        base,
        last,
        losses,
        isa: context.isa.to_string(),
        threads: rayon::current_num_threads(),
        seconds: begin.elapsed().as_secs_f64(),
    };
    console.result(&outcome, &summary(&outcome))?;
    Ok(if outcome.ok { Exit::Ok } else { Exit::Failed })
}

/// One step in place; answers the mean of the two losses, and changes nothing if it is not finite.
fn two_point_step(cx: &Context, network: &mut Network, parameters: &mut [f32], step: u32) -> f64 {
    let mut direction = cx.workspace.take::<f32>(PARAMETERS);
    let key = NoiseKey::new(SEED, u64::from(step), Role::Dense, 0);
    key.tensor(0).fill(cx.isa, Law::Gaussian, 0..1, 0..PARAMETERS, &mut direction);
    let mut probe = |epsilon| {
        let mut moved = cx.workspace.take::<f32>(PARAMETERS);
        moved.copy_from_slice(parameters);
        elementwise::axpy(cx, epsilon, &direction, &mut moved);
        network.loss(&moved)
    };
    let (plus, minus) = (probe(EPSILON), probe(-EPSILON));
    let mean = 0.5 * (plus + minus);
    if mean.is_finite() {
        let projected_grad = ((plus - minus) / (2.0 * f64::from(EPSILON))) as f32;
        let decay = 1.0 - 0.9 * (step as f32 / STEPS as f32);
        elementwise::axpy(cx, -RATE * decay * projected_grad, &direction, parameters);
    }
    mean
}

/// SHA-256 of the losses and the parameters, little-endian.
fn digest(losses: &[f64], parameters: &[f32]) -> String {
    let mut hash = Sha256::new();
    for loss in losses {
        hash.update(loss.to_le_bytes());
    }
    for parameter in parameters {
        hash.update(parameter.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The progress line: a drawing on a terminal, every fourth report as a plain line elsewhere.
fn show(console: &mut Console, step: u32, losses: &[f64]) {
    let loss = losses[losses.len() - 1];
    if console.is_live() {
        console.progress(&format!("step {step:>5}/{STEPS}  loss {loss:.4}  {}", sparkline(losses)), false);
    } else if step % (4 * REPORT_EVERY) == 0 {
        console.progress(&format!("step {step:>5}/{STEPS}  loss {loss:.4}"), true);
    }
}

/// One block per value, its height relative to the first value.
fn sparkline(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let height = |value: &f64| ((value / values[0]).clamp(0.0, 1.0) * 7.0).round() as usize;
    values.iter().map(|value| BLOCKS[height(value)]).collect()
}

/// The result for people.
fn summary(outcome: &Outcome) -> String {
    let Outcome { base, last, .. } = outcome;
    let verdict = if outcome.ok {
        "as expected: these bits are the same on every instruction set and thread count".to_owned()
    } else {
        format!("DIFFERS from the expected {}; `zofo verify` says where", outcome.expected)
    };
    format!(
        "\
{} parameters, {} points, {} two-point steps without a gradient
loss      {:.4} -> {:.4}  {}
accuracy  {:.1} % -> {:.1} %
{}, {} threads, {:.1} s
digest    {}
          {verdict}",
        outcome.parameters,
        outcome.points,
        outcome.steps,
        base.loss,
        last.loss,
        sparkline(&outcome.losses),
        100.0 * base.accuracy,
        100.0 * last.accuracy,
        outcome.isa,
        outcome.threads,
        outcome.seconds,
        outcome.digest,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    #[test]
    fn a_sparkline_falls_with_its_values() {
        assert_eq!(sparkline(&[1.0, 0.5, 0.0, f64::NAN]), "█▅▁▁");
    }

    #[test]
    fn a_step_is_the_same_on_every_instruction_set_and_a_non_finite_loss_changes_nothing() {
        let points = Points::embedded();
        let after: Vec<_> = Isa::available()
            .into_iter()
            .map(|isa| {
                let cx = Context::new(isa);
                let mut parameters = network::initial(&cx, SEED);
                let loss = two_point_step(&cx, &mut Network::new(&cx, &points), &mut parameters, 0);
                digest(&[loss], &parameters)
            })
            .collect();
        assert!(after.windows(2).all(|pair| pair[0] == pair[1]), "{after:?}");

        let cx = Context::new(Isa::fastest());
        let mut parameters = vec![f32::NAN; PARAMETERS];
        parameters[0] = 1.0;
        let loss = two_point_step(&cx, &mut Network::new(&cx, &points), &mut parameters, 0);
        assert!(loss.is_nan() && parameters[0] == 1.0);
    }
}
