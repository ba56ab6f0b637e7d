//! Named noise: `z(key, tensor, index)` as a pure function (contract C2).
//!
//! *What it is.* A [`NoiseKey`] names a draw (run seed, step, role, probe), [`NoiseKey::tensor`] names a
//! tensor under it, and [`TensorNoise`] answers any element of that tensor's noise: alone ([`TensorNoise::at`]),
//! a row at a time ([`TensorNoise::fill_row`]), or sixteen rows at a time in the order of a packed matmul
//! panel ([`TensorNoise::columns`], [`TensorNoise::fill_panel`]).
//!
//! *What it is not.* There is no cursor and nothing is stored: a direction is regenerated wherever it is
//! needed. It is not cryptographic.
//!
//! *What must stay true.* Every way of asking gives the same bits: whatever the tile shape, visiting
//! order, thread or instruction set. Noise is a file format, because journals hold scalars that mean
//! nothing without the directions they multiply; the golden vectors in `tests/golden` fix it, and a change
//! of any bit is a new [`NOISE_VERSION`]. `docs/noise.md` is the specification.

mod fill;
mod law;
mod stream;
#[cfg(test)]
mod tests;

pub use law::Law;
pub use stream::{BLOCK_COLUMNS, MAX_COLUMNS, MAX_ROWS};

use sha2::{Digest, Sha256};

/// The version of the bits this module answers; part of every journal's header.
pub const NOISE_VERSION: u32 = 1;

/// Rows that [`TensorNoise::columns`] and [`TensorNoise::fill_panel`] generate together.
pub const PANEL_ROWS: usize = crate::simd::VIRTUAL_LANES;

/// What a draw is for. Different roles have disjoint streams; the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Role {
    /// Left factors `U` of low-rank directions.
    U = 1,
    /// Right factors `V` of low-rank directions.
    V = 2,
    /// Projections `P` of subspace methods.
    P = 3,
    /// Random features `Ψ`.
    Psi = 4,
    /// Core coefficients `τ` of tensor-decomposed directions.
    Tau = 5,
    /// Directions of one-dimensional tensors beside low-rank ones.
    Z1d = 6,
    /// Full directions, one value per weight.
    Dense = 7,
    /// Stochastic rounding of stored weights.
    Rounding = 8,
    /// The order of training examples.
    DataOrder = 9,
    /// Initial values of adapter tensors.
    Init = 10,
    /// Which coordinates of a tensor take part.
    Mask = 11,
    /// Which layers or blocks take part.
    Selection = 12,
    /// Tokens of generated text.
    Sampling = 13,
}

impl Role {
    /// Every role, in the order of their numbers.
    pub const ALL: [Role; 13] = [
        Role::U,
        Role::V,
        Role::P,
        Role::Psi,
        Role::Tau,
        Role::Z1d,
        Role::Dense,
        Role::Rounding,
        Role::DataOrder,
        Role::Init,
        Role::Mask,
        Role::Selection,
        Role::Sampling,
    ];
}

/// The name of a draw: all tensors' noise of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoiseKey {
    /// The run's seed.
    pub seed: u64,
    /// The step, or for values that outlive a step the epoch of their last refresh.
    pub epoch: u64,
    /// What the draw is for.
    pub role: Role,
    /// Which of a step's directions.
    pub probe: u32,
    /// 0, or the fold of the numbers this key was extended by ([`NoiseKey::extended`]).
    pub extension: u64,
}

impl NoiseKey {
    /// The key of direction `probe` of step (or refresh epoch) `epoch`.
    pub fn new(seed: u64, epoch: u64, role: Role, probe: u32) -> NoiseKey {
        NoiseKey { seed, epoch, role, probe, extension: 0 }
    }

    /// A key of its own for part `part`, for example one example of a batch. Extensions nest; their order matters.
    #[must_use]
    pub fn extended(self, part: u64) -> NoiseKey {
        // The golden ratio keeps `extended(0)` apart from the key itself; the mix is a bijection, so that
        // two parts of one key never meet.
        let extension = stream::mix(self.extension.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(part));
        NoiseKey { extension, ..self }
    }

    /// This key's noise in the tensor `tensor`: costs one SHA-256 block (about 0.1 to 0.4 µs), so keep the answer.
    pub fn tensor(self, tensor: u64) -> TensorNoise {
        let digest = Sha256::new()
            .chain_update(b"zofo noise v1\0")
            .chain_update(self.seed.to_le_bytes())
            .chain_update(self.epoch.to_le_bytes())
            .chain_update((self.role as u32).to_le_bytes())
            .chain_update(self.probe.to_le_bytes())
            .chain_update(self.extension.to_le_bytes())
            .chain_update(tensor.to_le_bytes())
            .finalize();
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|byte| digest[8 * i + byte]));
        TensorNoise { words: [word(0), word(1)] }
    }
}

/// The noise of one tensor under one key: a virtual matrix of any number of rows and columns.
///
/// A vector is one row. Values depend on the row and column only, not on the tensor's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorNoise {
    /// 128 bits of the name's hash.
    words: [u64; 2],
}
