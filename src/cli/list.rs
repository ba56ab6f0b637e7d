//! `zofo list`: what there is to choose from.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Exit, Failure, console::Console};
use crate::{
    model::families::FAMILIES,
    optim::{self, Entry, OptionSpec, REGISTRY},
    task::builtin_tasks,
};

/// What `zofo list` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

/// The things that have lists.
#[derive(Debug, Subcommand)]
enum What {
    /// Model families, by `model_type` of config.json
    Families,
    /// Tasks, for causal and for masked models
    Tasks,
    /// Optimizers, as the `[optimizer]` table of a run file names them
    Optimizers {
        /// Show the options of this one
        name: Option<String>,
    },
}

pub(super) fn run(arguments: &Arguments, console: &mut Console) -> Result<Exit, Failure> {
    match &arguments.what {
        What::Families => {
            let list = FAMILIES.iter().map(
                |family| json!({ "name": family.name, "about": family.about, "architectures": family.architectures }),
            );
            let lines = FAMILIES.iter().map(|family| {
                format!("{:9}{}\n         {}\n", family.name, family.about, family.architectures.join(", "))
            });
            console.result(&json!({ "families": list.collect::<Vec<_>>() }), &lines.collect::<String>())?;
        }
        What::Tasks => {
            let tasks: Vec<_> = builtin_tasks().collect();
            let list = tasks.iter().map(|task| {
                json!({
                    "name": task.name(),
                    "model": task.style().to_string(),
                    "about": task.about(),
                    "source": task.source(),
                    "metric": task.metric().name(),
                })
            });
            let line = |task: &crate::task::Task| {
                let (name, style) = (task.name(), task.style().to_string());
                format!("{name:10}{style:8}{:12}{}\n", task.metric().name(), task.about())
            };
            let text: String = tasks.iter().map(line).collect();
            console.result(&json!({ "tasks": list.collect::<Vec<_>>() }), &text)?;
        }
        What::Optimizers { name } => {
            let one = name.as_deref().map(optim::find).transpose()?;
            let entries = one.as_ref().map_or(REGISTRY, std::slice::from_ref);
            let text = one.map_or_else(overview, options);
            let list: Vec<_> = entries.iter().map(|entry| described(entry)).collect();
            console.result(&json!({ "optimizers": list }), &text)?;
        }
    }
    Ok(Exit::Ok)
}

/// Each optimizer in a line.
fn overview() -> String {
    let line = |entry: &&Entry| format!("{:14}{}\n", entry.name, entry.about);
    let lines: String = REGISTRY.iter().map(line).collect();
    lines + "\n`zofo list optimizers NAME` shows the options of one\n"
}

/// An optimizer with its options.
fn options(entry: &Entry) -> String {
    let mut text = format!("{}  {}\n{}\n\n", entry.name, entry.about, entry.paper);
    for option in entry.options() {
        let unit = if option.unit.is_empty() { String::new() } else { format!(" [{}]", option.unit) };
        text +=
            &format!("{} = {}{unit}\n    {}\n    {}\n", option.name, (option.default)(), option.about, option.expected);
    }
    text
}

/// An optimizer as JSON.
fn described(entry: &Entry) -> Value {
    let option = |option: &OptionSpec| {
        json!({
            "name": option.name,
            "default": (option.default)(),
            "expected": option.expected,
            "unit": option.unit,
            "about": option.about,
        })
    };
    let options: Vec<_> = entry.options().map(option).collect();
    json!({ "name": entry.name, "about": entry.about, "paper": entry.paper, "options": options })
}
