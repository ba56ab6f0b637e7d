//! Matrices that are trains of small cores (Oseledets, "Tensor-Train Decomposition", 2011): made whole, and differentiated
//! by their cores.
//!
//! Core `t` has `n` slices `[l, r]` and lies as `[l, n, r]`; the `r` of one core is the `l` of the next. An element of the
//! train is a product of slices, one of each core:
//!
//! ```text
//! W(a, i₁, i₂, …, i_d, b) = Σ G₁(a, i₁, s₁) G₂(s₁, i₂, s₂) … G_d(s_{d−1}, i_d, b)
//! P₁ = G₁,   P_t = P_{t−1} G_t        P_{t−1} as [·, l], G_t as [l, n · r]
//! ```
//!
//! *What it is.* The products above and those of their derivatives: plain f32 products in every numeric profile, because a
//! core's perturbation may be below the step of bf16. *What it is not.* A product with the matrix: callers get `W` in the
//! order of its indices and read it as the matrix that it stands for.
//!
//! *What must stay true* (contract C1). An element of a product, of its tangent and of its gradient is one chain of fused
//! multiply-adds; that of [`tangent`] runs over the change of what comes before a core, then over that of the core.

use super::{Context, matmul::product};
use crate::tensor::{MatMut, MatRef};

/// A core, or its change or gradient: `[l, n, r]`.
#[derive(Clone, Copy, Debug)]
pub struct Core<'a> {
    values: &'a [f32],
    right: usize,
}

impl<'a> Core<'a> {
    /// The core that lies as `values`, its last dimension being `right`.
    ///
    /// # Panics
    /// If it has no whole slices.
    pub fn new(values: &'a [f32], right: usize) -> Self {
        assert!(
            right > 0 && values.len().is_multiple_of(right),
            "a core of {} values with slices of {right} columns",
            values.len()
        );
        Core { values, right }
    }

    /// As `[l, n · r]`.
    fn after(self, left: usize) -> MatRef<'a> {
        assert!(self.values.len().is_multiple_of(left), "a core of {} values after {left}", self.values.len());
        MatRef::new(self.values, left, self.values.len() / left)
    }
}

/// The values of the train.
///
/// # Panics
/// If there is no core, or one does not follow on the one before; so do the others.
pub fn forward(cx: &Context, cores: &[Core<'_>]) -> Vec<f32> {
    products(cx, cores).pop().expect("a train has cores")
}

/// `P₁` to `P_d`.
fn products(cx: &Context, cores: &[Core<'_>]) -> Vec<Vec<f32>> {
    let mut products = vec![cores[0].values.to_vec()];
    for (core, left) in cores[1..].iter().zip(cores.iter().map(|core| core.right)) {
        let mut product = Vec::new();
        multiply(cx, &products[products.len() - 1], core.after(left), &mut product);
        products.push(product);
    }
    products
}

/// `out (+)= before · core`: the chains go on from what there is, if anything.
fn multiply(cx: &Context, before: &[f32], core: MatRef<'_>, out: &mut Vec<f32>) {
    let (rows, goes_on) = (before.len() / core.rows(), !out.is_empty());
    out.resize(rows * core.cols(), 0.0);
    let out = MatMut::new(out, rows, core.cols());
    product::nn(cx, MatRef::new(before, rows, core.rows()), core, goes_on, out);
}

/// Forward mode: the change of the train's values along changes of its cores; `None` if none of them changes.
pub fn tangent(cx: &Context, cores: &[Core<'_>], changes: &[Option<Core<'_>>]) -> Option<Vec<f32>> {
    assert_eq!(cores.len(), changes.len(), "a change of each core");
    let products = products(cx, cores);
    let mut sum = changes[0].map(|change| change.values.to_vec());
    for at in 1..cores.len() {
        let left = cores[at - 1].right;
        let mut next = Vec::new();
        if let Some(sum) = &sum {
            multiply(cx, sum, cores[at].after(left), &mut next);
        }
        if let Some(change) = changes[at] {
            multiply(cx, &products[at - 1], change.after(left), &mut next);
        }
        sum = (!next.is_empty()).then_some(next);
    }
    sum
}

/// Reverse mode: the gradient of each core, given that of the train's values.
pub fn backward(cx: &Context, cores: &[Core<'_>], mut bar: Vec<f32>) -> Vec<Vec<f32>> {
    let products = products(cx, cores);
    let mut gradients = Vec::with_capacity(cores.len());
    for at in (1..cores.len()).rev() {
        let core = cores[at].after(cores[at - 1].right);
        let rows = bar.len() / core.cols();
        let (before, after) = (MatRef::new(&products[at - 1], rows, core.rows()), MatRef::new(&bar, rows, core.cols()));
        let (mut of_core, mut of_before) = (vec![0.0; cores[at].values.len()], vec![0.0; products[at - 1].len()]);
        product::tn(cx, before, after, false, MatMut::new(&mut of_core, core.rows(), core.cols()));
        product::nt(cx, after, core, false, MatMut::new(&mut of_before, rows, core.rows()));
        gradients.push(of_core);
        bar = of_before;
    }
    gradients.push(bar);
    gradients.reverse();
    gradients
}

#[cfg(test)]
mod tests;
