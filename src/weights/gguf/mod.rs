//! GGUF, the file format of llama.cpp, imported as a Hugging Face directory.
//!
//! *What it is.* [`Gguf::read`] reads the container, `blocks` decodes quantised values, `families` says which
//! tensor of which architecture goes where, `tokenizer` rebuilds the tokenizer, and [`import`] moves everything,
//! tensor by tensor, into an `Export`.
//!
//! *What it is not.* It does not compute with quantised weights, and it does not undo their loss: an import has the
//! values that llama.cpp computes with.
//!
//! *What must stay true.* GGUF readers are where other engines were broken into (ggml 709, llama.cpp 14595, 19856):
//! here every size is checked before use, nothing is allocated by a declared size, and an import is the whole
//! model or an error, never one that computes something else.

mod blocks;
mod convert;
mod families;
mod metadata;
mod pieces;
mod pre_tokenizer;
mod problem;
mod reader;
mod rope;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::path::Path;

use serde_json::json;

use super::{Export, Mapping, TensorPlan, WeightsError};
use crate::tensor::DType;
use convert::Stopped;
use families::Plan;
use tokenizer::Tokenizer;

pub use blocks::BlockType;
pub use metadata::{Array, Metadata, Value};
pub use problem::GgufProblem;
pub use reader::{Gguf, Stored};

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tensors written.
    pub tensors: usize,
    /// Tensors in all.
    pub of: usize,
    /// Bytes of weights written.
    pub bytes: u64,
}

/// What an import made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSummary {
    /// llama.cpp's name of the architecture.
    pub family: &'static str,
    /// The kind of the tokenizer; `None` if the file has none.
    pub tokenizer: Option<&'static str>,
    /// How many tensors.
    pub tensors: usize,
    /// How many values they have.
    pub parameters: usize,
    /// Bytes of all files written.
    pub bytes: u64,
}

/// Makes the Hugging Face directory `target` of the GGUF file `source`, weights as `dtype`.
///
/// # Errors
/// [`WeightsError::Gguf`] for a file that is broken or cannot be imported, [`WeightsError::Target`] if `target` may
/// not be written, [`WeightsError::Write`] if it cannot, [`WeightsError::Changed`] if the file changes meanwhile.
/// A `target` that is there afterwards is whole; see [`Export::finish`].
pub fn import(
    source: &Path,
    target: &Path,
    dtype: DType,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImportSummary, WeightsError> {
    let wrong = |problem| WeightsError::Gguf { path: source.to_owned(), problem };
    let mapping = Mapping::open(source)?;
    let (plan, tokenizer) = read(mapping.bytes()).map_err(wrong)?;
    let mut export = Export::create(target, source)?;
    let mut config = plan.config;
    let torch_dtype = match dtype {
        DType::F32 => "float32",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
    };
    config.insert("torch_dtype".to_owned(), json!(torch_dtype));
    export.write_json("config.json", &config)?;
    if let Some(tokenizer) = &tokenizer {
        tokenizer.write(&mut export, plan.context)?;
    }
    let planned = |tensor: &families::Placement<'_>| TensorPlan {
        name: tensor.name.clone(),
        dtype: dtype.into(),
        shape: tensor.shape.clone(),
    };
    let planned: Vec<TensorPlan> = plan.tensors.iter().map(planned).collect();
    let mut done = Progress { tensors: 0, of: planned.len(), bytes: 0 };
    export.safetensors(&planned, |index, sink| {
        let families::Placement { stored, layout, .. } = &plan.tensors[index];
        convert::convert(stored, *layout, dtype, |bytes| sink.put(bytes)).map_err(|stopped| match stopped {
            Stopped::Range => wrong(GgufProblem::Range { name: stored.name.to_owned(), dtype }),
            Stopped::Sink(error) => error,
        })?;
        done.tensors += 1;
        done.bytes += planned[index].bytes();
        progress(done);
        Ok(())
    })?;
    mapping.check_unchanged()?;
    Ok(ImportSummary {
        family: plan.family,
        tokenizer: tokenizer.as_ref().map(Tokenizer::name),
        tensors: planned.len(),
        parameters: planned.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum(),
        bytes: export.finish()?,
    })
}

/// Everything that can be said of a file before its values are read.
fn read(file: &[u8]) -> Result<(Plan<'_>, Option<Tokenizer<'_>>), GgufProblem> {
    let gguf = Gguf::read(file)?;
    let plan = families::plan(&gguf)?;
    let tokenizer = Tokenizer::read(&gguf, plan.vocabulary)?;
    Ok((plan, tokenizer))
}

/// Whether a file can be imported, short of its values' range: reads and checks everything else.
///
/// # Errors
/// [`GgufProblem`].
pub fn check(file: &[u8]) -> Result<(), GgufProblem> {
    read(file).map(|_| ())
}
