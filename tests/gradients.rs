//! Gradients against those of transformers, against slopes and differences of the reference in f64, and against
//! themselves: subsets, displaced lanes, cuts of a batch, instruction sets.

use std::sync::Arc;

use zofo::{
    direction::{Direction, DirectionSet, Displacement, ParamId, materialize},
    kernels::{Context, Profile, activation::Activation, cross_entropy::Sums},
    model::{Batch, Gradients, Kept, Model, Summand},
    noise::{NoiseKey, Role},
    objective::{Labelled, gradients, losses, slopes},
    simd::Isa,
    tensor::Block,
    testing::{
        THREAD_COUNTS,
        adapters::adapted,
        assert_same_bits, on_threads,
        reference::{
            self,
            golden::{Golden, NAMES, Sequence, Weights, directory},
            loss,
        },
        sequences::{labelled, largest, noise},
    },
};

fn context() -> Context {
    Context::new(Isa::fastest())
}

/// A model and what was recorded of it.
struct Case {
    name: &'static str,
    model: Model,
    golden: Golden,
    sequences: Vec<Sequence>,
}

/// Parameters and their gradients, in the order in which they were handed over.
type Handed = Vec<(ParamId, Vec<f32>)>;

impl Case {
    fn open(name: &'static str) -> Case {
        let model = Model::open(&directory(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        // The shards are those of `llama`, whose outputs were recorded.
        let golden = directory(name.strip_suffix("-sharded").unwrap_or(name)).join("golden.safetensors");
        let golden = Golden::open(&golden);
        let sequences = golden.sequences("right.");
        Case { name, model, golden, sequences }
    }

    fn all() -> impl Iterator<Item = Case> {
        NAMES.into_iter().chain(["llama-sharded"]).map(Case::open)
    }

    fn params(&self) -> Vec<ParamId> {
        self.model.store().params().iter().map(|(id, _)| id).collect()
    }

    fn name_of(&self, id: ParamId) -> &str {
        self.model.store().params()[id].name()
    }

    /// Some of its sequences as a batch, and their labels.
    fn batch(&self, sequences: &[Sequence]) -> (Batch, Labelled) {
        labelled(self.model.spec(), sequences)
    }

    /// The gradients of the mean loss at each of `at`, weighed, of the sequences in batches of so many; and the losses.
    fn summed(
        &self,
        cx: &Context,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        (kept, cut): (Kept, usize),
    ) -> (Vec<Sums>, Handed) {
        let mut handed = Handed::new();
        let mut of = (&self.model, |id, gradient: Block<f32>| handed.push((id, gradient.to_vec())));
        let mut sums = Gradients::new(wrt, kept);
        let count = self.batch(&self.sequences).1.count() as f64;
        let batches: Vec<&[Sequence]> = self.sequences.chunks(cut).collect();
        let mut found = Vec::new();
        for (lane, (weight, displacement)) in at.iter().enumerate() {
            for (number, sequences) in batches.iter().enumerate() {
                let is_last = (lane + 1, number + 1) == (at.len(), batches.len());
                let summand = Summand { cx, at: displacement, is_last };
                let (batch, labelled) = self.batch(sequences);
                let losses = gradients(&mut of, &mut sums, summand, (&batch, &labelled), weight / count);
                found.push(losses.expect("gradients"));
            }
        }
        (found, handed)
    }

    /// The gradients of the mean loss with respect to all parameters.
    fn gradients(&self, cx: &Context) -> Handed {
        self.summed(cx, &at_theta(), &self.params(), WHOLE).1
    }

    /// A direction of every parameter by noise.
    fn noise(&self, probe: u32) -> Arc<DirectionSet> {
        noise(self.params(), probe)
    }

    /// A direction of every parameter by thin factors.
    fn low_rank(&self) -> Arc<DirectionSet> {
        let factor = |rows: usize| (0..rows * 3).map(|i| (i * 7 % 13) as f32 * 0.125 - 0.75).collect();
        let z = |rows, cols| Direction::LowRank { left: factor(rows), right: factor(cols), rank: 3 };
        let params = self.model.store().params().iter();
        Arc::new(DirectionSet::new(params.map(|(id, param)| (id, z(param.rows(), param.cols())))))
    }

    fn values(&self, id: ParamId) -> Vec<f32> {
        let (weight, param) = (self.model.store().weight(id), &self.model.store().params()[id]);
        (0..param.elements()).map(|at| weight.at(at / param.cols(), at % param.cols())).collect()
    }

    /// The model with a displacement written into its weights.
    fn displaced(&self, displacement: &Displacement) -> Case {
        let mut moved = Case::open(self.name);
        for id in self.params() {
            let param = self.model.store().params()[id].clone();
            let values = materialize::displaced(&self.values(id), id, &param, displacement);
            let write = |first: usize, out: &mut [f32]| {
                out.copy_from_slice(&values[first * param.cols()..][..out.len()]);
            };
            let rounding = NoiseKey::new(0, 0, Role::Rounding, 0);
            moved.model.store_mut().update_rows(id, Isa::fastest(), rounding, write).expect("a private copy");
        }
        moved
    }
}

/// Everything kept, all sequences in one batch.
const WHOLE: (Kept, usize) = (Kept::All, usize::MAX);

fn at_theta() -> [(f64, Displacement); 1] {
    [(1.0, Displacement::default())]
}

fn length(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

fn assert_same(found: &Handed, expected: &Handed, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for ((id, found), (other, expected)) in found.iter().zip(expected) {
        assert_eq!(id, other, "{what}: the order of parameters");
        assert_same_bits(found, expected, format_args!("{what}, {id:?}"));
    }
}

/// How far an f32 engine's gradient may be from a recorded one, relative to the largest entry of its tensor; and relative
/// to the model's largest where the true gradient is zero (`tests/golden/models/README.md`).
const GRADIENT: f64 = 1e-4;
const ZERO: f64 = 1e-6;

#[test]
fn gradients_are_those_of_transformers() {
    let mut compared = 0;
    for case in Case::all() {
        let recorded: Vec<_> = case.golden.gradients().collect();
        if recorded.is_empty() {
            continue;
        }
        let of_model = largest(recorded.iter().flat_map(|(_, array)| array.values.iter().copied()));
        let handed = case.gradients(&context());
        assert_eq!(handed.len(), recorded.len(), "{}: a tied tensor stands once", case.name);
        for (id, found) in handed {
            let name = case.name_of(id);
            let expected =
                &recorded.iter().find(|(recorded, _)| *recorded == name).expect("a recorded tensor").1.values;
            assert_eq!(found.len(), expected.len(), "{}: {name}", case.name);
            let own = largest(expected.iter().copied());
            let bound = if own < ZERO * of_model { ZERO * of_model } else { GRADIENT * own };
            let error = largest(found.iter().zip(expected).map(|(x, y)| f64::from(*x) - y));
            assert!(error <= bound, "{}: {name} is off by {error}, at most {bound}", case.name);
            compared += 1;
        }
    }
    assert!(compared > 300, "{compared} tensors were recorded");
}

/// ⟨gradient, z⟩ and Σ|gᵢ·zᵢ|, where z is a direction of the case's parameters.
fn along(case: &Case, handed: &Handed, set: &DirectionSet) -> (f64, f64) {
    let of = |(id, gradient): &(ParamId, Vec<f32>)| {
        let direction = set.get(*id).expect("a direction of every parameter");
        let z = materialize::direction(direction, &case.model.store().params()[*id], &case.values(*id));
        gradient.iter().zip(z).map(|(&g, z)| f64::from(g) * f64::from(z)).collect::<Vec<_>>()
    };
    let products: Vec<f64> = handed.iter().flat_map(of).collect();
    (products.iter().sum(), products.iter().map(|x| x.abs()).sum())
}

#[test]
fn the_slope_along_any_direction_is_its_product_with_the_gradient() {
    for case in Case::all() {
        let sets = [case.noise(0), case.noise(1), case.low_rank()];
        let (cx, (batch, labelled)) = (context(), case.batch(&case.sequences));
        let found = slopes(&case.model, &cx, &batch, &labelled, &sets).expect("slopes");
        let (losses, handed) = case.summed(&cx, &at_theta(), &case.params(), WHOLE);
        assert_eq!(losses[0], found.value, "{}: the losses", case.name);
        for (at, (set, slope)) in sets.iter().zip(&found.slopes).enumerate() {
            let (product, magnitude) = along(&case, &handed, set);
            let slope = slope.total / labelled.count() as f64;
            // The bound.
            let error = (product - slope).abs();
            assert!(error <= 1e-5 * magnitude, "{}, direction {at}: {product} for {slope}", case.name);
        }
    }
}

#[test]
fn adapters_have_gradients() {
    for name in ["llama", "gpt2", "roberta-cls"] {
        let mut case = Case::open(name);
        case.model = adapted(&directory(name), 2, 3.0, None, 5);
        let (cx, (batch, labelled), sets) = (context(), case.batch(&case.sequences), [case.noise(0)]);
        let adapters: Vec<_> = case.model.lora().expect("adapters").params().collect();
        for wrt in [case.params(), adapters] {
            let own: Vec<_> = wrt.iter().map(|&id| (id, sets[0].get(id).expect("a direction").clone())).collect();
            let own = [Arc::new(DirectionSet::new(own))];
            let slope = slopes(&case.model, &cx, &batch, &labelled, &own).expect("slopes").slopes[0].total;
            let slope = slope / labelled.count() as f64;
            let (product, magnitude) = along(&case, &case.summed(&cx, &at_theta(), &wrt, WHOLE).1, &own[0]);
            assert!((product - slope).abs() <= 1e-5 * magnitude, "{name}: {product} for {slope}");
        }
    }
}

#[test]
fn any_subset_has_the_bits_it_has_among_all_whatever_is_kept() {
    for case in Case::all() {
        let (cx, params) = (context(), case.params());
        let all = case.gradients(&cx);
        assert_same(&case.summed(&cx, &at_theta(), &params, (Kept::BlockInputs, usize::MAX)).1, &all, case.name);
        let singles = params.iter().map(|&id| vec![id]);
        let thirds = (0..3).map(|rest| params.iter().copied().filter(|id| id.index() % 3 == rest).collect());
        for (number, wrt) in singles.chain(thirds).chain([Vec::new()]).enumerate() {
            let kept = [Kept::All, Kept::BlockInputs][number % 2];
            let found = case.summed(&cx, &at_theta(), &wrt, (kept, usize::MAX)).1;
            let expected = all.iter().filter(|(id, _)| wrt.contains(id)).cloned().collect();
            assert_same(&found, &expected, &format!("{}, {wrt:?}, {kept:?}", case.name));
        }
    }
}

#[test]
fn parameters_near_the_loss_come_first_and_a_tied_table_last() {
    for case in Case::all() {
        let order: Vec<ParamId> = case.gradients(&context()).into_iter().map(|(id, _)| id).collect();
        let block = |id: &ParamId| case.model.parts().blocks.iter().position(|block| block.params().any(|p| p == *id));
        let blocks: Vec<usize> = order.iter().filter_map(block).collect();
        assert!(blocks.is_sorted_by(|a, b| a >= b), "{}: blocks {blocks:?}", case.name);
        assert_eq!(order.last(), Some(&case.model.parts().tokens), "{}", case.name);
    }
}

#[test]
fn nothing_is_kept_below_the_deepest_tensor_that_is_asked_for() {
    let case = Case::open("opt");
    let bytes = |wrt: Vec<ParamId>, kept| {
        let cx = context();
        case.summed(&cx, &at_theta(), &wrt, (kept, usize::MAX));
        cx.workspace.idle_bytes()
    };
    let parts = case.model.parts();
    let of_block = |index: usize| parts.blocks[index].params().collect::<Vec<_>>();
    let closing = parts.last_norm.expect("a closing norm").params().collect();
    let [first, last, norm] = [of_block(0), of_block(1), closing].map(|wrt| bytes(wrt, Kept::All));
    assert!(norm < last && last < first, "{norm}, {last} and {first} bytes");
    let recomputed = bytes(case.params(), Kept::BlockInputs);
    assert!(recomputed < bytes(case.params(), Kept::All), "{recomputed} bytes where blocks are computed twice");
}

#[test]
fn gradients_at_displacements_are_those_of_displaced_weights() {
    for case in Case::all() {
        let (cx, (kept, cut)) = (context(), WHOLE);
        let mut both = Displacement::along(&case.noise(0), 1e-2);
        both.terms.extend(Displacement::along(&case.noise(1), -3e-3).terms);
        let at = [(0.25, both), (0.75, Displacement::along(&case.noise(0), -1e-2)), (0.5, Displacement::default())];
        let (found_losses, found) = case.summed(&cx, &at, &case.params(), (kept, cut));
        // The same sums over three models whose weights were written.
        let (mut expected, mut sums) = (Handed::new(), Gradients::new(&case.params(), kept));
        let (batch, labelled) = case.batch(&case.sequences);
        for (lane, (weight, displacement)) in at.iter().enumerate() {
            let moved = case.displaced(displacement);
            let mut of = (&moved.model, |id, gradient: Block<f32>| expected.push((id, gradient.to_vec())));
            let summand = Summand { cx: &cx, at: &Displacement::default(), is_last: lane + 1 == at.len() };
            let factor = weight / labelled.count() as f64;
            let losses = gradients(&mut of, &mut sums, summand, (&batch, &labelled), factor).expect("gradients");
            assert_eq!(losses, found_losses[lane], "{}: the losses", case.name);
        }
        assert_same(&found, &expected, case.name);
        let lanes: Vec<_> = at.iter().map(|(_, displacement)| displacement.clone()).collect();
        let plain = losses(&case.model, &cx, &batch, &labelled, &lanes).expect("losses");
        assert_eq!(plain, found_losses, "{}: the losses of a forward pass", case.name);
    }
}

#[test]
fn gradients_at_low_rank_displacements_are_within_rounding_of_displaced_weights() {
    for case in Case::all() {
        let cx = context();
        let at = [(1.0, Displacement::along(&case.low_rank(), 1e-2))];
        let found = case.summed(&cx, &at, &case.params(), WHOLE).1;
        let expected = case.displaced(&at[0].1).gradients(&cx);
        let of_model = largest(expected.iter().flat_map(|(_, gradient)| gradient.iter().map(|&g| f64::from(g))));
        for ((id, found), (other, expected)) in found.iter().zip(&expected) {
            assert_eq!(id, other, "{}", case.name);
            // Each of the two is an f32 engine's.
            let bound = 2.0 * (GRADIENT * largest(expected.iter().map(|&g| f64::from(g))) + ZERO * of_model);
            let error = largest(found.iter().zip(expected).map(|(x, y)| f64::from(*x) - f64::from(*y)));
            assert!(error <= bound, "{}: {} is off by {error}, at most {bound}", case.name, case.name_of(*id));
        }
    }
}

#[test]
fn instruction_sets_threads_and_cuts_of_a_batch_change_no_bit_in_any_profile() {
    for case in Case::all() {
        let at = [(0.5, Displacement::along(&case.noise(0), 1e-2)), (0.5, Displacement::along(&case.low_rank(), 1e-2))];
        let mut of_profile = Vec::new();
        for profile in [Profile::StrictF32, Profile::StrictBf16] {
            let run = |isa, how| case.summed(&Context::new(isa).with_profile(profile), &at, &case.params(), how).1;
            let expected = run(Isa::fastest(), WHOLE);
            for cut in [1, 2] {
                let kept = [Kept::All, Kept::BlockInputs][cut - 1];
                assert_same(&run(Isa::fastest(), (kept, cut)), &expected, &format!("{}, cut {cut}", case.name));
            }
            for isa in Isa::available() {
                for threads in THREAD_COUNTS {
                    let found = on_threads(threads, || run(isa, WHOLE));
                    assert_same(&found, &expected, &format!("{}, {isa}, {threads} threads, {profile}", case.name));
                }
            }
            of_profile.push(expected);
        }
        assert!(of_profile[0] != of_profile[1], "{}: profiles differ", case.name);
    }
}

/// Half the length of the shorter of two differences.
const H: f64 = 1e-5;

/// A loss of the reference errs by so many roundings of 2⁻⁵³ of itself: what `testing/reference/tests.rs` allows one.
const ROUNDINGS: f64 = 56.0;

/// The mean loss that the reference computes where a tensor is moved, and the signs of all units before their activation.
fn beside(case: &Case, weights: &Weights, moved: &str, z: &[f64], t: f64) -> (f64, Vec<bool>) {
    let source = |slot, layer, role| {
        let mut values = weights.values(slot, layer, role);
        if weights.name(slot, layer, role) == moved {
            values.iter_mut().zip(z).for_each(|(value, z)| *value += t * z);
        }
        values
    };
    let (mut losses, mut signs) = (Vec::new(), Vec::new());
    for sequence in &case.sequences {
        let output = reference::forward(&weights.spec, &source, &sequence.tokens);
        let logits = output.logits.expect("a head");
        losses.extend(loss::of_head(&weights.spec.head, &logits, &sequence.labels));
        signs.extend(output.units.into_iter().flatten().flatten().map(|unit| unit > 0.0));
    }
    (loss::mean(&losses), signs)
}

#[test]
fn gradients_are_central_differences_of_the_reference_in_every_tensor_of_every_family() {
    let (mut compared, mut left_out) = (0, 0);
    for case in NAMES.into_iter().map(Case::open) {
        let weights = Weights::open(&directory(case.name));
        let handed = case.gradients(&context());
        let longest = handed.iter().map(|(_, gradient)| length(gradient)).fold(0.0, f64::max);
        let has_kinks = weights.spec.ffn.activation == Activation::Relu;
        for (id, gradient) in &handed {
            let (name, n) = (case.name_of(*id), gradient.len());
            let at_largest = (0..n).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).expect("values");
            let unit = |at: usize| (0..n).map(|i| f64::from(u8::from(i == at))).collect::<Vec<_>>();
            // All entries at once, by signs that no row or column repeats.
            let signs = (0..n).map(|i| if (i * i + i / 7) % 5 < 2 { -1.0 } else { 1.0 } / (n as f64).sqrt()).collect();
            for z in [unit(at_largest), unit(n / 3), signs] {
                let values = [-2.0, -1.0, 1.0, 2.0].map(|step| beside(&case, &weights, name, &z, step * H));
                if has_kinks && values.iter().any(|(_, signs)| *signs != values[0].1) {
                    left_out += 1;
                    continue;
                }
                compared += 1;
                let [far_behind, behind, ahead, far_ahead] = values.map(|(loss, _)| loss);
                let expected = (ahead - behind) / (2.0 * H);
                let found: f64 = gradient.iter().zip(&z).map(|(&g, z)| f64::from(g) * z).sum();
                // f‴ h² / 6 of the difference; the roundings of two losses; and those of the gradient, which errs like
                // a row of the model: by 32 roundings of the longest (`testing/reference/tests.rs`).
                let third = (far_ahead - 2.0 * ahead + 2.0 * behind - far_behind) / (2.0 * H * H * H);
                let bound = third.abs() * H * H / 6.0
                    + ROUNDINGS * f64::EPSILON / 2.0 * ahead.abs() / H
                    + 32.0 / f64::from(1 << 24) * longest;
                assert!((found - expected).abs() <= bound, "{}, {name}: {found} for {expected} ± {bound}", case.name);
                // The bound says something: a wrong sign of a tensor that matters is seen.
                let matters = f64::from(gradient[at_largest]).abs() > 1e-4 * longest;
                assert!(!matters || z[at_largest] != 1.0 || (found + expected).abs() > bound, "{}, {name}", case.name);
            }
        }
    }
    assert!(compared > 1000 && left_out < compared / 20, "{compared} points, {left_out} beside a kink");
}
