//! Text as its tokens arrive.

use super::{TextError, Tokenizer};

/// How many ids a new one is decoded with at least: what a token means depends on its neighbours (a space in front, a
/// first byte), none further away than the tokens of one character.
const CONTEXT: usize = 32;

/// Decodes one id after the other and never gives half a character.
///
/// The pieces joined are the text of all ids at once. One exception: behind bytes that never become a character,
/// a byte-fallback decoder writes U+FFFD for complete characters too, which are given by then.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The last ids, and how much of their text was given.
    ids: Vec<u32>,
    given: String,
    /// Where `ids` can be cut: all of the text before it was given, so no character lies across.
    cut: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> TextStream<'a> {
        TextStream { tokenizer, skip_special, ids: Vec::new(), given: String::new(), cut: 0 }
    }

    /// Takes the next id and gives the text that is certain by now: nothing while a character is incomplete.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        self.ids.push(id);
        let text = self.text()?;
        // Decoders write U+FFFD for bytes that may still become a character.
        let piece = self.give(text.trim_end_matches('\u{fffd}'));
        if self.given == text && self.ids.len() >= self.cut + CONTEXT {
            self.ids.drain(..self.cut);
            self.cut = self.ids.len();
            self.given = self.text()?;
        }
        Ok(piece)
    }

    /// The rest: characters that will stay incomplete, as U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn finish(mut self) -> Result<String, TextError> {
        let text = self.text()?;
        Ok(self.give(&text))
    }

    fn text(&self) -> Result<String, TextError> {
        self.tokenizer.decode(&self.ids, self.skip_special)
    }

    /// What `text` has beyond the text that was given. Nothing while they differ: a byte-fallback decoder takes
    /// characters back when an incomplete one follows, and brings them again once that is complete.
    fn give(&mut self, text: &str) -> String {
        let Some(rest) = text.strip_prefix(self.given.as_str()) else { return String::new() };
        self.given.push_str(rest);
        rest.to_owned()
    }
}
