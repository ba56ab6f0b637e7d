//! Private copies in every precision: equal bits where nothing is rounded, unbiased where it is.

use std::fs;

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;

use super::{Footprint, Store};
use crate::{
    direction::{ParamId, ParamTable},
    noise::{NoiseKey, Role},
    simd::Isa,
    tensor::DType,
    testing::{assert_same_bits, on_threads},
    weights::{Change, Checkpoint, Precision, WeightsError, tuned},
};

/// The parameters of the tests: a matrix wider than a block of noise, a vector, and a matrix that is never trained.
const PARAMS: [(&str, &[usize]); 3] = [("w", &[5, 300]), ("b", &[7]), ("still", &[2, 3])];

/// Values between 1/64 and 1 of either sign, all different from their neighbours.
fn value(i: usize) -> f32 {
    let sign = if i.is_multiple_of(3) { -1.0 } else { 1.0 };
    sign * (1.0 + (i * 37 % 101) as f32 / 128.0) / (2 << (i % 6)) as f32
}

/// A checkpoint of the parameters in `dtype`.
fn checkpoint(dtype: DType) -> TempDir {
    let (dir, of) = (TempDir::new().expect("a directory"), |shape: &[usize]| 0..shape.iter().product());
    let bytes = PARAMS.map(|(_, shape)| -> Vec<u8> {
        match dtype {
            DType::F32 => of(shape).flat_map(|i| value(i).to_le_bytes()).collect(),
            DType::BF16 => of(shape).flat_map(|i| bf16::from_f32(value(i)).to_le_bytes()).collect(),
            DType::F16 => of(shape).flat_map(|i| f16::from_f32(value(i)).to_le_bytes()).collect(),
        }
    });
    let stored = match dtype {
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
    };
    let views = PARAMS
        .iter()
        .zip(&bytes)
        .map(|(&(name, shape), bytes)| (name, TensorView::new(stored, shape.to_vec(), bytes).expect("as many bytes")));
    safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors")).expect("a file");
    fs::write(dir.path().join("config.json"), "{\"dtype\": \"base\"}").expect("a file");
    dir
}

fn open(dir: &TempDir) -> (Store, Vec<ParamId>) {
    let mut params = ParamTable::new();
    let ids = PARAMS.map(|(name, shape)| params.add(name, shape));
    (Store::open(Checkpoint::open(dir.path()).expect("a checkpoint"), params).expect("a store"), ids[..2].to_vec())
}

fn tuned(dir: &TempDir, precision: Precision) -> (Store, Vec<ParamId>) {
    let (mut store, ids) = open(dir);
    store.tune(&ids, precision).expect("private copies");
    (store, ids)
}

fn key(seed: u64, step: u64, write: u32) -> NoiseKey {
    NoiseKey::new(seed, step, Role::Rounding, write)
}

fn values(store: &Store, id: ParamId) -> Vec<f32> {
    let weight = store.weight(id);
    (0..weight.rows()).flat_map(|row| (0..weight.cols()).map(move |col| weight.at(row, col))).collect()
}

/// Adds what depends on row, column and step to every value.
fn add(step: u64) -> impl Fn(usize, &mut [f32]) + Sync {
    move |row, values| {
        for (col, value) in values.iter_mut().enumerate() {
            *value += value.abs() * ((row + 3 * col + step as usize) as f32 * 0.7).sin() / 300.0;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn f32_and_bf16_plus_16_have_equal_bits_through_any_commits(
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
        steps in prop::collection::vec(0..1000_u64, 1..6),
        seed in any::<u64>(),
    ) {
        let dir = checkpoint(dtype);
        let [(mut whole, ids), (mut split, _)] = [Precision::F32, Precision::Split].map(|it| tuned(&dir, it));
        for step in steps {
            for &id in &ids {
                let changes = [&mut whole, &mut split].map(|store| store.update_rows(id, Isa::fastest(), key(seed, step, 0), add(step)));
                let [a, b] = changes.map(|change| change.expect("an update"));
                prop_assert_eq!(a, b);
                prop_assert_eq!(a.rounding_squares, 0.0);
                assert_same_bits(&values(&whole, id), &values(&split, id), "weights");
            }
            prop_assert_eq!(tuned::digest(&whole, &ids), tuned::digest(&split, &ids));
        }
        let targets = [&whole, &split].map(|store| {
            let out = TempDir::new().expect("a directory");
            tuned::export(store, &ids, dir.path(), &out.path().join("out")).expect("an export");
            ["model.safetensors", "config.json"].map(|name| fs::read(out.path().join("out").join(name)).expect("a file"))
        });
        prop_assert_eq!(&targets[0], &targets[1]);
    }

    #[test]
    fn native_keeps_neighbours_named_by_seed_step_and_write_on_any_threads(
        dtype in prop::sample::select(vec![DType::BF16, DType::F16]),
        (seed, step, write) in any::<(u64, u64, u32)>(),
    ) {
        let dir = checkpoint(dtype);
        let ulp = if dtype == DType::BF16 { 2.0_f32.powi(-7) } else { 2.0_f32.powi(-10) };
        let ran_on = |isa, threads, key: NoiseKey| {
            let (mut store, ids) = tuned(&dir, Precision::Native);
            let change = |store: &mut Store, id| store.update_rows(id, isa, key, add(3)).expect("an update");
            let changes = on_threads(threads, || [0, 1].map(|i| change(&mut store, ids[i])));
            (changes, [0, 1].map(|i| values(&store, ids[i])))
        };
        let ran = |threads, key| ran_on(Isa::fastest(), threads, key);
        let (changes, found) = ran(1, key(seed, step, write));
        prop_assert_eq!(&ran(3, key(seed, step, write)), &(changes, found.clone()));
        for isa in Isa::available() {
            prop_assert_eq!(&ran_on(isa, 1, key(seed, step, write)), &(changes, found.clone()), "{}", isa);
        }
        for other in [key(!seed, step, write), key(seed, !step, write), key(seed, step, !write)] {
            prop_assert_ne!(&ran(1, other).1[0], &found[0]);
        }

        let (mut exact, ids) = tuned(&dir, Precision::F32);
        for i in 0..2 {
            let asked = exact.update_rows(ids[i], Isa::fastest(), key(0, 0, 0), add(3)).expect("an update");
            prop_assert_eq!(changes[i].squares, asked.squares);
            let mut squares = 0.0;
            let exact = values(&exact, ids[i]);
            let cols = PARAMS[i].1[PARAMS[i].1.len() - 1];
            for (exact, found) in exact.chunks(cols).zip(found[i].chunks(cols)) {
                let mut row = 0.0;
                for (&exact, &found) in exact.iter().zip(found) {
                    let kept = match dtype {
                        DType::BF16 => bf16::from_f32(found).to_f32(),
                        _ => f16::from_f32(found).to_f32(),
                    };
                    prop_assert_eq!(found, kept);
                    prop_assert!((found - exact).abs() < ulp * exact.abs(), "{} for {}", found, exact);
                    let moved = f64::from(found) - f64::from(exact);
                    row += moved * moved;
                }
                squares += row;
            }
            prop_assert_eq!(changes[i].rounding_squares, squares);
        }
    }
}

#[test]
fn rounding_keeps_the_mean_of_a_step_over_many_seeds() {
    for dtype in [DType::BF16, DType::F16] {
        let dir = checkpoint(dtype);
        let (mut store, ids) = tuned(&dir, Precision::Native);
        let (mut exact, _) = tuned(&dir, Precision::F32);
        exact.update_rows(ids[0], Isa::fastest(), key(0, 0, 0), add(7)).expect("an update");
        let exact = values(&exact, ids[0]);
        let (mut errors, mut variance) = (0.0, 0.0);
        for seed in 0..200 {
            store.tune(&ids, Precision::Native).expect("the base again");
            let Change { rounding_squares, .. } =
                store.update_rows(ids[0], Isa::fastest(), key(seed, 1, 0), add(7)).expect("an update");
            let found = values(&store, ids[0]);
            errors += found.iter().zip(&exact).map(|(&a, &b)| f64::from(a) - f64::from(b)).sum::<f64>();
            variance += rounding_squares;
        }
        // 300,000 independent errors of mean 0, whose squares estimate the variance of their sum to a percent: five
        // standard deviations is once in two million. Rounding to nearest is off by hundreds.
        assert!(errors.abs() < 5.0 * variance.sqrt(), "{dtype}: {errors} of {}", variance.sqrt());
        assert!(variance > 0.0);
    }
}

#[test]
fn a_precision_decides_the_type_that_is_kept_and_written() {
    for (dtype, precision, expected) in [
        (DType::BF16, Precision::F32, DType::F32),
        (DType::BF16, Precision::Split, DType::F32),
        (DType::BF16, Precision::Native, DType::BF16),
        (DType::F16, Precision::Native, DType::F16),
        (DType::F32, Precision::Native, DType::F32),
    ] {
        let dir = checkpoint(dtype);
        let (mut store, ids) = tuned(&dir, precision);
        for &id in &ids {
            store.update_rows(id, Isa::fastest(), key(1, 1, 1), add(1)).expect("an update");
            assert_eq!(store.tuned_type(id), expected, "{dtype} {precision:?}");
        }
        assert_eq!(store.weight(ids[0]).dtype(), expected);
        assert_eq!(store.vector(ids[1]), values(&store, ids[1]));

        // A snapshot and an export have the values, bit for bit, in that type.
        let out = TempDir::new().expect("a directory");
        let (snapshot, target) = (out.path().join("snapshot"), out.path().join("out"));
        let sha = tuned::write(&snapshot, &store, &ids, &Default::default(), &[]).expect("a snapshot");
        let (mut again, _) = tuned(&dir, precision);
        assert_eq!(tuned::read(&snapshot, &mut again, &ids).expect("a snapshot").weights_sha256, sha);
        assert_eq!(tuned::export(&again, &ids, dir.path(), &target).expect("an export"), sha);
        let written = Checkpoint::open(&target).expect("a checkpoint");
        for (&id, (name, shape)) in ids.iter().zip(PARAMS) {
            let tensor = written.tensor(name).expect("a tensor");
            assert_eq!(tensor.dtype(), expected.into(), "{dtype} {precision:?}");
            let found = tensor.values(shape).expect("values");
            assert_same_bits(&values(&again, id), &values(&store, id), "the snapshot");
            assert_same_bits(&found, &values(&store, id), "the export");
        }
        let config = fs::read_to_string(target.join("config.json")).expect("a configuration");
        assert_eq!(config.contains("float32"), precision != Precision::Native, "{config}");
    }
}

#[test]
fn the_digest_of_native_weights_is_that_of_the_definition() {
    // As for f32, of b"b" in b"BF16" with the values of `value(0..7)` rounded to bf16 (numpy: add 0x7fff and the lowest
    // kept bit, shift).
    let dir = checkpoint(DType::BF16);
    let (store, ids) = tuned(&dir, Precision::Native);
    let digest: String = tuned::digest(&store, &ids[1..]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "2fa154ef0ca73c6e33d9ee1e2fdd17ce1ff3bf61fc1ea6e0eb2a1ebabfaf2104");
}

#[test]
fn tuning_again_is_back_at_the_base() {
    for precision in [Precision::F32, Precision::Native] {
        let dir = checkpoint(DType::BF16);
        let (mut store, ids) = tuned(&dir, precision);
        let base = ids.iter().map(|&id| values(&store, id)).collect::<Vec<_>>();
        assert_eq!(base, ids.iter().map(|&id| values(&open(&dir).0, id)).collect::<Vec<_>>());
        for &id in &ids {
            store.update_rows(id, Isa::fastest(), key(1, 1, 1), |_, values| values.fill(9.0)).expect("an update");
            assert!(values(&store, id).iter().all(|&value| value == 9.0));
        }
        store.tune(&ids, precision).expect("the base");
        assert_eq!(ids.iter().map(|&id| values(&store, id)).collect::<Vec<_>>(), base);
    }
}

#[test]
fn a_footprint_counts_copies_by_precision_and_the_rest_as_mapped() {
    let dir = checkpoint(DType::BF16);
    let (store, ids) = open(&dir);
    for (precision, private) in [(Precision::F32, 6000), (Precision::Split, 6000), (Precision::Native, 3000)] {
        // The vector of 7 lies as f32; `still` stays mapped with 6 values.
        assert_eq!(store.footprint(&ids, precision), Footprint { mapped: 12, private: private + 28 });
    }
    let nothing = Footprint { mapped: 3012, private: 28 };
    assert_eq!(store.footprint(&[], Precision::F32), nothing);
}

#[test]
fn every_nan_is_kept_as_the_canonical_one() {
    for precision in [Precision::F32, Precision::Native] {
        let dir = checkpoint(DType::BF16);
        let (mut store, ids) = tuned(&dir, precision);
        let spoil = |_, values: &mut [f32]| values[1] = f32::from_bits(0xffc1_2345);
        store.update_rows(ids[0], Isa::fastest(), key(0, 0, 0), spoil).expect("an update");
        assert_eq!(values(&store, ids[0])[1].to_bits(), 0x7fc0_0000);
    }
}

#[test]
fn a_base_that_became_shorter_is_an_error_and_changes_nothing() {
    let dir = checkpoint(DType::BF16);
    let (mut store, ids) = open(&dir);
    let file = dir.path().join("model.safetensors");
    let bytes = fs::metadata(&file).expect("a file").len();
    fs::OpenOptions::new().write(true).open(&file).and_then(|file| file.set_len(bytes - 2900)).expect("shorter");
    let error = store.update_rows(ids[0], Isa::fastest(), key(0, 0, 0), add(0)).expect_err("nothing to read");
    assert!(matches!(&error, WeightsError::Changed { what: "it ends too early", .. }), "{error}");
    assert!(store.private.len() == 1 && error.path().ends_with("model.safetensors"));
}
