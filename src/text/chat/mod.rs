//! Conversations to text, by the model's own template.
//!
//! *What it is.* The environment that `transformers` renders chat templates in: blocks trimmed, loop controls,
//! Python's string methods, `raise_exception`, `strftime_now`, its `tojson`, all special tokens by name.
//!
//! *What must stay true.* A template is a program from a file: it gets [`MAX_STEPS`] steps, a bounded output, no
//! files, no clock. It runs on a thread of its own, whose stack holds any nesting that the steps can build.

mod date;
mod generation;
#[cfg(test)]
mod tests;
mod tojson;

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
};

use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, syntax::SyntaxConfig};

pub use date::Date;

use super::{
    MAX_TEXT_BYTES, TemplateProblem, TextError,
    contain::{catch, message},
    directory::Directory,
    special::Names,
};

/// Steps of the template's program; those of Qwen3 and Llama 3 take less than a hundred a message.
pub const MAX_STEPS: u64 = 200_000;
/// Longest file with a template; the longest templates in use have 20 KB.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
/// Stack of the rendering thread, of which the system provides what is touched. A list in a list in a list, as deep as
/// the steps allow, is printed and dropped recursively: that took between 64 and 128 MB.
const STACK_BYTES: usize = 512 << 20;
const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant` in most templates.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// The chat template of a model directory.
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    names: Names,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (a template, or a list of them of
    /// which the one named `default` is taken), else `chat_template.json`. Its date is [`Date::default`].
    ///
    /// # Errors
    /// [`TextError`] naming the file: no template, or one that cannot be parsed.
    pub fn open(dir: &Path) -> Result<ChatTemplate, TextError> {
        let dir = Directory::open(dir)?;
        let names = Names::read(&dir)?;
        if let Some(source) = dir.text("chat_template.jinja", MAX_TEMPLATE_BYTES)? {
            return ChatTemplate::new(&dir.path().join("chat_template.jinja"), &source, names);
        }
        for name in ["tokenizer_config.json", "chat_template.json"] {
            let document = dir.document(name)?;
            let Some(value) = document.field("chat_template") else { continue };
            let source = match value {
                serde_json::Value::String(source) => source,
                serde_json::Value::Array(list) => {
                    let default = list.iter().find(|entry| entry["name"] == "default");
                    default.and_then(|entry| entry["template"].as_str()).ok_or_else(|| TextError::Template {
                        path: document.path().to_owned(),
                        problem: TemplateProblem::NoDefault,
                    })?
                }
                other => return Err(document.unexpected("chat_template", other, "a template or a list of them")),
            };
            return ChatTemplate::new(document.path(), source, names);
        }
        Err(TextError::NoTemplate { dir: dir.path().to_owned() })
    }

    /// Parses a template that knows no special tokens; `path` is what errors name.
    ///
    /// # Errors
    /// [`TextError::Template`].
    pub fn from_source(path: &Path, source: &str) -> Result<ChatTemplate, TextError> {
        ChatTemplate::new(path, source, Names::default())
    }

    fn new(path: &Path, source: &str, names: Names) -> Result<ChatTemplate, TextError> {
        let source = generation::without_tags(source);
        let wrong = |problem| TextError::Template { path: path.to_owned(), problem };
        let environment = apart(|| {
            let mut environment = environment();
            environment.add_template_owned(NAME, source).map(|()| environment)
        });
        let environment = environment.map_err(wrong)?.map_err(|source| wrong(TemplateProblem::Syntax { source }))?;
        Ok(ChatTemplate { path: path.to_owned(), environment, names }.with_date(Date::default()))
    }

    /// The same template on another day: what `strftime_now` tells it.
    #[must_use]
    pub fn with_date(mut self, date: Date) -> ChatTemplate {
        self.environment.add_function("strftime_now", move |format: &str| {
            date.format(format)
                .map_err(|found| Error::new(ErrorKind::InvalidOperation, format!("strftime_now has no %{found}")))
        });
        self
    }

    /// The text of a conversation, with the beginning of the answer if `add_generation_prompt`. Special tokens stand
    /// in it as text: encode it without adding others.
    ///
    /// # Errors
    /// [`TextError::Template`]: the template refuses the conversation, fails, or exceeds its limits.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let message = |message: &Message| {
            Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
        };
        let variables = [
            ("messages", messages.iter().map(message).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ];
        let names = self.names.iter().map(|(role, name)| (role, Value::from(name)));
        let context = Value::from_pairs(variables.into_iter().chain(names));
        let rendered = apart(|| {
            let mut output = Bounded { text: Vec::new(), exceeded: false };
            let template = self.environment.get_template(NAME).expect("added when it was opened");
            match template.render_captured_to(context, &mut output) {
                Ok(_) => Ok(String::from_utf8(output.text).expect("a template writes text")),
                Err(_) if output.exceeded => Err(TemplateProblem::OutputTooLong),
                Err(source) => Err(problem(source)),
            }
        });
        rendered.and_then(|result| result).map_err(|problem| TextError::Template { path: self.path.clone(), problem })
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Jinja as `transformers` sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(MAX_STEPS));
    environment.add_filter("tojson", tojson::tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised { message }))
    });
    environment
}

/// What a template said with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Raised {
    message: String,
}

/// What became of a rendering.
fn problem(error: Error) -> TemplateProblem {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(Raised { message }) = error.downcast_ref() {
            return TemplateProblem::Raised { message: message.clone() };
        }
        if error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return TemplateProblem::OutOfSteps;
        }
        cause = error.source();
    }
    TemplateProblem::Failed { source: error }
}

/// Runs `work` on a thread with a deep stack; a panic is an error.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TemplateProblem> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || catch(work));
        let thread = spawned.map_err(|source| TemplateProblem::Thread { source })?;
        let outcome = thread.join().and_then(|result| result);
        outcome.map_err(|payload| TemplateProblem::Panic { message: message(&*payload) })
    })
}

/// Output up to [`MAX_TEXT_BYTES`].
struct Bounded {
    text: Vec<u8>,
    exceeded: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_TEXT_BYTES - self.text.len() {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
