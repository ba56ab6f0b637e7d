//! What algorithms are made of.

pub mod coordinates;
pub mod moments;
pub mod spsa;
pub mod subspace;
pub mod update;
