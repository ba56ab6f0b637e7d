//! A small square matrix in f64.

use std::ops::{Index, IndexMut};

/// A dense row-major matrix `[n, n]` in f64: triangular factors, Gram matrices, eigenvectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Square {
    n: usize,
    data: Vec<f64>,
}

impl Square {
    /// All zeros.
    pub fn zeros(n: usize) -> Self {
        Square { n, data: vec![0.0; n * n] }
    }

    /// Ones on the diagonal.
    pub fn identity(n: usize) -> Self {
        Square::from_fn(n, |i, j| if i == j { 1.0 } else { 0.0 })
    }

    /// Element (`i`, `j`) is `element(i, j)`.
    pub fn from_fn(n: usize, mut element: impl FnMut(usize, usize) -> f64) -> Self {
        let mut out = Square::zeros(n);
        for i in 0..n {
            for j in 0..n {
                out[(i, j)] = element(i, j);
            }
        }
        out
    }

    /// Rows, and columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.n..][..self.n]
    }

    /// Row `i`, writable.
    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.data[i * self.n..][..self.n]
    }

    /// Rows `i` < `j`, writable.
    ///
    /// # Panics
    /// If not `i < j < n`.
    pub fn two_rows_mut(&mut self, i: usize, j: usize) -> (&mut [f64], &mut [f64]) {
        assert!(i < j && j < self.n, "rows {i} and {j} of a matrix [{0}, {0}]", self.n);
        let (above, below) = self.data.split_at_mut(j * self.n);
        (&mut above[i * self.n..][..self.n], &mut below[..self.n])
    }

    /// Whether every element is finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|x| x.is_finite())
    }

    /// All elements, row by row.
    pub(super) fn elements_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// All elements, row by row.
    pub fn elements(&self) -> &[f64] {
        &self.data
    }
}

impl Index<(usize, usize)> for Square {
    type Output = f64;
    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.row(i)[j]
    }
}

impl IndexMut<(usize, usize)> for Square {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.row_mut(i)[j]
    }
}
