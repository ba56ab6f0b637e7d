//! Reuse of scratch memory between kernel calls.

use std::sync::{Mutex, PoisonError};

use super::{AlignedBuffer, Block, Element};

/// A pool of scratch buffers: kernels borrow, dropping returns. A steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Workspace {
    idle: Mutex<Vec<AlignedBuffer>>,
}

impl Workspace {
    /// An empty pool.
    pub fn new() -> Self {
        Workspace::default()
    }

    /// Borrows `len` elements; contents are unspecified (but initialised) until written.
    pub fn take<T: Element>(&self, len: usize) -> Scratch<'_, T> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest buffer that fits, else the largest: keeps big buffers for big requests.
        let bytes = len * size_of::<T>();
        let fitting =
            (0..idle.len()).filter(|&i| idle[i].capacity_bytes() >= bytes).min_by_key(|&i| idle[i].capacity_bytes());
        let best = fitting.or_else(|| (0..idle.len()).max_by_key(|&i| idle[i].capacity_bytes()));
        let buffer = best.map_or_else(AlignedBuffer::default, |i| idle.swap_remove(i));
        drop(idle);
        Scratch { pool: self, block: Block::within(buffer, len) }
    }

    /// Bytes held by idle buffers.
    pub fn idle_bytes(&self) -> usize {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().map(AlignedBuffer::capacity_bytes).sum()
    }
}

/// Scratch memory on loan from a [`Workspace`].
#[derive(Debug)]
pub struct Scratch<'w, T: Element> {
    pool: &'w Workspace,
    block: Block<T>,
}

impl<T: Element> std::ops::Deref for Scratch<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.block
    }
}

impl<T: Element> std::ops::DerefMut for Scratch<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.block
    }
}

impl<T: Element> Drop for Scratch<'_, T> {
    fn drop(&mut self) {
        let buffer = self.block.take_buffer();
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_is_used_again() {
        let pool = Workspace::new();
        drop(pool.take::<f32>(1000));
        let held = pool.idle_bytes();
        drop(pool.take::<f32>(900));
        assert_eq!(pool.idle_bytes(), held);
    }
}
