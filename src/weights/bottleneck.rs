//! Bottleneck adapters of tensor trains (Yang et al., `LoRETTA`, 2024, arXiv:2402.11417; `AdaZeta`, 2024,
//! arXiv:2406.18060): rows `x` that enter or leave a layer become `x + W_up relu(W_down x + b_down) + b_up`.
//!
//! ```text
//! W = U V,   U [out, rank] the train of cores 0, 1, 2,   V [rank, in] that of cores 3, 4, 5
//! ```
//!
//! A core is a parameter `[l · n, r]` that lies as `[l, n, r]`; the `n` of three cores make the features of a side, and all
//! ranks between cores are one number. Rows are multiplied by one train after the other, so `W` is never formed: the
//! "fast forward" of `AdaZeta`.
//!
//! *What it is.* [`Bottlenecks`] says which adapters a model has, [`Store::add_bottleneck`] makes the parameters of one.
//! They are in no checkpoint, and f32 in every precision. *What it is not.* Arithmetic; nor does it know which layers
//! there are (`model`), nor how an adapter is written down ([`super::tuned`]).
//!
//! *What must stay true.* What an adapter adds begins at zero, so an adapted model begins as its base. Where else it
//! begins depends on the seed and its name alone.

use super::Store;
use crate::{
    direction::{Param, ParamId},
    noise::{Law, NoiseKey, Role},
    simd::math64,
};

/// The adapters of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bottlenecks {
    /// Features between the two layers of an adapter.
    pub width: usize,
    /// The rank between two cores.
    pub rank: usize,
    /// One for each adapted layer, in the order of the forward pass.
    pub adapters: Vec<Bottleneck>,
}

/// On which side of a layer an adapter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The layer reads what the adapter makes of its rows.
    Before,
    /// The adapter reads what the layer makes.
    After,
}

/// The adapter of one layer: its parameters are numbered one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// On which side of the layer it stands.
    pub place: Place,
    /// Features of the rows that it reads.
    pub features: usize,
    /// Features between its two layers.
    pub width: usize,
    /// The rank between two cores.
    pub rank: usize,
    /// The first of its parameters.
    pub first: ParamId,
}

/// A linear layer whose matrix is made of two trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainLayer {
    /// Features that go in.
    pub inputs: usize,
    /// Features that come out.
    pub outputs: usize,
    /// Those between the two trains.
    pub rank: usize,
    /// Three of `U`, three of `V`.
    pub cores: [ParamId; 6],
    /// `[out]`.
    pub bias: ParamId,
}

/// Parameters of a layer: six cores and a bias.
const OF_LAYER: u32 = 7;

/// How large adapters are, and where they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BottleneckSizes {
    /// Features between the two layers of an adapter.
    pub width: usize,
    /// The rank between two cores.
    pub rank: usize,
    /// Names the noise that initial values are.
    pub seed: u64,
}

impl Bottlenecks {
    /// The parameters of all adapters, in ascending order.
    pub fn params(&self) -> impl Iterator<Item = ParamId> {
        self.adapters.iter().flat_map(|adapter| adapter.params())
    }
}

impl Bottleneck {
    /// Its parameters, in ascending order.
    pub fn params(self) -> impl Iterator<Item = ParamId> {
        (0..2 * OF_LAYER).map(move |count| self.first.after(count))
    }

    /// From its rows to the bottleneck.
    pub fn down(self) -> TrainLayer {
        self.layer(0, self.features, self.width)
    }

    /// Back again.
    pub fn up(self) -> TrainLayer {
        self.layer(OF_LAYER, self.width, self.features)
    }

    fn layer(self, first: u32, inputs: usize, outputs: usize) -> TrainLayer {
        let [a, b, c, d, e, f, bias] = std::array::from_fn(|at| self.first.after(first + at as u32));
        TrainLayer { inputs, outputs, rank: self.rank, cores: [a, b, c, d, e, f], bias }
    }
}

/// The three factors of `features` with the least sum, hence the fewest values in cores, the largest first.
fn modes(features: usize) -> [usize; 3] {
    let divisors = |of: usize| (1..=of).filter(move |divisor| of.is_multiple_of(*divisor));
    let splits = divisors(features).flat_map(|a| divisors(features / a).map(move |b| [features / a / b, b, a]));
    let ordered = splits.filter(|modes| modes.is_sorted_by(|a, b| a >= b));
    ordered.min_by_key(|modes| modes.iter().sum::<usize>()).expect("features are more than none")
}

/// `[l, n, r]` of the six cores of a layer. The largest mode stands outermost, where one of its ranks is 1.
pub fn core_shapes(inputs: usize, outputs: usize, rank: usize) -> [[usize; 3]; 6] {
    let ([a, b, c], [f, e, d]) = (modes(outputs), modes(inputs));
    [[1, a, rank], [rank, b, rank], [rank, c, rank], [rank, d, rank], [rank, e, rank], [rank, f, 1]]
}

impl Store {
    /// Adds the adapter of the layer `module`, of whose rows it reads `features`.
    ///
    /// As the authors have it, a core of `down` begins normal with a variance of `σ^(1/3) / r`, `σ² = 1 / (in + out)`, which
    /// makes that of an element of `W` `σ²`, and its bias uniform on `±1/√out`. Of `up` the first core and the bias begin
    /// at zero, unlike theirs, and the others like those of `down`.
    ///
    /// # Panics
    /// If the layer has one.
    pub fn add_bottleneck(
        &mut self,
        (module, place): (&str, Place),
        features: usize,
        sizes: BottleneckSizes,
    ) -> Bottleneck {
        let BottleneckSizes { width, rank, seed } = sizes;
        let key = NoiseKey::new(seed, 0, Role::Init, 0);
        let mut add = |name: &str, inputs: usize, outputs: usize, begins_at_zero: bool| {
            let shapes = core_shapes(inputs, outputs, rank);
            // σ^(1/6).
            let scale = math64::exp(-math64::ln((inputs + outputs) as f64) / 12.0);
            let cores: [ParamId; 6] = std::array::from_fn(|core| {
                let [left, mode, right] = shapes[core];
                let scale = if begins_at_zero && core == 0 { 0.0 } else { scale / (right as f64).sqrt() };
                self.add(&format!("{module}.{name}.cores.{core}"), &[left * mode, right], |param| {
                    noise(param, key, Law::Gaussian, scale as f32)
                })
            });
            let scale = if begins_at_zero { 0.0 } else { 1.0 / (outputs as f32).sqrt() };
            self.add(&format!("{module}.{name}.bias"), &[outputs], |param| noise(param, key, Law::Uniform, scale));
            cores[0]
        };
        let first = add("adapter_down", features, width, false);
        add("adapter_up", width, features, true);
        Bottleneck { place, features, width, rank, first }
    }
}

/// Noise times `scale`; +0 if that is 0.
fn noise(param: &Param, key: NoiseKey, law: Law, scale: f32) -> Vec<f32> {
    let (noise, cols) = (key.tensor(param.noise_name()), param.cols());
    let value = |at: usize| if scale == 0.0 { 0.0 } else { scale * noise.at(law, (at / cols) as u64, at % cols) };
    (0..param.elements()).map(value).collect()
}

#[cfg(test)]
mod tests;
