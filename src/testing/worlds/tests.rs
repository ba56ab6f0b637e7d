//! Toy worlds keep what they say of themselves.

use super::*;
use crate::{direction::Direction, tensor::Block};

#[test]
fn the_facts_of_the_quadratic_worlds_hold_for_every_batch() {
    for world in [quadratic, matrix_regression, mixed_ranks] {
        let mut world = world();
        let Facts { smoothness, convexity } = world.facts;
        let gradients = |world: &World, batch| -> Vec<f64> {
            world.trainable.iter().flat_map(|&id| world.gradient(id, batch)).collect()
        };
        // A quadratic loss is ½dᵀHd with the gradient Hd, d = θ − θ*; f64 of some dozens of terms.
        let rounding = 1e-12;
        let distance = world.squared_distance();
        for batch in 0..2 {
            let (loss, gradient) = (world.loss(batch), gradients(&world, batch));
            assert!(2.0 * loss >= convexity * distance * (1.0 - rounding), "{loss}");
            let square: f64 = gradient.iter().map(|g| g * g).sum();
            assert!(square <= 2.0 * smoothness * loss * (1.0 + rounding) && square > 0.0, "{square} {loss}");
        }
        world.values.clone_from(&world.minimum);
        // The minimum is rounded to f32, at most 3 in magnitude.
        let at_minimum = gradients(&world, 0).into_iter().map(f64::abs).fold(0.0, f64::max);
        assert!(at_minimum <= smoothness * 3.0 * f64::from(f32::EPSILON), "{at_minimum}");
    }
}

#[test]
fn examples_sum_to_the_total_and_slopes_are_the_limit_of_differences() {
    for world in [quadratic, rosenbrock, matrix_regression, mixed_ranks] {
        let mut world = world();
        let batch = world.draw(Pool::Train, None).expect("a toy");
        let key = NoiseKey::new(1, 0, Role::Dense, 0);
        let directions = world.trainable.iter().map(|&id| (id, Direction::Dense { key, law: Law::Rademacher }));
        let set = Arc::new(DirectionSet::new(directions));
        let (loss, slopes) = world.slopes(batch, &[Arc::clone(&set)]).expect("a toy");
        check_gradients(&mut world, batch, &set, slopes[0].total);
        let h = 2_f32.powi(-10);
        let probes = [Displacement::along(&set, h), Displacement::along(&set, -h)];
        let sides = world.losses(batch, &probes).expect("a toy");
        for losses in slopes.iter().chain(&sides).chain([&loss]) {
            assert_eq!(losses.total, losses.per_example.iter().sum::<f64>());
        }
        // Rosenbrock's third derivative, at most 2400|x| + 1200 on signs, times h²/6; the starts and h are such
        // that displaced values are rounded by at most 2⁻²³, times slopes below 300 a coordinate over h.
        let difference = (sides[0].total - sides[1].total) / (2.0 * f64::from(h));
        let bound = 5000.0 * f64::from(h * h) / 6.0 + 24.0 * 300.0 * 2_f64.powi(-23) / f64::from(h);
        assert!((difference - slopes[0].total).abs() <= bound, "{difference} {}", slopes[0].total);
    }
}

/// Keeps gradients.
#[derive(Default)]
struct Taken(Vec<(ParamId, Vec<f32>)>);

impl GradientSink for Taken {
    fn take(&mut self, id: ParamId, gradient: Block<f32>) -> Option<Displacement> {
        self.0.push((id, gradient.to_vec()));
        None
    }
}

/// Gradients have the slope `slope` along the signs of `set` at θ, and a weighted sum of two points is theirs.
fn check_gradients(world: &mut World, batch: BatchId, set: &Arc<DirectionSet>, slope: f64) {
    let trainable = world.trainable.clone();
    let mut gradients = |at: &[(f64, Displacement)]| {
        let mut taken = Taken::default();
        world.gradients(batch, at, &trainable, &mut taken).expect("a toy");
        assert!(taken.0.iter().rev().map(|(id, _)| *id).eq(trainable.iter().copied()), "from the loss down");
        taken.0
    };
    let here = gradients(&[(1.0, Displacement::default())]);
    let away = gradients(&[(1.0, Displacement::along(set, 0.5))]);
    let both = gradients(&[(2.0, Displacement::default()), (-0.5, Displacement::along(set, 0.5))]);
    let (mut along, mut magnitude) = (0.0, 0.0);
    for (((id, here), (_, away)), (_, both)) in here.iter().zip(&away).zip(&both) {
        let z = materialize::direction(set.get(*id).expect("trainable"), &world.params[*id], &world.values[id.index()]);
        for (((g, h), sum), z) in here.iter().zip(away).zip(both).zip(z) {
            let [g, h, sum, z] = [g, h, sum, &z].map(|x| f64::from(*x));
            along += g * z;
            magnitude += g.abs();
            // Each is rounded to f32 once.
            assert!((2.0 * g - 0.5 * h - sum).abs() <= (2.0 * g.abs() + 0.5 * h.abs() + sum.abs()) * 2_f64.powi(-24));
        }
    }
    assert!((along - slope).abs() <= magnitude * 2_f64.powi(-24), "{along} {slope}");
}
