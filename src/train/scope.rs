//! Which parameters of a model a run trains.

use super::{TrainError, TuneConfig};
use crate::{
    direction::ParamId,
    model::{AdapterProblem, Model, ModelError},
    weights::BottleneckSizes,
};

/// The parameters that `tune` names, in ascending order. If it asks for adapters, `model` gets them here, with initial
/// values by `seed`.
///
/// # Errors
/// [`TrainError::Scope`] if it names a block, layer or parameter that the model lacks, or adapters that it cannot have.
pub fn trainable(model: &mut Model, tune: &TuneConfig, seed: u64) -> Result<Vec<ParamId>, TrainError> {
    let mut ids = match tune {
        TuneConfig::Full => model.store().params().iter().map(|(id, _)| id).collect(),
        TuneConfig::Layers { layers } => of_blocks(model, layers)?,
        TuneConfig::Names { names } => named(model, names)?,
        TuneConfig::Lora { rank, alpha, targets } => {
            // A run file's ranks end at 65,536.
            model.adapt(*rank as usize, *alpha, targets.as_deref(), seed).map_err(not_adapted)?
        }
        TuneConfig::TensorTrain { rank, width, targets } => {
            let sizes = BottleneckSizes { width: *width as usize, rank: *rank as usize, seed };
            model.add_bottlenecks(sizes, targets.as_deref()).map_err(not_adapted)?
        }
    };
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The parameters of some blocks.
fn of_blocks(model: &Model, layers: &[u64]) -> Result<Vec<ParamId>, TrainError> {
    let blocks = &model.parts().blocks;
    let mut ids = Vec::new();
    for &layer in layers {
        let block = usize::try_from(layer).ok().and_then(|layer| blocks.get(layer));
        let block = block.ok_or_else(|| TrainError::Scope {
            key: "tune.layers",
            found: layer.to_string(),
            expected: format!("a number below {}, the blocks of the model", blocks.len()),
        })?;
        ids.extend(block.params());
    }
    Ok(ids)
}

/// The parameters whose names match one of `patterns`.
fn named(model: &Model, patterns: &[String]) -> Result<Vec<ParamId>, TrainError> {
    let params = model.store().params();
    let mut ids = Vec::new();
    for pattern in patterns {
        let before = ids.len();
        ids.extend(params.iter().filter(|(_, param)| matches(pattern, param.name())).map(|(id, _)| id));
        if ids.len() == before {
            let nearest = super::nearest::nearest(pattern, params.iter().map(|(_, param)| param.name()));
            return Err(TrainError::Scope {
                key: "tune.names",
                found: format!("{pattern:?}"),
                expected: format!(
                    "the name of a parameter, with ? for any character and * for any part; the nearest is {nearest:?}"
                ),
            });
        }
    }
    Ok(ids)
}

/// Why a model does not get the adapters that it is asked for.
fn not_adapted(error: ModelError) -> TrainError {
    match error {
        ModelError::Adapter(problem) => refused(problem),
        error => error.into(),
    }
}

/// The key that asks for adapters which the model cannot have.
fn refused(problem: AdapterProblem) -> TrainError {
    let expected = problem.expected();
    let (key, found) = match problem {
        AdapterProblem::Target { found, .. } => ("tune.targets", format!("{found:?}")),
        AdapterProblem::Rank { found, .. } | AdapterProblem::TrainRank { found, .. } => {
            ("tune.rank", found.to_string())
        }
        AdapterProblem::Scale { alpha, .. } => ("tune.alpha", alpha.to_string()),
    };
    TrainError::Scope { key, found, expected }
}

/// Whether `name` is `pattern`, in which `?` stands for any character and `*` for any characters, also none.
fn matches(pattern: &str, name: &str) -> bool {
    let [pattern, name] = [pattern, name].map(|text| text.chars().collect::<Vec<_>>());
    let (mut at, mut read) = (0, 0);
    // What follows the last `*`, and where what that stands for ends: no other one ever has to be stretched.
    let mut star = None;
    while read < name.len() {
        match pattern.get(at) {
            Some('*') => {
                at += 1;
                star = Some((at, read));
            }
            Some(&wanted) if wanted == '?' || wanted == name[read] => (at, read) = (at + 1, read + 1),
            _ => {
                let Some((after, end)) = star else { return false };
                (at, read) = (after, end + 1);
                star = Some((after, end + 1));
            }
        }
    }
    pattern[at..].iter().all(|&left| left == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reference::golden;

    fn names(tune: &TuneConfig) -> Vec<String> {
        let mut model = Model::open(&golden::directory("llama")).expect("a golden checkpoint");
        let ids = trainable(&mut model, tune, 1).expect("a scope");
        ids.iter().map(|&id| model.store().params()[id].name().to_owned()).collect()
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("a.weight", "a.weight", true),
            ("a.weight", "a.weights", false),
            ("*", "", true),
            ("*.weight", "a.weight", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*bc", "abcbc", true),
            ("a*bc", "abcb", false),
            ("ab*ba", "aba", false),
            ("a*", "b", false),
            ("a**c", "a-b-c", true),
            ("layers.1?.w", "layers.12.w", true),
            ("layers.1?.w", "layers.1.w", false),
            ("*.1?.w", "a.1.w.12.w", true),
            ("?", "", false),
            ("?*", "é", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn a_scope_names_each_parameter_once() {
        let all = names(&TuneConfig::Full);
        let layer = names(&TuneConfig::Layers { layers: vec![1, 1] });
        assert!(layer.len() > 5 && layer.iter().all(|name| name.contains("layers.1.")), "{layer:?}");
        let queries = ["model.layers.*.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weight"];
        let queries = names(&TuneConfig::Names { names: queries.map(str::to_owned).to_vec() });
        assert_eq!(queries.len(), all.iter().filter(|name| name.contains("q_proj.weight")).count());
    }

    #[test]
    fn what_the_model_lacks_is_refused_with_what_it_has() {
        let error = |tune: &TuneConfig| {
            let mut model = Model::open(&golden::directory("llama")).expect("a golden checkpoint");
            trainable(&mut model, tune, 1).expect_err("no such parameter").to_string()
        };
        let text = error(&TuneConfig::Layers { layers: vec![99] });
        assert!(text.contains("tune.layers is 99, expected a number below"), "{text}");
        let text = error(&TuneConfig::Names { names: vec!["model.norm.weigth".to_owned()] });
        assert!(text.contains("the nearest is \"model.norm.weight\""), "{text}");
        let lora = |rank, alpha, target: &str| TuneConfig::Lora { rank, alpha, targets: Some(vec![target.to_owned()]) };
        let text = error(&lora(4, 16.0, "q_prj"));
        assert!(text.contains("tune.targets is \"q_prj\"") && text.contains("the nearest is \"q_proj\""), "{text}");
        assert!(text.contains("q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"), "{text}");
        let text = error(&lora(1000, 16.0, "q_proj"));
        assert!(
            text.contains("tune.rank is 1000, expected a number from 1 to 32, the inputs of model.layers.0"),
            "{text}"
        );
        let trains =
            |rank, target: &str| TuneConfig::TensorTrain { rank, width: 64, targets: Some(vec![target.to_owned()]) };
        let text = error(&trains(33, "down_proj"));
        assert!(text.contains("tune.rank is 33, expected a number from 1 to 32, the fewer of"), "{text}");
        let text = error(&trains(5, "q_proj"));
        assert!(text.contains("(o_proj, gate_proj, up_proj, down_proj); the nearest is"), "{text}");
        let text = error(&lora(4, 1e300, "q_proj"));
        assert!(text.contains("tune.alpha is") && text.contains("the rank of 4"), "{text}");
    }
}
