//! What algorithms are made of.

pub mod spsa;
pub mod update;
