//! Checks of noise (contract C2) and of small dense linear algebra.

use super::{
    check::{Bits, Check},
    inputs::Inputs,
    kernels::check,
};
use crate::{
    kernels::Context,
    linalg,
    noise::{Law, NoiseKey, Role},
    simd::{Isa, IsaName},
    tensor::{MatMut, MatRef},
};

/// The checks of noise and linear algebra.
pub(super) const CHECKS: &[Check] = &[
    check("noise.gaussian", |cx| noise_kernel(cx, Law::Gaussian), || noise_twin(Law::Gaussian)),
    check("noise.rademacher", |cx| noise_kernel(cx, Law::Rademacher), || noise_twin(Law::Rademacher)),
    check("noise.uniform", |cx| noise_kernel(cx, Law::Uniform), || noise_twin(Law::Uniform)),
    check("linalg.thin_qr", thin_qr, || thin_qr(&scalar_body())),
    check("linalg.polar", polar, || polar(&scalar_body())),
    check("linalg.newton_schulz", newton_schulz, || newton_schulz(&scalar_body())),
    check("linalg.power_iteration", power_iteration, || power_iteration(&scalar_body())),
];

/// Rows and columns: partial groups of 16 rows, a stream boundary at column 256.
const ROWS: u64 = 19;
const COLUMNS: usize = 300;

fn noise_kernel(cx: &Context, law: Law) -> Bits {
    let noise = NoiseKey::new(7, 3, Role::Dense, 1).tensor(5);
    let mut out = vec![0.0; ROWS as usize * COLUMNS];
    noise.fill(cx.isa, law, 0..ROWS, 0..COLUMNS, &mut out);
    Bits::of(&out)
}

/// Element by element: noise has no order.
fn noise_twin(law: Law) -> Bits {
    let noise = NoiseKey::new(7, 3, Role::Dense, 1).tensor(5);
    let of_row = |row| (0..COLUMNS).map(move |column| noise.at(law, row, column));
    Bits::of(&(0..ROWS).flat_map(of_row).collect::<Vec<f32>>())
}

/// Linear algebra is written over the products and f64 chains checked above and has no twin of its
/// own: here the body that needs nothing of the CPU stands in for it.
fn scalar_body() -> Context {
    Context::new(Isa::new(IsaName::PortableSoft).expect("portable-soft runs on every CPU"))
}

/// A tall matrix, its rows and columns.
fn tall() -> (Vec<f32>, usize, usize) {
    (Inputs::new(400).values(45 * 7, 2.0), 45, 7)
}

fn thin_qr(_cx: &Context) -> Bits {
    let (mut a, rows, cols) = tall();
    let r = linalg::qr::thin_qr(MatMut::new(&mut a, rows, cols));
    Bits::of(&a).and_f64(r.elements())
}

fn polar(_cx: &Context) -> Bits {
    let (a, rows, cols) = tall();
    let mut out = vec![0.0; rows * cols];
    linalg::orthogonalize::polar(MatRef::new(&a, rows, cols), MatMut::new(&mut out, rows, cols));
    Bits::of(&out)
}

fn newton_schulz(cx: &Context) -> Bits {
    let (a, rows, cols) = tall();
    let mut out = vec![0.0; rows * cols];
    linalg::orthogonalize::newton_schulz(cx, MatRef::new(&a, rows, cols), MatMut::new(&mut out, rows, cols));
    Bits::of(&out)
}

fn power_iteration(cx: &Context) -> Bits {
    let (a, rows, cols) = tall();
    let mut basis = Inputs::new(401).values(cols * 3, 1.0);
    linalg::power_iteration::sweep(cx, MatRef::new(&a, rows, cols), MatMut::new(&mut basis, cols, 3));
    Bits::of(&basis)
}
