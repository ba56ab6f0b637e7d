//! Embedding: rows of a table selected by token ids (or by positions), times one scale.
//!
//! *What it is not.* The output head, even where the table is tied: that is a matmul.
//!
//! *What must stay true.* Widening stored values is exact and a scale of 1 changes no bit. The gradient of an element
//! of the table is one chain over the tokens that selected its row, in batch order, continuing in the buffer.
//!
//! Shapes: the table is `[V, D]`, `ids` has `T` entries below `V`, outputs are `[T, D]`. The lookup is linear in the
//! table: its tangent along a change of the table is the same lookup in the change.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::{
    Context,
    elementwise::{Axpy, Store},
    lanewise, rows,
};
use crate::{
    simd::{MAX_LANES, Simd, SimdOp},
    tensor::{MatMut, MatRef, WeightRef},
};

/// `y[t] = scale · table[ids[t]]`, written, or added as the learned positions of GPT-2 and OPT are.
///
/// # Panics
/// If an id is not below `V`, or `y` is not `[T, D]`.
pub fn forward(cx: &Context, table: WeightRef<'_>, ids: &[u32], scale: f32, store: Store, y: MatMut<'_>) {
    check(ids, [table.rows(), table.cols()], [y.rows(), y.cols()]);
    rows::for_each_block(y, table.cols(), |first, y| {
        cx.isa.dispatch(Gather { table, ids: &ids[first..], scale, store, y });
    });
}

/// The tangent of [`forward`] along a change of the table: the same rows of the change.
///
/// # Panics
/// As [`forward`].
pub fn tangent(cx: &Context, dtable: WeightRef<'_>, ids: &[u32], scale: f32, store: Store, dy: MatMut<'_>) {
    forward(cx, dtable, ids, scale, store, dy);
}

/// `dtable[ids[t]] += scale · dy[t]` for every `t` in order, each element one chain of fused multiply-adds.
///
/// Threads share the rows of the table: tokens are sorted by id (by position among equals), so that each block of
/// rows finds its own tokens by bisection and no two threads meet in a row.
///
/// # Panics
/// If an id is not below `V`, `dy` is not `[T, D]`, or there are 2³² tokens or more.
pub fn backward(cx: &Context, dy: MatRef<'_>, ids: &[u32], scale: f32, dtable: MatMut<'_>) {
    check(ids, [dtable.rows(), dtable.cols()], [dy.rows(), dy.cols()]);
    let tokens = u32::try_from(ids.len()).expect("fewer than 2³² tokens");
    let mut order = cx.workspace.take::<u32>(ids.len());
    for (slot, t) in order.iter_mut().zip(0..tokens) {
        *slot = t;
    }
    order.sort_unstable_by_key(|&t| (ids[t as usize], t));
    let order: &[u32] = &order;
    // The cost of a table row is that of the tokens that select it, on average T / V of them.
    let row_cost = dy.cols() * ids.len() / dtable.rows().max(1);
    rows::for_each_block(dtable, row_cost, |first, dtable| {
        let rows = first..first + dtable.rows();
        let from = order.partition_point(|&t| (ids[t as usize] as usize) < rows.start);
        let to = order.partition_point(|&t| (ids[t as usize] as usize) < rows.end);
        cx.isa.dispatch(Scatter { dy, ids, order: &order[from..to], scale, first, dtable });
    });
}

#[track_caller]
fn check(ids: &[u32], [vocabulary, width]: [usize; 2], [rows, cols]: [usize; 2]) {
    assert_eq!(
        (rows, cols),
        (ids.len(), width),
        "y [{rows}, {cols}], {} ids, table [{vocabulary}, {width}]",
        ids.len()
    );
    if let Some((t, id)) = ids.iter().enumerate().find(|&(_, &id)| id as usize >= vocabulary) {
        panic!("id {id} of token {t}, table [{vocabulary}, {width}]");
    }
}

struct Gather<'a> {
    table: WeightRef<'a>,
    ids: &'a [u32],
    scale: f32,
    store: Store,
    y: MatMut<'a>,
}

impl SimdOp for Gather<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        for (y, &id) in self.y.into_rows().zip(self.ids) {
            let id = id as usize;
            match self.table {
                WeightRef::F32(data, _, cols) => gather(simd, &data[id * cols..][..cols], self.scale, self.store, y),
                WeightRef::Bf16(data, _, cols) => gather(simd, &data[id * cols..][..cols], self.scale, self.store, y),
                WeightRef::F16(data, _, cols) => gather(simd, &data[id * cols..][..cols], self.scale, self.store, y),
            }
        }
    }
}

/// A storage type of tables.
trait Stored: Copy + Default {
    /// The first `LANES` values of `src`, widened.
    fn load<S: Simd>(simd: S, src: &[Self]) -> S::F32;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, src: &[f32]) -> S::F32 {
        simd.load(src)
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, src: &[bf16]) -> S::F32 {
        simd.load_bf16(src.reinterpret_cast())
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, src: &[f16]) -> S::F32 {
        simd.load_f16(src.reinterpret_cast())
    }
}

/// One row: `row` and `y` are equally long.
#[inline(always)]
fn gather<S: Simd, W: Stored>(simd: S, row: &[W], scale: f32, store: Store, y: &mut [f32]) {
    let scale = simd.splat(scale);
    let mut values = row.chunks_exact(S::LANES);
    let mut chunks = y.chunks_exact_mut(S::LANES);
    for (value, chunk) in (&mut values).zip(&mut chunks) {
        let value = W::load(simd, value);
        let new = match store {
            Store::Write => simd.mul(value, scale),
            Store::Add => simd.mul_add(value, scale, simd.load(chunk)),
        };
        simd.store(new, chunk);
    }
    let tail = chunks.into_remainder();
    let mut staged = [W::default(); MAX_LANES];
    staged[..tail.len()].copy_from_slice(values.remainder());
    let value = W::load(simd, &staged);
    let new = match store {
        Store::Write => simd.mul(value, scale),
        Store::Add => simd.mul_add(value, scale, simd.load_partial(tail)),
    };
    simd.store_partial(new, tail);
}

/// The tokens `order` (ascending by id, then by position) for the table rows from `first` on.
struct Scatter<'a> {
    dy: MatRef<'a>,
    ids: &'a [u32],
    order: &'a [u32],
    scale: f32,
    first: usize,
    dtable: MatMut<'a>,
}

impl SimdOp for Scatter<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(mut self, simd: S) {
        for &t in self.order {
            let t = t as usize;
            let sums = self.dtable.row_mut(self.ids[t] as usize - self.first);
            lanewise::apply(simd, Axpy(self.scale), [self.dy.row(t)], [sums]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        kernels::twin::embedding as twin,
        simd::Isa,
        testing::{adjoint_gap, assert_same_bits, awkward, edge_length, everywhere},
    };

    /// A vocabulary, a width, ids, a table and a matrix of one row per id.
    fn case() -> impl Strategy<Value = (usize, usize, Vec<u32>, Vec<f32>, Vec<f32>)> {
        (1_usize..60, edge_length(), 0_usize..40).prop_flat_map(|(vocabulary, width, tokens)| {
            let ids = vec(0..vocabulary as u32, tokens);
            let (table, dy) = (vec(awkward(), vocabulary * width), vec(awkward(), tokens * width));
            (Just(vocabulary), Just(width), ids, table, dy)
        })
    }

    proptest! {
        #[test]
        fn lookups_and_their_gradient_give_the_bits_of_their_definitions(
            (vocabulary, width, ids, table, dy) in case(),
            scale in prop::sample::select(&[1.0_f32, 0.3]),
        ) {
            let narrow: Vec<bf16> = table.iter().map(|&w| bf16::from_f32(w)).collect();
            let small: Vec<f16> = table.iter().map(|&w| f16::from_f32(w)).collect();
            let tables = [
                WeightRef::f32(&table, vocabulary, width),
                WeightRef::bf16(&narrow, vocabulary, width),
                WeightRef::f16(&small, vocabulary, width),
            ];
            let mut gradient = table.clone();
            twin::backward(&dy, width, &ids, scale, &mut gradient);
            for weight in tables {
                let widened: Vec<f32> = (0..vocabulary * width).map(|i| weight.at(i / width, i % width)).collect();
                let written = twin::forward(&widened, width, &ids, scale);
                let rows = twin::forward(&widened, width, &ids, 1.0);
                let added: Vec<f32> = dy.iter().zip(rows).map(|(&held, w)| w.mul_add(scale, held)).collect();
                everywhere(|cx, label| {
                    for (store, expected) in [(Store::Write, &written), (Store::Add, &added)] {
                        let mut y = dy.clone();
                        forward(cx, weight, &ids, scale, store, MatMut::new(&mut y, ids.len(), width));
                        assert_same_bits(&y, expected, format_args!("{store:?} {}, {label}", weight.dtype()));
                    }
                });
            }
            everywhere(|cx, label| {
                let mut sums = table.clone();
                let dtable = MatMut::new(&mut sums, vocabulary, width);
                backward(cx, MatRef::new(&dy, ids.len(), width), &ids, scale, dtable);
                assert_same_bits(&sums, &gradient, format_args!("gradient, {label}"));
            });
        }

        #[test]
        fn backward_is_the_adjoint_of_tangent(
            (ids, dtable, dy) in vec(0_u32..7, 1..20).prop_flat_map(|ids| {
                let tokens = ids.len();
                (Just(ids), vec(-3.0_f64..3.0, 7 * 3), vec(-3.0_f64..3.0, tokens * 3))
            }),
        ) {
            let mut gradient = vec![0.0; 7 * 3];
            twin::backward(&dy, 3, &ids, 0.3, &mut gradient);
            let tangent = twin::forward(&dtable, 3, &ids, 0.3);
            // A gradient is a chain of up to 20 tokens whose sum may cancel: 20 roundings of sums up to 20·0.9,
            // where the terms of the products may be small, so they are taken as magnitudes of a full term.
            let gap = adjoint_gap(400, (&tangent, &dy), (&dtable, &gradient));
            prop_assert!(gap <= 1.0, "{gap}");
        }
    }

    #[test]
    fn a_gradient_over_many_tasks_equals_the_chain_in_batch_order() {
        // More than a task's worth of tokens, most of them on few rows, as words are.
        let (vocabulary, width, tokens) = (500, 19, 3000);
        let ids: Vec<u32> = (0..tokens as u32).map(|t| t.wrapping_mul(t) % 1009 % vocabulary as u32).collect();
        let dy: Vec<f32> = (0..tokens * width).map(|i| 1.0 / (i as f32 + 1.0)).collect();
        let mut expected = vec![0.5; vocabulary * width];
        twin::backward(&dy, width, &ids, 1.5, &mut expected);
        everywhere(|cx, label| {
            let mut dtable = vec![0.5; vocabulary * width];
            for part in [0..1234, 1234..tokens] {
                let rows = MatRef::new(&dy[part.start * width..part.end * width], part.len(), width);
                backward(cx, rows, &ids[part], 1.5, MatMut::new(&mut dtable, vocabulary, width));
            }
            assert_same_bits(&dtable, &expected, label);
        });
    }

    #[test]
    #[should_panic(expected = "id 5 of token 1, table [5, 2]")]
    fn an_id_out_of_range_is_named() {
        let (cx, table) = (Context::new(Isa::fastest()), [0.0; 10]);
        let mut y = [0.0; 4];
        forward(&cx, WeightRef::f32(&table, 5, 2), &[0, 5], 1.0, Store::Write, MatMut::new(&mut y, 2, 2));
    }
}
