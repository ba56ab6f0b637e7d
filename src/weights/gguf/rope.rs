//! Scaled rotary positions: what GGUF says about them as `rope_scaling` of `config.json`.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use super::{GgufProblem, families::Reading};

/// Llama 3's rule (its `config.json`, all of 3.1 to 3.3): wavelengths up to the original context over `HIGH` stay,
/// those beyond the original context over `LOW` are stretched by the factor, between them it is interpolated.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: f64 = 8192.0;

/// `rope_scaling` for heads of `head_dim` values; null where positions are not scaled.
pub(super) fn scaling(reading: &mut Reading<'_, '_>, theta: f64, head_dim: usize) -> Result<Value, GgufProblem> {
    let factors = match reading.consume("rope_freqs.weight", &[head_dim / 2])? {
        Some(stored) => {
            let mut factors = vec![0.0; head_dim / 2];
            stored.blocks.decode(stored.data, &mut factors);
            Some(factors)
        }
        None => None,
    };
    let kind = reading.text("rope.scaling.type")?;
    let factor = reading.number("rope.scaling.factor")?;
    let original = reading.number("rope.scaling.original_context_length")?;
    match (kind, factors) {
        (None | Some("none"), Some(factors)) => llama3(&factors, theta, head_dim),
        (None | Some("none"), None) => Ok(Value::Null),
        (Some("linear"), None) => {
            let factor = reading.required("rope.scaling.factor", factor)?;
            Ok(json!({ "rope_type": "linear", "factor": factor }))
        }
        (Some("yarn"), None) => {
            let factor = reading.required("rope.scaling.factor", factor)?;
            let original = reading.required("rope.scaling.original_context_length", original)?;
            Ok(json!({
                "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original as u64
            }))
        }
        (Some(found), _) => reading.wrong(
            "rope.scaling.type",
            &format_args!("{found:?}"),
            "none, linear or yarn, without rope_freqs.weight",
        ),
    }
}

/// The configuration behind the factors that llama.cpp computed when it converted a Llama 3.
fn llama3(factors: &[f32], theta: f64, head_dim: usize) -> Result<Value, GgufProblem> {
    // The lowest frequency, with the longest wave, is stretched most.
    let factor = factors.last().map_or(1.0, |&last| f64::from(last));
    for (entry, &found) in factors.iter().enumerate() {
        let wavelength = TAU * theta.powf(2.0 * entry as f64 / head_dim as f64);
        let smooth = ((ORIGINAL / wavelength - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
        let expected = 1.0 / ((1.0 - smooth) / factor + smooth);
        // The converter computes wavelengths in f32, to some 1e-6; `smooth` moves by no more than 4/3 of that, and
        // the factor relatively by at most `factor` times as much: 1e-4 is ample for factors up to 64.
        let same = (f64::from(found) - expected).abs() <= 1e-4 * expected;
        if !same || factor < 1.0 {
            return Err(GgufProblem::RopeFactors { entry, found, expected });
        }
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": ORIGINAL as u64,
    }))
}
