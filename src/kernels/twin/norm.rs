//! The definitions of `LayerNorm` and `RMSNorm`, one row at a time.

use super::{Real, canonical_dot, canonical_sum};

/// A normalisation: as [`crate::kernels::norm::Norm`], over any number type.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a, R> {
    /// The gain, `D` values.
    pub weight: &'a [R],
    /// The shift, `D` values.
    pub bias: Option<&'a [R]>,
    /// Added to the variance.
    pub eps: R,
    /// Whether the mean is subtracted (`LayerNorm`) or taken as zero (`RMSNorm`).
    pub centered: bool,
}

impl<R: Real> Norm<'_, R> {
    /// 1/√(variance + eps) and the normalised row.
    fn normalize(&self, x: &[R]) -> (R, Vec<R>) {
        let (n, one) = (R::from_f64(x.len() as f64), R::from_f64(1.0));
        let mean = if self.centered { canonical_sum(x.len(), |i| x[i]) / n } else { R::default() };
        let deviations: Vec<R> = x.iter().map(|&x| x - mean).collect();
        let variance = canonical_dot(&deviations, &deviations) / n;
        let rstd = one / (variance + self.eps).sqrt();
        (rstd, deviations.into_iter().map(|d| d * rstd).collect())
    }

    /// The derivative of the normalised row along `v`, which is also (the map being symmetric) its transpose.
    fn project(&self, x: &[R], v: &[R]) -> Vec<R> {
        let n = R::from_f64(x.len() as f64);
        let (rstd, normal) = self.normalize(x);
        let mean = if self.centered { canonical_sum(v.len(), |i| v[i]) / n } else { R::default() };
        let along = canonical_dot(v, &normal) / n;
        v.iter().zip(normal).map(|(&v, normal)| (-normal).mul_add(along, v - mean) * rstd).collect()
    }

    /// One row of the result.
    pub fn forward(&self, x: &[R]) -> Vec<R> {
        let (_, normal) = self.normalize(x);
        let affine = |i: usize| match self.bias {
            Some(bias) => normal[i].mul_add(self.weight[i], bias[i]),
            None => normal[i] * self.weight[i],
        };
        (0..x.len()).map(affine).collect()
    }

    /// The derivative along `dx` and, if given, along a change of weight and bias.
    pub fn tangent(&self, x: &[R], dx: &[R], parameters: Option<(&[R], Option<&[R]>)>) -> Vec<R> {
        let (_, normal) = self.normalize(x);
        let projected = self.project(x, dx);
        let at = |i: usize| match parameters {
            None => projected[i] * self.weight[i],
            Some((dweight, None)) => projected[i].mul_add(self.weight[i], normal[i] * dweight[i]),
            Some((dweight, Some(dbias))) => {
                projected[i].mul_add(self.weight[i], normal[i].mul_add(dweight[i], dbias[i]))
            }
        };
        (0..x.len()).map(at).collect()
    }

    /// The gradient of the row from that of the result.
    pub fn backward(&self, x: &[R], dy: &[R]) -> Vec<R> {
        let scaled: Vec<R> = dy.iter().zip(self.weight).map(|(&dy, &w)| dy * w).collect();
        self.project(x, &scaled)
    }

    /// Continues the gradients of weight and bias with one row.
    pub fn backward_parameters(&self, x: &[R], dy: &[R], dweight: &mut [R], dbias: Option<&mut [R]>) {
        let (_, normal) = self.normalize(x);
        for (i, sum) in dweight.iter_mut().enumerate() {
            *sum = dy[i].mul_add(normal[i], *sum);
        }
        for (sum, &dy) in dbias.into_iter().flatten().zip(dy) {
            *sum = *sum + dy;
        }
    }
}
