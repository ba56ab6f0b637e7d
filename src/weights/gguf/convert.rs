//! Moves one tensor: decodes its blocks, puts rows in their new order, rounds to the asked type.
//!
//! *What must stay true.* No more is held than one chunk in f32 and its bytes; or one row, or one group of columns,
//! where that is larger. Rows are decoded in parallel, each by itself, so the bytes do not depend on the threads.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{blocks::BlockType, families::Layout, reader::Stored};
use crate::tensor::DType;

/// Values of a chunk: 4 MB in f32, long enough that threads meet seldom.
const CHUNK: usize = 1 << 20;
/// Columns of a transposed chunk's column groups: a multiple of every block.
const GROUP: usize = 256;

/// Why a tensor's conversion stopped.
pub(super) enum Stopped<E> {
    /// A finite value is beyond the range of the asked type.
    Range,
    /// The receiver's own error.
    Sink(E),
}

/// Gives the bytes of `stored` in `layout` and as `dtype` to `sink`, piece after piece.
pub(super) fn convert<E>(
    stored: &Stored<'_>,
    layout: Layout,
    dtype: DType,
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), Stopped<E>> {
    let cols = stored.shape[stored.shape.len() - 1];
    let rows = stored.data.len() / (cols / stored.blocks.elements() * stored.blocks.bytes());
    let mut put = |bytes: Option<&[u8]>| sink(bytes.ok_or(Stopped::Range)?).map_err(Stopped::Sink);
    let mut chunk = Chunk { dtype, values: Vec::new(), bytes: Vec::new() };
    match layout {
        Layout::AsStored => {
            each_chunk(rows, cols, |first, count| put(chunk.rows(stored, cols, first, count, |row| row)))
        }
        Layout::Rotary { heads } => {
            // Biases are rotated like the weights' rows: one value a row.
            let (rows, cols) = if stored.shape.len() == 1 { (cols, 1) } else { (rows, cols) };
            let source = |row| rotary_source(row, rows / heads);
            if cols == 1 {
                return put(chunk.column(stored, source));
            }
            each_chunk(rows, cols, |first, count| put(chunk.rows(stored, cols, first, count, source)))
        }
        Layout::Transposed => {
            let groups = cols.div_ceil(GROUP);
            each_chunk(groups, GROUP * rows, |first, count| put(chunk.columns(stored, (rows, cols), first, count)))
        }
    }
}

/// The stored row of row `row`, in heads of `head_dim` rows: `0, 2, 4 … 1, 3, 5 …` are rows `0, 1, 2 …`.
fn rotary_source(row: usize, head_dim: usize) -> usize {
    let (head, at) = (row / head_dim, row % head_dim);
    let half = head_dim / 2;
    head * head_dim + 2 * (at % half) + at / half
}

/// Calls `process(first, count)` for chunks of `items` things of `size` values each.
fn each_chunk<E>(items: usize, size: usize, mut process: impl FnMut(usize, usize) -> Result<(), E>) -> Result<(), E> {
    let step = (CHUNK / size).max(1);
    (0..items).step_by(step).try_for_each(|first| process(first, step.min(items - first)))
}

/// Memory for a chunk, used again for the next.
struct Chunk {
    dtype: DType,
    values: Vec<f32>,
    bytes: Vec<u8>,
}

impl Chunk {
    /// Rows from `first` on, row `i` from the stored row `source(i)`.
    fn rows(
        &mut self,
        stored: &Stored<'_>,
        cols: usize,
        first: usize,
        count: usize,
        source: impl Fn(usize) -> usize + Sync,
    ) -> Option<&[u8]> {
        let row_bytes = cols / stored.blocks.elements() * stored.blocks.bytes();
        self.values.resize(count * cols, 0.0);
        self.values.par_chunks_exact_mut(cols).enumerate().for_each(|(row, values)| {
            stored.blocks.decode(&stored.data[source(first + row) * row_bytes..][..row_bytes], values);
        });
        self.encode()
    }

    /// A vector whose value `i` is the stored value `source(i)`.
    fn column(&mut self, stored: &Stored<'_>, source: impl Fn(usize) -> usize) -> Option<&[u8]> {
        let mut values = vec![0.0; stored.shape[0]];
        stored.blocks.decode(stored.data, &mut values);
        self.values.clear();
        self.values.extend((0..values.len()).map(|row| values[source(row)]));
        self.encode()
    }

    /// The stored columns of `count` groups from group `first` on, as rows.
    fn columns(
        &mut self,
        stored: &Stored<'_>,
        (rows, cols): (usize, usize),
        first: usize,
        count: usize,
    ) -> Option<&[u8]> {
        let blocks = stored.blocks;
        let row_bytes = cols / blocks.elements() * blocks.bytes();
        let columns = first * GROUP..cols.min((first + count) * GROUP);
        self.values.resize(columns.len() * rows, 0.0);
        self.values.par_chunks_mut(GROUP * rows).enumerate().for_each(|(group, values)| {
            let start = bytes_before(blocks, (first + group) * GROUP);
            let (width, mut decoded) = (values.len() / rows, [0.0; GROUP]);
            for row in 0..rows {
                let data = &stored.data[row * row_bytes + start..][..bytes_before(blocks, width)];
                blocks.decode(data, &mut decoded[..width]);
                decoded[..width].iter().enumerate().for_each(|(at, &value)| values[at * rows + row] = value);
            }
        });
        self.encode()
    }

    /// The values as bytes, rounded to the nearest with ties to even; `None` if a finite one becomes infinite.
    fn encode(&mut self) -> Option<&[u8]> {
        self.bytes.resize(self.values.len() * self.dtype.size(), 0);
        let piece = 1 << 14;
        let pieces = self.values.par_chunks(piece).zip(self.bytes.par_chunks_mut(piece * self.dtype.size()));
        let dtype = self.dtype;
        let fits: Vec<bool> = pieces.map(|(values, bytes)| encode(dtype, values, bytes)).collect();
        fits.into_iter().all(|fits| fits).then_some(&self.bytes)
    }
}

/// The bytes of `values` values, a whole number of blocks.
fn bytes_before(blocks: BlockType, values: usize) -> usize {
    values / blocks.elements() * blocks.bytes()
}

/// Writes `values` as `dtype`, little-endian; answers whether every finite one stays finite.
fn encode(dtype: DType, values: &[f32], bytes: &mut [u8]) -> bool {
    match dtype {
        DType::F32 => {
            bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(y, x)| *y = x.to_le_bytes());
            true
        }
        DType::BF16 => {
            write_halves(values, bytes, |x| bf16::from_f32(x).to_le_bytes(), |y| bf16::from_le_bytes(y).is_infinite())
        }
        DType::F16 => {
            write_halves(values, bytes, |x| f16::from_f32(x).to_le_bytes(), |y| f16::from_le_bytes(y).is_infinite())
        }
    }
}

fn write_halves(
    values: &[f32],
    bytes: &mut [u8],
    round: impl Fn(f32) -> [u8; 2],
    is_infinite: impl Fn([u8; 2]) -> bool,
) -> bool {
    let mut fits = true;
    for (y, &x) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *y = round(x);
        fits &= !is_infinite(*y) || x.is_infinite();
    }
    fits
}
