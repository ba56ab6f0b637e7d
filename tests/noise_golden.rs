//! Noise is a file format: journals hold scalars that mean nothing without these bits.
//!
//! `tests/golden/noise-v1.json` fixes elements of every role and law, a digest of a whole tile, and the raw
//! draws. A change of any of them needs a new `NOISE_VERSION`, a new file, and the old bits kept readable.

use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use zofo::{
    noise::{Law, MAX_COLUMNS, MAX_ROWS, NOISE_VERSION, NoiseKey, Role, TensorNoise},
    simd::{Isa, Simd, SimdOp},
};

/// Both columns of a pair, both sides of a block's end, far rows and columns, the last element.
const PLACES: [(u64, usize); 8] =
    [(0, 0), (0, 1), (1, 0), (2, 255), (2, 256), (1_000_003, 70), (5, 49_999), (MAX_ROWS - 1, MAX_COLUMNS - 1)];

struct FirstDraws<'a>(TensorNoise, &'a mut [u32]);
impl SimdOp for FirstDraws<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let columns = 0..self.1.len();
        self.0.fill_row_draws(simd, 0, columns, self.1);
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The golden document, computed on `isa`.
fn document(isa: Isa) -> Value {
    let key = |role| NoiseKey::new(0x5eed, 3, role, 1);
    let roles: Map<String, Value> = Role::ALL
        .into_iter()
        .map(|role| {
            let noise = key(role).tensor(17);
            let elements: Map<String, Value> = Law::ALL
                .into_iter()
                .map(|law| {
                    let bits = PLACES.map(|(row, column)| format!("{:08x}", noise.at(law, row, column).to_bits()));
                    (format!("{law:?}"), json!(bits))
                })
                .collect();
            (format!("{role:?} = {}", role as u32), Value::Object(elements))
        })
        .collect();
    let tiles: Map<String, Value> = Law::ALL
        .into_iter()
        .map(|law| {
            let mut tile = vec![0.0; 37 * 601];
            key(Role::Dense).extended(4).tensor(2).fill(isa, law, 5..42, 100..701, &mut tile);
            let bytes: Vec<u8> = tile.iter().flat_map(|z| z.to_le_bytes()).collect();
            (format!("{law:?}"), json!(hexadecimal(&Sha256::digest(bytes))))
        })
        .collect();
    let mut draws = [0; 8];
    isa.dispatch(FirstDraws(key(Role::DataOrder).tensor(0), &mut draws));
    json!({
        "version": NOISE_VERSION,
        "key": "seed 0x5eed, epoch 3, probe 1; tensor 17",
        "places": PLACES.map(|(row, column)| json!([row, column])),
        "roles": roles,
        "sha256 of rows 5..42, columns 100..701, role Dense extended by 4, tensor 2": tiles,
        "first draws of role DataOrder, tensor 0, row 0": draws,
    })
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/noise-v{NOISE_VERSION}.json"))
}

#[test]
fn noise_has_its_golden_bits_on_every_instruction_set() {
    let golden = std::fs::read_to_string(path()).expect("the golden vectors are committed");
    let golden: Value = serde_json::from_str(&golden).expect("the golden vectors are JSON");
    for isa in Isa::available() {
        assert_eq!(document(isa), golden, "{isa}");
    }
}

#[test]
#[ignore = "writes the golden vectors of a new NOISE_VERSION; refuses to replace existing ones"]
fn write_the_golden_vectors_of_a_new_version() {
    let text = serde_json::to_string_pretty(&document(Isa::fastest())).expect("a JSON document");
    let mut file = std::fs::File::create_new(path()).expect("a version without golden vectors");
    std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes()).expect("a writable golden file");
}
