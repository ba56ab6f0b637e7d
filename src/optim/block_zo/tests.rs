use super::super::fixture::{build, run};
use crate::testing::{
    assert_same_bits,
    worlds::{self, Dual, Facts, World},
};

/// A sum over all values, which has a slope along everything.
fn stacked() -> World {
    let names = ["embed.weight", "h.0.w", "h.0.b", "h.1.w", "norm.weight"];
    let tensors = names.map(|name| (name, &[1, 2][..], vec![0.5; 2], vec![0.0; 2]));
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    let loss = |values: &[Vec<Dual>], _| vec![values.iter().flatten().fold(Dual::from(0.0), |sum, x| sum + *x)];
    World::new(&tensors, &[], facts, Box::new(loss))
}

#[test]
fn one_layer_moves_in_a_step_and_each_in_its_turn() {
    let forward: [&[usize]; 4] = [&[0], &[1, 2], &[3], &[4]];
    for (order, turns) in [("ascending", [0, 1, 2, 3, 0, 1]), ("descending", [3, 2, 1, 0, 3, 2])] {
        let (mut world, mut optimizer) =
            (stacked(), build("block_zo", &format!("lr = 0.1\nweight_decay = 0.5\norder = \"{order}\"")));
        for (step, turn) in (0..).zip(turns) {
            let before = world.values().to_vec();
            run(&mut *optimizer, &mut world, 1, step..step + 1);
            let moved: Vec<usize> = (0..before.len()).filter(|&at| world.values()[at] != before[at]).collect();
            assert_eq!(moved, forward[turn], "{order}, step {step}");
        }
    }
}

#[test]
fn layers_of_one_shape_are_drawn_apart() {
    let (mut world, start) = (stacked(), stacked().values().to_vec());
    run(&mut *build("block_zo", "lr = 0.1"), &mut world, 1, 0..4);
    let change = |at: usize| -> Vec<f32> { world.values()[at].iter().zip(&start[at]).map(|(x, y)| x - y).collect() };
    for (one, other) in [(0, 1), (1, 2), (1, 3), (3, 4)] {
        assert_ne!(change(one), change(other), "{one} and {other}");
    }
}

#[test]
fn where_there_is_one_layer_it_is_mezo() {
    for world in [worlds::quadratic, worlds::rosenbrock, worlds::matrix_regression] {
        for options in
            ["weight_decay = 0.5", "queries = 3", "estimator = \"one-sided\"", "estimator = \"slope\"\nqueries = 2"]
        {
            let end = |name| {
                let mut world = world();
                run(&mut *build(name, &format!("lr = 1e-4\n{options}")), &mut world, 3, 0..6);
                world.values()[0].clone()
            };
            assert_same_bits(&end("block_zo"), &end("mezo"), options);
        }
    }
}
