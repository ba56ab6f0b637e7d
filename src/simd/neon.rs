//! AArch64 Advanced SIMD (NEON), four lanes.
