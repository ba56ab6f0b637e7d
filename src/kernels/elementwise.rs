//! Sums, scalings and products of equally long slices, and of rows with one vector.
//!
//! Each is linear in each operand, so `forward` serves as its own `tangent` and (with the operands' roles
//! exchanged) as its `backward`; only the product and the broadcast sum have adjoints of their own.
//!
//! *What must stay true.* Every element is one correctly rounded operation, the fused ones included; a column sum
//! is one chain over the rows ascending that continues in the buffer, so splitting a batch changes no bit.

use std::ops::Range;

use super::{
    Context,
    lanewise::{self, Lanewise},
    rows,
};
use crate::{
    simd::{Simd, SimdOp},
    tensor::{MatMut, MatRef},
};

/// What a kernel does with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Overwrites what the output held.
    Write,
    /// Adds to what the output held, one rounding.
    Add,
}

/// `out = a + b`.
///
/// # Panics
/// If the lengths differ; so do the other functions of this module.
pub fn add(cx: &Context, a: &[f32], b: &[f32], out: &mut [f32]) {
    lanewise::run(cx.isa, Add, [a, b], out);
}

/// `y += x`: the residual sum; its tangent is itself, its backward the identity for both operands.
pub fn add_assign(cx: &Context, x: &[f32], y: &mut [f32]) {
    lanewise::run(cx.isa, AddAssign, [x], y);
}

/// `y = fma(c, x, y)`.
pub fn axpy(cx: &Context, c: f32, x: &[f32], y: &mut [f32]) {
    lanewise::run(cx.isa, Axpy(c), [x], y);
}

/// `y = fma(c, x, y)` for matrices of one shape, whose rows may lie apart; linear in both, as [`axpy`].
///
/// # Panics
/// If the shapes differ.
pub fn axpy_rows(cx: &Context, c: f32, x: MatRef<'_>, y: MatMut<'_>) {
    let (rows, cols) = (y.rows(), y.cols());
    assert_eq!((x.rows(), x.cols()), (rows, cols), "x [{}, {}] on y [{rows}, {cols}]", x.rows(), x.cols());
    rows::for_each_block(y, cols, |first, y| {
        let x = x.row_range(first..first + y.rows());
        cx.isa.dispatch(AxpyRows { c, x, y });
    });
}

/// `y *= c`.
pub fn scale(cx: &Context, c: f32, y: &mut [f32]) {
    lanewise::run(cx.isa, Scale(c), [], y);
}

/// `out = a · b`.
pub fn mul(cx: &Context, a: &[f32], b: &[f32], out: &mut [f32]) {
    lanewise::run(cx.isa, Mul, [a, b], out);
}

/// The tangent of [`mul`]: `out = fma(da, b, a · db)`.
pub fn mul_tangent(cx: &Context, [a, b]: [&[f32]; 2], [da, db]: [&[f32]; 2], out: &mut [f32]) {
    lanewise::run(cx.isa, MulTangent, [a, b, da, db], out);
}

/// The backward of [`mul`] for one factor: `d_factor = fma(dy, other, d_factor)`.
pub fn mul_backward(cx: &Context, dy: &[f32], other: &[f32], d_factor: &mut [f32]) {
    lanewise::run(cx.isa, MulAdd, [dy, other], d_factor);
}

#[derive(Clone, Copy)]
struct Add;
impl Lanewise<2, 1> for Add {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [a, b]: [S::F32; 2], _: [S::F32; 1]) -> [S::F32; 1] {
        [simd.add(a, b)]
    }
}

#[derive(Clone, Copy)]
struct AddAssign;
impl Lanewise<1, 1> for AddAssign {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x]: [S::F32; 1], [y]: [S::F32; 1]) -> [S::F32; 1] {
        [simd.add(y, x)]
    }
}

/// `fma(c, x, y)` into `y`.
#[derive(Clone, Copy)]
pub(super) struct Axpy(pub(super) f32);
impl Lanewise<1, 1> for Axpy {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x]: [S::F32; 1], [y]: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul_add(simd.splat(self.0), x, y)]
    }
}

#[derive(Clone, Copy)]
struct Scale(f32);
impl Lanewise<0, 1> for Scale {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, _: [S::F32; 0], [y]: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul(y, simd.splat(self.0))]
    }
}

#[derive(Clone, Copy)]
struct Mul;
impl Lanewise<2, 1> for Mul {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [a, b]: [S::F32; 2], _: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul(a, b)]
    }
}

#[derive(Clone, Copy)]
struct MulTangent;
impl Lanewise<4, 1> for MulTangent {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [a, b, da, db]: [S::F32; 4], _: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul_add(da, b, simd.mul(a, db))]
    }
}

#[derive(Clone, Copy)]
struct MulAdd;
impl Lanewise<2, 1> for MulAdd {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [a, b]: [S::F32; 2], [sum]: [S::F32; 1]) -> [S::F32; 1] {
        [simd.mul_add(a, b, sum)]
    }
}

/// `y[t] += bias` for every row: `y` is `[T, D]`, `bias` has `D` values. Its tangent is itself.
///
/// # Panics
/// If `bias` does not have one value per column.
pub fn add_bias(cx: &Context, bias: &[f32], y: MatMut<'_>) {
    assert_eq!(y.cols(), bias.len(), "a bias of {} values on a matrix [{}, {}]", bias.len(), y.rows(), y.cols());
    rows::for_each_block(y, bias.len(), |_, y| cx.isa.dispatch(AddBias { bias, y }));
}

/// The backward of [`add_bias`]: `dbias[c] += dy[0, c] + dy[1, c] + …`, one chain per column over rows ascending
/// that starts from what `dbias` holds. `dy` is `[T, D]`, `dbias` has `D` values.
///
/// # Panics
/// If `dbias` does not have one value per column.
pub fn add_bias_backward(cx: &Context, dy: MatRef<'_>, dbias: &mut [f32]) {
    assert_eq!(dy.cols(), dbias.len(), "dbias of {} values for dy [{}, {}]", dbias.len(), dy.rows(), dy.cols());
    rows::for_each_strip(dy.rows(), dbias, |columns, sums| cx.isa.dispatch(ColumnSums { dy, columns, sums }));
}

struct AxpyRows<'a> {
    c: f32,
    x: MatRef<'a>,
    y: MatMut<'a>,
}

impl SimdOp for AxpyRows<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for (t, y) in self.y.into_rows().enumerate() {
            lanewise::apply(simd, Axpy(self.c), [self.x.row(t)], [y]);
        }
    }
}

struct AddBias<'a> {
    bias: &'a [f32],
    y: MatMut<'a>,
}

impl SimdOp for AddBias<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for row in self.y.into_rows() {
            lanewise::apply(simd, AddAssign, [self.bias], [row]);
        }
    }
}

struct ColumnSums<'a> {
    dy: MatRef<'a>,
    columns: Range<usize>,
    sums: &'a mut [f32],
}

impl SimdOp for ColumnSums<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for t in 0..self.dy.rows() {
            lanewise::apply(simd, AddAssign, [&self.dy.row(t)[self.columns.clone()]], [&mut *self.sums]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        kernels::twin::elementwise as twin,
        testing::{assert_same_bits, awkward, awkward_values, edge_length, everywhere},
    };

    fn four_operands() -> impl Strategy<Value = [Vec<f32>; 4]> {
        edge_length().prop_flat_map(|n| [(); 4].map(|()| awkward_values(n)))
    }

    proptest! {
        #[test]
        fn every_operation_gives_the_bits_of_its_definition([a, b, c, d] in four_operands(), factor in awkward()) {
            let n = a.len();
            let each = |f: &dyn Fn(usize) -> f32| (0..n).map(f).collect::<Vec<f32>>();
            let sum = each(&|i| a[i] + b[i]);
            let line = each(&|i| twin::axpy(factor, a[i], b[i]));
            let scaled = each(&|i| a[i] * factor);
            let product = each(&|i| a[i] * b[i]);
            let tangent = each(&|i| twin::mul_tangent([a[i], b[i]], [c[i], d[i]]));
            let adjoint = each(&|i| twin::axpy(a[i], b[i], c[i]));
            everywhere(|cx, label| {
                let fill = |kernel: &dyn Fn(&mut [f32]), start: &[f32], expected: &[f32], name: &str| {
                    let mut out = start.to_vec();
                    kernel(&mut out);
                    assert_same_bits(&out, expected, format_args!("{name}, {label}"));
                };
                fill(&|y| add(cx, &a, &b, y), &d, &sum, "add");
                fill(&|y| add_assign(cx, &b, y), &a, &sum, "add_assign");
                fill(&|y| axpy(cx, factor, &a, y), &b, &line, "axpy");
                fill(&|y| scale(cx, factor, y), &a, &scaled, "scale");
                fill(&|y| mul(cx, &a, &b, y), &d, &product, "mul");
                fill(&|y| mul_tangent(cx, [&a, &b], [&c, &d], y), &d, &tangent, "mul_tangent");
                fill(&|y| mul_backward(cx, &a, &b, y), &c, &adjoint, "mul_backward");
            });
        }

        #[test]
        fn what_is_added_to_rows_and_its_gradient_have_the_bits_of_their_definitions(
            (rows, cols, dy, bias) in (edge_length(), edge_length()).prop_flat_map(|(rows, cols)| {
                (Just(rows), Just(cols), vec(awkward(), rows * cols), vec(awkward(), cols))
            }),
            factor in awkward(),
        ) {
            let sum: Vec<f32> = (0..rows * cols).map(|i| dy[i] + bias[i % cols]).collect();
            let line: Vec<f32> = dy.iter().zip(&sum).map(|(&y, &x)| twin::axpy(factor, x, y)).collect();
            let mut gradient = bias.clone();
            twin::column_sums(&dy, &mut gradient);
            everywhere(|cx, label| {
                let mut y = dy.clone();
                add_bias(cx, &bias, MatMut::new(&mut y, rows, cols));
                assert_same_bits(&y, &sum, format_args!("add_bias, {label}"));
                let mut dbias = bias.clone();
                add_bias_backward(cx, MatRef::new(&dy, rows, cols), &mut dbias);
                assert_same_bits(&dbias, &gradient, format_args!("add_bias_backward, {label}"));
                let mut y = dy.clone();
                axpy_rows(cx, factor, MatRef::new(&sum, rows, cols), MatMut::new(&mut y, rows, cols));
                assert_same_bits(&y, &line, format_args!("axpy_rows, {label}"));
            });
        }
    }

    #[test]
    fn slices_longer_than_a_task_are_covered_to_the_last_element() {
        let n = 2 * lanewise::CHUNK + 17;
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let expected: Vec<f32> = x.iter().map(|x| x.mul_add(3.0, 1.0)).collect();
        everywhere(|cx, label| {
            let mut y = vec![1.0; n];
            axpy(cx, 3.0, &x, &mut y);
            assert_same_bits(&y, &expected, label);
        });
    }

    #[test]
    fn a_column_sum_continues_where_the_previous_batch_stopped() {
        let (rows, cols) = (301, 131);
        let dy: Vec<f32> = (0..rows * cols).map(|i| 1.0 / (i as f32 + 1.0)).collect();
        everywhere(|cx, label| {
            let mut whole = vec![0.0; cols];
            add_bias_backward(cx, MatRef::new(&dy, rows, cols), &mut whole);
            let mut parts = vec![0.0; cols];
            let (head, tail) = dy.split_at(100 * cols);
            add_bias_backward(cx, MatRef::new(head, 100, cols), &mut parts);
            add_bias_backward(cx, MatRef::new(tail, rows - 100, cols), &mut parts);
            assert_same_bits(&parts, &whole, label);
        });
    }

    #[test]
    fn strided_rows_leave_the_gaps_alone() {
        everywhere(|cx, label| {
            let mut data = [1.0; 3 * 5 + 3];
            add_bias(cx, &[1.0, 2.0, 3.0], MatMut::with_stride(&mut data, 4, 3, 5));
            let row = [2.0, 3.0, 4.0, 1.0, 1.0];
            let expected: Vec<f32> = row.iter().cycle().copied().take(18).collect();
            assert_same_bits(&data, &expected, label);
            let x: Vec<f32> = (0..4 * 4).map(|i| i as f32).collect();
            axpy_rows(cx, 2.0, MatRef::with_stride(&x, 4, 3, 4), MatMut::with_stride(&mut data, 4, 3, 5));
            let expected: Vec<f32> =
                (0..18).map(|i| if i % 5 < 3 { row[i % 5] + 2.0 * (i / 5 * 4 + i % 5) as f32 } else { 1.0 }).collect();
            assert_same_bits(&data, &expected, label);
        });
    }

    #[test]
    #[should_panic(expected = "operand 1 has 3 values, the output 2")]
    fn operands_of_different_lengths_are_named() {
        add(&Context::new(crate::simd::Isa::fastest()), &[0.0; 2], &[0.0; 3], &mut [0.0; 2]);
    }
}
