//! `zofo dump`: numbers for comparison with any other engine.

mod inputs;
mod outputs;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Exit, Failure, console::Console, load};
use crate::{
    direction::Displacement,
    kernels::{Context, cross_entropy::Vocabulary},
    model::{Gradients, Head, Kept, Model, ModelError, Summand},
    objective::{self, Labelled},
    tensor::Block,
};
use inputs::Inputs;

pub(super) use inputs::Problem;
use outputs::Values;

/// What `zofo dump` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to write
    what: What,
    /// Hugging Face model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Safetensors with `input_ids` i64 [B,T] and, as wanted, `attention_mask`, `labels`, `direction.<parameter>` or,
    /// for several, `direction.<k>.<parameter>`
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// Safetensors to write: `logits` f32, `loss` f64, `slope` f64, or `grad.<parameter>` f32 beside `loss`
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// With `loss`: also the loss at θ + ε · direction, for each of these ε
    #[arg(long, value_name = "E1,E2", value_delimiter = ',', allow_negative_numbers = true)]
    epsilon: Vec<f32>,
}

/// The numbers that can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// f32 [B,T,V], zero rows at padding; [B,C] for a classifier
    Logits,
    /// f64 [1], the mean over labelled positions; [1+E] with --epsilon
    Loss,
    /// f32 of each parameter's shape, the gradient of that mean by it, and the mean
    Gradients,
    /// f64 [K], the exact derivative of that mean along each direction
    Slopes,
}

/// Logit rows that exist beside the output at a time.
const BLOCK: usize = 64;

pub(super) fn run(arguments: &Arguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let model = load::model(&arguments.model, console)?;
    let told = |error| match error {
        LossFailure::Problem(problem) => Failure::Inputs { path: arguments.inputs.clone(), problem },
        LossFailure::Other(failure) => *failure,
    };
    let inputs = Inputs::read(&arguments.inputs, &model)?;
    let values = match arguments.what {
        What::Logits => vec![logits(&model, cx, &inputs)?],
        What::Loss => vec![loss(&model, cx, &inputs, &arguments.epsilon).map_err(told)?],
        What::Gradients => gradients(&model, cx, &inputs).map_err(told)?,
        What::Slopes => vec![slopes(&model, cx, &inputs).map_err(told)?],
    };
    model.store().check_unchanged()?;
    outputs::write(&values, &arguments.output)?;
    let Values { name, shape, .. } = &values[0];
    let result = json!({ "output": arguments.output, "tensor": name, "shape": shape, "tensors": values.len() });
    let others = values.len() - 1;
    let beside = if others == 0 { String::new() } else { format!(" and {others} gradients") };
    console.result(&result, &format!("{}: {name} {shape:?}{beside}", arguments.output.display()))?;
    Ok(Exit::Ok)
}

fn logits(model: &Model, cx: &Context, inputs: &Inputs) -> Result<Values, Failure> {
    let lanes = [Displacement::default()];
    let hidden = model.forward(cx, &inputs.batch, &lanes, None, None)?;
    let [sequences, columns] = inputs.shape;
    let (rows, places, shape): (Vec<usize>, Vec<usize>, Vec<usize>) = match model.spec().head {
        Head::Classifier { labels } => {
            let firsts = inputs.batch.sequences().iter().map(|rows| rows.start).collect();
            (firsts, (0..sequences).collect(), vec![sequences, labels])
        }
        _ => {
            let rows = (0..inputs.batch.tokens()).collect();
            (rows, inputs.places.clone(), vec![sequences, columns, model.spec().vocab_size])
        }
    };
    let width = shape[shape.len() - 1];
    let mut values = vec![0.0_f32; shape.iter().product()];
    for (rows, places) in rows.chunks(BLOCK).zip(places.chunks(BLOCK)) {
        let logits = model.logits(cx, &hidden, &lanes, rows, Vocabulary::Full(width))?;
        for (row, place) in places.iter().enumerate() {
            values[place * width..(place + 1) * width].copy_from_slice(logits.lane(0).row(row));
        }
    }
    Ok(Values::f32("logits", shape, values))
}

/// Why there is no loss, or no slope.
enum LossFailure {
    Problem(Problem),
    Other(Box<Failure>),
}

impl From<Problem> for LossFailure {
    fn from(problem: Problem) -> Self {
        LossFailure::Problem(problem)
    }
}

impl From<ModelError> for LossFailure {
    fn from(error: ModelError) -> Self {
        LossFailure::Other(Box::new(error.into()))
    }
}

fn labelled(model: &Model, inputs: &Inputs) -> Result<Labelled, Problem> {
    let labels = inputs.labels.as_ref().ok_or(Problem::NoLabels)?;
    Labelled::of(model.spec(), &inputs.batch, labels).map_err(Problem::Labels)
}

fn loss(model: &Model, cx: &Context, inputs: &Inputs, epsilon: &[f32]) -> Result<Values, LossFailure> {
    let labelled = labelled(model, inputs)?;
    let mut lanes = vec![Displacement::default()];
    if !epsilon.is_empty() {
        let [direction] = &inputs.directions[..] else {
            return Err(Problem::Directions { found: inputs.directions.len() }.into());
        };
        lanes.extend(epsilon.iter().map(|&epsilon| Displacement::along(direction, epsilon)));
    }
    let sums = objective::losses(model, cx, &inputs.batch, &labelled, &lanes)?;
    let count = labelled.count() as f64;
    Ok(Values::f64("loss", vec![lanes.len()], sums.iter().map(|sum| sum.total / count).collect()))
}

/// The mean loss, and its gradient by every parameter.
fn gradients(model: &Model, cx: &Context, inputs: &Inputs) -> Result<Vec<Values>, LossFailure> {
    let labelled = labelled(model, inputs)?;
    let (params, count) = (model.store().params(), labelled.count() as f64);
    let all: Vec<_> = params.iter().map(|(id, _)| id).collect();
    let mut found = Vec::with_capacity(1 + all.len());
    let mut of = (model, |id, gradient: Block<f32>| {
        let (name, shape) = (format!("grad.{}", params[id].name()), params[id].shape().to_vec());
        found.push(Values::f32(name, shape, gradient.to_vec()));
    });
    let (mut sums, at) = (Gradients::new(&all, Kept::All), Displacement::default());
    let summand = Summand { cx, at: &at, is_last: true };
    let losses = objective::gradients(&mut of, &mut sums, summand, (&inputs.batch, &labelled), 1.0 / count)?;
    found.insert(0, Values::f64("loss", vec![1], vec![losses.total / count]));
    Ok(found)
}

fn slopes(model: &Model, cx: &Context, inputs: &Inputs) -> Result<Values, LossFailure> {
    let labelled = labelled(model, inputs)?;
    if inputs.directions.is_empty() {
        return Err(Problem::NoDirections.into());
    }
    let count = labelled.count() as f64;
    let slopes = objective::slopes(model, cx, &inputs.batch, &labelled, &inputs.directions)?.slopes;
    let means: Vec<f64> = slopes.iter().map(|sum| sum.total / count).collect();
    Ok(Values::f64("slope", vec![means.len()], means))
}
