//! Borrowed row-major matrices: activations in f32, weights as stored.

use std::ops::Range;

use half::{bf16, f16};

use super::DType;

/// A read-only f32 matrix `[rows, cols]` whose rows start `stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> MatRef<'a> {
    /// A dense matrix `[rows, cols]`.
    ///
    /// # Panics
    /// If `data` does not have `rows * cols` values.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a matrix [{rows}, {cols}] over {} values", data.len());
        MatRef { data, rows, cols, stride: cols }
    }

    /// A matrix `[rows, cols]` whose row `r` starts at `data[r * stride]`.
    ///
    /// # Panics
    /// If rows would overlap or reach past the end of `data`.
    pub fn with_stride(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check_strided(data.len(), rows, cols, stride);
        MatRef { data, rows, cols, stride }
    }

    /// Rows.
    pub fn rows(self) -> usize {
        self.rows
    }
    /// Columns.
    pub fn cols(self) -> usize {
        self.cols
    }
    /// Elements from one row's start to the next.
    pub fn stride(self) -> usize {
        self.stride
    }
    /// All values from row 0 on, gaps between strided rows included.
    pub fn data(self) -> &'a [f32] {
        self.data
    }
    /// Rows `rows` alone.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn row_range(self, rows: Range<usize>) -> MatRef<'a> {
        check_rows(&rows, self.rows, self.cols);
        // The last rows may end before a whole stride; no rows may start past the end.
        let data = self.data.get(rows.start * self.stride..).unwrap_or_default();
        MatRef { data, rows: rows.len(), ..self }
    }
    /// Columns `columns` alone.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn column_range(self, columns: Range<usize>) -> MatRef<'a> {
        check_columns(&columns, self.rows, self.cols);
        MatRef { data: self.data.get(columns.start..).unwrap_or_default(), cols: columns.len(), ..self }
    }
    /// Row `r`.
    pub fn row(self, r: usize) -> &'a [f32] {
        assert!(r < self.rows, "row {r} of a matrix [{}, {}]", self.rows, self.cols);
        &self.data[r * self.stride..][..self.cols]
    }
}

/// A writable f32 matrix `[rows, cols]` whose rows start `stride` elements apart.
#[derive(Debug)]
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> MatMut<'a> {
    /// A dense matrix `[rows, cols]`.
    ///
    /// # Panics
    /// If `data` does not have `rows * cols` values.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a matrix [{rows}, {cols}] over {} values", data.len());
        MatMut { data, rows, cols, stride: cols }
    }

    /// A matrix `[rows, cols]` whose row `r` starts at `data[r * stride]`.
    ///
    /// # Panics
    /// If rows would overlap or reach past the end of `data`.
    pub fn with_stride(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check_strided(data.len(), rows, cols, stride);
        MatMut { data, rows, cols, stride }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Elements from one row's start to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }
    /// The same matrix, read-only.
    pub fn as_ref(&self) -> MatRef<'_> {
        MatRef { data: self.data, rows: self.rows, cols: self.cols, stride: self.stride }
    }
    /// The same matrix for a shorter borrow.
    pub fn reborrow(&mut self) -> MatMut<'_> {
        MatMut { data: self.data, rows: self.rows, cols: self.cols, stride: self.stride }
    }
    /// Rows `rows` alone.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn row_range_mut(&mut self, rows: Range<usize>) -> MatMut<'_> {
        check_rows(&rows, self.rows, self.cols);
        let data = self.data.get_mut(rows.start * self.stride..).unwrap_or_default();
        MatMut { data, rows: rows.len(), cols: self.cols, stride: self.stride }
    }
    /// Columns `columns` alone.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn column_range_mut(&mut self, columns: Range<usize>) -> MatMut<'_> {
        check_columns(&columns, self.rows, self.cols);
        let data = self.data.get_mut(columns.start..).unwrap_or_default();
        MatMut { data, rows: self.rows, cols: columns.len(), stride: self.stride }
    }
    /// Row `r`.
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows, "row {r} of a matrix [{}, {}]", self.rows, self.cols);
        &mut self.data[r * self.stride..][..self.cols]
    }
    /// All values from row 0 on, gaps between strided rows included.
    pub fn into_data(self) -> &'a mut [f32] {
        self.data
    }
    /// All rows in order, as disjoint slices.
    pub fn into_rows(self) -> impl Iterator<Item = &'a mut [f32]> {
        let cols = self.cols;
        // A matrix without columns still has rows: `chunks_mut` wants a positive length.
        let rows = if cols == 0 { 0 } else { self.rows };
        self.data.chunks_mut(self.stride.max(1)).take(rows).map(move |row| &mut row[..cols])
    }
}

fn check_rows(range: &Range<usize>, rows: usize, cols: usize) {
    assert!(range.start <= range.end && range.end <= rows, "rows {range:?} of a matrix [{rows}, {cols}]");
}

fn check_columns(range: &Range<usize>, rows: usize, cols: usize) {
    assert!(range.start <= range.end && range.end <= cols, "columns {range:?} of a matrix [{rows}, {cols}]");
}

fn check_strided(len: usize, rows: usize, cols: usize, stride: usize) {
    let needed = if rows == 0 { Some(0) } else { (rows - 1).checked_mul(stride).and_then(|n| n.checked_add(cols)) };
    assert!(
        stride >= cols && needed.is_some_and(|needed| needed <= len),
        "a matrix [{rows}, {cols}] with row stride {stride} over {len} values"
    );
}

/// A read-only weight matrix `[rows, cols]` = `[out_features, in_features]`, dense and row-major as
/// checkpoints store it.
#[derive(Clone, Copy, Debug)]
pub enum WeightRef<'a> {
    /// f32 values, rows, columns.
    F32(&'a [f32], usize, usize),
    /// bf16 values, rows, columns.
    Bf16(&'a [bf16], usize, usize),
    /// Half-precision values, rows, columns.
    F16(&'a [f16], usize, usize),
}

impl<'a> WeightRef<'a> {
    /// An f32 weight.
    ///
    /// # Panics
    /// If `data` does not have `rows * cols` values; so do the other constructors.
    pub fn f32(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a weight [{rows}, {cols}] over {} values", data.len());
        WeightRef::F32(data, rows, cols)
    }
    /// A bf16 weight.
    pub fn bf16(data: &'a [bf16], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a weight [{rows}, {cols}] over {} values", data.len());
        WeightRef::Bf16(data, rows, cols)
    }
    /// A half-precision weight.
    pub fn f16(data: &'a [f16], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a weight [{rows}, {cols}] over {} values", data.len());
        WeightRef::F16(data, rows, cols)
    }
    /// Rows: output features.
    pub fn rows(self) -> usize {
        match self {
            WeightRef::F32(_, rows, _) | WeightRef::Bf16(_, rows, _) | WeightRef::F16(_, rows, _) => rows,
        }
    }
    /// Columns: input features.
    pub fn cols(self) -> usize {
        match self {
            WeightRef::F32(_, _, cols) | WeightRef::Bf16(_, _, cols) | WeightRef::F16(_, _, cols) => cols,
        }
    }
    /// The storage type.
    pub fn dtype(self) -> DType {
        match self {
            WeightRef::F32(..) => DType::F32,
            WeightRef::Bf16(..) => DType::BF16,
            WeightRef::F16(..) => DType::F16,
        }
    }
    /// Element (`row`, `col`), widened to f32 (exact).
    pub fn at(self, row: usize, col: usize) -> f32 {
        match self {
            WeightRef::F32(data, _, cols) => data[row * cols + col],
            WeightRef::Bf16(data, _, cols) => data[row * cols + col].to_f32(),
            WeightRef::F16(data, _, cols) => data[row * cols + col].to_f32(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_rows_and_columns_are_where_they_say() {
        let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let whole = MatRef::new(&data, 3, 4);
        let part = whole.row_range(1..3).column_range(2..4);
        assert_eq!((part.rows(), part.cols(), part.stride()), (2, 2, 4));
        assert_eq!((part.row(0), part.row(1)), (&[6.0, 7.0][..], &[10.0, 11.0][..]));
        let none = whole.row_range(3..3).column_range(4..4);
        assert_eq!((none.rows(), none.cols()), (0, 0));
    }

    #[test]
    fn the_last_rows_of_a_narrow_part_end_with_its_last_value() {
        let mut data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut whole = MatMut::new(&mut data, 3, 4);
        let mut last = whole.column_range_mut(1..3);
        let last = last.row_range_mut(1..3);
        let rows: Vec<_> = last.into_rows().collect();
        assert_eq!(rows, [&[5.0, 6.0], &[9.0, 10.0]]);
    }
}
