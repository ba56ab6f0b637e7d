//! The values of a model's parameters: as they lie in the checkpoint, or private f32 copies of those that are trained.
//!
//! *What it is not.* It does not know what a parameter is for. *What must stay true*: the checkpoint is never written;
//! whoever reads through a store reads one consistent state, because writing needs it exclusively (contract C3).

use std::collections::BTreeMap;

use super::{Checkpoint, WeightsError};
use crate::{
    direction::{Param, ParamId, ParamTable},
    tensor::{DType, WeightRef},
};

/// Where the values of a model's parameters are.
#[derive(Debug)]
pub struct Store {
    params: ParamTable,
    checkpoint: Option<Checkpoint>,
    /// Trained tensors, and all vectors (norms and biases are read in f32).
    own: BTreeMap<ParamId, Vec<f32>>,
}

impl Store {
    /// The parameters of `params` as `checkpoint` has them; nothing but vectors is copied.
    ///
    /// # Errors
    /// [`WeightsError`] naming the first tensor that is missing, of another shape, or stored in a type that is not
    /// computed with.
    pub fn open(checkpoint: Checkpoint, params: ParamTable) -> Result<Store, WeightsError> {
        let mut own = BTreeMap::new();
        for (id, param) in params.iter() {
            let tensor = checkpoint.tensor(param.name())?;
            match *param.shape() {
                [rows, cols] => drop(tensor.weight(rows, cols)?),
                ref shape => drop(own.insert(id, tensor.values(shape)?.into_owned())),
            }
        }
        Ok(Store { params, checkpoint: Some(checkpoint), own })
    }

    /// Parameters without a checkpoint: `values` answers those of each.
    ///
    /// # Panics
    /// If `values` answers too few or too many.
    pub fn in_memory(params: ParamTable, mut values: impl FnMut(&Param) -> Vec<f32>) -> Store {
        let own = params.iter().map(|(id, param)| {
            let values = values(param);
            assert_eq!(values.len(), param.elements(), "values of {:?} {:?}", param.name(), param.shape());
            (id, values)
        });
        Store { own: own.collect(), checkpoint: None, params }
    }

    /// The parameters.
    pub fn params(&self) -> &ParamTable {
        &self.params
    }
    /// The checkpoint that mapped parameters lie in.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// A matrix `[rows, cols]` (a vector is one row), as it is stored.
    pub fn weight(&self, id: ParamId) -> WeightRef<'_> {
        let param = &self.params[id];
        if let Some(values) = self.own.get(&id) {
            return WeightRef::f32(values, param.rows(), param.cols());
        }
        let checkpoint = self.checkpoint.as_ref().expect("a parameter is its own or mapped");
        let tensor = checkpoint.find(param.name()).expect("`open` found every parameter");
        tensor.weight(param.rows(), param.cols()).expect("`open` checked every parameter")
    }

    /// The values of a vector.
    ///
    /// # Panics
    /// If the parameter is a matrix that is not a private copy.
    pub fn vector(&self, id: ParamId) -> &[f32] {
        &self.own[&id]
    }

    /// A private f32 copy of the parameter, made now if there is none yet: what training writes.
    pub fn own(&mut self, id: ParamId) -> &mut [f32] {
        if !self.own.contains_key(&id) {
            let weight = self.weight(id);
            let (rows, cols) = (weight.rows(), weight.cols());
            let copy = (0..rows).flat_map(|row| (0..cols).map(move |col| weight.at(row, col))).collect();
            self.own.insert(id, copy);
        }
        self.own.get_mut(&id).expect("made above")
    }

    /// How the values of a tuned parameter are written down.
    pub fn tuned_type(&self, _id: ParamId) -> DType {
        DType::F32
    }

    /// Gives a parameter other values, as [`Store::tuned_type`] writes them down.
    ///
    /// # Panics
    /// If they are too few or too many.
    pub(super) fn load(&mut self, id: ParamId, bytes: &[u8]) {
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
        assert_eq!(bytes.len(), 4 * self.params[id].elements(), "bytes of {:?}", self.params[id].name());
        self.own.insert(id, values);
    }

    /// Checks that the files underneath are still those that were opened.
    ///
    /// # Errors
    /// [`WeightsError::Changed`] naming the first that is not.
    pub fn check_unchanged(&self) -> Result<(), WeightsError> {
        self.checkpoint.as_ref().map_or(Ok(()), Checkpoint::check_unchanged)
    }
}
