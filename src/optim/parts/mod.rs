//! What algorithms are made of.

pub mod moments;
pub mod spsa;
pub mod update;
