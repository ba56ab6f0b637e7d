//! The course of the number of directions, and what it does to an estimate.

use proptest::prelude::*;

use super::*;
use crate::{
    optim::fixture::{build, linear, moments, run},
    testing::{
        assert_same_bits,
        worlds::{self, EPOCH},
    },
};

fn options(text: &str) -> Options {
    let table: toml::Table = text.parse().expect("TOML");
    let reader = crate::optim::OptionReader::new("adazeta", &table, ENTRY.options()).expect("known options");
    Options::read(&reader).expect("options of the test")
}

#[test]
fn directions_grow_with_epochs_as_the_paper_has_it() {
    let first = |options: &Options, queries| (0..).find(|&epoch| options.queries(epoch) == queries);
    // The least e with 0.85 e^0.4 ≥ Q: (Q / 0.85)^2.5 is 8.49, 23.4, 48.04, 83.9, 132.4 and 194.6.
    let authors = options("");
    assert_eq!([2, 3, 4, 5, 6, 7].map(|queries| first(&authors, queries)), [9, 24, 49, 84, 133, 195].map(Some));
    assert!((0..=200).is_sorted_by_key(|epoch| authors.queries(epoch)));
    assert_eq!([0, 1, 8].map(|epoch| authors.queries(epoch)), [1; 3]);
    // Q_max is met at (15 / 0.85)^2.5 = 1308.2.
    assert_eq!([1308, 1309, u64::MAX].map(|epoch| authors.queries(epoch)), [14, 15, 15]);
    let all = options("shrink_factor = 1\ninc_rate = 1\nqueries = 3");
    assert_eq!([0, 1, 2, 3, 4].map(|epoch| all.queries(epoch)), [1, 1, 2, 3, 3]);
    let none = options("inc_rate = 0\nshrink_factor = 0");
    assert_eq!([0, 7, 10_000].map(|epoch| none.queries(epoch)), [1; 3]);
}

#[test]
fn a_power_that_is_a_number_is_that_number() {
    for (base, exponent, expected) in
        [(4.0, 0.5, 2.0), (81.0, 0.25, 3.0), (81.0, 0.75, 27.0), (7.0, 1.0, 7.0), (7.0, 0.0, 1.0), (0.0, 0.4, 0.0)]
    {
        assert_eq!(power(base, exponent), expected, "{base} to {exponent}");
    }
}

proptest! {
    #[test]
    fn powers_are_those_of_the_platform_up_to_rounding(base in 1_u32.., exponent in 0.0_f64..=1.0) {
        let (found, expected) = (power(f64::from(base), exponent), f64::from(base).powf(exponent));
        // A root errs by 2⁻⁵² at most: 2⁻⁵³ of its own and half of the error before it. An exponent has 53 digits that may
        // be one, hence as many factors and as many products, of 2⁻⁵³ each: 80 · 2⁻⁵², and the platform's last place.
        prop_assert!((found / expected - 1.0).abs() <= 2_f64.powi(-45), "{found} for {expected}");
    }
}

#[test]
fn a_step_measures_as_many_directions_as_its_epoch_has() {
    let mut world = worlds::quadratic();
    let options = "lr = 1e-4\nshrink_factor = 1\ninc_rate = 1\nqueries = 3";
    let reports = run(&mut *build("adazeta", options), &mut world, 1, 0..5 * EPOCH);
    let found: Vec<usize> = reports.iter().map(|report| report.evaluations).collect();
    let expected = [2, 2, 4, 6, 6].into_iter().flat_map(|losses| vec![losses; EPOCH as usize]);
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn with_one_direction_it_is_mezo_bit_for_bit() {
    let steps = "lr = 1e-3\nepsilon = 1e-3\nweight_decay = 0.5\nlr_schedule = \"linear\"";
    let (mut ours, mut mezo) = (worlds::mixed_ranks(), worlds::mixed_ranks());
    let reports = run(&mut *build("adazeta", &format!("{steps}\nqueries = 1")), &mut ours, 3, 0..5 * EPOCH);
    assert_eq!(reports, run(&mut *build("mezo", steps), &mut mezo, 3, 0..5 * EPOCH));
    for (ours, mezo) in ours.values().iter().zip(mezo.values()) {
        assert_same_bits(ours, mezo, "values");
    }
}

#[test]
fn the_variance_of_the_estimate_falls_as_directions_are_added() {
    const SAMPLES: u64 = 2000;
    for epoch in [1, 4] {
        let sample = |seed| {
            let mut world = linear(&[&[3, 2]]).world;
            // Batches that are drawn and not used.
            for _ in 0..epoch * EPOCH {
                world.draw(Pool::Train, None).expect("a batch");
            }
            let options = "lr = 1\nepsilon = 1\nweight_decay = 0\nshrink_factor = 1\ninc_rate = 1";
            let report = run(&mut *build("adazeta", options), &mut world, seed, 0..1).remove(0);
            assert_eq!(report.projected_grads.len() as u64, epoch);
            world.values()[0].iter().map(|x| -f64::from(*x)).collect::<Vec<f64>>()
        };
        let gradient = linear(&[&[3, 2]]).gradient.remove(0);
        let moments = moments(&(0..SAMPLES).map(sample).collect::<Vec<_>>(), &gradient);
        moments.assert_mean(&gradient);
        // E‖pz‖² = (n + 2)‖g‖², so one direction has a variance of (n + 1)‖g‖², and Q have 1/Q of that.
        let norm: f64 = gradient.iter().map(|g| g * g).sum();
        moments.assert_square((gradient.len() as f64 + 1.0) * norm / epoch as f64);
    }
}

#[test]
fn it_asks_for_tensor_trains_and_others_do_not() {
    assert_eq!((build("adazeta", "").tunes(), build("mezo", "").tunes()), (Tunes::TensorTrains, Tunes::Model));
}
