//! The closed form of the posterior, and what holds to the bit.

use proptest::prelude::*;

use super::*;
use crate::linalg::symmetric_eigen::symmetric_eigen;

/// A reading: its direction, its value over the direction's length, and its noise.
type Reading = (Vec<f64>, f64, f64);

/// Of one to four numbers, two readings more than numbers, along dense directions.
fn readings() -> impl Strategy<Value = Vec<Reading>> {
    (1_usize..=4).prop_flat_map(|count| {
        let along = prop::collection::vec(-1.0..1.0, count).prop_filter("not zero", |d| dot(d, d) > 1e-2);
        prop::collection::vec((along, -1.0..1.0, 1.0..4.0), count + 2)
    })
}

fn posterior<'r>(count: usize, readings: impl Iterator<Item = &'r Reading>) -> Posterior {
    let mut posterior = Posterior::prior(count, 1.0);
    readings.for_each(|(d, y, noise)| posterior.absorb(d, y * dot(d, d).sqrt(), *noise));
    posterior
}

proptest! {
    // Σ⁻¹ = A has eigenvalues from 1 to 1 + m ≤ 7. A reading rounds Σ by less than 256·2⁻⁵³: 16 elements, each of some
    // sums of four products of numbers up to 1. Later readings multiply an error from both sides by Σ_m A_j, whose norm
    // is 7 at most: 6·49·256·2⁻⁵³ < 1e-11 in the end. It enters means through K, times a surprise of 7 at most, six
    // times, each multiplied by up to 7: 3e-9. What is checked is multiplied by A once more.
    #[test]
    fn the_posterior_is_that_of_the_closed_form(readings in readings()) {
        let count = readings[0].0.len();
        let Posterior { mean, covariance } = posterior(count, readings.iter());
        let weight = |(d, _, noise): &Reading| 1.0 / (noise * dot(d, d));
        let precision = Square::from_fn(count, |i, j| {
            let prior = if i == j { 1.0 } else { 0.0 };
            readings.iter().fold(prior, |sum, reading| sum + weight(reading) * reading.0[i] * reading.0[j])
        });
        for i in 0..count {
            for j in 0..count {
                let expected = if i == j { 1.0 } else { 0.0 };
                prop_assert!((dot(precision.row(i), covariance.row(j)) - expected).abs() < 1e-10);
            }
            let moment = readings.iter().fold(0.0, |sum, reading| {
                let (d, y, _) = reading;
                sum + weight(reading) * d[i] * y * dot(d, d).sqrt()
            });
            prop_assert!((dot(precision.row(i), &mean) - moment).abs() < 1e-7);
        }
        let least = symmetric_eigen(&covariance).values[count - 1];
        prop_assert!(least > 1.0 / 7.0 - 1e-10, "{least}");
    }

    #[test]
    fn the_order_of_readings_does_not_matter(readings in readings()) {
        let count = readings[0].0.len();
        let [forth, back] = [posterior(count, readings.iter()), posterior(count, readings.iter().rev())];
        let differ = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
        // Twice the errors above.
        prop_assert!(differ(&forth.mean, &back.mean) < 1e-8);
        prop_assert!(differ(forth.covariance.elements(), back.covariance.elements()) < 1e-10);
    }

    #[test]
    fn a_covariance_is_symmetric_and_no_variance_grows(readings in readings(), scale in -20..20) {
        let count = readings[0].0.len();
        let mut posterior = Posterior::prior(count, 2_f64.powi(scale));
        for (d, y, noise) in &readings {
            let before: Vec<f64> = posterior.variances().collect();
            posterior.absorb(d, *y, *noise);
            prop_assert!(posterior.variances().zip(before).all(|(after, before)| after <= before));
            for (i, j) in (0..count).flat_map(|i| (0..i).map(move |j| (i, j))) {
                prop_assert_eq!(posterior.covariance[(i, j)].to_bits(), posterior.covariance[(j, i)].to_bits());
            }
        }
    }

    #[test]
    fn the_length_of_a_direction_does_not_matter_where_its_noise_is_in_proportion(readings in readings(), by in -9..9) {
        let (count, factor) = (readings[0].0.len(), 2_f64.powi(by));
        let (mut plain, mut scaled) = (Posterior::prior(count, 1.0), Posterior::prior(count, 1.0));
        for (d, y, noise) in &readings {
            let long: Vec<f64> = d.iter().map(|d| factor * d).collect();
            // A power of two changes no digit.
            prop_assert_eq!(scaled.residual(&long, factor * y), plain.residual(d, *y));
            plain.absorb(d, *y, *noise);
            scaled.absorb(&long, factor * y, *noise);
            prop_assert_eq!(&scaled.mean, &plain.mean);
            prop_assert_eq!(&scaled.covariance, &plain.covariance);
        }
    }

    #[test]
    fn readings_along_axes_leave_the_others_alone_and_the_widest_axis_is_the_first_eigenvector(
        readings in prop::collection::vec((0_usize..3, -1e30..1e30, 1e-9..1e9), 0..9),
    ) {
        let mut posterior = Posterior::prior(3, 2.0);
        for (axis, y, noise) in readings {
            let mut expected = posterior.clone();
            let variance = expected.covariance[(axis, axis)];
            let gain = variance / (variance + noise);
            expected.mean[axis] += gain * (y - expected.mean[axis]);
            expected.covariance[(axis, axis)] -= gain * variance;
            let mut along = [0.0; 3];
            along[axis] = 1.0;
            posterior.absorb(&along, y, noise);
            prop_assert_eq!(&posterior.mean, &expected.mean);
            prop_assert_eq!(&posterior.covariance, &expected.covariance);
            prop_assert!(posterior.variances().all(|variance| variance >= 0.0));
            prop_assert_eq!(symmetric_eigen(&posterior.covariance).vectors[(0, posterior.widest())], 1.0);
        }
    }
}
