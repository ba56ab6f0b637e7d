//! The embedded points: three intertwined spiral arms, written by `examples/spirals.rs`.

use crate::tensor::MatRef;

/// Features of a point.
pub(super) const FEATURES: usize = 2;
/// Arms of the spiral.
pub(super) const CLASSES: usize = 3;

/// Points in the plane and the arm each belongs to.
#[derive(Debug)]
pub(super) struct Points {
    coordinates: Vec<f32>,
    /// The arm of each point.
    pub(super) labels: Vec<Option<u32>>,
}

impl Points {
    /// The points of the embedded file: `x,y,arm` a line, coordinates in thousandths.
    pub(super) fn embedded() -> Self {
        let mut points = Points { coordinates: Vec::new(), labels: Vec::new() };
        for line in include_str!("spirals.csv").lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split(',').map(|field| field.parse::<i16>().expect("embedded integers"));
            // IEEE division: the same f32 everywhere.
            points
                .coordinates
                .extend(fields.by_ref().take(FEATURES).map(|thousandths| f32::from(thousandths) / 1000.0));
            points.labels.push(fields.next().map(|arm| u32::try_from(arm).expect("an arm")));
        }
        points
    }

    /// Number of points.
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The coordinates, `[len, 2]`.
    pub(super) fn matrix(&self) -> MatRef<'_> {
        MatRef::new(&self.coordinates, self.len(), FEATURES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thousand_points_in_three_arms_lie_in_the_unit_disc() {
        let points = Points::embedded();
        assert_eq!((points.len(), points.coordinates.len()), (2000, 4000));
        let arms =
            points.labels.iter().map(|label| label.expect("labelled")).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(arms.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert!(points.coordinates.chunks_exact(2).all(|p| p[0].hypot(p[1]) <= 1.01));
    }
}
