//! Memory aligned to a cache line, in huge pages where it is large.

use std::{
    fmt,
    hint::black_box,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use half::{bf16, f16};
use memmap2::MmapMut;

use super::workspace::Idle;

/// A type that such memory may hold: any bit pattern is a value.
pub trait Element: bytemuck::Pod + Send + Sync {}

impl Element for f32 {}
impl Element for u32 {}
impl Element for f64 {}
impl Element for bf16 {}
impl Element for f16 {}

/// 64 bytes, aligned to 64: one AVX-512 register, one cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Bytes of a huge page on x86-64, and on `AArch64` with pages of 4 KiB.
pub(super) const HUGE_PAGE: usize = 2 << 20;
/// The smallest page of either.
const PAGE: usize = 4 << 10;

enum Memory {
    Lines(Vec<Line>),
    Pages(MmapMut),
}

impl Memory {
    /// At least so many zeros, each page of them written to.
    ///
    /// Memory that is read before it is written has the one page of zeros that the system keeps, and to write there is a
    /// second fault, which interrupts every other CPU that runs a thread of ours: a step of `AdamW`, whose gradients begin as
    /// sums that are read, spent half of its time on that.
    fn zeroed(bytes: usize) -> Memory {
        let pages = if bytes < HUGE_PAGE { None } else { huge_pages(bytes) };
        let mut memory =
            pages.map_or_else(|| Memory::Lines(vec![bytemuck::Zeroable::zeroed(); bytes.div_ceil(64)]), Memory::Pages);
        // To the compiler a zero written over fresh zeros is nothing.
        black_box(memory.bytes_mut())[..bytes].iter_mut().step_by(PAGE).for_each(|byte| *byte = 0);
        memory
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice(lines),
            Memory::Pages(map) => map,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::Lines(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Pages(map) => map,
        }
    }
}

/// Zeros from the system itself, because a forward pass in pages of 4 KiB loses a tenth of its time to the look-up of
/// addresses (docs/performance.md). Linux has larger ones for those who ask, in mappings of a multiple of their size; what
/// lies behind the last whole one stays in small pages, so that no more memory is taken than is used.
fn huge_pages(bytes: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(bytes.checked_next_multiple_of(HUGE_PAGE)?).ok()?;
    #[cfg(target_os = "linux")]
    // Advice that is not taken leaves small pages.
    let _ = map.advise_range(memmap2::Advice::HugePage, 0, bytes - bytes % HUGE_PAGE);
    Some(map)
}

/// A growable block of zero-initialised memory aligned to 64 bytes.
pub struct AlignedBuffer {
    memory: Memory,
}

impl AlignedBuffer {
    /// Makes room for `len` elements of `T`; contents after a call are unspecified but initialised.
    pub fn ensure<T: Element>(&mut self, len: usize) {
        let bytes = len.checked_mul(size_of::<T>()).expect("scratch size overflows");
        if self.capacity_bytes() < bytes {
            // A fresh zeroed allocation: growing in place would copy what nobody reads.
            self.memory = Memory::zeroed(bytes);
        }
    }

    /// Bytes held.
    pub fn capacity_bytes(&self) -> usize {
        self.memory.bytes().len()
    }

    /// The first `len` elements.
    ///
    /// # Panics
    /// If fewer were ensured.
    pub fn slice<T: Element>(&self, len: usize) -> &[T] {
        bytemuck::cast_slice(&self.memory.bytes()[..len * size_of::<T>()])
    }

    /// The first `len` elements, writable.
    ///
    /// # Panics
    /// If fewer were ensured.
    pub fn slice_mut<T: Element>(&mut self, len: usize) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.memory.bytes_mut()[..len * size_of::<T>()])
    }
}

impl Default for AlignedBuffer {
    fn default() -> Self {
        AlignedBuffer { memory: Memory::Lines(Vec::new()) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("bytes", &self.capacity_bytes()).finish()
    }
}

/// So many values in memory of their own, aligned to 64 bytes.
#[derive(Debug)]
pub struct Block<T> {
    buffer: AlignedBuffer,
    len: usize,
    /// Where the memory goes when nobody needs the values.
    home: Option<Arc<Idle>>,
    element: PhantomData<T>,
}

impl<T: Element> Block<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Block<T> {
        Block::within(AlignedBuffer::default(), len)
    }

    /// `len` elements in `buffer`, which grows if it has to; contents are unspecified but initialised.
    pub(super) fn within(mut buffer: AlignedBuffer, len: usize) -> Block<T> {
        buffer.ensure::<T>(len);
        Block { buffer, len, home: None, element: PhantomData }
    }

    /// The same, whose memory goes to `home` in the end.
    pub(super) fn of(self, home: &Arc<Idle>) -> Block<T> {
        let mut block = self;
        block.home = Some(Arc::clone(home));
        block
    }

    /// The memory, to be used for something else; what stays here has no elements.
    pub(super) fn take_buffer(&mut self) -> AlignedBuffer {
        self.len = 0;
        std::mem::take(&mut self.buffer)
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.put(std::mem::take(&mut self.buffer));
        }
    }
}

impl<T: Element> From<&[T]> for Block<T> {
    fn from(values: &[T]) -> Self {
        let mut block = Block::zeroed(values.len());
        block.copy_from_slice(values);
        block
    }
}

impl<T: Element> From<Block<T>> for Arc<[T]> {
    fn from(values: Block<T>) -> Self {
        Arc::from(&values[..])
    }
}

impl<T: Element> Deref for Block<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.buffer.slice(self.len)
    }
}

impl<T: Element> DerefMut for Block<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.buffer.slice_mut(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_starts_at_a_cache_line_whatever_its_size() {
        for len in [0, 1, 15, 16, 17, 1000, HUGE_PAGE / 4 - 1, HUGE_PAGE / 4, HUGE_PAGE / 4 + 1, HUGE_PAGE] {
            let mut buffer = AlignedBuffer::default();
            buffer.ensure::<f32>(len);
            assert!(buffer.capacity_bytes() >= 4 * len);
            let slice = buffer.slice_mut::<f32>(len);
            assert_eq!((slice.len(), slice.as_ptr() as usize % 64), (len, 0));
            assert!(slice.iter().all(|value| value.to_bits() == 0));
            slice.fill(1.0);
        }
    }

    #[test]
    fn a_block_holds_what_it_was_made_of() {
        let values: Vec<u32> = (0..HUGE_PAGE as u32 / 4 + 3).collect();
        let mut block = Block::from(&values[..]);
        assert_eq!(block[..], values);
        assert!(Block::<bf16>::zeroed(7).iter().all(|value| *value == bf16::ZERO));
        assert!(block.take_buffer().capacity_bytes() >= 4 * values.len() && block.is_empty());
    }
}
