//! Plain f32 products, in every numeric profile: attention gradients, linear algebra, side products.
//!
//! Every output element is one chain of fused multiply-adds over `k` ascending, from +0 or, with
//! `accumulate`, from the value in `out`.

use super::{Chain, Context, Left, multiply, panel::Plain, tile::Start};
use crate::{
    kernels::Profile,
    tensor::{MatMut, MatRef},
};

/// `out (+)= a · bᵀ` with `a` `[m, k]`, `b` `[n, k]`, `out` `[m, n]`.
///
/// # Panics
/// If the shapes do not fit; so do the others.
pub fn nt(cx: &Context, a: MatRef<'_>, b: MatRef<'_>, accumulate: bool, out: MatMut<'_>) {
    multiply(&strict(cx), Left::Rows(a), &b, None, chain(accumulate), out);
}

/// `out (+)= a · b` with `a` `[m, k]`, `b` `[k, n]`, `out` `[m, n]`.
pub fn nn(cx: &Context, a: MatRef<'_>, b: MatRef<'_>, accumulate: bool, out: MatMut<'_>) {
    multiply(&strict(cx), Left::Rows(a), &Plain(b), None, chain(accumulate), out);
}

/// `out (+)= aᵀ · b` with `a` `[k, m]`, `b` `[k, n]`, `out` `[m, n]`.
pub fn tn(cx: &Context, a: MatRef<'_>, b: MatRef<'_>, accumulate: bool, out: MatMut<'_>) {
    multiply(&strict(cx), Left::Columns(a), &Plain(b), None, chain(accumulate), out);
}

fn strict(cx: &Context) -> Context {
    cx.clone().with_profile(Profile::StrictF32)
}

fn chain(accumulate: bool) -> Chain<'static> {
    Chain { start: if accumulate { Start::Continue } else { Start::Zero }, bias: None }
}
