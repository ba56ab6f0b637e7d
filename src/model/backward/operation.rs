//! Operations of a pass by their sizes, and what each costs: counted, or measured on this machine.
//!
//! *What it is not.* A choice between the two: whoever decides by times keeps them, because they come out otherwise every time.

use std::{collections::BTreeMap, hint::black_box, time::Instant};

use crate::{
    kernels::{
        Context, activation,
        attention::{self, Gradients, Inputs},
        elementwise::{self, Store},
        embedding, matmul,
        norm::{self, NormGradient},
    },
    model::{Model, layers},
    tensor::{Block, MatMut, MatRef, Sequences, WeightRef},
};

/// What costs are counted in.
#[derive(Clone, Copy, Debug)]
pub enum Unit<'a> {
    /// Floating-point operations: a multiplication and an addition count as two.
    Flops,
    /// Nanoseconds that the kernels take here, with this to compute with.
    Nanoseconds(&'a Context),
}

/// An operation by its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// Rows times a matrix.
    Product { rows: usize, inputs: usize, outputs: usize },
    /// Between products.
    Elementwise { values: usize },
    /// A normalisation of rows.
    Norm { rows: usize, width: usize },
    /// A vector that is added to rows.
    Bias { rows: usize, width: usize },
    /// Attention over so many pairs of a query and a key that it sees, in `width` features of queries.
    Attention { pairs: usize, width: usize },
    /// Rows of a table.
    Lookup { rows: usize, width: usize },
}

/// What an operation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Price {
    /// Itself.
    pub(super) forward: u64,
    /// The gradient by what it reads.
    pub(super) through: u64,
    /// The gradient by its parameter.
    pub(super) into: u64,
}

/// A value that is multiplied and added to: what operations between products count, of which exponentials and roots are
/// a fraction. In a block of D features they are of the order of 10/D of its products.
pub(super) const ELEMENTWISE: usize = 2;

/// For a query, a key and a feature: scores, and the sum of values that they weigh.
const ATTEND: usize = 4;

/// The same on the way back: scores once more, then the gradients by what they weigh, and by values, queries and keys.
pub(super) const ATTEND_BACK: usize = 10;

/// A product of sizes: those of a model that exists, so that only an absurd batch reaches the end.
fn product<const N: usize>(factors: [usize; N]) -> u64 {
    factors.into_iter().fold(1, |product, factor| product.saturating_mul(factor as u64))
}

impl Operation {
    /// In floating-point operations.
    pub(super) fn flops(self) -> Price {
        match self {
            Operation::Product { rows, inputs, outputs } => {
                let flops = product([2, rows, inputs, outputs]);
                Price { forward: flops, through: flops, into: flops }
            }
            Operation::Elementwise { values } => {
                let flops = product([ELEMENTWISE, values]);
                Price { forward: flops, through: flops, into: 0 }
            }
            Operation::Norm { rows, width } => {
                let flops = product([ELEMENTWISE, rows, width]);
                Price { forward: flops, through: flops, into: flops }
            }
            Operation::Bias { rows, width } => {
                let flops = product([rows, width]);
                Price { forward: flops, through: 0, into: flops }
            }
            Operation::Attention { pairs, width } => {
                let [forward, through] = [ATTEND, ATTEND_BACK].map(|each| product([each, pairs, width]));
                Price { forward, through, into: 0 }
            }
            Operation::Lookup { rows, width } => Price { into: product([rows, width]), ..Price::default() },
        }
    }
}

/// Outputs of a product that are timed; the time of more is in proportion. The head's matrix has 49,152, and a copy of it
/// would be the largest thing in memory.
const OUTPUTS: usize = 4096;

/// Times operations of a model on the sizes of a batch, each once.
pub(super) struct Stopwatch<'a> {
    cx: &'a Context,
    model: &'a Model,
    sequences: &'a Sequences,
    known: BTreeMap<Operation, Price>,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn new(cx: &'a Context, model: &'a Model, sequences: &'a Sequences) -> Self {
        Stopwatch { cx, model, sequences, known: BTreeMap::new() }
    }

    /// In nanoseconds.
    pub(super) fn price(&mut self, operation: Operation) -> Price {
        if let Some(known) = self.known.get(&operation) {
            return *known;
        }
        let price = self.measure(operation);
        self.known.insert(operation, price);
        price
    }

    fn zeros(&self, len: usize) -> Block<f32> {
        self.cx.workspace.zeros(len)
    }

    fn measure(&self, operation: Operation) -> Price {
        match operation {
            Operation::Product { rows, inputs, outputs } => self.product(rows, inputs, outputs),
            Operation::Elementwise { values } => {
                let (cx, activation) = (self.cx, self.model.spec.ffn.activation);
                let [x, bar, mut out] = [(); 3].map(|()| self.zeros(values));
                Price {
                    forward: nanoseconds(|| activation::forward(cx, activation, &x, &mut out)),
                    through: nanoseconds(|| activation::backward(cx, activation, &x, &bar, &mut out)),
                    into: 0,
                }
            }
            Operation::Norm { rows, width } => self.norm(rows, width),
            Operation::Bias { rows, width } => {
                let (mut y, mut bias) = (self.zeros(rows * width), self.zeros(width));
                let forward = nanoseconds(|| elementwise::add_bias(self.cx, &bias, MatMut::new(&mut y, rows, width)));
                let y = MatRef::new(&y, rows, width);
                Price {
                    forward,
                    through: 0,
                    into: nanoseconds(|| elementwise::add_bias_backward(self.cx, y, &mut bias)),
                }
            }
            Operation::Attention { .. } => self.attention(),
            Operation::Lookup { rows, width } => {
                let (bar, mut table) = (self.zeros(rows * width), self.zeros(rows * width));
                // Each row is looked up once: chains are as long as tokens repeat, which is not long.
                let ids: Vec<u32> = (0..rows as u32).collect();
                let bar = MatRef::new(&bar, rows, width);
                let lookup = || embedding::backward(self.cx, bar, &ids, 1.0, MatMut::new(&mut table, rows, width));
                Price { into: nanoseconds(lookup), ..Price::default() }
            }
        }
    }

    fn product(&self, rows: usize, inputs: usize, all: usize) -> Price {
        let (cx, outputs) = (self.cx, all.min(OUTPUTS));
        let [mut x, mut y] = [inputs, outputs].map(|width| self.zeros(rows * width));
        let mut weight = self.zeros(outputs * inputs);
        let forward = nanoseconds(|| {
            let weight = WeightRef::f32(&weight, outputs, inputs);
            matmul::forward(cx, MatRef::new(&x, rows, inputs), &weight, None, MatMut::new(&mut y, rows, outputs));
        });
        let through = nanoseconds(|| {
            let (weight, y) = (WeightRef::f32(&weight, outputs, inputs), MatRef::new(&y, rows, outputs));
            matmul::backward::input(cx, y, &weight, false, MatMut::new(&mut x, rows, inputs));
        });
        let rows_of_one = Sequences::from_lengths([rows]);
        let into = nanoseconds(|| {
            let (x, y) = (MatRef::new(&x, rows, inputs), MatRef::new(&y, rows, outputs));
            matmul::backward::weight(cx, y, x, &rows_of_one, MatMut::new(&mut weight, outputs, inputs));
        });
        let of_all = |time: u64| time.saturating_mul(all as u64) / outputs.max(1) as u64;
        Price { forward: of_all(forward), through: of_all(through), into: of_all(into) }
    }

    fn norm(&self, rows: usize, width: usize) -> Price {
        let cx = self.cx;
        let [x, bar, mut out] = [(); 3].map(|()| self.zeros(rows * width));
        let [weight, mut sum] = [(); 2].map(|()| self.zeros(width));
        let (x, bar) = (MatRef::new(&x, rows, width), MatRef::new(&bar, rows, width));
        let norm = self.model.spec.norm.over(&weight, None);
        Price {
            forward: nanoseconds(|| norm::forward(cx, norm, x, MatMut::new(&mut out, rows, width))),
            through: nanoseconds(|| norm::backward(cx, norm, x, bar, Store::Write, MatMut::new(&mut out, rows, width))),
            into: nanoseconds(|| {
                norm::backward_parameters(cx, norm, x, bar, NormGradient { weight: &mut sum, bias: None });
            }),
        }
    }

    /// That of the whole batch.
    fn attention(&self) -> Price {
        let (cx, rows) = (self.cx, self.sequences.total());
        let [queries, keys] = [self.model.spec.query_width(), self.model.spec.key_width()];
        let layer = layers::attention(self.model, self.sequences, self.sequences);
        let [q, bar, mut out, mut q_bar] = [(); 4].map(|()| self.zeros(rows * queries));
        let [k, v, mut k_bar, mut v_bar] = [(); 4].map(|()| self.zeros(rows * keys));
        let [k, v] = [&k, &v].map(|of| MatRef::new(of, rows, keys));
        let inputs = Inputs { q: MatRef::new(&q, rows, queries), k, v };
        Price {
            forward: nanoseconds(|| attention::forward(cx, &layer, inputs, MatMut::new(&mut out, rows, queries))),
            through: nanoseconds(|| {
                let [k, v] = [&mut k_bar, &mut v_bar].map(|of| MatMut::new(of, rows, keys));
                let gradients = Gradients { q: MatMut::new(&mut q_bar, rows, queries), k, v };
                attention::backward(cx, &layer, inputs, MatRef::new(&bar, rows, queries), gradients);
            }),
            into: 0,
        }
    }
}

/// The median of three runs after one that warms up, and at least 1: nothing is free.
fn nanoseconds(mut run: impl FnMut()) -> u64 {
    let mut time = || {
        let begin = Instant::now();
        black_box(&mut run)();
        u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    };
    time();
    let mut times = [time(), time(), time()];
    times.sort_unstable();
    times[1]
}
