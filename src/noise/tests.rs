//! Same bits whatever the order, shape, thread count or instruction set.

use std::ops::Range;

use proptest::prelude::*;
use rand_pcg::{Lcg64Xsh32, rand_core::Rng};

use super::*;
use crate::simd::{Isa, Scalar, Simd, SimdOp};

fn noise(seed: u64) -> TensorNoise {
    NoiseKey::new(seed, 3, Role::Dense, 1).tensor(7)
}

struct Panel<'a>(TensorNoise, Law, u64, Range<usize>, &'a mut [f32]);
impl SimdOp for Panel<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        self.0.fill_panel(simd, self.1, self.2, self.3, self.4);
    }
}

struct Row<'a>(TensorNoise, Law, u64, Range<usize>, &'a mut [f32]);
impl SimdOp for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        self.0.fill_row(simd, self.1, self.2, self.3, self.4);
    }
}

struct RowDraws<'a>(TensorNoise, u64, Range<usize>, &'a mut [u32]);
impl SimdOp for RowDraws<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        self.0.fill_row_draws(simd, self.1, self.2, self.3);
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|z| z.to_bits()).collect()
}

/// Rows across every size of integer, columns across block boundaries and far out.
fn place() -> impl Strategy<Value = (u64, Range<usize>)> {
    let row = prop_oneof![0_u64..40, any::<u32>().prop_map(u64::from), Just(MAX_ROWS - 1)];
    let start = prop_oneof![0_usize..600, (0_usize..1 << 31)];
    (row, start, prop_oneof![0_usize..40, 0_usize..700]).prop_map(|(row, start, length)| (row, start..start + length))
}

fn law() -> impl Strategy<Value = Law> {
    proptest::sample::select(Law::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_panel_holds_the_elements_of_its_rows_on_every_instruction_set(
        seed in any::<u64>(), law in law(), (row, columns) in place()
    ) {
        let noise = noise(seed);
        let expected: Vec<u32> = columns
            .clone()
            .flat_map(|column| (0..PANEL_ROWS as u64).map(move |lane| (row + lane, column)))
            // Lanes beyond the last row exist but have no definition.
            .map(|(row, column)| if row < MAX_ROWS { noise.at(law, row, column).to_bits() } else { 0 })
            .collect();
        let check = |mut out: Vec<f32>| {
            for (i, z) in out.iter_mut().enumerate() {
                if row + (i % PANEL_ROWS) as u64 >= MAX_ROWS {
                    *z = 0.0;
                }
            }
            bits(&out)
        };
        let empty = vec![f32::NAN; columns.len() * PANEL_ROWS];
        let mut out = empty.clone();
        Panel(noise, law, row, columns.clone(), &mut out).eval(Scalar);
        prop_assert_eq!(&check(out), &expected, "scalar");
        for isa in Isa::available() {
            let mut out = empty.clone();
            isa.dispatch(Panel(noise, law, row, columns.clone(), &mut out));
            prop_assert_eq!(&check(out), &expected, "{}", isa);
        }
    }

    #[test]
    fn a_row_holds_its_elements_on_every_instruction_set(
        seed in any::<u64>(), law in law(), (row, columns) in place()
    ) {
        let noise = noise(seed);
        let expected: Vec<u32> = columns.clone().map(|column| noise.at(law, row, column).to_bits()).collect();
        let mut out = vec![f32::NAN; columns.len()];
        Row(noise, law, row, columns.clone(), &mut out).eval(Scalar);
        prop_assert_eq!(&bits(&out), &expected, "scalar");
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; columns.len()];
            isa.dispatch(Row(noise, law, row, columns.clone(), &mut out));
            prop_assert_eq!(&bits(&out), &expected, "{}", isa);
        }
    }

    #[test]
    fn raw_draws_are_those_of_rand_pcg_advanced_to_the_column(
        seed in any::<u64>(), (row, columns) in place()
    ) {
        let noise = noise(seed);
        let expected: Vec<u32> = columns
            .clone()
            .map(|column| {
                let mut generator: Lcg64Xsh32 = noise.generator(row, column / BLOCK_COLUMNS);
                generator.advance((column % BLOCK_COLUMNS) as u64);
                generator.next_u32()
            })
            .collect();
        for isa in Isa::available() {
            let mut out = vec![0; columns.len()];
            isa.dispatch(RowDraws(noise, row, columns.clone(), &mut out));
            prop_assert_eq!(&out, &expected, "{}", isa);
        }
    }

    #[test]
    fn a_matrix_is_the_same_however_it_is_cut_into_tiles_and_threads(
        seed in any::<u64>(), law in law(),
        height in 0_u64..40, width in prop_oneof![0_usize..70, Just(300)],
        cut_row in 0.0..1.0_f64, cut_column in 0.0..1.0_f64, threads in 1_usize..=5
    ) {
        let noise = noise(seed);
        let isa = Isa::fastest();
        let fill = |rows: Range<u64>, columns: Range<usize>| {
            let mut out = vec![f32::NAN; (rows.end - rows.start) as usize * columns.len()];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            pool.install(|| noise.fill(isa, law, rows, columns, &mut out));
            out
        };
        let whole = fill(0..height, 0..width);
        let (cut_row, cut_column) = ((cut_row * height as f64) as u64, (cut_column * width as f64) as usize);
        for rows in [cut_row..height, 0..cut_row] {
            for columns in [0..cut_column, cut_column..width] {
                let tile = fill(rows.clone(), columns.clone());
                for (row, line) in rows.clone().zip(tile.chunks(columns.len().max(1))) {
                    let from = row as usize * width;
                    prop_assert_eq!(bits(line), bits(&whole[from + columns.start..from + columns.end]));
                }
            }
        }
    }
}

#[test]
fn the_squared_norm_has_the_same_bits_on_every_instruction_set_and_thread_count() {
    let noise = noise(11);
    for (rows, columns) in [(0, 5), (3, 0), (1, 1), (5, 255), (37, 300), (2, 1031)] {
        for law in Law::ALL {
            // The definition: blocks in 16 lanes of fused f32 sums, then f64 chains.
            let mut expected = 0.0;
            for row in 0..rows {
                let mut of_row = 0.0;
                for start in (0..columns).step_by(BLOCK_COLUMNS) {
                    let mut lanes = [0.0_f32; crate::simd::VIRTUAL_LANES];
                    for column in start..columns.min(start + BLOCK_COLUMNS) {
                        let z = noise.at(law, row as u64, column);
                        let lane = &mut lanes[column % crate::simd::VIRTUAL_LANES];
                        *lane = z.mul_add(z, *lane);
                    }
                    of_row += f64::from(crate::simd::tree_sum(lanes));
                }
                expected += of_row;
            }
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
                    let norm = pool.install(|| noise.squared_norm(isa, law, rows, columns));
                    assert_eq!(norm.to_bits(), f64::to_bits(expected), "{rows} x {columns}, {law:?}, {isa}");
                }
            }
        }
    }
}

#[test]
fn keys_that_differ_anywhere_have_different_streams() {
    let base = NoiseKey::new(1, 2, Role::U, 3);
    let mut keys = vec![
        base,
        NoiseKey { seed: 0, ..base },
        NoiseKey { epoch: 1, ..base },
        // The same numbers in other places.
        NoiseKey::new(2, 1, Role::U, 3),
        NoiseKey { probe: 1, ..base },
        base.extended(0),
        base.extended(1),
        base.extended(0).extended(1),
        base.extended(1).extended(0),
    ];
    keys.extend(Role::ALL.into_iter().skip(1).map(|role| NoiseKey { role, ..base }));
    let mut words: Vec<_> =
        keys.iter().flat_map(|key| [0, 1, u64::MAX].map(|tensor| key.tensor(tensor).words)).collect();
    let count = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), count);
}

#[test]
fn a_key_hashes_to_the_first_sixteen_bytes_of_the_documented_message() {
    let key = NoiseKey { extension: 0x0123_4567_89ab_cdef, ..NoiseKey::new(0xfeed, 7, Role::Psi, 9) };
    let mut message = b"zofo noise v1\0".to_vec();
    for (number, bytes) in [(0xfeed, 8), (7, 8), (4, 4), (9, 4), (0x0123_4567_89ab_cdef_u64, 8), (42, 8)] {
        message.extend_from_slice(&number.to_le_bytes()[..bytes]);
    }
    // One SHA-256 block: 55 bytes of message at most.
    assert_eq!(message.len(), 54);
    let digest = Sha256::digest(&message);
    let words: Vec<u64> = digest[..16].chunks(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes"))).collect();
    assert_eq!(key.tensor(42).words.to_vec(), words);
}
