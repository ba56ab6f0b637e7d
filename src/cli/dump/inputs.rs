//! The tensors that `zofo dump` reads: padded token ids, their mask and labels, directions.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use safetensors::Dtype;

use crate::{
    cli::Failure,
    direction::{Direction, DirectionSet, ParamId},
    kernels::cross_entropy,
    model::{Batch, Head, Model},
    objective::LabelError,
    weights::{Entry, Mapping, StoredType, WeightsError, header},
};

/// A batch without its padding, and where its rows stood.
pub(super) struct Inputs {
    pub(super) batch: Batch,
    /// `[B, T]` of the file.
    pub(super) shape: [usize; 2],
    /// The place in `[B, T]` of every row of the batch.
    pub(super) places: Vec<usize>,
    pub(super) labels: Option<Vec<Option<u32>>>,
    pub(super) directions: Vec<Arc<DirectionSet>>,
}

/// What is wrong with the tensors.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Problem {
    #[error("there is no tensor {name:?}; expected {expected}")]
    Missing { name: &'static str, expected: &'static str },
    #[error("tensor {name:?} is {found}; expected {expected}")]
    Tensor { name: String, found: String, expected: String },
    #[error("tensor {name:?}: {found} at {place:?}; expected {expected}")]
    Value { name: &'static str, found: i64, place: [usize; 2], expected: &'static str },
    #[error("tensor {name:?} names no parameter of the model")]
    Parameter { name: String },
    #[error("there is no tensor \"labels\", which a loss needs")]
    NoLabels,
    #[error("there is no tensor \"direction.<parameter>\", which a slope needs")]
    NoDirections,
    #[error(transparent)]
    Labels(LabelError),
    #[error("{found} directions in the file; --epsilon needs exactly one (`direction.<parameter>` tensors)")]
    Directions { found: usize },
}

/// A shape and its values.
type Integers<'a> = (&'a [usize], Vec<i64>);

/// The tensors of a file by name.
struct Tensors<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<String, Entry>,
}

impl Inputs {
    /// Reads the file for `model`.
    pub(super) fn read(path: &Path, model: &Model) -> Result<Inputs, Failure> {
        let mapping = Mapping::open(path)?;
        let entries =
            header::read(mapping.bytes()).map_err(|problem| WeightsError::Header { path: path.to_owned(), problem })?;
        let tensors = Tensors { bytes: mapping.bytes(), entries: entries.into_iter().collect() };
        let inputs = tensors.inputs(model).map_err(|problem| Failure::Inputs { path: path.to_owned(), problem })?;
        mapping.check_unchanged()?;
        Ok(inputs)
    }
}

impl Tensors<'_> {
    fn inputs(&self, model: &Model) -> Result<Inputs, Problem> {
        let expected = "i64 [B, T]";
        let (shape, ids) =
            self.integers("input_ids", expected)?.ok_or(Problem::Missing { name: "input_ids", expected })?;
        let &[sequences, columns] = shape else { return Err(self.unexpected("input_ids", expected)) };
        let mask = match self.integers("attention_mask", expected)? {
            None => vec![1; ids.len()],
            Some((found, mask)) if found == shape => mask,
            Some(_) => return Err(self.unexpected("attention_mask", &format!("i64 {shape:?}, as input_ids"))),
        };
        let mut places = Vec::new();
        let mut batch = Vec::with_capacity(sequences);
        for sequence in 0..sequences {
            let kept = kept(&mask[sequence * columns..(sequence + 1) * columns], sequence)?;
            let token = |column: usize| {
                let found = ids[sequence * columns + column];
                let problem = || Problem::Value {
                    name: "input_ids",
                    found,
                    place: [sequence, column],
                    expected: "a token of the vocabulary",
                };
                u32::try_from(found).map_err(|_| problem())
            };
            batch.push(kept.clone().map(token).collect::<Result<Vec<u32>, _>>()?);
            places.extend(kept.map(|column| sequence * columns + column));
        }
        let classes = matches!(model.spec().head, Head::Classifier { .. });
        let labels = if classes { self.class_labels(sequences)? } else { self.token_labels(shape, &places, &mask)? };
        let directions = self.directions(model)?;
        Ok(Inputs { batch: Batch::new(batch), shape: [sequences, columns], places, labels, directions })
    }

    fn class_labels(&self, sequences: usize) -> Result<Option<Vec<Option<u32>>>, Problem> {
        let expected = format!("i64 [{sequences}], a class per sequence");
        let Some((shape, labels)) = self.integers("labels", &expected)? else { return Ok(None) };
        if shape != [sequences] {
            return Err(self.unexpected("labels", &expected));
        }
        labels
            .into_iter()
            .enumerate()
            .map(|(sequence, raw)| label(raw, [sequence, 0]))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn token_labels(
        &self,
        shape: &[usize],
        places: &[usize],
        mask: &[i64],
    ) -> Result<Option<Vec<Option<u32>>>, Problem> {
        let expected = format!("i64 {shape:?}, as input_ids");
        let Some((found, labels)) = self.integers("labels", &expected)? else { return Ok(None) };
        if found != shape {
            return Err(self.unexpected("labels", &expected));
        }
        let at = |place: usize| [place / shape[1], place % shape[1]];
        if let Some(place) = (0..labels.len()).find(|&p| mask[p] == 0 && labels[p] != cross_entropy::IGNORED) {
            let expected = "-100 where attention_mask is 0: padding is never computed";
            return Err(Problem::Value { name: "labels", found: labels[place], place: at(place), expected });
        }
        places.iter().map(|&place| label(labels[place], at(place))).collect::<Result<_, _>>().map(Some)
    }

    /// `direction.<parameter>`, or `direction.<k>.<parameter>` for several, in ascending order of k.
    fn directions(&self, model: &Model) -> Result<Vec<Arc<DirectionSet>>, Problem> {
        let params = model.store().params();
        let mut sets: BTreeMap<u64, Vec<(ParamId, Direction)>> = BTreeMap::new();
        for (name, entry) in &self.entries {
            let Some(rest) = name.strip_prefix("direction.") else { continue };
            let numbered = || {
                let (number, parameter) = rest.split_once('.')?;
                Some((number.parse().ok()?, params.find(parameter)?))
            };
            let (number, id) = params
                .find(rest)
                .map(|id| (0, id))
                .or_else(numbered)
                .ok_or_else(|| Problem::Parameter { name: name.clone() })?;
            let param = &params[id];
            if entry.dtype != StoredType::F32 || entry.shape != param.shape() {
                return Err(self.unexpected(name, &format!("F32 {:?}, as the parameter", param.shape())));
            }
            let values = self.bytes[entry.bytes.clone()].as_chunks().0.iter().map(|&word| f32::from_le_bytes(word));
            sets.entry(number).or_default().push((id, Direction::Explicit(values.collect())));
        }
        Ok(sets.into_values().map(|set| Arc::new(DirectionSet::new(set))).collect())
    }

    fn integers(&self, name: &str, expected: &str) -> Result<Option<Integers<'_>>, Problem> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if entry.dtype != StoredType::Other(Dtype::I64) {
            return Err(self.unexpected(name, expected));
        }
        let values = self.bytes[entry.bytes.clone()].as_chunks().0.iter().map(|&word| i64::from_le_bytes(word));
        Ok(Some((&entry.shape, values.collect())))
    }

    fn unexpected(&self, name: &str, expected: &str) -> Problem {
        let entry = &self.entries[name];
        let found = format!("{} {:?}", entry.dtype, entry.shape);
        Problem::Tensor { name: name.to_owned(), found, expected: expected.to_owned() }
    }
}

/// The columns of a sequence that are no padding: one run of ones in its mask.
fn kept(mask: &[i64], sequence: usize) -> Result<std::ops::Range<usize>, Problem> {
    let wrong = |column: usize, expected| {
        Err(Problem::Value { name: "attention_mask", found: mask[column], place: [sequence, column], expected })
    };
    if let Some(column) = mask.iter().position(|bit| ![0, 1].contains(bit)) {
        return wrong(column, "0 or 1");
    }
    let start = mask.iter().position(|&bit| bit == 1).unwrap_or(mask.len());
    let end = mask.iter().rposition(|&bit| bit == 1).map_or(start, |last| last + 1);
    match (start..end).find(|&column| mask[column] == 0) {
        Some(column) => wrong(column, "padding on the left or on the right, not within a sequence"),
        None => Ok(start..end),
    }
}

fn label(raw: i64, place: [usize; 2]) -> Result<Option<u32>, Problem> {
    cross_entropy::label(raw).map_err(|found| Problem::Value {
        name: "labels",
        found,
        place,
        expected: "an id, or -100 where there is no loss",
    })
}
