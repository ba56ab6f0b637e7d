//! `zofo list`: what there is to choose from.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Exit, Failure, console::Console};
use crate::model::families::FAMILIES;

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
    }
    Ok(Exit::Ok)
}
