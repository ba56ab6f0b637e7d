use crate::{
    direction::{Displacement, ParamId},
    optim::{
        BatchId, Clock, CommitReport, GradientSink, Losses, OptimError, Optimizer, Oracle, OracleError, Pool, Space,
        StepReport, find,
    },
    tensor::Block,
    testing::{
        assert_same_bits,
        worlds::{self, Dual, Facts, World},
    },
};

fn build(name: &str, options: &str) -> Box<dyn Optimizer> {
    find(name).and_then(|entry| entry.build(&options.parse().expect("TOML"))).expect("options of the test")
}

fn run(optimizer: &mut dyn Optimizer, oracle: &mut dyn Oracle, steps: u64) -> Vec<StepReport> {
    (0..steps).map(|step| optimizer.step(oracle, Clock { seed: 1, step, steps }).expect("finite losses")).collect()
}

/// A matrix and a vector whose gradients change from batch to batch and with nothing else: sixty-fourths from 1/2 to 1.
fn recorded_gradients() -> World {
    let gradient = |batch: u64, at: usize| {
        let i = at as u64;
        let sign = if (3 * batch + i) % 5 < 2 { -1.0 } else { 1.0 };
        sign * (32 + (7 * batch + 13 * i) % 32) as f64 / 64.0
    };
    let loss = move |values: &[Vec<Dual>], batch| {
        let terms = values.iter().flatten().enumerate();
        terms.map(|(at, value)| *value * Dual::from(gradient(batch, at))).collect()
    };
    let quarters = |n: usize, middle: f32| (0..n).map(|i| (i as f32 - middle) / 4.0).collect::<Vec<_>>();
    let tensors = [("a", &[2, 3][..], quarters(6, 3.0), vec![0.0; 6]), ("b", &[4][..], quarters(4, 2.0), vec![0.0; 4])];
    World::new(&tensors, &[], Facts { smoothness: 1.0, convexity: 0.0 }, Box::new(loss))
}

/// Twenty steps of `PyTorch` 2.15 on those gradients, with lr = 0.01: its options and ours, and where both parameters end.
const RECORDED: [(&str, &str, [f32; 10]); 4] = [
    (
        // betas = (0.9, 0.999), eps = 0.01, weight_decay = 0.1 for the matrix and 0 for the vector.
        "adamw",
        "adam_epsilon = 0.01\nweight_decay = 0.1",
        [
            -0.764_987_65,
            -0.527_550_1,
            -0.302_986_5,
            -0.061_205_845,
            0.169_495_31,
            0.465_332_36,
            -0.537_441_43,
            -0.307_654_83,
            -0.056_804_143,
            0.173_748_8,
        ],
    ),
    (
        "sgd",
        "momentum = 0.9",
        [
            -0.955_063_1,
            -0.722_747_15,
            -0.483_838_5,
            -0.261_273_24,
            -0.042_622_783,
            0.326_504_26,
            -0.726_032_44,
            -0.482_563_3,
            -0.229_722_95,
            -0.047_439_65,
        ],
    ),
    (
        "sgd",
        "momentum = 0.9\nnesterov = true",
        [
            -0.973_619_3,
            -0.738_910_1,
            -0.498_267_05,
            -0.272_333_4,
            -0.049_923_02,
            0.309_166_4,
            -0.742_491_6,
            -0.492_744_48,
            -0.239_563_14,
            -0.054_883_152,
        ],
    ),
    (
        // clip_grad_norm_(max_norm = 1).
        "sgd",
        "clip = 1.0",
        [
            -0.766_156_5,
            -0.515_780_1,
            -0.265_828_73,
            -0.015_475_23,
            0.234_488_32,
            0.485_658_65,
            -0.516_036,
            -0.264_002_38,
            -0.013_637_315,
            0.234_221_55,
        ],
    ),
];

#[test]
fn steps_are_those_of_pytorch_up_to_rounding() {
    for (name, options, expected) in RECORDED {
        let mut world = recorded_gradients();
        run(&mut *build(name, &format!("lr = 0.01\n{options}")), &mut world, 20);
        // With u = 2⁻²⁴, gradients from 1/2 to 1 and |θ| ≤ 1. Means: three roundings a step of at most 10, of which the mean
        // keeps 0.9, hence 300 u of momentum; m of Adam is a tenth of that, and so is 1 − β₁ᵗ of m̂ at first: 30 u of m̂, and
        // √v̂ ≥ 1/2 is off by a relative 40 u (twenty steps of three roundings, halved by the root, and ten more): at most
        // 2·30 u + 2·40 u of a quotient of up to 2. Either way a step of 0.01 of that, at most 3 u, and two roundings of θ,
        // 2 u, on both sides: 20 · 10 u. Clipping: 1e-6 that PyTorch adds to a norm of at least √10/2, 20 steps of at most
        // 0.01 · 1: 1.3e-7 or 3 u more.
        let tolerance = 203.0 * 2_f32.powi(-24);
        for (found, expected) in world.values().iter().flatten().zip(expected) {
            assert!((found - expected).abs() <= tolerance, "{name} {options}: {found}, in PyTorch {expected}");
        }
    }
}

#[test]
fn tensors_that_move_one_by_one_get_the_values_of_moving_together() {
    for (name, options) in [
        ("sgd", ""),
        ("sgd", "momentum = 0.9\nnesterov = true\nweight_decay = 0.5"),
        ("adamw", "weight_decay = 0.5"),
        ("muon", "weight_decay = 0.5"),
    ] {
        for world in [worlds::mixed_ranks, recorded_gradients] {
            let (mut together, mut one_by_one) = (world(), world());
            let expected = run(&mut *build(name, &format!("lr = 0.01\n{options}")), &mut together, 5);
            let in_place = format!("lr = 0.01\nin_place = true\n{options}");
            for (found, expected) in run(&mut *build(name, &in_place), &mut one_by_one, 5).iter().zip(expected) {
                // Sums of at most 17 squares, in another order, and their roots.
                let difference = (found.update_rms - expected.update_rms).abs();
                assert!(difference <= 20.0 * f64::EPSILON * expected.update_rms, "{name} {options}: {found:?}");
            }
            for (found, expected) in one_by_one.values().iter().zip(together.values()) {
                assert_same_bits(found, expected, format_args!("{name} {options}"));
            }
        }
    }
}

#[test]
fn a_gradient_that_is_shorter_keeps_every_bit() {
    let values = |clip: &str| {
        let mut world = worlds::mixed_ranks();
        run(&mut *build("sgd", &format!("lr = 0.01\n{clip}")), &mut world, 3);
        world.values().to_vec()
    };
    // ‖g‖ ≤ L‖θ − θ*‖ with L = 2 and a distance of less than 17 values times 5.
    assert_eq!(values("clip = 170"), values(""));
    assert_ne!(values("clip = 1"), values(""));
}

#[test]
fn a_length_in_place_and_a_look_ahead_without_momentum_are_refused() {
    for (name, options, message) in [
        ("adamw", "clip = 1.0\nin_place = true", "option clip of adamw is 1.0, expected 0 where in_place is true"),
        ("sgd", "nesterov = true", "option nesterov of sgd is true, expected false where momentum is 0"),
    ] {
        let refused = find(name).and_then(|entry| entry.build(&options.parse().expect("TOML")).map(drop));
        let error: OptimError = refused.expect_err("options that do not go together");
        assert!(error.to_string().starts_with(message), "{error}");
    }
}

/// A world in which the gradient of a parameter is not finite, though the loss is.
struct Broken {
    world: World,
    parameter: &'static str,
}

/// Breaks the gradient of one parameter.
struct Breaks<'s>(&'s mut dyn GradientSink, Option<ParamId>);

impl GradientSink for Breaks<'_> {
    fn take(&mut self, id: ParamId, mut gradient: Block<f32>) -> Option<Displacement> {
        if self.1 == Some(id) {
            gradient[1] = f32::NAN;
        }
        self.0.take(id, gradient)
    }
}

impl Oracle for Broken {
    fn space(&self) -> &dyn Space {
        &self.world
    }
    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        self.world.draw(pool, size)
    }
    fn batch_size(&mut self, batch: BatchId) -> Result<usize, OracleError> {
        self.world.batch_size(batch)
    }
    fn losses(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        self.world.losses(batch, probes)
    }
    fn slopes(
        &mut self,
        batch: BatchId,
        along: &[std::sync::Arc<crate::direction::DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), OracleError> {
        self.world.slopes(batch, along)
    }
    fn gradients(
        &mut self,
        batch: BatchId,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        sink: &mut dyn GradientSink,
    ) -> Result<Vec<Losses>, OracleError> {
        let broken = Space::params(&self.world).find(self.parameter);
        self.world.gradients(batch, at, wrt, &mut Breaks(sink, broken))
    }
    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.world.commit(update)
    }
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing_or_in_place_all_but_its_tensor() {
    for name in ["sgd", "adamw", "muon"] {
        for (in_place, moved) in [(false, [false, false]), (true, [false, true])] {
            let mut oracle = Broken { world: worlds::mixed_ranks(), parameter: "a" };
            let before = oracle.world.values().to_vec();
            let mut optimizer = build(name, &format!("lr = 0.1\nin_place = {in_place}"));
            let report = optimizer.step(&mut oracle, Clock { seed: 1, step: 0, steps: 1 }).expect("one of five");
            assert!(report.nonfinite && report.loss.is_finite(), "{name}");
            let [a, b] = ["a", "b"].map(|name| Space::params(&oracle.world).find(name).expect("there").index());
            let found = [a, b].map(|at| oracle.world.values()[at] != before[at]);
            assert_eq!(found, moved, "{name}, in place: {in_place}");
        }
    }
}
