//! Snapshots: the tuned tensors of a run at one step, and what its optimizer carries, in one safetensors file.
//!
//! Tensors of the optimizer stand behind [`STATE`]; facts (a step, a learning rate) are the file's metadata. Two
//! digests are written beside them: `weights_sha256` as [`digest`] defines it, and `snapshot_sha256` over that, the
//! facts and the optimizer's tensors. Both are computed before the file is begun, because a header comes first:
//! reading memory twice is cheap, holding the weights twice is not.

use std::{borrow::Cow, cmp::Reverse, collections::BTreeMap, io::Write, path::Path};

use safetensors::Dtype;
use sha2::{Digest, Sha256};

use super::{announce, by_name, bytes, digest, hex, plan, text};
use crate::{
    direction::ParamId,
    weights::{
        Entry, Mapping, SnapshotProblem, Store, StoredType, TensorPlan, WeightsError,
        export::{head, write_failed},
        header, replace_file,
    },
};

/// What the names of the optimizer's tensors begin with. Names of parameters are words between dots.
const STATE: &str = "optimizer/";
/// What the metadata say for `format`: a change of what a snapshot holds is another version.
const FORMAT: &str = "zofo snapshot 1";
/// Metadata that are not the caller's.
const OWN: [&str; 3] = ["format", WEIGHTS, CONTENTS];
const WEIGHTS: &str = "weights_sha256";
const CONTENTS: &str = "snapshot_sha256";

/// A tensor that an optimizer carries from step to step.
#[derive(Clone, Debug, PartialEq)]
pub struct StateTensor<'a> {
    /// Outermost dimension first; none is 0.
    pub shape: Vec<usize>,
    /// Row by row, as many as the shape says.
    pub values: StateValues<'a>,
}

/// The values of a [`StateTensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum StateValues<'a> {
    /// In single precision.
    F32(Cow<'a, [f32]>),
    /// In double precision.
    F64(Cow<'a, [f64]>),
}

/// What a snapshot holds beside the tuned tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The facts that it was written with.
    pub facts: BTreeMap<String, String>,
    /// The optimizer's tensors, in bytewise order of names.
    pub state: Vec<(String, StateTensor<'static>)>,
    /// The [`digest`] of the tuned tensors.
    pub weights_sha256: [u8; 32],
}

impl StateTensor<'_> {
    fn bytes(&self) -> &[u8] {
        match &self.values {
            StateValues::F32(values) => bytemuck::cast_slice(values),
            StateValues::F64(values) => bytemuck::cast_slice(values),
        }
    }

    fn plan(&self, name: &str) -> TensorPlan {
        let dtype = match self.values {
            StateValues::F32(_) => StoredType::F32,
            StateValues::F64(_) => StoredType::Other(Dtype::F64),
        };
        let plan = TensorPlan { name: format!("{STATE}{name}"), dtype, shape: self.shape.clone() };
        assert_eq!(plan.bytes(), self.bytes().len() as u64, "values of {name:?} of shape {:?}", self.shape);
        assert!(!self.bytes().is_empty(), "{name:?} has no values");
        plan
    }
}

/// Where the bytes of a tensor come from.
enum Source<'a> {
    Tuned(ParamId),
    State(&'a StateTensor<'a>),
}

/// Writes a snapshot to `path`, whole or not at all: what was there before stays until the new file is synced. Answers
/// the [`digest`] of the tuned tensors.
///
/// # Errors
/// [`WeightsError::Write`]. The file is then the old one, unless only the last sync failed, that of the directory: then
/// a power failure may bring the old one back.
///
/// # Panics
/// If two tensors have one name, if a fact has a name that is taken (`format`, `weights_sha256`, `snapshot_sha256`), or
/// if values are not as many as their shape says.
pub fn write(
    path: &Path,
    store: &Store,
    tuned: &[ParamId],
    facts: &BTreeMap<String, String>,
    state: &[(String, StateTensor<'_>)],
) -> Result<[u8; 32], WeightsError> {
    assert!(OWN.iter().all(|&own| !facts.contains_key(own)), "a fact with a name that is taken: {facts:?}");
    let tuned_tensors = tuned.iter().map(|&id| (plan(store, id), Source::Tuned(id)));
    let state_tensors = state.iter().map(|(name, tensor)| (tensor.plan(name), Source::State(tensor)));
    let mut tensors: Vec<_> = tuned_tensors.chain(state_tensors).collect();
    tensors.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    assert!(tensors.windows(2).all(|pair| pair[0].0.name != pair[1].0.name), "two tensors of one name");
    for (plan, source) in &tensors {
        assert_eq!(plan.name.starts_with(STATE), matches!(source, Source::State(_)), "a parameter {:?}", plan.name);
    }

    let weights = digest(store, tuned);
    let state = tensors.iter().filter_map(|(plan, source)| match source {
        Source::State(tensor) => Some((&plan.name[..], plan.dtype, &plan.shape[..], tensor.bytes())),
        Source::Tuned(_) => None,
    });
    let contents = contents(&weights, facts, state);
    let mut metadata = facts.clone();
    let own = [FORMAT.to_owned(), hex(&weights), hex(&contents)];
    metadata.extend(OWN.map(str::to_owned).into_iter().zip(own));
    // Wider values first, so that all are aligned.
    tensors.sort_by_key(|(plan, _)| Reverse(plan.dtype.bits()));

    replace_file(path, |file| {
        file.write_all(&head(&metadata, tensors.iter().map(|(plan, _)| plan)))?;
        tensors.iter().try_for_each(|(_, source)| match source {
            Source::Tuned(id) => bytes(store, *id, |block| file.write_all(block)),
            Source::State(tensor) => file.write_all(tensor.bytes()),
        })
    })
    .map_err(write_failed(path))?;
    Ok(weights)
}

/// Reads a snapshot of `tuned` from `path` into `store`.
///
/// # Errors
/// [`WeightsError`] naming the file: unreadable, truncated, damaged, or of other tensors. `store` is then as it was,
/// unless the file changed while it was read ([`WeightsError::Changed`]).
pub fn read(path: &Path, store: &mut Store, tuned: &[ParamId]) -> Result<Snapshot, WeightsError> {
    let file = Mapping::open(path)?;
    file.populate(0..file.bytes().len())?;
    let header = |problem| WeightsError::Header { path: path.to_owned(), problem };
    let (entries, metadata) = header::read_with_metadata(file.bytes()).map_err(header)?;
    let damaged = |problem| WeightsError::Snapshot { path: path.to_owned(), problem };
    let contents = Contents::check(file.bytes(), entries, metadata, store, tuned).map_err(damaged)?;
    file.check_unchanged()?;
    for (id, values) in contents.tuned {
        store.load(id, values);
    }
    file.check_unchanged()?;
    Ok(contents.rest)
}

/// The facts that the snapshot at `path` was written with, from its header alone: its values are not checked.
///
/// # Errors
/// [`WeightsError`] if it cannot be read, or has no header of a snapshot.
pub fn facts(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    let file = Mapping::open(path)?;
    let header = |problem| WeightsError::Header { path: path.to_owned(), problem };
    let (_, facts) = header::read_with_metadata(file.bytes()).map_err(header)?;
    match facts.get(OWN[0]) {
        Some(format) if format == FORMAT => Ok(facts),
        found => {
            let problem = SnapshotProblem::Format { found: found.cloned(), expected: FORMAT };
            Err(WeightsError::Snapshot { path: path.to_owned(), problem })
        }
    }
}

/// What a file holds, known to be what was written.
struct Contents<'a> {
    tuned: Vec<(ParamId, &'a [u8])>,
    rest: Snapshot,
}

impl<'a> Contents<'a> {
    fn check(
        file: &'a [u8],
        entries: Vec<(String, Entry)>,
        mut facts: BTreeMap<String, String>,
        store: &Store,
        tuned: &[ParamId],
    ) -> Result<Contents<'a>, SnapshotProblem> {
        let [format, weights_found, contents_found] = OWN.map(|own| facts.remove(own));
        if format.as_deref() != Some(FORMAT) {
            return Err(SnapshotProblem::Format { found: format, expected: FORMAT });
        }
        let (state, mut entries): (BTreeMap<_, _>, BTreeMap<_, _>) =
            entries.into_iter().partition(|(name, _)| name.starts_with(STATE));

        let mut hash = Sha256::new();
        let mut values = Vec::with_capacity(tuned.len());
        for id in by_name(store, tuned) {
            let TensorPlan { name, dtype, shape } = plan(store, id);
            let Some(entry) = entries.remove(&name) else { return Err(SnapshotProblem::Missing { name }) };
            if (entry.dtype, &entry.shape) != (dtype, &shape) {
                let (found, expected) = (format!("{} {:?}", entry.dtype, entry.shape), format!("{dtype} {shape:?}"));
                return Err(SnapshotProblem::Tensor { name, found, expected });
            }
            let bytes = &file[entry.bytes];
            announce(&mut hash, &name, dtype, &shape);
            hash.update(bytes);
            values.push((id, bytes));
        }
        if let Some((name, _)) = entries.pop_first() {
            return Err(SnapshotProblem::Unexpected { name });
        }
        let weights = hash.finalize().into();
        same(WEIGHTS, weights_found, &weights)?;
        let listed =
            state.iter().map(|(name, entry)| (&name[..], entry.dtype, &entry.shape[..], &file[entry.bytes.clone()]));
        same(CONTENTS, contents_found, &contents(&weights, &facts, listed))?;
        let state = state.into_iter().map(|(name, entry)| carried(file, &name, entry)).collect::<Result<_, _>>()?;
        Ok(Contents { tuned: values, rest: Snapshot { facts, state, weights_sha256: weights } })
    }
}

/// A tensor of the optimizer, copied.
fn carried(file: &[u8], name: &str, entry: Entry) -> Result<(String, StateTensor<'static>), SnapshotProblem> {
    let bytes = &file[entry.bytes];
    let values = match entry.dtype {
        StoredType::F32 => StateValues::F32(bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()),
        StoredType::Other(Dtype::F64) => {
            StateValues::F64(bytes.as_chunks().0.iter().map(|&word| f64::from_le_bytes(word)).collect())
        }
        found => {
            let expected = "F32 or F64".to_owned();
            return Err(SnapshotProblem::Tensor { name: name.to_owned(), found: found.to_string(), expected });
        }
    };
    Ok((name[STATE.len()..].to_owned(), StateTensor { shape: entry.shape, values }))
}

/// Compares a digest that was written with one that was computed.
fn same(field: &'static str, found: Option<String>, computed: &[u8; 32]) -> Result<(), SnapshotProblem> {
    let expected = hex(computed);
    match found.as_ref() == Some(&expected) {
        true => Ok(()),
        false => Err(SnapshotProblem::Digest { field, found, expected }),
    }
}

/// The `snapshot_sha256`: the digest of the weights, the number of facts, each fact, and each tensor of the optimizer
/// (bytewise order of names throughout; texts and tensors as in [`digest`]).
fn contents<'a>(
    weights: &[u8; 32],
    facts: &BTreeMap<String, String>,
    state: impl Iterator<Item = (&'a str, StoredType, &'a [usize], &'a [u8])>,
) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(weights);
    hash.update((facts.len() as u64).to_le_bytes());
    for (name, fact) in facts {
        text(&mut hash, name);
        text(&mut hash, fact);
    }
    for (name, dtype, shape, bytes) in state {
        announce(&mut hash, name, dtype, shape);
        hash.update(bytes);
    }
    hash.finalize().into()
}
