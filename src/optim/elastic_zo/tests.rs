use crate::{
    optim::{
        Clock,
        fixture::{build, run},
    },
    testing::{
        assert_same_bits,
        worlds::{self, World},
    },
};

fn end(name: &str, options: &str, world: fn() -> World) -> Vec<Vec<f32>> {
    let mut world = world();
    run(&mut *build(name, &format!("lr = 1e-4\n{options}")), &mut world, 3, 0..6);
    world.values().to_vec()
}

#[test]
fn with_no_layer_it_is_mezo_and_with_all_of_them_sgd_or_adamw() {
    for world in [worlds::quadratic, worlds::matrix_regression, worlds::mixed_ranks] {
        for (options, other, others) in [
            ("first_order_layers = 0", "mezo", ""),
            ("first_order_layers = 9", "sgd", ""),
            ("first_order_layers = 9\nfo_rule = \"adamw\"\nweight_decay = 0.5", "adamw", "weight_decay = 0.5"),
        ] {
            for (found, expected) in end("elastic_zo", options, world).iter().zip(end(other, others, world)) {
                assert_same_bits(found, &expected, options);
            }
        }
    }
}

#[test]
fn the_last_layer_takes_the_gradient_at_the_point_that_the_others_leave() {
    // The loss of `mixed_ranks` is a sum over its parameters: each side moves as if it were alone.
    let mut world = worlds::mixed_ranks();
    let mut optimizer = build("elastic_zo", "lr = 1e-4\nfirst_order_layers = 1");
    let report = optimizer.step(&mut world, Clock { seed: 3, step: 0, steps: 1 }).expect("finite losses");
    assert_eq!((report.evaluations, report.projected_grads.len()), (3, 1));
    let mut sgd = worlds::mixed_ranks();
    run(&mut *build("sgd", "lr = 1e-4"), &mut sgd, 3, 0..1);
    assert_same_bits(&world.values()[2], &sgd.values()[2], "b");
    assert!(world.values()[0] != sgd.values()[0] && world.values()[0] != worlds::mixed_ranks().values()[0]);
}

#[test]
fn without_a_layer_a_run_needs_no_gradients() {
    assert!(!build("elastic_zo", "first_order_layers = 0").needs_gradients());
    assert!(build("elastic_zo", "").needs_gradients());
}
