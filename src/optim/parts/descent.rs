//! Rules that make steps of gradients, a tensor at a time: momentum and `AdamW`.
//!
//! *What it is not.* A learning rate: a rule answers the direction that a step goes against.
//!
//! *What must stay true.* A tensor's direction depends on its own gradients alone, so that it is the same whether tensors
//! are moved together or each as soon as its gradient is known.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::moments::{Betas, Mean, Moments};
use crate::{
    direction::{Direction, DirectionSet, Displacement, Param, ParamId, RowFn},
    kernels::Context,
    optim::{Decay, Positive, StateVisitor, options::choice},
    tensor::Block,
};

choice! {
    /// What is done with gradients.
    pub enum Rule {
        /// A step down the gradient.
        Sgd = "sgd",
        /// A step down its mean over the root of its mean square: two values more for each weight.
        Adamw = "adamw",
    }
    expected "\"sgd\" or \"adamw\""
}

/// A rule with what it remembers.
pub trait Descent: Send {
    /// Counts a step, whose gradients follow.
    fn begin(&mut self) {}

    /// The direction that a step goes against, from a parameter's finite gradient.
    fn direction(&mut self, cx: &Context, of: (ParamId, &Param), gradient: Block<f32>) -> Direction;

    /// What the learning rate of this parameter is multiplied by.
    fn rate(&self, _: &Param) -> f64 {
        1.0
    }

    /// Shows `visitor` what is remembered.
    fn visit(&mut self, visitor: &mut dyn StateVisitor);
}

impl Rule {
    /// The rule with these means: steps down the gradient have none.
    pub fn descent(self, betas: Betas) -> Box<dyn Descent> {
        match self {
            Rule::Sgd => Box::new(Momentum::default()),
            Rule::Adamw => Box::new(Adamw::new(betas)),
        }
    }

    /// The direction of a first step.
    pub fn first(self, betas: Betas, mut gradient: Block<f32>) -> Direction {
        if self == Rule::Adamw {
            let epsilon = betas.epsilon as f32;
            gradient.iter_mut().for_each(|g| *g /= g.abs() + epsilon);
        }
        Direction::Explicit(gradient.into())
    }
}

/// `m ← βm + g`, and `m` or, looking ahead as Nesterov does, `g + βm`. The default is the gradient itself.
#[derive(Debug)]
pub struct Momentum {
    beta: Decay,
    nesterov: bool,
    mean: Mean,
}

impl Default for Momentum {
    fn default() -> Self {
        Momentum::new(Decay::new(0.0), false)
    }
}

impl Momentum {
    /// A mean that keeps `beta`; none if that is 0.
    pub fn new(beta: Decay, nesterov: bool) -> Self {
        Momentum { beta, nesterov, mean: Mean::default() }
    }
}

impl Descent for Momentum {
    fn direction(&mut self, cx: &Context, of: (ParamId, &Param), gradient: Block<f32>) -> Direction {
        if self.beta.get() == 0.0 {
            return Direction::Explicit(gradient.into());
        }
        let gradient: Arc<[f32]> = gradient.into();
        let set = DirectionSet::new([(of.0, Direction::Explicit(Arc::clone(&gradient)))]);
        let mean = self.mean.take(cx, of, &Displacement::along(&Arc::new(set), 1.0), self.beta.get());
        if self.nesterov {
            Direction::Rows(Arc::new(Ahead { gradient, mean, beta: self.beta.get() as f32, cols: of.1.cols() }))
        } else {
            Direction::Explicit(mean)
        }
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) {
        if self.beta.get() != 0.0 {
            self.mean.visit(visitor);
        }
    }
}

/// `g + βm`, made where it is applied.
#[derive(Debug)]
struct Ahead {
    gradient: Arc<[f32]>,
    mean: Arc<[f32]>,
    beta: f32,
    cols: usize,
}

impl RowFn for Ahead {
    fn row(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let at = row * self.cols + cols.start..row * self.cols + cols.end;
        for ((out, g), m) in out.iter_mut().zip(&self.gradient[at.clone()]).zip(&self.mean[at]) {
            *out = g + self.beta * m;
        }
    }
}

/// `m̂ / (√v̂ + ε)`.
#[derive(Debug)]
pub struct Adamw {
    betas: Betas,
    moments: Moments,
}

impl Adamw {
    /// Means that keep this much.
    pub fn new(betas: Betas) -> Self {
        Adamw { betas, moments: Moments::default() }
    }
}

impl Descent for Adamw {
    fn begin(&mut self) {
        self.moments.begin();
    }

    fn direction(&mut self, _: &Context, (_, param): (ParamId, &Param), gradient: Block<f32>) -> Direction {
        let add = |row: usize, out: &mut [f32]| {
            out.iter_mut().zip(&gradient[row * param.cols()..]).for_each(|(out, g)| *out += g);
        };
        self.moments.take(param, add, self.betas)
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) {
        self.moments.visit(visitor);
    }
}

/// The means of Adam by the names of their options.
pub fn betas(beta1: Decay, beta2: Decay, adam_epsilon: Positive) -> Betas {
    Betas { mean: beta1.get(), square: beta2.get(), epsilon: adam_epsilon.get() }
}

/// Shows what several rules remember under names of their own.
pub struct Named<'v> {
    /// Who is shown it.
    pub visitor: &'v mut dyn StateVisitor,
    /// What each name begins with.
    pub prefix: &'static str,
}

impl StateVisitor for Named<'_> {
    fn count(&mut self, name: &str, value: &mut u64) {
        self.visitor.count(&format!("{}_{name}", self.prefix), value);
    }
    fn tensors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>) {
        self.visitor.tensors(&format!("{}_{name}", self.prefix), values);
    }
    fn factors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>, len: &dyn Fn(&Param) -> usize) {
        self.visitor.factors(&format!("{}_{name}", self.prefix), values, len);
    }
}
