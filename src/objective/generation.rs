//! Text, token by token: the prompt in one pass, then one row a token over cached keys.

use super::sampling::{NotANumber, Sampler};
use crate::{
    direction::Displacement,
    kernels::{Context, cross_entropy::Vocabulary},
    model::{Batch, KvCache, Model, ModelError},
};

/// Why no text came out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// The prompt does not fit the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model answered something that is no number.
    #[error(transparent)]
    NotANumber(#[from] NotANumber),
    /// There is nothing to go on from.
    #[error("an empty prompt: there is no token to predict the next one from")]
    EmptyPrompt,
    /// The model does not predict next tokens.
    #[error("a {family} model with this head does not generate text")]
    NotCausal {
        /// `model_type` of the configuration.
        family: &'static str,
    },
}

/// What writes texts, and how.
#[derive(Clone, Copy, Debug)]
pub struct Generator<'m> {
    /// The model.
    pub model: &'m Model,
    /// What it computes by.
    pub cx: &'m Context,
    /// Where it stands: at θ + this.
    pub lane: &'m Displacement,
    /// The most tokens of a text.
    pub max_tokens: usize,
    /// Tokens that end a text and are no part of it.
    pub ends: &'m [u32],
    /// What chooses a token.
    pub sampler: Sampler,
}

impl Generator<'_> {
    /// The tokens after `prompt`, shown to `on_token` as they come; a text also ends when `on_token` says `false`, or
    /// when the model has no more positions.
    ///
    /// # Errors
    /// [`GenerationError`].
    pub fn write(&self, prompt: &[u32], on_token: &mut dyn FnMut(u32) -> bool) -> Result<Vec<u32>, GenerationError> {
        let &Generator { model, cx, lane, max_tokens, ends, sampler } = self;
        if !model.spec().predicts_next() {
            return Err(GenerationError::NotCausal { family: model.spec().family });
        }
        if prompt.is_empty() {
            return Err(GenerationError::EmptyPrompt);
        }
        let lanes = std::slice::from_ref(lane);
        let vocabulary = Vocabulary::Full(model.spec().vocab_size);
        let mut cache = KvCache::new(model.spec(), 1);
        let (mut tokens, mut batch) = (Vec::new(), Batch::new([prompt]));
        while tokens.len() < max_tokens {
            let hidden = model.forward(cx, &batch, lanes, Some(&mut cache), None)?;
            let logits = model.logits(cx, &hidden, lanes, &[batch.tokens() - 1], vocabulary)?;
            let token = sampler.choose(tokens.len() as u64, logits.lane(0).row(0))?;
            if ends.contains(&token) {
                break;
            }
            tokens.push(token);
            if !on_token(token) || prompt.len() + tokens.len() > model.spec().max_positions {
                break;
            }
            batch = Batch::new([[token]]);
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        direction::{Direction, DirectionSet, Moves},
        kernels::Isa,
        noise::{NoiseKey, Role},
        task::Draws,
        testing::reference::golden,
    };

    fn written(model: &Model, lane: &Displacement) -> Vec<u32> {
        let cx = Context::new(Isa::fastest());
        let sampler = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };
        let generator = Generator { model, cx: &cx, lane, max_tokens: 12, ends: &[], sampler };
        generator.write(&[5, 42, 7], &mut |_| true).expect("tokens")
    }

    #[test]
    fn a_lane_writes_what_the_moved_model_writes() {
        for name in ["llama", "gpt2"] {
            let mut model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
            let along = |(id, param): (_, &crate::direction::Param)| {
                let values: Arc<[f32]> = (0..param.elements()).map(|i| ((i * 37 % 11) as f32 - 5.0) * 0.02).collect();
                (id, Direction::Explicit(values))
            };
            let set = Arc::new(DirectionSet::new(model.store().params().iter().map(along)));
            let lane = Displacement::along(&set, 1.0);
            let (still, moved) = (written(&model, &Displacement::default()), written(&model, &lane));
            assert_ne!(still, moved, "{name}: the lane is too near to show");
            let cx = Context::new(Isa::fastest());
            let params: Vec<_> = model.store().params().iter().map(|(id, param)| (id, param.clone())).collect();
            for (id, param) in params {
                let moves = Moves::of(std::slice::from_ref(&lane), id, &param);
                let rounding = NoiseKey::new(0, 0, Role::Rounding, 0);
                model.store_mut().update_rows(id, cx.isa, rounding, moves.update(&cx)).expect("a private copy");
            }
            assert_eq!(written(&model, &Displacement::default()), moved, "{name}");
        }
    }
}
