//! Where the parameters of toy worlds begin, as anchors.

use crate::{
    direction::{Anchor, Param},
    tensor::WeightRef,
};

/// The values that a parameter began with.
#[derive(Debug)]
pub struct Origin {
    values: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl Origin {
    /// These values of a parameter.
    pub fn new(param: &Param, values: &[f32]) -> Self {
        Origin { values: values.to_vec(), rows: param.rows(), cols: param.cols() }
    }
}

impl Anchor for Origin {
    fn weight(&self) -> WeightRef<'_> {
        WeightRef::f32(&self.values, self.rows, self.cols)
    }
}
