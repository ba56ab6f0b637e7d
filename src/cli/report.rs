//! The report of a run, for people.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::train::duration;

/// A report for people.
pub(super) fn text(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let score = |score: &Value| {
        format!(
            "{} {:.4} ({:.4} to {:.4}), loss {:.4}",
            score["metric"].as_str().unwrap_or_default(),
            number(&score["value"]),
            number(&score["ci95"][0]),
            number(&score["ci95"][1]),
            number(&score["loss"])
        )
    };
    let mut lines = vec![format!(
        "steps      {} (stopped by {}), {}",
        report["steps"],
        report["stopped"].as_str().unwrap_or_default(),
        duration(number(&report["seconds"]))
    )];
    if let Some(split) = report["split"].as_str() {
        lines.push(format!("measured   on {split}, 95 % intervals"));
    }
    if let Some(majority) = report["majority"].as_f64() {
        lines.push(format!("majority   {majority:.4}"));
    }
    for (name, key) in [("base", "base"), ("best", "best"), ("last", "final")] {
        if !report[key].is_null() {
            let step = report[key]["step"].as_u64().map(|step| format!(" after step {step}")).unwrap_or_default();
            lines.push(format!("{name:10} {}{step}", score(&report[key])));
        }
    }
    let rounding = number(&report["rounding_per_update"]);
    if rounding > 1.0 {
        lines.push(format!(
            "warning    rounding changed the weights {rounding:.1} times as much as updates: \
             with precision = \"f32\" nothing is rounded"
        ));
    }
    if let Some(partition) = report["partition"].as_object() {
        lines.push(picture(&names(&partition["gradients"]), &names(&partition["others"])));
    }
    lines.push(format!("weights    {}", report["weights_sha256"].as_str().unwrap_or_default()));
    lines.join("\n")
}

fn names(side: &Value) -> Vec<&str> {
    side.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Which parameters take gradients: a line for each kind, a column for each layer.
fn picture(gradients: &[&str], others: &[&str]) -> String {
    let mut lines: BTreeMap<String, BTreeMap<usize, char>> = BTreeMap::new();
    for (side, mark) in [(gradients, '#'), (others, '.')] {
        for (layer, kind) in side.iter().map(|name| placed(name)) {
            lines.entry(kind).or_default().insert(layer.unwrap_or(0), mark);
        }
    }
    let layers: BTreeSet<usize> = lines.values().flat_map(|marks| marks.keys().copied()).collect();
    let last = layers.last().copied().unwrap_or(0);
    let width = lines.keys().map(|kind| kind.chars().count()).max().unwrap_or(0);
    let mut text = format!("gradients  # of {}, . of others; layers 0 to {last}", gradients.len());
    for (kind, marks) in lines {
        let marks: String = (0..=last).map(|layer| marks.get(&layer).copied().unwrap_or(' ')).collect();
        text += &format!("\n  {kind:width$}  {}", marks.trim_end());
    }
    text
}

/// The number of a parameter's layer, the first part of its name that is one, and what it is called there.
fn placed(name: &str) -> (Option<usize>, String) {
    let parts: Vec<&str> = name.split('.').collect();
    let number = parts.iter().enumerate().find_map(|(at, part)| part.parse::<u16>().ok().map(|layer| (at, layer)));
    match number {
        Some((at, layer)) => (Some(layer.into()), parts[at + 1..].join(".")),
        None => (None, name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_line_a_kind_and_a_column_a_layer() {
        let gradients =
            ["model.layers.1.mlp.up_proj.weight", "model.layers.10.mlp.up_proj.weight", "model.norm.weight"];
        let others = ["model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.bias"];
        let expected = "\
gradients  # of 3, . of others; layers 0 to 10
  mlp.up_proj.weight     .#        #
  model.norm.weight      #
  self_attn.q_proj.bias   .";
        assert_eq!(picture(&gradients, &others), expected);
    }
}
