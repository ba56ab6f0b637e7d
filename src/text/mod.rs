//! From text to token ids and back, and from a conversation to text.
//!
//! *What it is.* [`Tokenizer`] opens the tokenizer of an unmodified Hugging Face directory, in the present
//! layout or an older one (`legacy`), and gives the ids that the `tokenizers` library gives; `pipeline`
//! replaces the steps of that library that fail silently. [`ChatTemplate`] renders a model's own Jinja
//! template as `transformers` does.
//!
//! *What it is not.* It knows no task and no model: it never pads, truncates, or adds a token that the
//! tokenizer's own post-processor does not add.
//!
//! *What must stay true.* Files are untrusted: they are regular files of the directory, of bounded size; a
//! panic of a library becomes a typed error; text that a step cannot handle is an error, never other ids.
//! The same files and the same text give the same ids and the same rendering, whatever the day. The one
//! thing a template can still take without limit is memory, by doubling strings: `minijinja` counts steps.

mod chat;
mod contain;
mod directory;
mod error;
mod legacy;
mod pipeline;
mod special;
mod stream;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use chat::{ChatTemplate, Date, MAX_STEPS, Message};
pub use error::{Fault, TemplateProblem, TextError, TokenizerProblem};
pub use special::SpecialTokens;
pub use stream::TextStream;
pub use tokenizer::{Encoding, MAX_TEXT_BYTES, MAX_VOCABULARY, Tokenizer};
