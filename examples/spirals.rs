//! Writes the data set of `zofo demo`: 2,000 points in three intertwined spiral arms, as CSV.
//!
//! `cargo run --example spirals > src/cli/demo/spirals.csv`. The file is committed, so the demo never
//! depends on the sine of this machine's C library.

use std::f64::consts::TAU;

use rand_pcg::{Pcg32, rand_core::Rng};

const POINTS: u32 = 2000;
const ARMS: u32 = 3;
/// Turns from the centre to the end of an arm.
const TURNS: f64 = 0.75;
/// Half the width of an arm, as an angle at the centre in turns.
const SPREAD: f64 = 0.1;

fn main() {
    let mut generator = Pcg32::new(2026, 1);
    let mut uniform = move || f64::from(generator.next_u32()) / f64::from(u32::MAX);
    println!("# x,y in thousandths, arm; written by examples/spirals.rs");
    for i in 0..POINTS {
        let arm = i % ARMS;
        let radius = (0.02 + 0.98 * uniform()).sqrt();
        // The sum of two uniform draws: most points near the middle of the arm, none beyond its edge.
        let offset = SPREAD * (uniform() + uniform() - 1.0);
        let angle = TAU * (f64::from(arm) / f64::from(ARMS) + TURNS * radius + offset);
        println!("{:.0},{:.0},{arm}", 1000.0 * radius * angle.cos(), 1000.0 * radius * angle.sin());
    }
}
