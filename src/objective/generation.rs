//! Texts, token by token: all prompts in one pass, then one row a text and token over cached keys.

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
        let mut texts = self.write_all(&[prompt], &mut |_, token| on_token(token))?;
        Ok(texts.remove(0)?)
    }

    /// The tokens after each of `prompts`, or why there are none; one pass over the weights makes a token of every text that
    /// still goes on. `on_token` is told the number of a text with its token. A text is what it is alone, to the last bit.
    ///
    /// # Errors
    /// [`GenerationError`] where no text can be written.
    pub fn write_all(
        &self,
        prompts: &[&[u32]],
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<Vec<Result<Vec<u32>, NotANumber>>, GenerationError> {
        let &Generator { model, cx, lane, max_tokens, ends, sampler } = self;
        if !model.spec().predicts_next() {
            return Err(GenerationError::NotCausal { family: model.spec().family });
        }
        if prompts.iter().any(|prompt| prompt.is_empty()) {
            return Err(GenerationError::EmptyPrompt);
        }
        let lanes = std::slice::from_ref(lane);
        let vocabulary = Vocabulary::Full(model.spec().vocab_size);
        let mut cache = KvCache::new(model.spec(), prompts.len());
        let mut texts: Vec<Result<Vec<u32>, NotANumber>> = vec![Ok(Vec::new()); prompts.len()];
        // What the next pass reads of each text: nothing, where it has ended.
        let mut read: Vec<&[u32]> = if max_tokens > 0 { prompts.to_vec() } else { Vec::new() };
        let mut last = vec![0; prompts.len()];
        while read.iter().any(|tokens| !tokens.is_empty()) {
            let batch = Batch::new(&read);
            let going: Vec<usize> = (0..read.len()).filter(|&text| !read[text].is_empty()).collect();
            let rows: Vec<usize> = going.iter().map(|&text| batch.sequences().range(text).end - 1).collect();
            let hidden = model.forward(cx, &batch, lanes, Some(&mut cache), None)?;
            let logits = model.logits(cx, &hidden, lanes, &rows, vocabulary)?;
            let mut goes_on = vec![false; prompts.len()];
            for (row, &text) in going.iter().enumerate() {
                let Ok(tokens) = &mut texts[text] else { unreachable!("a text that goes on") };
                match sampler.choose(tokens.len() as u64, logits.lane(0).row(row)) {
                    Ok(token) if ends.contains(&token) => {}
                    Ok(token) => {
                        tokens.push(token);
                        last[text] = token;
                        let is_within = tokens.len() < max_tokens
                            && prompts[text].len() + tokens.len() <= model.spec().max_positions;
                        goes_on[text] = on_token(text, token) && is_within;
                    }
                    Err(error) => texts[text] = Err(error),
                }
            }
            let next = last.iter().zip(goes_on);
            read = next.map(|(token, goes_on)| if goes_on { std::slice::from_ref(token) } else { &[] }).collect();
        }
        Ok(texts)
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

    #[test]
    fn texts_that_are_written_together_are_those_that_are_written_alone() {
        let prompts: [&[u32]; 5] = [&[5, 42, 7], &[9], &[11, 12, 13, 14, 15, 16], &[5, 42, 7], &[40, 8]];
        let sampler = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };
        for name in ["llama", "gpt2", "mistral", "opt", "qwen2"] {
            let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
            let written = |isa, ends: &[u32], prompts: &[&[u32]]| {
                let (cx, lane) = (Context::new(isa), Displacement::default());
                let generator = Generator { model: &model, cx: &cx, lane: &lane, max_tokens: 10, ends, sampler };
                let mut heard = vec![Vec::new(); prompts.len()];
                let mut hear = |text: usize, token| {
                    heard[text].push(token);
                    // The last text is stopped by who listens.
                    text < 4 || heard[text].len() < 3
                };
                let texts = generator.write_all(prompts, &mut hear).expect("texts");
                let texts: Vec<Vec<u32>> = texts.into_iter().map(|text| text.expect("numbers")).collect();
                assert_eq!(texts, heard, "{name}");
                texts
            };
            let alone = |isa, ends: &[u32]| prompts.map(|prompt| written(isa, ends, &[prompt]).remove(0));
            let free = alone(Isa::fastest(), &[]);
            // What is written fourth to one prompt ends it, and perhaps others.
            let ends = [free[0][3]];
            for (isa, ends) in Isa::available().into_iter().flat_map(|isa| [(isa, &[][..]), (isa, &ends[..])]) {
                let mut expected = alone(Isa::fastest(), ends);
                expected[4].truncate(3);
                assert_eq!(written(isa, ends, &prompts), expected, "{name}, {isa}, {ends:?}");
            }
        }
    }

    #[test]
    fn a_text_of_no_tokens_is_empty_and_one_without_a_prompt_is_refused() {
        let model = Model::open(&golden::directory("llama")).expect("a golden checkpoint");
        let (cx, lane) = (Context::new(Isa::fastest()), Displacement::default());
        let sampler = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };
        let generator = Generator { model: &model, cx: &cx, lane: &lane, max_tokens: 0, ends: &[], sampler };
        assert_eq!(generator.write_all(&[&[5], &[6]], &mut |_, _| true).expect("texts"), [Ok(vec![]), Ok(vec![])]);
        assert!(matches!(generator.write_all(&[&[5], &[]], &mut |_, _| true), Err(GenerationError::EmptyPrompt)));
    }
}
