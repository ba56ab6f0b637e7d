//! Scratch memory aligned to a cache line.

/// A type that scratch memory may hold: any bit pattern is a value.
pub trait Element: bytemuck::Pod + Send + Sync {}

impl Element for f32 {}
impl Element for u32 {}
impl Element for f64 {}

/// 64 bytes, aligned to 64: one AVX-512 register, one cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// A growable block of zero-initialised memory aligned to 64 bytes.
#[derive(Default)]
pub struct AlignedBuffer {
    lines: Vec<Line>,
}

impl AlignedBuffer {
    /// Makes room for `len` elements of `T`; contents after a call are unspecified but initialised.
    pub fn ensure<T: Element>(&mut self, len: usize) {
        let lines = len.checked_mul(size_of::<T>()).expect("scratch size overflows").div_ceil(size_of::<Line>());
        if self.lines.len() < lines {
            // A fresh zeroed allocation: growing in place would copy what nobody reads.
            self.lines = vec![bytemuck::Zeroable::zeroed(); lines];
        }
    }

    /// Bytes held.
    pub fn capacity_bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// The first `len` elements.
    ///
    /// # Panics
    /// If fewer were ensured.
    pub fn slice<T: Element>(&self, len: usize) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..len]
    }

    /// The first `len` elements, writable.
    ///
    /// # Panics
    /// If fewer were ensured.
    pub fn slice_mut<T: Element>(&mut self, len: usize) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..len]
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuffer").field("bytes", &self.capacity_bytes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_starts_at_a_cache_line() {
        let mut buffer = AlignedBuffer::default();
        for len in [0, 1, 15, 16, 17, 1000] {
            buffer.ensure::<f32>(len);
            let slice = buffer.slice_mut::<f32>(len);
            assert_eq!((slice.len(), slice.as_ptr() as usize % 64), (len, 0));
        }
    }
}
