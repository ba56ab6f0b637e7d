//! What algorithms are made of.

pub mod coordinates;
pub mod descent;
pub mod first_order;
pub mod gradient;
pub mod hybrid;
pub mod importance;
pub mod inner;
pub mod kalman;
pub mod layers;
pub mod moments;
pub mod partition;
pub mod per_example;
pub mod restricted;
pub mod select;
pub mod sparsity;
pub mod spsa;
pub mod subspace;
pub mod update;
