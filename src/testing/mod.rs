//! What tests, benches and fuzz targets share; not part of the program (feature `testing`).

pub mod simd_operations;
