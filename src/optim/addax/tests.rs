use crate::{
    direction::Displacement,
    noise::Law,
    optim::{
        BatchId, Clock, Space,
        fixture::{build, run},
        parts::spsa,
    },
    testing::{
        assert_same_bits,
        worlds::{self, World},
    },
};

fn end(name: &str, options: &str, world: fn() -> World) -> Vec<Vec<f32>> {
    let mut world = world();
    run(&mut *build(name, &format!("lr = 0.0078125\n{options}")), &mut world, 3, 0..6);
    world.values().to_vec()
}

#[test]
fn without_its_first_part_it_is_sgd_and_without_its_second_mezo() {
    for world in [worlds::quadratic, worlds::matrix_regression, worlds::mixed_ranks] {
        for in_place in [true, false] {
            for (alpha, other) in [(0, "sgd"), (1, "mezo")] {
                let decay = "weight_decay = 0.5";
                let found = end("addax", &format!("alpha = {alpha}\nin_place = {in_place}\n{decay}"), world);
                for (found, expected) in found.iter().zip(end(other, decay, world)) {
                    assert_same_bits(found, &expected, format_args!("alpha = {alpha}, in place: {in_place}"));
                }
            }
        }
    }
}

#[test]
fn a_step_is_the_sum_of_both_at_one_point_on_two_batches() {
    for in_place in [true, false] {
        let mut world = worlds::matrix_regression();
        let before = world.values()[0].clone();
        let (id, lr, alpha) = (Space::trainable(&world)[0], 0.0078125, 0.25);
        let z = spsa::directions(&world, Clock { seed: 3, step: 0, steps: 1 }, Law::Gaussian, 1);
        let sides = [Displacement::along(&z[0], 1e-3), Displacement::along(&z[0], -1e-3)];
        let losses = spsa::totals(&mut world, BatchId(0), &sides).expect("a toy");
        let slope = (losses[0] - losses[1]) / (2.0 * f64::from(1e-3_f32));
        // Displaced by z itself and back: z to a rounding.
        let gradient = world.gradient(id, 1);
        let direction = z[0].get(id).expect("trainable");
        let z = crate::direction::materialize::direction(direction, &Space::params(&world)[id], &before);
        let options = format!("lr = {lr}\nalpha = {alpha}\nin_place = {in_place}");
        run(&mut *build("addax", &options), &mut world, 3, 0..1);
        for (at, found) in world.values()[0].iter().enumerate() {
            let step = alpha * slope * f64::from(z[at]) + (1.0 - alpha) * gradient[at];
            let expected = f64::from(before[at]) - lr * step;
            // Two roundings of θ, below 2, and those of the two coefficients and of the gradient.
            let tolerance = 2.0 * 2_f64.powi(-24) + 3.0 * 2_f64.powi(-24) * lr * (step.abs() + 100.0);
            assert!((f64::from(*found) - expected).abs() <= tolerance, "{found} {expected}");
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_on_either_batch_moves_nothing() {
    for (fault, in_place) in [(0, true), (1, true), (0, false), (1, false)] {
        let mut world = worlds::mixed_ranks().failing([fault], f64::NAN);
        let before = world.values().to_vec();
        let mut optimizer = build("addax", &format!("in_place = {in_place}"));
        let report = optimizer.step(&mut world, Clock { seed: 3, step: 0, steps: 1 }).expect("one of five");
        assert!(report.nonfinite && world.values() == before, "batch {fault}, in place: {in_place}");
    }
}
