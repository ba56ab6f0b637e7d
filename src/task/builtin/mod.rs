//! The tasks that come with the program: files in the format of a user's own.
//!
//! Prompts and label words are those of Malladi et al., "Fine-Tuning Language Models with Just Forward Passes" (2023), so
//! that results can be set beside published ones; those for masked models go back to Gao et al., "Making Pre-trained
//! Language Models Better Few-shot Learners" (2021). Candidates and words stand in the order of the data set's labels.

#[cfg(test)]
mod tests;

use super::{Format, Style, Task, TaskError, nearest::nearest};

/// A task with its file.
struct Builtin {
    name: &'static str,
    style: Style,
    file: &'static str,
}

macro_rules! builtin {
    ($style:ident, $folder:literal, $($name:literal)*) => {
        [$(Builtin {
            name: $name,
            style: Style::$style,
            file: include_str!(concat!($folder, "/", $name, ".toml")),
        }),*]
    };
}

const CAUSAL: &[Builtin] = &builtin!(
    Causal, "causal",
    "boolq" "cb" "copa" "drop" "gsm8k" "multirc" "record" "rte" "squad" "sst2" "sst5" "trec" "wic" "wsc"
);

const MASKED: &[Builtin] = &builtin!(
    Masked, "masked",
    "cola" "cr" "mnli" "mpqa" "mr" "mrpc" "qnli" "qqp" "rte" "snli" "sst2" "sst5" "subj" "trec"
);

impl Builtin {
    fn task(&self) -> Task {
        Task::parse(self.name, self.file).unwrap_or_else(|problem| panic!("the built-in task {}{problem}", self.name))
    }
}

/// The tasks that come with the program: questions for causal models, then for masked ones, each in alphabetical order,
/// then the formats of data without questions.
pub fn builtin_tasks() -> impl Iterator<Item = Task> {
    let questions = CAUSAL.iter().chain(MASKED).map(Builtin::task);
    questions.chain(Format::ALL.into_iter().map(Format::task))
}

impl Task {
    /// The built-in task of that name for that kind of model.
    ///
    /// # Errors
    /// [`TaskError::Unknown`].
    pub fn named(name: &str, style: Style) -> Result<Task, TaskError> {
        let mut of_style = CAUSAL.iter().chain(MASKED).filter(|builtin| builtin.style == style);
        let mut formats = Format::ALL.into_iter().filter(|_| style == Style::Causal);
        let names = of_style.clone().map(|builtin| builtin.name).chain(formats.clone().map(Format::name));
        let unknown = || TaskError::Unknown { name: name.to_owned(), style, nearest: nearest(name, names) };
        let question = of_style.find(|builtin| builtin.name == name).map(Builtin::task);
        question.or_else(|| formats.find(|format| format.name() == name).map(Format::task)).ok_or_else(unknown)
    }
}
