//! `zofo list`: what there is to choose from.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Exit, Failure, console::Console};
use crate::{model::families::FAMILIES, optim::REGISTRY, task::builtin_tasks};

/// What `zofo list` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to list
    what: What,
}

/// The things that have lists.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Model families, by `model_type` of config.json
    Families,
    /// Tasks, for causal and for masked models
    Tasks,
    /// Optimizers with their options, as the `[optimizer]` table of a run file names them
    Optimizers,
}

pub(super) fn run(arguments: &Arguments, console: &mut Console) -> Result<Exit, Failure> {
    match arguments.what {
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
        What::Optimizers => {
            let list: Vec<_> = REGISTRY
                .iter()
                .map(|entry| {
                    let options: Vec<_> = entry
                        .options()
                        .map(|option| {
                            json!({
                                "name": option.name,
                                "default": (option.default)(),
                                "expected": option.expected,
                                "unit": option.unit,
                                "about": option.about,
                            })
                        })
                        .collect();
                    json!({ "name": entry.name, "about": entry.about, "paper": entry.paper, "options": options })
                })
                .collect();
            let mut text = String::new();
            for entry in REGISTRY {
                text += &format!("{}  {}\n{}\n", entry.name, entry.about, entry.paper);
                for option in entry.options() {
                    text += &format!("  {:18}{:14}{}\n", option.name, (option.default)(), option.about);
                }
                text.push('\n');
            }
            console.result(&json!({ "optimizers": list }), &text)?;
        }
    }
    Ok(Exit::Ok)
}
