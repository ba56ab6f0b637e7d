//! The values of a model's parameters: as they lie in the checkpoint, or in memory where no checkpoint has them (those of
//! adapters), or private copies of those that are trained.
//!
//! *What it is not.* It does not know what a parameter is for. *What must stay true*: the checkpoint is never written;
//! whoever reads through a store reads one consistent state, because writing needs it exclusively (contract C3).

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use super::{
    Change, Checkpoint, Precision, WeightsError,
    anchor::{Kept, Mapped},
    private::Private,
};
use crate::{
    direction::{Anchor, Param, ParamId, ParamTable},
    noise::{NoiseKey, Role},
    simd::Isa,
    tensor::{DType, WeightRef},
};

/// Where the values of a model's parameters are.
#[derive(Debug)]
pub struct Store {
    params: ParamTable,
    checkpoint: Option<Arc<Checkpoint>>,
    /// What the parameters that are in no checkpoint begin with.
    initial: BTreeMap<ParamId, Arc<[f32]>>,
    precision: Precision,
    /// Trained tensors, and all vectors of the checkpoint (norms and biases are read in f32).
    private: BTreeMap<ParamId, Private>,
}

/// Memory that the values of parameters take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Read through the mapping of the checkpoint: in memory as far as there is room, and never written.
    pub mapped: u64,
    /// Private copies, and what is in no checkpoint.
    pub private: u64,
}

impl Store {
    /// The parameters of `params` as `checkpoint` has them; nothing but vectors is copied.
    ///
    /// # Errors
    /// [`WeightsError`] naming the first tensor that is missing, of another shape, or stored in a type that is not
    /// computed with.
    pub fn open(checkpoint: Checkpoint, params: ParamTable) -> Result<Store, WeightsError> {
        let mut private = BTreeMap::new();
        for (id, param) in params.iter() {
            let tensor = checkpoint.tensor(param.name())?;
            match *param.shape() {
                [rows, cols] => drop(tensor.weight(rows, cols)?),
                ref shape => {
                    let values = tensor.values(shape)?;
                    private.insert(id, Private::from_f32((1, values.len()), &values));
                }
            }
        }
        let checkpoint = Some(Arc::new(checkpoint));
        Ok(Store { params, checkpoint, initial: BTreeMap::new(), precision: Precision::F32, private })
    }

    /// Parameters without a checkpoint, kept as f32 in every precision: `values` answers those of each.
    ///
    /// # Panics
    /// If `values` answers too few or too many.
    pub fn in_memory(params: ParamTable, mut values: impl FnMut(&Param) -> Vec<f32>) -> Store {
        let initial = params.iter().map(|(id, param)| (id, checked(param, values(param)))).collect();
        Store { initial, checkpoint: None, precision: Precision::F32, private: BTreeMap::new(), params }
    }

    /// Adds a parameter that is in no checkpoint and kept as f32 in every precision: `values` answers what it begins with.
    ///
    /// # Panics
    /// If there is one of that name, or if `values` answers too few or too many.
    pub fn add(&mut self, name: &str, shape: &[usize], values: impl FnOnce(&Param) -> Vec<f32>) -> ParamId {
        assert!(self.params.find(name).is_none(), "a second parameter {name:?}");
        let id = self.params.add(name, shape);
        let param = &self.params[id];
        self.initial.insert(id, checked(param, values(param)));
        id
    }

    /// Makes private copies of the parameters `tuned` as they began, those of the checkpoint to be kept in `precision`:
    /// what was written to them before is forgotten.
    ///
    /// Tensors are read from the file one by one, not through its mapping, so that nothing of them stays in memory twice:
    /// do this before anything is computed.
    ///
    /// # Errors
    /// [`WeightsError::Changed`], [`WeightsError::Read`] naming the file.
    pub fn tune(&mut self, tuned: &[ParamId], precision: Precision) -> Result<(), WeightsError> {
        self.precision = precision;
        for &id in tuned {
            let copy = self.copy(id)?;
            self.private.insert(id, copy);
        }
        Ok(())
    }

    /// The parameters.
    pub fn params(&self) -> &ParamTable {
        &self.params
    }
    /// The checkpoint that mapped parameters lie in.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_deref()
    }
    /// How trained parameters are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The type in which the values of a tuned parameter are kept, and in which they are written down.
    pub fn tuned_type(&self, id: ParamId) -> DType {
        self.tuned_type_in(id, self.precision)
    }

    /// What the parameters take if `tuned` are kept in `precision`.
    pub fn footprint(&self, tuned: &[ParamId], precision: Precision) -> Footprint {
        let mut footprint = Footprint::default();
        for (id, param) in self.params.iter() {
            let bytes = |dtype: DType| (param.elements() * dtype.size()) as u64;
            let (is_initial, is_vector) = (self.initial.contains_key(&id), param.shape().len() == 1);
            if is_initial || is_vector {
                footprint.private += bytes(DType::F32);
            } else if !tuned.contains(&id) {
                footprint.mapped += bytes(self.stored(id));
            }
            // A vector of the checkpoint has been counted: it is a copy, trained or not.
            if tuned.contains(&id) && (is_initial || !is_vector) {
                footprint.private += bytes(self.tuned_type_in(id, precision));
            }
        }
        footprint
    }

    /// A matrix `[rows, cols]` (a vector is one row), as it is stored.
    pub fn weight(&self, id: ParamId) -> WeightRef<'_> {
        let param = &self.params[id];
        if let Some(private) = self.private.get(&id) {
            return private.weight();
        }
        if let Some(values) = self.initial.get(&id) {
            return WeightRef::f32(values, param.rows(), param.cols());
        }
        let tensor = self.mapped().find(param.name()).expect("`open` found every parameter");
        tensor.weight(param.rows(), param.cols()).expect("`open` checked every parameter")
    }

    /// The values of a vector.
    ///
    /// # Panics
    /// If the parameter is a matrix that is not kept as f32.
    pub fn vector(&self, id: ParamId) -> &[f32] {
        match self.private.get(&id) {
            Some(private) => private.as_f32().expect("vectors lie as f32"),
            None => &self.initial[&id],
        }
    }

    /// What a parameter was before anything was written to it. A matrix of the checkpoint is read through its mapping, at
    /// no cost in memory of our own.
    pub fn anchor(&self, id: ParamId) -> Arc<dyn Anchor> {
        let param = &self.params[id];
        let (rows, cols) = (param.rows(), param.cols());
        if let Some(values) = self.initial.get(&id) {
            return Arc::new(Kept { values: Arc::clone(values), rows, cols });
        }
        let (checkpoint, name) = (self.mapped(), param.name().to_owned());
        if param.shape().len() == 2 {
            return Arc::new(Mapped { checkpoint: Arc::clone(checkpoint), name, rows, cols });
        }
        let tensor = checkpoint.find(&name).expect("`open` found every parameter");
        let values = tensor.values(param.shape()).expect("`open` checked every parameter");
        Arc::new(Kept { values: values.into(), rows, cols })
    }

    /// Has `change(first, rows)` write all rows of the parameter over, up to sixteen from row `first` on at a time, in any
    /// order and on many threads, and keeps what comes out in the type of [`Store::tuned_type`]: exactly as f32, else
    /// rounded at random by `rounding`. Makes a private copy if there is none yet.
    ///
    /// # Errors
    /// As [`Store::tune`]; nothing has changed then.
    ///
    /// # Panics
    /// If `rounding` is no key of [`Role::Rounding`].
    pub fn update_rows(
        &mut self,
        id: ParamId,
        isa: Isa,
        rounding: NoiseKey,
        change: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<Change, WeightsError> {
        assert_eq!(rounding.role, Role::Rounding, "the key of a rounding");
        if !self.private.contains_key(&id) {
            let copy = self.copy(id)?;
            self.private.insert(id, copy);
        }
        let noise = rounding.tensor(self.params[id].noise_name());
        let private = self.private.get_mut(&id).expect("made above");
        Ok(private.update_rows(isa, &noise, change))
    }

    /// Gives a parameter other values, as [`Store::tuned_type`] writes them down.
    ///
    /// # Panics
    /// If they are too few or too many.
    pub(super) fn load(&mut self, id: ParamId, bytes: &[u8]) {
        let mut private = self.empty(id);
        let filled = private.fill(self.tuned_type(id), |first, piece| {
            piece.copy_from_slice(&bytes[first..first + piece.len()]);
            Ok::<(), Infallible>(())
        });
        let Ok(()) = filled;
        self.private.insert(id, private);
    }

    /// Checks that the files underneath are still those that were opened.
    ///
    /// # Errors
    /// [`WeightsError::Changed`] naming the first that is not.
    pub fn check_unchanged(&self) -> Result<(), WeightsError> {
        self.checkpoint().map_or(Ok(()), Checkpoint::check_unchanged)
    }

    /// The checkpoint that a parameter lies in which is not in memory.
    fn mapped(&self) -> &Arc<Checkpoint> {
        self.checkpoint.as_ref().expect("a parameter is in memory or mapped")
    }

    /// A private copy of the parameter as it began.
    fn copy(&self, id: ParamId) -> Result<Private, WeightsError> {
        let param = &self.params[id];
        if let Some(values) = self.initial.get(&id) {
            return Ok(Private::from_f32((param.rows(), param.cols()), values));
        }
        let tensor = self.mapped().find(param.name()).expect("`open` found every parameter");
        let mut private = self.empty(id);
        private.fill(self.stored(id), |first, piece| tensor.read(first, piece))?;
        Ok(private)
    }

    /// Zeros in the place of a tuned parameter.
    fn empty(&self, id: ParamId) -> Private {
        let param = &self.params[id];
        Private::zeros((param.rows(), param.cols()), param.shape().len() == 1, self.tuned_type(id))
    }

    /// The type in which the checkpoint has the parameter; f32 for those that are in none.
    fn stored(&self, id: ParamId) -> DType {
        if self.initial.contains_key(&id) {
            return DType::F32;
        }
        let tensor = self.mapped().find(self.params[id].name()).expect("`open` found every parameter");
        tensor.dtype().computed().expect("`open` checked every parameter")
    }

    fn tuned_type_in(&self, id: ParamId, precision: Precision) -> DType {
        precision.keeps(self.stored(id))
    }
}

/// What a parameter begins with, as many values as it has.
fn checked(param: &Param, values: Vec<f32>) -> Arc<[f32]> {
    assert_eq!(values.len(), param.elements(), "values of {:?} {:?}", param.name(), param.shape());
    values.into()
}

#[cfg(test)]
mod tests;
