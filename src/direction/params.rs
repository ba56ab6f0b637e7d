//! The parameter table: which tensors a model has, by name and shape, numbered in the order of its forward pass.
//!
//! *What it is not.* Values: those are for `weights`. *What must stay true*: a name stands once, and the noise of a
//! tensor is named by the tensor's own name ([`Param::noise_name`]), so that neither its place in a table nor the
//! family it is read under changes a direction.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

/// A parameter's number in its [`ParamTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(u32);

impl ParamId {
    /// The number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The parameter that was added so many after this one.
    pub fn after(self, count: u32) -> ParamId {
        ParamId(self.0 + count)
    }
}

/// One tensor that a model is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    name: String,
    shape: Vec<usize>,
    noise_name: u64,
}

impl Param {
    /// Its name in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its stored shape, outermost dimension first: one or two dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Rows of the stored matrix; a vector is one row.
    pub fn rows(&self) -> usize {
        if self.shape.len() == 2 { self.shape[0] } else { 1 }
    }
    /// Columns of the stored matrix; those of a vector are its values.
    pub fn cols(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }
    /// How many values it has.
    pub fn elements(&self) -> usize {
        self.rows() * self.cols()
    }
    /// What names this tensor's noise under a key: the first eight bytes of its name's SHA-256, little-endian.
    pub fn noise_name(&self) -> u64 {
        self.noise_name
    }
}

/// All parameters of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParamTable {
    params: Vec<Param>,
    by_name: HashMap<String, ParamId>,
}

impl ParamTable {
    /// An empty table.
    pub fn new() -> Self {
        ParamTable::default()
    }

    /// Adds a parameter and answers its number; the number it has, if it is there already (a tied tensor).
    ///
    /// # Panics
    /// If it is there with another shape, or if `shape` has not one or two dimensions.
    pub fn add(&mut self, name: &str, shape: &[usize]) -> ParamId {
        assert!((1..=2).contains(&shape.len()), "parameter {name:?} of shape {shape:?}");
        if let Some(&id) = self.by_name.get(name) {
            assert_eq!(self[id].shape, shape, "parameter {name:?} is added with two shapes");
            return id;
        }
        let id = ParamId(u32::try_from(self.params.len()).expect("fewer than 2³² parameters"));
        let digest = Sha256::digest(name.as_bytes());
        let noise_name = u64::from_le_bytes(std::array::from_fn(|byte| digest[byte]));
        self.params.push(Param { name: name.to_owned(), shape: shape.to_vec(), noise_name });
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// The number of the parameter of that name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.by_name.get(name).copied()
    }
    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.params.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }
    /// All parameters with their numbers, in the order of the forward pass.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ParamId, &Param)> {
        // `add` keeps the count below 2³².
        self.params.iter().enumerate().map(|(i, param)| (ParamId(i as u32), param))
    }
}

impl std::ops::Index<ParamId> for ParamTable {
    type Output = Param;
    fn index(&self, id: ParamId) -> &Param {
        &self.params[id.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tied_tensor_is_one_parameter() {
        let mut table = ParamTable::new();
        let embedding = table.add("wte.weight", &[96, 32]);
        let bias = table.add("bias", &[7]);
        assert_eq!(table.add("wte.weight", &[96, 32]), embedding);
        assert_eq!((table.len(), table.find("bias"), table.find("none")), (2, Some(bias), None));
        assert_eq!((table[bias].rows(), table[bias].cols(), table[embedding].elements()), (1, 7, 96 * 32));
    }

    #[test]
    fn noise_is_named_by_the_name_alone() {
        let (mut first, mut second) = (ParamTable::new(), ParamTable::new());
        let a = first.add("w", &[2, 3]);
        second.add("other", &[1]);
        let b = second.add("w", &[4, 5]);
        assert_eq!(first[a].noise_name(), second[b].noise_name());
        assert_ne!(second[b].noise_name(), second[second.find("other").expect("added")].noise_name());
    }
}
