//! Reuse of scratch memory between kernel calls.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{AlignedBuffer, Block, Element, buffer::HUGE_PAGE};

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Vec<AlignedBuffer>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<AlignedBuffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the smallest buffer of so many bytes.
    fn fitting(idle: &mut Vec<AlignedBuffer>, bytes: RangeInclusive<usize>) -> Option<AlignedBuffer> {
        let fits = |&i: &usize| bytes.contains(&idle[i].capacity_bytes());
        let best = (0..idle.len()).filter(fits).min_by_key(|&i| idle[i].capacity_bytes());
        best.map(|i| idle.swap_remove(i))
    }

    pub(super) fn put(&self, buffer: AlignedBuffer) {
        self.lock().push(buffer);
    }
}

/// A pool of scratch buffers: kernels borrow, dropping returns. A steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Workspace {
    idle: Arc<Idle>,
}

impl Workspace {
    /// An empty pool.
    pub fn new() -> Self {
        Workspace::default()
    }

    /// Borrows `len` elements; contents are unspecified (but initialised) until written.
    pub fn take<T: Element>(&self, len: usize) -> Scratch<'_, T> {
        let mut idle = self.idle.lock();
        // The smallest buffer that fits, else the largest: keeps big buffers for big requests.
        let buffer = Idle::fitting(&mut idle, len * size_of::<T>()..=usize::MAX).or_else(|| {
            let largest = (0..idle.len()).max_by_key(|&i| idle[i].capacity_bytes());
            largest.map(|i| idle.swap_remove(i))
        });
        drop(idle);
        Scratch { pool: self, block: Block::within(buffer.unwrap_or_default(), len) }
    }

    /// `len` zeros that outlive the loan: their memory comes back whenever they are dropped, if it is in huge pages. The
    /// system's own zeros took 9 % of the CPU time of a pass for all gradients of 135 M parameters, every time.
    pub fn zeros<T: Element>(&self, len: usize) -> Block<T> {
        let bytes = len * size_of::<T>();
        if bytes < HUGE_PAGE {
            return Block::zeroed(len);
        }
        // Kept for long, so that no small request holds a large buffer; filled when others may use the pool again.
        let found = Idle::fitting(&mut self.idle.lock(), bytes..=2 * bytes);
        let block = match found {
            None => Block::zeroed(len),
            Some(buffer) => {
                let mut block = Block::within(buffer, len);
                block.fill(T::zeroed());
                block
            }
        };
        block.of(&self.idle)
    }

    /// Bytes held by idle buffers.
    pub fn idle_bytes(&self) -> usize {
        self.idle.lock().iter().map(AlignedBuffer::capacity_bytes).sum()
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
        self.pool.idle.put(self.block.take_buffer());
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

    #[test]
    fn zeros_are_zeros_again_in_memory_that_came_back_and_is_not_much_too_large() {
        let pool = Workspace::new();
        let len = HUGE_PAGE / size_of::<f32>();
        pool.zeros::<f32>(3 * len).fill(7.0);
        let held = pool.idle_bytes();
        assert_eq!(held, 3 * HUGE_PAGE);
        let other = pool.zeros::<f32>(len);
        assert_eq!(pool.idle_bytes(), held, "a third of a buffer is a buffer of its own");
        let again = pool.zeros::<f32>(2 * len);
        assert_eq!(pool.idle_bytes(), 0);
        assert!(again.len() == 2 * len && again.iter().all(|value| value.to_bits() == 0));
        drop((other, again));
        assert_eq!(pool.idle_bytes(), held + HUGE_PAGE);
        drop(pool.zeros::<f32>(len - 1));
        assert_eq!(pool.idle_bytes(), held + HUGE_PAGE, "small ones are the allocator's");
        let kept = pool.zeros::<f32>(len);
        drop(pool);
        assert_eq!(kept[0].to_bits(), 0);
    }
}
