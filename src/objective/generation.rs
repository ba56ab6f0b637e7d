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

/// Up to `max_tokens` tokens after `prompt`, shown to `on_token` as they come; it ends at one of `ends` (which is not
/// part of the answer), when `on_token` says `false`, or when the model has no more positions.
///
/// # Errors
/// [`GenerationError`].
pub fn generate(
    model: &Model,
    cx: &Context,
    prompt: &[u32],
    max_tokens: usize,
    ends: &[u32],
    sampler: &Sampler,
    on_token: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>, GenerationError> {
    if !model.spec().predicts_next() {
        return Err(GenerationError::NotCausal { family: model.spec().family });
    }
    if prompt.is_empty() {
        return Err(GenerationError::EmptyPrompt);
    }
    let lanes = [Displacement::default()];
    let vocabulary = Vocabulary::Full(model.spec().vocab_size);
    let mut cache = KvCache::new(model.spec(), 1);
    let (mut tokens, mut batch) = (Vec::new(), Batch::new([prompt]));
    while tokens.len() < max_tokens {
        let hidden = model.forward(cx, &batch, &lanes, Some(&mut cache), None)?;
        let logits = model.logits(cx, &hidden, &lanes, &[batch.tokens() - 1], vocabulary)?;
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
