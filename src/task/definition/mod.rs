//! A task as data: a TOML file says which template makes the prompt, what the answers are and how they are scored.
//!
//! ```toml
//! template = "{{ headline | trim }}\nTopic:"       # Jinja over the fields of a row
//! aliases = { headline = "title" }                # fields by which other copies of the data call them
//!
//! [label]
//! field = "topic"                                 # a number from 0, true or false, or one of the names
//! names = ["sport", "politics"]
//!
//! [candidates]
//! texts = [" Sport", " Politics"]                 # in the order of the labels, templates as well
//! ```
//!
//! Built-in tasks and a user's own are the same kind of file. Exactly one table says how a question is answered:
//!
//! - `[candidates]`: a text for each label, `texts`;
//! - `[choices]`: a text for each `entry` of the field `each`, of which the field `gold` names the right ones;
//! - `[generation]`: a text to be written; `answer` makes it of an `entry` of the field `gold`;
//! - `[mask]`: one of `words` for each label, between the template and `after`;
//! - none, but `[label]` with names: a class for each name, by a head.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, fs::File, io::Read, path::Path};

use serde::Deserialize;

use super::{DefinitionProblem, Format, Metric, TaskError, label::Label, nearest::nearest, template::Template};

/// Bytes of the longest file that describes a task; those of the built-in ones have less than one kilobyte.
pub const MAX_DEFINITION: u64 = 1 << 20;

/// New tokens of a generated answer, and where it ends, unless the task says otherwise.
const MAX_TOKENS: usize = 50;
const STOP: &str = "\n";

/// The kind of model that a task is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// Predicts the next token.
    Causal,
    /// Fills in the mask token.
    Masked,
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Style::Causal => "causal",
            Style::Masked => "masked",
        })
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Objective {
    /// Cross-entropy over the candidates, each scored by the mean log-probability of its tokens.
    Options,
    /// Cross-entropy of the tokens of the right answer.
    LanguageModel,
    /// Cross-entropy over the label words at the mask token.
    LabelWords,
    /// Cross-entropy over the classes of a head.
    Classifier,
}

/// How an answer is generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// New tokens at most.
    pub max_tokens: usize,
    /// The texts that end it, besides the tokenizer's end of text.
    pub stop: Vec<String>,
}

/// A task: what makes an example of a row, and how its answers are scored.
#[derive(Debug)]
pub struct Task {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) source: String,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) content: Content,
}

/// What a row holds.
#[derive(Debug)]
pub(super) enum Content {
    /// A question that can be answered right or wrong.
    Question(Box<Question>),
    /// A text that is learnt as it is.
    Format(Format),
}

/// What is asked, and how it is answered.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) prompt: Template,
    pub(super) answers: Answers,
}

/// How a question is answered.
#[derive(Debug)]
pub(super) enum Answers {
    Candidates { label: Label, texts: Vec<Template>, objective: Objective },
    Choices { each: String, text: Template, gold: String, objective: Objective },
    Generation { gold: String, answer: Template, metric: Metric, how: Generation },
    Mask { label: Label, words: Vec<String>, after: Template },
    Classes { label: Label },
}

/// The variable of a candidate's or an answer's text.
pub(super) const ENTRY: &str = "entry";

impl Task {
    /// Reads the file of a custom task; it is called as the file, without the extension.
    ///
    /// # Errors
    /// [`TaskError::Read`], [`TaskError::Definition`].
    pub fn open(path: &Path) -> Result<Task, TaskError> {
        let wrong = |problem| TaskError::Definition { path: path.to_owned(), problem };
        let failed = |source| TaskError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.take(MAX_DEFINITION + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_DEFINITION {
            return Err(wrong(DefinitionProblem::TooLong));
        }
        let text = std::str::from_utf8(&bytes).map_err(|source| wrong(DefinitionProblem::NotUtf8 { source }))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Task::parse(&name, text).map_err(wrong)
    }

    /// Reads the text of such a file.
    pub(super) fn parse(name: &str, text: &str) -> Result<Task, DefinitionProblem> {
        let file: Definition = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        let prompt = template("template", &file.template, &[])?;
        let answers = file.answers()?;
        let Definition { about, source, aliases, .. } = file;
        let content = Content::Question(Box::new(Question { prompt, answers }));
        Ok(Task { name: name.to_owned(), about, source, aliases, content })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it asks, in a few words.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The data set on the Hugging Face hub whose fields it reads.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The kind of model it is written for; a classifier head goes with either and counts as masked.
    pub fn style(&self) -> Style {
        match self.answers() {
            Some(Answers::Mask { .. } | Answers::Classes { .. }) => Style::Masked,
            _ => Style::Causal,
        }
    }

    /// What training minimises.
    pub fn objective(&self) -> Objective {
        match self.answers() {
            Some(Answers::Candidates { objective, .. } | Answers::Choices { objective, .. }) => *objective,
            Some(Answers::Generation { .. }) | None => Objective::LanguageModel,
            Some(Answers::Mask { .. }) => Objective::LabelWords,
            Some(Answers::Classes { .. }) => Objective::Classifier,
        }
    }

    /// How predictions are scored.
    pub fn metric(&self) -> Metric {
        match self.answers() {
            Some(Answers::Generation { metric, .. }) => *metric,
            Some(_) => Metric::Accuracy,
            None => Metric::Perplexity,
        }
    }

    /// How answers are generated, where they are not chosen.
    pub fn generation(&self) -> Option<&Generation> {
        match self.answers() {
            Some(Answers::Generation { how, .. }) => Some(how),
            _ => None,
        }
    }

    /// The format of its rows, where they are learnt as they are.
    pub fn format(&self) -> Option<Format> {
        match self.content {
            Content::Format(format) => Some(format),
            Content::Question(_) => None,
        }
    }

    fn answers(&self) -> Option<&Answers> {
        match &self.content {
            Content::Question(question) => Some(&question.answers),
            Content::Format(_) => None,
        }
    }
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    #[serde(default)]
    about: String,
    #[serde(default)]
    source: String,
    template: String,
    /// Fields by which other copies of the data set call those that the task names.
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    label: Option<Label>,
    candidates: Option<Candidates>,
    choices: Option<Choices>,
    generation: Option<Generated>,
    mask: Option<Mask>,
}

/// `[candidates]`: a text for each label, itself a template.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidates {
    texts: Vec<String>,
    #[serde(default = "options")]
    objective: ChoiceObjective,
}

/// `[choices]`: a text for each entry of a list, in the template `entry`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choices {
    each: String,
    text: String,
    gold: String,
    #[serde(default = "options")]
    objective: ChoiceObjective,
}

/// What can be minimised where there are candidates.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ChoiceObjective {
    Options,
    LanguageModel,
}

fn options() -> ChoiceObjective {
    ChoiceObjective::Options
}

impl From<ChoiceObjective> for Objective {
    fn from(objective: ChoiceObjective) -> Objective {
        match objective {
            ChoiceObjective::Options => Objective::Options,
            ChoiceObjective::LanguageModel => Objective::LanguageModel,
        }
    }
}

/// `[generation]`: a text to be written; `answer` makes it of a gold answer, in the template `entry`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generated {
    gold: String,
    answer: String,
    metric: Metric,
    #[serde(default = "max_tokens")]
    max_tokens: usize,
    #[serde(default = "stop")]
    stop: Vec<String>,
}

fn max_tokens() -> usize {
    MAX_TOKENS
}

fn stop() -> Vec<String> {
    vec![STOP.to_owned()]
}

/// `[mask]`: a word for each label; `after` is the template of what follows the mask token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mask {
    words: Vec<String>,
    #[serde(default)]
    after: String,
}

impl Definition {
    fn answers(&self) -> Result<Answers, DefinitionProblem> {
        let label = |answers: usize| {
            let label = self.label.clone().ok_or(DefinitionProblem::NoLabel)?;
            label.check(answers).map(|()| label)
        };
        let without_label = |table| match self.label {
            Some(_) => Err(DefinitionProblem::NeedlessLabel { table }),
            None => Ok(()),
        };
        let several = |key, found| if found < 2 { Err(DefinitionProblem::TooFew { key, found }) } else { Ok(()) };
        match (&self.candidates, &self.choices, &self.generation, &self.mask) {
            (Some(table), None, None, None) => {
                several("candidates.texts", table.texts.len())?;
                let numbered = table.texts.iter().enumerate();
                let texts = numbered.map(|(i, text)| template(&format!("candidates.texts[{i}]"), text, &[]));
                Ok(Answers::Candidates {
                    label: label(table.texts.len())?,
                    texts: texts.collect::<Result<_, _>>()?,
                    objective: table.objective.into(),
                })
            }
            (None, Some(table), None, None) => {
                without_label("choices")?;
                let text = template("choices.text", &table.text, &[ENTRY])?;
                let (each, gold) = (table.each.clone(), table.gold.clone());
                Ok(Answers::Choices { each, text, gold, objective: table.objective.into() })
            }
            (None, None, Some(table), None) => {
                without_label("generation")?;
                let how = Generation { max_tokens: table.max_tokens, stop: table.stop.clone() };
                let answer = template("generation.answer", &table.answer, &[ENTRY])?;
                Ok(Answers::Generation { gold: table.gold.clone(), answer, metric: table.metric, how })
            }
            (None, None, None, Some(table)) => {
                several("mask.words", table.words.len())?;
                let after = template("mask.after", &table.after, &[])?;
                Ok(Answers::Mask { label: label(table.words.len())?, words: table.words.clone(), after })
            }
            (None, None, None, None) if self.label.is_some() => {
                let names = self.label.as_ref().map_or(0, Label::names);
                several("label.names", names)?;
                Ok(Answers::Classes { label: label(names)? })
            }
            tables => {
                let found = [tables.0.is_some(), tables.1.is_some(), tables.2.is_some(), tables.3.is_some()];
                Err(DefinitionProblem::Answers { found: found.into_iter().filter(|&present| present).count() })
            }
        }
    }
}

fn template(key: &str, source: &str, variables: &[&str]) -> Result<Template, DefinitionProblem> {
    Template::new(source, variables).map_err(|source| DefinitionProblem::Template { key: key.to_owned(), source })
}

/// The parser's error with its place, and the key that was probably meant.
fn syntax(text: &str, error: &toml::de::Error) -> DefinitionProblem {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = &text.as_bytes()[..at];
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let column = 1 + at - before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let problem = error.message().to_owned();
    // serde has no other way to say it: "unknown field `texs`, expected one of `texts`, `objective`".
    let mut names = problem.split('`').skip(1).step_by(2);
    let unknown = problem.starts_with("unknown").then(|| names.next()).flatten();
    let meant = unknown.and_then(|name| nearest(name, names)).map(str::to_owned);
    DefinitionProblem::Toml { line, column, problem, nearest: meant }
}
