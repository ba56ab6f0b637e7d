use crate::{
    linalg::orthogonalize::newton_schulz,
    optim::fixture::{build, linear, run, updates},
    tensor::{MatMut, MatRef},
    testing::{assert_same_bits, worlds::World},
};

/// `√max(1, rows / cols)` times five Newton-Schulz steps from `values`.
fn orthogonalized(world: &World, values: &[f32], [rows, cols]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    let cx = crate::optim::Space::context(world);
    newton_schulz(cx, MatRef::new(values, rows, cols), MatMut::new(&mut out, rows, cols));
    let scale = (rows as f32 / cols as f32).max(1.0).sqrt();
    out.iter().map(|value| value * scale).collect()
}

#[test]
fn a_matrix_moves_by_its_orthogonalised_gradient_and_a_vector_by_adamw() {
    for shape in [[6, 3], [2, 5]] {
        let mut linear = linear(&[&shape, &[4]]);
        let gradient: Vec<f32> = linear.gradient[0].iter().map(|g| *g as f32).collect();
        let orthogonal = orthogonalized(&linear.world, &gradient, shape);
        run(&mut *build("muon", "lr = 0.5\nnesterov = false\nadam_epsilon = 1e-18"), &mut linear.world, 1, 0..1);
        let expected: Vec<f32> = orthogonal.iter().map(|value| -0.5 * value).collect();
        assert_same_bits(&linear.world.values()[0], &expected, "the first mean is the gradient");
        for (value, g) in linear.world.values()[1].iter().zip(&linear.gradient[1]) {
            // A first step of Adam is the sign; its quotient has eight roundings.
            assert!(
                (f64::from(*value) + 0.5 * 0.015 * g.signum()).abs() <= 0.0075 * 8.0 * 2_f64.powi(-24),
                "{value} {g}"
            );
        }
    }
}

#[test]
fn steps_along_a_gradient_that_stays_have_one_direction_and_a_table_is_moved_by_adamw() {
    let steps = updates("muon", "lr = 0.5", &mut linear(&[&[3, 3]]), 3);
    // Means that differ by a factor only orthogonalise alike: it is divided out at first, in f32.
    for (first, later) in steps[0].iter().zip(&steps[2]) {
        assert!((first - later).abs() < 1e-5, "{first} {later}");
    }
    let steps = updates("muon", "lr = 0.5\nadamw_names = [\"a\"]", &mut linear(&[&[3, 3]]), 1);
    assert!(steps[0].iter().all(|step| (step.abs() - 0.0075).abs() < 1e-6), "{:?}", steps[0]);
}
