//! Toy worlds for optimizers: losses of a few dozen parameters behind an [`Oracle`].
//!
//! *What must stay true.* A loss is written once, over [`Dual`] numbers: its slopes cannot disagree with it. Losses are
//! f64 of the f32 values that a displacement really makes, so an update and a probe are the same point.

use std::{
    ops::{Add, Mul, Sub},
    sync::Arc,
};

use super::origin::Origin;
use crate::{
    direction::{Anchor, DirectionSet, Displacement, Param, ParamId, ParamTable, materialize},
    kernels::Context,
    noise::{Law, NoiseKey, Role},
    optim::{
        BatchId, CommitReport, Cost, CostUnit, GradientSink, Losses, OperatorCost, Oracle, OracleError, Pool, Space,
    },
    simd::Isa,
    tensor::Block,
    tensor::WeightRef,
};

/// A number and its derivative along one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dual {
    /// The number.
    pub value: f64,
    /// Its derivative.
    pub slope: f64,
}

impl From<f64> for Dual {
    fn from(value: f64) -> Self {
        Dual { value, slope: 0.0 }
    }
}
impl Add for Dual {
    type Output = Dual;
    fn add(self, other: Dual) -> Dual {
        Dual { value: self.value + other.value, slope: self.slope + other.slope }
    }
}
impl Sub for Dual {
    type Output = Dual;
    fn sub(self, other: Dual) -> Dual {
        Dual { value: self.value - other.value, slope: self.slope - other.slope }
    }
}
impl Mul for Dual {
    type Output = Dual;
    fn mul(self, other: Dual) -> Dual {
        Dual { value: self.value * other.value, slope: self.slope * other.value + self.value * other.slope }
    }
}

/// The contribution of each example of batch `number` to the loss, at these values of the parameters.
type Loss = Box<dyn Fn(&[Vec<Dual>], u64) -> Vec<Dual> + Send + Sync>;

/// One call of an oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Oracle::draw`].
    Draw,
    /// [`Oracle::losses`], [`Oracle::slopes`] or [`Oracle::gradients`]: how many losses and slopes.
    Evaluate(usize),
    /// [`Oracle::commit`], or the answer to a gradient.
    Commit,
}

/// Draws of an epoch.
pub const EPOCH: u64 = 4;

/// A loss over parameters in memory.
pub struct World {
    params: ParamTable,
    trainable: Vec<ParamId>,
    values: Vec<Vec<f32>>,
    origins: Vec<Arc<Origin>>,
    minimum: Vec<Vec<f32>>,
    loss: Loss,
    cx: Context,
    draws: u64,
    calls: Vec<Call>,
    faults: Vec<(u64, f64)>,
    /// What tests derive their bounds from.
    pub facts: Facts,
}

/// What is known about a world's loss.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The largest eigenvalue of the Hessian of any batch's loss, where the world starts or below.
    pub smoothness: f64,
    /// The smallest such eigenvalue of a quadratic loss all of whose batches have one minimum; 0 for other losses.
    pub convexity: f64,
}

impl World {
    /// A world of these tensors: name, shape, start and minimum of each. `frozen` names those that may not move.
    ///
    /// # Panics
    /// If a tensor's start or minimum has not its shape.
    pub fn new(tensors: &[Tensor<'_>], frozen: &[&str], facts: Facts, loss: Loss) -> Self {
        let mut params = ParamTable::new();
        for (name, shape, start, minimum) in tensors {
            let id = params.add(name, shape);
            assert!(start.len() == params[id].elements() && minimum.len() == start.len(), "values of {name} {shape:?}");
        }
        let moves = |(id, param): (ParamId, &Param)| (!frozen.contains(&param.name())).then_some(id);
        World {
            trainable: params.iter().filter_map(moves).collect(),
            origins: params.iter().zip(tensors).map(|((_, param), it)| Arc::new(Origin::new(param, &it.2))).collect(),
            params,
            values: tensors.iter().map(|tensor| tensor.2.clone()).collect(),
            minimum: tensors.iter().map(|tensor| tensor.3.clone()).collect(),
            loss,
            cx: Context::new(Isa::fastest()),
            draws: 0,
            calls: Vec::new(),
            faults: Vec::new(),
            facts,
        }
    }

    /// The same world, which answers `value` for the first loss or slope of each evaluation on the draws `draws`.
    #[must_use]
    pub fn failing(mut self, draws: impl IntoIterator<Item = u64>, value: f64) -> Self {
        self.faults.extend(draws.into_iter().map(|draw| (draw, value)));
        self
    }

    /// All values, in the order of the parameters.
    pub fn values(&self) -> &[Vec<f32>] {
        &self.values
    }

    /// What it was asked, in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// How many trainable values there are.
    pub fn dimension(&self) -> usize {
        self.trainable.iter().map(|&id| self.params[id].elements()).sum()
    }

    /// The square of the distance to the minimum, over trainable parameters.
    pub fn squared_distance(&self) -> f64 {
        let pairs = |&id: &ParamId| self.values[id.index()].iter().zip(&self.minimum[id.index()]);
        self.trainable.iter().flat_map(pairs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
    }

    /// The loss of the batch that was drawn as number `batch`, without a call being counted.
    pub fn loss(&self, batch: u64) -> f64 {
        let values: Vec<Vec<Dual>> = self.values.iter().map(|values| lift(values)).collect();
        (self.loss)(&values, batch).iter().map(|loss| loss.value).sum()
    }

    /// The derivative of each of the values of parameter `id`, at a batch.
    pub fn gradient(&self, id: ParamId, batch: u64) -> Vec<f64> {
        self.gradient_at(&self.values, id, batch)
    }

    /// All values at θ + `displacement`.
    fn displaced(&self, displacement: &Displacement) -> Vec<Vec<f32>> {
        let values =
            |(id, param): (ParamId, &Param)| materialize::displaced(&self.values[id.index()], id, param, displacement);
        self.params.iter().map(values).collect()
    }

    /// The derivative of each of the values of parameter `id` where all values are `at`.
    fn gradient_at(&self, at: &[Vec<f32>], id: ParamId, batch: u64) -> Vec<f64> {
        let mut values: Vec<Vec<Dual>> = at.iter().map(|values| lift(values)).collect();
        let mut derivative = |at: usize| {
            values[id.index()][at].slope = 1.0;
            let slope = (self.loss)(&values, batch).iter().map(|loss| loss.slope).sum();
            values[id.index()][at].slope = 0.0;
            slope
        };
        (0..at[id.index()].len()).map(&mut derivative).collect()
    }

    /// Plants this draw's fault, if it has one, in an answer.
    fn spoil(&self, batch: BatchId, answers: &mut [Losses]) {
        if let Some((_, value)) = self.faults.iter().find(|(draw, _)| *draw == batch.0)
            && let Some(first) = answers.first_mut()
        {
            first.total = *value;
            first.per_example[0] = *value;
        }
    }
}

/// Name, shape, start and minimum of a world's parameter.
pub type Tensor<'a> = (&'a str, &'a [usize], Vec<f32>, Vec<f32>);

fn lift(values: &[f32]) -> Vec<Dual> {
    values.iter().map(|&value| Dual::from(f64::from(value))).collect()
}

fn losses_of(examples: &[Dual], part: fn(&Dual) -> f64) -> Losses {
    Losses::summed(examples.iter().map(part).collect())
}

/// What each of `count` examples contributes, where `at` answers for all of them at one example's own point.
fn each_at_its_own(count: usize, at: impl Fn(usize) -> Vec<Dual>) -> Vec<Dual> {
    (0..count).map(|example| at(example)[example]).collect()
}

impl Space for World {
    fn params(&self) -> &ParamTable {
        &self.params
    }
    fn trainable(&self) -> &[ParamId] {
        &self.trainable
    }
    fn inspect(&self, id: ParamId) -> WeightRef<'_> {
        WeightRef::f32(&self.values[id.index()], self.params[id].rows(), self.params[id].cols())
    }
    fn anchor(&self, id: ParamId) -> Arc<dyn Anchor> {
        self.origins[id.index()].clone()
    }
    fn context(&self) -> &Context {
        &self.cx
    }
}

impl Oracle for World {
    fn space(&self) -> &dyn Space {
        self
    }

    /// Examples of a toy world have one length: every pool is all of them.
    fn draw(&mut self, _pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        assert!(size.is_none(), "a toy world has one batch size");
        self.calls.push(Call::Draw);
        self.draws += 1;
        Ok(BatchId(self.draws - 1))
    }

    fn batch_size(&mut self, batch: BatchId) -> Result<usize, OracleError> {
        let values: Vec<_> = self.values.iter().map(|values| lift(values)).collect();
        Ok((self.loss)(&values, batch.0).len())
    }

    /// Batches of a toy world come again after [`EPOCH`].
    fn epoch(&mut self, batch: BatchId) -> Result<u64, OracleError> {
        Ok(batch.0 / EPOCH)
    }

    fn losses(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        self.calls.push(Call::Evaluate(probes.len()));
        let examples = self.batch_size(batch)?;
        let all_at = |probe: &Displacement| {
            let displaced: Vec<_> = self.displaced(probe).iter().map(|values| lift(values)).collect();
            (self.loss)(&displaced, batch.0)
        };
        let at = |probe: &Displacement| {
            let losses = if probe.is_per_example() {
                each_at_its_own(examples, |example| all_at(&probe.of_example(example)))
            } else {
                all_at(probe)
            };
            losses_of(&losses, |loss| loss.value)
        };
        let mut answers: Vec<Losses> = probes.iter().map(at).collect();
        self.spoil(batch, &mut answers);
        Ok(answers)
    }

    fn slopes(&mut self, batch: BatchId, along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        self.calls.push(Call::Evaluate(1 + along.len()));
        let count = self.batch_size(batch)?;
        let all = |set: &DirectionSet| {
            let values = self.params.iter().map(|(id, param)| {
                let mut values = lift(&self.values[id.index()]);
                if let Some(direction) = set.get(id) {
                    let z = materialize::direction(direction, param, &self.values[id.index()]);
                    values.iter_mut().zip(z).for_each(|(value, z)| value.slope = f64::from(z));
                }
                values
            });
            (self.loss)(&values.collect::<Vec<_>>(), batch.0)
        };
        let examples = |set: &DirectionSet| {
            if set.is_per_example() {
                each_at_its_own(count, |example| all(&set.of_example(example)))
            } else {
                all(set)
            }
        };
        let loss = losses_of(&examples(&DirectionSet::default()), |loss| loss.value);
        let mut slopes: Vec<Losses> = along.iter().map(|set| losses_of(&examples(set), |loss| loss.slope)).collect();
        self.spoil(batch, &mut slopes);
        Ok((loss, slopes))
    }

    fn gradients(
        &mut self,
        batch: BatchId,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        sink: &mut dyn GradientSink,
    ) -> Result<Vec<Losses>, OracleError> {
        assert!(!wrt.is_empty() && wrt.is_sorted_by(|a, b| a < b), "parameters to differentiate by: {wrt:?}");
        let points: Vec<Displacement> = at.iter().map(|(_, displacement)| displacement.clone()).collect();
        let losses = self.losses(batch, &points)?;
        if losses.iter().any(|losses| !losses.total.is_finite()) {
            return Ok(losses);
        }
        let points: Vec<_> = at.iter().map(|(weight, point)| (*weight, self.displaced(point))).collect();
        let sum = |&id: &ParamId| {
            let mut sum = vec![0.0; self.params[id].elements()];
            for (weight, point) in &points {
                let gradient = self.gradient_at(point, id, batch.0);
                sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += weight * g);
            }
            (id, sum.into_iter().map(|g| g as f32).collect::<Vec<_>>())
        };
        let gradients: Vec<_> = wrt.iter().rev().map(sum).collect();
        for (id, gradient) in gradients {
            if let Some(update) = sink.take(id, Block::from(&gradient[..])) {
                let moves_others = self.trainable.iter().any(|&other| other != id && update.moves(other));
                assert!(!moves_others, "the answer to a gradient moves another parameter");
                sink.moved(self.commit(&update)?);
            }
        }
        Ok(losses)
    }

    /// A parameter of n values costs n of each kind; the last one stands next to the loss.
    fn backward_costs(&mut self, _: BatchId, _: CostUnit) -> Result<Vec<OperatorCost>, OracleError> {
        let cost = |(id, param): (ParamId, &Param)| {
            let n = param.elements() as u64;
            OperatorCost { parameter: Some(id), cost: Cost { forward: n, through: n, into: n } }
        };
        let mut costs: Vec<_> = self.params.iter().map(cost).collect();
        costs.reverse();
        Ok(costs)
    }

    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.calls.push(Call::Commit);
        let mut squares = 0.0;
        for (id, param) in self.params.iter() {
            let values = materialize::displaced(&self.values[id.index()], id, param, update);
            assert!(!update.moves(id) || self.trainable.contains(&id), "an update of frozen {:?}", param.name());
            let changes = values.iter().zip(&self.values[id.index()]);
            squares += changes.map(|(new, old)| (f64::from(*new) - f64::from(*old)).powi(2)).sum::<f64>();
            self.values[id.index()] = values;
        }
        Ok(CommitReport { update_rms: (squares / self.dimension() as f64).sqrt(), rounding_rms: 0.0 })
    }
}

/// `n` values of the uniform law on (−1, 1): starts and minima.
pub fn uniform(n: usize, seed: u64) -> Vec<f32> {
    let noise = NoiseKey::new(seed, 0, Role::Init, 0).tensor(0);
    (0..n).map(|at| noise.at(Law::Uniform, 0, at)).collect()
}

/// `½ Σ λᵢ (xᵢ − tᵢ)²` with λ from 1 to 4; every coordinate is an example.
pub fn quadratic() -> World {
    const N: usize = 24;
    let target = uniform(N, 1);
    let minimum = lift(&target);
    let loss = move |values: &[Vec<Dual>], _| {
        let term = |i: usize| {
            let error = values[0][i] - minimum[i];
            Dual::from(0.5 + 1.5 * i as f64 / (N - 1) as f64) * error * error
        };
        (0..N).map(term).collect()
    };
    let start = vec![2.0; N];
    let facts = Facts { smoothness: 4.0, convexity: 1.0 };
    World::new(&[("x", &[N], start, target)], &[], facts, Box::new(loss))
}

/// Rosenbrock's valley `100 (y − x²)² + (1 − x)²` from (−1.2, 1), where the loss is 24.2; the valley's floor is met at
/// about (−1, 1) with a loss of 4. Where the loss is at most 24.2, x² ≤ 35 and |y − x²| ≤ 0.5, so the largest
/// eigenvalue of the Hessian is at most its trace `800x² − 400(y − x²) + 2 + 200 < 28 500`.
pub fn rosenbrock() -> World {
    let loss = |values: &[Vec<Dual>], _| {
        let (x, y) = (values[0][0], values[0][1]);
        let (wall, floor) = (y - x * x, Dual::from(1.0) - x);
        vec![Dual::from(100.0) * wall * wall, floor * floor]
    };
    let facts = Facts { smoothness: 28_500.0, convexity: 0.0 };
    World::new(&[("xy", &[2], vec![-1.2, 1.0], vec![1.0, 1.0])], &[], facts, Box::new(loss))
}

/// `½ Σ ‖W x − W* x‖²` over batches of four of the eight examples ±`s h`: `h` are the orthonormal rows of a Hadamard
/// matrix and `s²` goes from 1 to 2, which are the eigenvalues of the Hessian of every batch.
pub fn matrix_regression() -> World {
    const ROWS: usize = 5;
    const SIGNS: [[f64; 4]; 4] =
        [[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5], [0.5, -0.5, -0.5, 0.5]];
    let truth = uniform(ROWS * 4, 2);
    let minimum = lift(&truth);
    let loss = move |values: &[Vec<Dual>], batch: u64| {
        let example = |i: usize| {
            let square = 1.0 + ((batch as usize % 2) * 4 + i) as f64 / 7.0;
            let product = |row: usize| {
                (0..4).fold(Dual::from(0.0), |sum, col| {
                    let at = row * 4 + col;
                    sum + (values[0][at] - minimum[at]) * Dual::from(SIGNS[i][col])
                })
            };
            let squares = (0..ROWS).map(product).fold(Dual::from(0.0), |sum, error| sum + error * error);
            Dual::from(0.5 * square) * squares
        };
        (0..4).map(example).collect()
    };
    let facts = Facts { smoothness: 2.0, convexity: 1.0 };
    World::new(&[("w", &[ROWS, 4], vec![1.5; ROWS * 4], truth)], &[], facts, Box::new(loss))
}

/// A matrix, a vector, and a frozen matrix and vector that the loss reads too: `½ ‖a + f − a*‖² + ‖b − g‖²`.
pub fn mixed_ranks() -> World {
    let (target, matrix, vector) = (uniform(12, 3), uniform(12, 4), uniform(5, 5));
    let minimum: Vec<f32> = target.iter().zip(&matrix).map(|(t, f)| t - f).collect();
    let wanted = lift(&target);
    let loss = move |values: &[Vec<Dual>], _| {
        let matrix = (0..12).map(|i| values[0][i] + values[1][i] - wanted[i]);
        let matrix = matrix.map(|error| Dual::from(0.5) * error * error);
        let vector = (0..5).map(|i| values[2][i] - values[3][i]).map(|error| error * error);
        matrix.chain(vector).collect()
    };
    let tensors: [Tensor<'_>; 4] = [
        ("a", &[3, 4], vec![-2.0; 12], minimum),
        ("frozen.f", &[3, 4], matrix.clone(), matrix),
        ("b", &[5], vec![2.0; 5], vector.clone()),
        ("frozen.g", &[5], vector.clone(), vector),
    ];
    World::new(&tensors, &["frozen.f", "frozen.g"], Facts { smoothness: 2.0, convexity: 1.0 }, Box::new(loss))
}

#[cfg(test)]
mod tests;
