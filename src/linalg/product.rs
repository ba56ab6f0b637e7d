//! Scalar products until the matmul floor is merged.

use crate::{
    kernels::Context,
    tensor::{MatMut, MatRef},
};

fn fill(k: usize, accumulate: bool, mut out: MatMut<'_>, term: impl Fn(usize, usize, usize) -> (f32, f32)) {
    for i in 0..out.rows() {
        for j in 0..out.cols() {
            let start = if accumulate { out.row_mut(i)[j] } else { 0.0 };
            out.row_mut(i)[j] = (0..k).fold(start, |acc, l| {
                let (a, b) = term(i, j, l);
                a.mul_add(b, acc)
            });
        }
    }
}

pub(super) fn nt(_: &Context, a: MatRef<'_>, b: MatRef<'_>, accumulate: bool, out: MatMut<'_>) {
    fill(a.cols(), accumulate, out, |i, j, l| (a.row(i)[l], b.row(j)[l]));
}
pub(super) fn nn(_: &Context, a: MatRef<'_>, b: MatRef<'_>, accumulate: bool, out: MatMut<'_>) {
    fill(a.cols(), accumulate, out, |i, j, l| (a.row(i)[l], b.row(l)[j]));
}
pub(super) fn tn(_: &Context, a: MatRef<'_>, b: MatRef<'_>, accumulate: bool, out: MatMut<'_>) {
    fill(a.rows(), accumulate, out, |i, j, l| (a.row(l)[i], b.row(l)[j]));
}
