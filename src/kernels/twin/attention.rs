//! The definition of attention: one sequence, all heads, dense matrices.

use std::ops::Range;

use super::{Real, softmax};
use crate::kernels::Mask;

/// One sequence: its queries are the last of its `keys` positions.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    /// Query rows.
    pub queries: usize,
    /// Key and value rows.
    pub keys: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Features of one head.
    pub head_dim: usize,
    /// Which keys a query sees.
    pub mask: Mask,
    /// Multiplies the scores.
    pub scale: f64,
}

/// Dense queries `[queries, heads · head_dim]`, keys and values `[keys, kv_heads · head_dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrices<R> {
    /// Queries.
    pub q: Vec<R>,
    /// Keys.
    pub k: Vec<R>,
    /// Values.
    pub v: Vec<R>,
}

/// Σ aᵢ bᵢ, one chain of fused multiply-adds from `start`.
fn chain<R: Real>(start: R, a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(start, |sum, (&a, &b)| a.mul_add(b, sum))
}

impl Sequence {
    fn query(&self, i: usize, h: usize) -> Range<usize> {
        let start = (i * self.heads + h) * self.head_dim;
        start..start + self.head_dim
    }
    /// Where query head `h` finds key `j`.
    fn key(&self, j: usize, h: usize) -> Range<usize> {
        let start = (j * self.kv_heads + h / (self.heads / self.kv_heads)) * self.head_dim;
        start..start + self.head_dim
    }
    fn visible(&self, i: usize) -> Range<usize> {
        self.mask.visible(self.keys - self.queries + i, self.keys)
    }
    /// One value per key: `term(j)` where query `i` sees key `j`, 0 elsewhere.
    fn over_keys<R: Real>(&self, i: usize, term: impl Fn(usize) -> R) -> Vec<R> {
        (0..self.keys).map(|j| if self.visible(i).contains(&j) { term(j) } else { R::default() }).collect()
    }
    fn scores<R: Real>(&self, x: &Matrices<R>, i: usize, h: usize) -> Vec<R> {
        let scale = R::from_f64(self.scale);
        self.over_keys(i, |j| chain(R::default(), &x.q[self.query(i, h)], &x.k[self.key(j, h)]) * scale)
    }

    /// `softmax(mask(q kᵀ · scale)) v`, `[queries, heads · head_dim]`.
    pub fn forward<R: Real>(&self, x: &Matrices<R>) -> Vec<R> {
        let mut out = vec![R::default(); x.q.len()];
        for i in 0..self.queries {
            for h in 0..self.heads {
                let (e, sum) = softmax::exponentials(&self.scores(x, i, h), self.visible(i));
                for (d, out) in out[self.query(i, h)].iter_mut().enumerate() {
                    for j in self.visible(i) {
                        *out = e[j].mul_add(x.v[self.key(j, h)][d], *out);
                    }
                    *out = *out / sum;
                }
            }
        }
        out
    }

    /// The change of [`Sequence::forward`] along `x_dot`.
    pub fn tangent<R: Real>(&self, x: &Matrices<R>, x_dot: &Matrices<R>) -> Vec<R> {
        let scale = R::from_f64(self.scale);
        let mut out = vec![R::default(); x.q.len()];
        for i in 0..self.queries {
            for h in 0..self.heads {
                let (query, seen) = (self.query(i, h), self.visible(i));
                let p = softmax::forward(&self.scores(x, i, h), seen.clone());
                let s_dot = self.over_keys(i, |j| {
                    let key = self.key(j, h);
                    let sum = chain(R::default(), &x_dot.q[query.clone()], &x.k[key.clone()]);
                    chain(sum, &x.q[query.clone()], &x_dot.k[key]) * scale
                });
                let p_dot = softmax::jacobian_product(&p, &s_dot, seen.clone());
                for (d, out) in out[query].iter_mut().enumerate() {
                    for (weights, values) in [(&p_dot, &x.v), (&p, &x_dot.v)] {
                        for j in seen.clone() {
                            *out = weights[j].mul_add(values[self.key(j, h)][d], *out);
                        }
                    }
                }
            }
        }
        out
    }

    /// The gradients of the inputs, given that of the output.
    pub fn backward<R: Real>(&self, x: &Matrices<R>, out_bar: &[R]) -> Matrices<R> {
        let scale = R::from_f64(self.scale);
        let zeros = |x: &[R]| vec![R::default(); x.len()];
        let mut bar = Matrices { q: zeros(&x.q), k: zeros(&x.k), v: zeros(&x.v) };
        for i in 0..self.queries {
            for h in 0..self.heads {
                let (query, seen) = (self.query(i, h), self.visible(i));
                let p = softmax::forward(&self.scores(x, i, h), seen.clone());
                let p_bar = self.over_keys(i, |j| chain(R::default(), &out_bar[query.clone()], &x.v[self.key(j, h)]));
                let s_bar = softmax::jacobian_product(&p, &p_bar, seen.clone());
                for j in seen {
                    let key = self.key(j, h);
                    let s_bar = s_bar[j] * scale;
                    for d in 0..self.head_dim {
                        let (query, key) = (query.start + d, key.start + d);
                        bar.q[query] = s_bar.mul_add(x.k[key], bar.q[query]);
                        bar.k[key] = s_bar.mul_add(x.q[query], bar.k[key]);
                        bar.v[key] = p[j].mul_add(out_bar[query], bar.v[key]);
                    }
                }
            }
        }
        bar
    }
}
