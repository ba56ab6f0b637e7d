//! Any bytes as operands: every vector operation gives the scalar bits on every instruction set.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zofo::testing::simd_operations::{Operands, assert_equal_on_every_isa};

fuzz_target!(|bytes: &[u8]| {
    assert_equal_on_every_isa(&Operands::from_bytes(bytes));
});
