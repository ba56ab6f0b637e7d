//! The network of the demo, 2 → 32 → 3, as one flat parameter vector and a forward pass.

use super::points::{CLASSES, FEATURES, Points};
use crate::{
    kernels::{
        Context,
        activation::{self, Activation},
        cross_entropy::{self, Targets, Vocabulary},
        matmul,
    },
    noise::{Law, NoiseKey, Role},
    tensor::{MatMut, MatRef, Sequences, WeightRef},
};

/// Hidden units.
const HIDDEN: usize = 32;
/// Lengths of the parts of the parameter vector: weight `[32, 2]`, bias, weight `[3, 32]`, bias.
const PARTS: [usize; 4] = [HIDDEN * FEATURES, HIDDEN, CLASSES * HIDDEN, CLASSES];
/// Length of the parameter vector.
pub(super) const PARAMETERS: usize = PARTS[0] + PARTS[1] + PARTS[2] + PARTS[3];

/// The network's data, and room for its activations.
#[derive(Debug)]
pub(super) struct Network<'a> {
    cx: &'a Context,
    points: &'a Points,
    examples: Sequences,
    hidden: Vec<f32>,
    logits: Vec<f32>,
}

impl<'a> Network<'a> {
    /// A network that is evaluated on all of `points`.
    pub(super) fn new(cx: &'a Context, points: &'a Points) -> Self {
        let examples = Sequences::from_lengths([points.len()]);
        let (hidden, logits) = (vec![0.0; points.len() * HIDDEN], vec![0.0; points.len() * CLASSES]);
        Network { cx, points, examples, hidden, logits }
    }

    /// The mean cross-entropy at `parameters`, in nats.
    pub(super) fn loss(&mut self, parameters: &[f32]) -> f64 {
        self.forward(parameters);
        let targets =
            Targets { vocabulary: Vocabulary::Full(CLASSES), labels: &self.points.labels, examples: &self.examples };
        let sums = cross_entropy::forward(self.cx, &targets, MatRef::new(&self.logits, self.points.len(), CLASSES));
        sums.total / sums.count() as f64
    }

    /// The share of points whose largest logit is that of their arm.
    pub(super) fn accuracy(&mut self, parameters: &[f32]) -> f64 {
        self.forward(parameters);
        let largest =
            |row: &[f32]| (0..CLASSES).fold(0, |best, class| if row[class] > row[best] { class } else { best });
        let rows = self.logits.chunks_exact(CLASSES).zip(&self.points.labels);
        let right = rows.filter(|(row, label)| label.is_some_and(|label| label as usize == largest(row))).count();
        right as f64 / self.points.len() as f64
    }

    /// Fills `logits`.
    fn forward(&mut self, parameters: &[f32]) {
        let rows = self.points.len();
        let (weight_in, rest) = parameters.split_at(PARTS[0]);
        let (bias_in, rest) = rest.split_at(PARTS[1]);
        let (weight_out, bias_out) = rest.split_at(PARTS[2]);
        let weight_in = WeightRef::f32(weight_in, HIDDEN, FEATURES);
        let weight_out = WeightRef::f32(weight_out, CLASSES, HIDDEN);
        let hidden = MatMut::new(&mut self.hidden, rows, HIDDEN);
        matmul::forward(self.cx, self.points.matrix(), &weight_in, Some(bias_in), hidden);
        activation::forward_in_place(self.cx, Activation::Gelu, &mut self.hidden);
        let logits = MatMut::new(&mut self.logits, rows, CLASSES);
        matmul::forward(self.cx, MatRef::new(&self.hidden, rows, HIDDEN), &weight_out, Some(bias_out), logits);
    }
}

/// Gaussian starting values: standard deviation 2 into the hidden layer, so that its 32 units bend at
/// different places of the unit disc, 1/√32 out of it, and no bias out of it.
pub(super) fn initial(cx: &Context, seed: u64) -> Vec<f32> {
    let mut parameters = vec![0.0; PARAMETERS];
    NoiseKey::new(seed, 0, Role::Init, 0).tensor(0).fill(cx.isa, Law::Gaussian, 0..1, 0..PARAMETERS, &mut parameters);
    let (input, rest) = parameters.split_at_mut(PARTS[0] + PARTS[1]);
    let (weight_out, bias_out) = rest.split_at_mut(PARTS[2]);
    input.iter_mut().for_each(|x| *x *= 2.0);
    weight_out.iter_mut().for_each(|x| *x *= 0.176_776_7);
    bias_out.fill(0.0);
    parameters
}
