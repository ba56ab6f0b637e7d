//! `zofo demo`.
use super::{Exit, Failure, console::Console};
use crate::kernels::Context;
pub(super) fn run(_context: &Context, _console: &mut Console) -> Result<Exit, Failure> {
    Ok(Exit::Ok)
}
