//! Examples as tokens: whole sequences, and which of their tokens are scored.
//!
//! *What must stay true.* A scored token is one that ends behind the prompt's last byte, however the tokenizer cuts the
//! text; it always has a token before it. What a tokenizer adds in front (its begin of text) stays in front of an input
//! that is cut, what it adds at the end of a causal model's text is left out.

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::{EncodeProblem, Example, Input, TaskError};
use crate::text::{ChatTemplate, Encoding, Message, Tokenizer};

/// Turns examples into tokens.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    chat: Option<&'t ChatTemplate>,
    max_tokens: usize,
}

/// Tokens of a causal model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The whole sequence.
    pub ids: Vec<u32>,
    /// The tokens that are scored: each is predicted from those before it.
    pub scored: Range<usize>,
    /// Tokens that were cut off because there were too many.
    pub dropped: usize,
}

/// An example as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// A sequence for each candidate.
    Candidates {
        /// The sequences.
        sequences: Vec<Sequence>,
        /// How many tokens all of them begin with: to be computed once, none of them scored.
        shared: usize,
        /// The right ones.
        gold: Vec<usize>,
    },
    /// An answer to be learnt or generated.
    Answer {
        /// The prompt with the answer.
        sequence: Sequence,
        /// The prompt alone, short enough for the answer to be generated after it.
        prompt: Vec<u32>,
    },
    /// A word between two texts.
    Mask {
        /// The sequence.
        ids: Vec<u32>,
        /// Where its mask token is.
        position: usize,
        /// The tokens of the label words.
        words: Vec<u32>,
        /// The right one.
        gold: usize,
        /// Tokens that were cut off because there were too many.
        dropped: usize,
    },
    /// A text of a class.
    Class {
        /// The sequence.
        ids: Vec<u32>,
        /// How many classes there are.
        classes: usize,
        /// The class.
        gold: usize,
        /// Tokens that were cut off because there were too many.
        dropped: usize,
    },
    /// A text to be learnt, or the part of it that is scored.
    Text(Sequence),
}

impl Encoded {
    /// How many of its tokens were cut off because there were too many.
    pub fn dropped(&self) -> usize {
        match self {
            Encoded::Candidates { sequences, .. } => {
                sequences.iter().map(|sequence| sequence.dropped).max().unwrap_or(0)
            }
            Encoded::Answer { sequence, .. } | Encoded::Text(sequence) => sequence.dropped,
            Encoded::Mask { dropped, .. } | Encoded::Class { dropped, .. } => *dropped,
        }
    }
}

impl<'t> Encoder<'t> {
    /// An encoder of sequences of at most `max_tokens` tokens. With a chat template, prompts with completions are
    /// conversations of two turns.
    ///
    /// # Panics
    /// If `max_tokens` is below 4: a mask token, what encloses it, and a word.
    pub fn new(tokenizer: &'t Tokenizer, chat: Option<&'t ChatTemplate>, max_tokens: usize) -> Encoder<'t> {
        assert!(max_tokens >= 4, "sequences of {max_tokens} tokens");
        Encoder { tokenizer, chat, max_tokens }
    }

    /// The tokens of an example.
    ///
    /// # Errors
    /// [`TaskError::Encode`].
    pub fn encode(&self, example: &Example) -> Result<Encoded, TaskError> {
        let wrong = |problem| TaskError::Encode { place: example.place.clone(), problem };
        match &example.input {
            Input::Candidates { prompt, candidates, gold } => self.candidates(prompt, candidates, gold),
            Input::Answer { prompt, answer, max_tokens, .. } => self.answer(prompt, answer, *max_tokens),
            Input::Mask { before, after, words, gold } => self.mask(before, after, words, *gold),
            Input::Class { text, classes, gold } => self.class(text, *classes, *gold),
            Input::Text { text } => self.text(text),
            Input::Completion { prompt, completion } => self.completion(prompt, completion),
            Input::Conversation { messages } => self.conversation(messages),
        }
        .map_err(wrong)
    }

    fn candidates(&self, prompt: &str, candidates: &[String], gold: &[usize]) -> Result<Encoded, EncodeProblem> {
        let mut sequences = Vec::with_capacity(candidates.len());
        let mut kept = 0;
        let prompt = self.prompt(prompt, true)?;
        for candidate in candidates {
            let joined = self.joined(&prompt, candidate)?;
            kept = joined.kept;
            sequences.push(joined.scoring("the candidate", candidate)?);
        }
        // All lose as many tokens of the prompt as the longest must, so that they still begin alike.
        let longest = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let first_scored = sequences.iter().map(|sequence| sequence.scored.start).min().unwrap_or(0);
        let common = longest.saturating_sub(self.max_tokens).min(first_scored.saturating_sub(kept.max(1)));
        for sequence in &mut sequences {
            sequence.cut(kept, common);
            sequence.cut(kept, sequence.ids.len().saturating_sub(self.max_tokens));
        }
        let first_scored = sequences.iter().map(|sequence| sequence.scored.start).min().unwrap_or(0);
        let alike = |at: usize| sequences.iter().all(|sequence| sequence.ids[at] == sequences[0].ids[at]);
        let shared = (0..first_scored).find(|&at| !alike(at)).unwrap_or(first_scored);
        Ok(Encoded::Candidates { sequences, shared, gold: gold.to_vec() })
    }

    fn answer(&self, prompt: &str, answer: &str, max_tokens: usize) -> Result<Encoded, EncodeProblem> {
        let prompt = self.prompt(prompt, true)?;
        let joined = self.joined(&prompt, answer)?;
        let kept = joined.kept;
        let sequence = joined.scoring("the answer", answer)?.within(kept, self.max_tokens);
        let mut alone = prompt.ids;
        let room = self.max_tokens.saturating_sub(max_tokens).max(1);
        let excess = alone.len().saturating_sub(room);
        alone.drain(kept..kept + excess);
        Ok(Encoded::Answer { sequence, prompt: alone })
    }

    fn text(&self, text: &str) -> Result<Encoded, EncodeProblem> {
        let mut joined = self.joined(&self.prompt("", true)?, text)?;
        joined.end(self.tokenizer.special().eos);
        let mut sequence = joined.scoring("the text", text)?;
        // A text is read from its beginning: its end is what is left out.
        sequence.dropped = sequence.ids.len().saturating_sub(self.max_tokens);
        sequence.ids.truncate(self.max_tokens);
        sequence.scored.end = sequence.ids.len();
        Ok(Encoded::Text(sequence))
    }

    fn completion(&self, prompt: &str, completion: &str) -> Result<Encoded, EncodeProblem> {
        if self.chat.is_some() {
            let turn = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
            return self.conversation(&[turn("user", prompt), turn("assistant", completion)]);
        }
        let mut joined = self.joined(&self.prompt(prompt, true)?, completion)?;
        joined.end(self.tokenizer.special().eos);
        let kept = joined.kept;
        Ok(Encoded::Text(joined.scoring("the completion", completion)?.within(kept, self.max_tokens)))
    }

    fn conversation(&self, messages: &[Message]) -> Result<Encoded, EncodeProblem> {
        let chat = self.chat.ok_or(EncodeProblem::NoChatTemplate)?;
        let (_, earlier) = messages.split_last().expect("a conversation ends with an assistant's turn");
        let whole = chat.render(messages, false)?;
        let asked = chat.render(earlier, true)?;
        // Templates may write earlier turns another way once there is an answer: what both have in common was asked.
        let same = asked.char_indices().zip(whole.chars()).take_while(|((_, a), b)| a == b).last();
        let (prompt, answer) = whole.split_at(same.map_or(0, |((at, a), _)| at + a.len_utf8()));
        let joined = self.joined(&self.prompt(prompt, false)?, answer)?;
        let kept = joined.kept;
        Ok(Encoded::Text(joined.scoring("the assistant's turn", answer)?.within(kept, self.max_tokens)))
    }

    fn mask(&self, before: &str, after: &str, words: &[String], gold: usize) -> Result<Encoded, EncodeProblem> {
        let special = self.tokenizer.special();
        let role = |id: Option<u32>, role| id.ok_or(EncodeProblem::NoRole { role });
        let (cls, sep) = (role(special.cls, "cls_token")?, role(special.sep, "sep_token")?);
        let mask = role(special.mask, "mask_token")?;
        let words = self.label_words(words)?;
        // Apart, so that a mask token that the text spells is not taken for ours.
        let mut before = self.tokenizer.encode(before, false)?;
        let mut after = self.tokenizer.encode(after, false)?;
        let dropped = (before.len() + after.len() + 3).saturating_sub(self.max_tokens);
        // The beginning of what stands before the mask goes first, then the end of what stands after it.
        let cut = dropped.min(before.len());
        before.drain(..cut);
        after.truncate(after.len() - (dropped - cut));
        let position = 1 + before.len();
        let ids = [&[cls], before.as_slice(), &[mask], &after, &[sep]].concat();
        Ok(Encoded::Mask { ids, position, words, gold, dropped })
    }

    /// The tokens of label words, each as it stands behind a space.
    fn label_words(&self, words: &[String]) -> Result<Vec<u32>, EncodeProblem> {
        let mut ids: Vec<u32> = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            let tokens = self.tokenizer.encode(&format!(" {word}"), false)?;
            let [id] = tokens[..] else {
                return Err(EncodeProblem::LabelWord { word: word.clone(), tokens: tokens.len() });
            };
            if let Some(other) = ids.iter().position(|&other| other == id) {
                return Err(EncodeProblem::SameWord { first: words[other].clone(), second: words[at].clone() });
            }
            ids.push(id);
        }
        Ok(ids)
    }

    fn class(&self, text: &str, classes: usize, gold: usize) -> Result<Encoded, EncodeProblem> {
        let Encoding { mut ids, offsets } = self.tokenizer.encode_with_offsets(text, true)?;
        let kept = offsets.iter().take_while(|range| range.is_empty()).count().min(self.max_tokens);
        let dropped = ids.len().saturating_sub(self.max_tokens);
        ids.drain(kept..kept + dropped);
        Ok(Encoded::Class { ids, classes, gold, dropped })
    }

    fn prompt<'p>(&self, text: &'p str, special: bool) -> Result<Prompt<'p>, EncodeProblem> {
        Ok(Prompt { text, special, ids: self.untailed(text, special)?.ids })
    }

    /// A prompt and what continues it, as one sequence.
    fn joined(&self, prompt: &Prompt<'_>, rest: &str) -> Result<Joined, EncodeProblem> {
        let Encoding { ids, offsets } = self.untailed(&[prompt.text, rest].concat(), prompt.special)?;
        // Where a token reaches over the end of the prompt, it belongs to what continues it.
        let reaches = |range: &Range<usize>| !range.is_empty() && range.end > prompt.text.len();
        let start = if ids.starts_with(&prompt.ids) {
            prompt.ids.len()
        } else {
            offsets.iter().position(reaches).unwrap_or(ids.len())
        };
        let added = prompt.special && offsets.first().is_some_and(Range::is_empty);
        let kept =
            usize::from(added || ids.first().copied().is_some_and(|id| Some(id) == self.tokenizer.special().bos));
        Ok(Joined { ids, start, kept })
    }

    /// The tokens of a text without those that the tokenizer adds at the end.
    fn untailed(&self, text: &str, special: bool) -> Result<Encoding, EncodeProblem> {
        let mut encoding = self.tokenizer.encode_with_offsets(text, special)?;
        if special && let Some(last) = encoding.offsets.iter().rposition(|range| !range.is_empty()) {
            encoding.ids.truncate(last + 1);
            encoding.offsets.truncate(last + 1);
        }
        Ok(encoding)
    }
}

/// A prompt alone, which several sequences may continue.
struct Prompt<'p> {
    text: &'p str,
    /// Whether the tokenizer adds what it puts around a text: not where a chat template has written it.
    special: bool,
    ids: Vec<u32>,
}

/// A sequence before its scored tokens are settled.
struct Joined {
    ids: Vec<u32>,
    /// The first token that reaches over the end of the prompt.
    start: usize,
    /// How many tokens stay in front when the sequence is cut: a begin of text, or nothing.
    kept: usize,
}

impl Joined {
    /// Ends the sequence with the end of text, if the model has one and it is not there yet.
    fn end(&mut self, eos: Option<u32>) {
        self.ids.extend(eos.filter(|&eos| self.ids.last() != Some(&eos)));
    }

    /// Scores all from the start, but for a token that nothing stands before; `what` and `text` are for the error.
    fn scoring(self, what: &'static str, text: &str) -> Result<Sequence, EncodeProblem> {
        let scored = self.start.max(1)..self.ids.len();
        if scored.is_empty() {
            return Err(nothing_scored(what, text));
        }
        Ok(Sequence { ids: self.ids, scored, dropped: 0 })
    }
}

impl Sequence {
    /// Cut on the left, behind the first `kept` tokens, to at most `max_tokens`.
    fn within(mut self, kept: usize, max_tokens: usize) -> Sequence {
        self.cut(kept, self.ids.len().saturating_sub(max_tokens));
        self
    }

    /// Loses `count` tokens behind the first `kept`.
    fn cut(&mut self, kept: usize, count: usize) {
        self.ids.drain(kept..kept + count);
        self.dropped += count;
        self.scored = self.scored.start.saturating_sub(count).max(kept).max(1)..self.ids.len();
    }
}

fn nothing_scored(what: &'static str, text: &str) -> EncodeProblem {
    EncodeProblem::NothingScored { what, text: text.chars().take(64).collect() }
}
