//! Where labels go, so that none lies on another.

/// A rectangle: left, right, top, bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
}

impl Frame {
    /// The area that two rectangles share.
    pub(super) fn overlap(&self, other: &Frame) -> f64 {
        let shared = |a: (f64, f64), b: (f64, f64)| (a.1.min(b.1) - a.0.max(b.0)).max(0.0);
        shared(self.x, other.x) * shared(self.y, other.y)
    }

    /// How much of it is outside another one.
    pub(super) fn outside(&self, of: &Frame) -> f64 {
        (self.x.1 - self.x.0) * (self.y.1 - self.y.0) - self.overlap(of)
    }
}

/// About how wide a text of twelve pixels' height is.
pub(super) fn width(text: &str) -> f64 {
    6.7 * text.chars().count() as f64
}

/// Positions within `bounds` that are at least `gap` apart, in the order of those that are `wanted`, and of all such the
/// nearest to them by squares: with `i` gaps subtracted from the `i`th it is a regression by an ascending sequence, which
/// pooling neighbours solves (Ayer et al., 1955). Where there is not room enough, gaps shrink alike.
pub(super) fn spread(wanted: &[f64], gap: f64, bounds: (f64, f64)) -> Vec<f64> {
    let gaps = wanted.len().saturating_sub(1) as f64;
    let gap = if gaps > 0.0 { gap.min((bounds.1 - bounds.0) / gaps) } else { gap };
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    // Neighbours that were pooled: their sum and number.
    let mut pools: Vec<(f64, f64)> = Vec::new();
    for (place, &label) in order.iter().enumerate() {
        pools.push((wanted[label] - place as f64 * gap, 1.0));
        while let [.., (before, many), (sum, count)] = pools[..]
            && before / many > sum / count
        {
            pools.truncate(pools.len() - 2);
            pools.push((before + sum, many + count));
        }
    }
    let pooled = pools.iter().flat_map(|&(sum, count)| std::iter::repeat_n(sum / count, count as usize));
    let mut positions = vec![0.0; wanted.len()];
    for ((place, &label), position) in order.iter().enumerate().zip(pooled) {
        positions[label] = position.max(bounds.0).min(bounds.1 - gaps * gap) + place as f64 * gap;
    }
    positions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_that_are_apart_stay_and_others_move_as_little_as_they_can() {
        assert_eq!(spread(&[50.0, 10.0, 30.0], 10.0, (0.0, 100.0)), [50.0, 10.0, 30.0]);
        assert_eq!(spread(&[50.0, 50.0], 10.0, (0.0, 100.0)), [45.0, 55.0]);
        assert_eq!(spread(&[1.0, 2.0, 90.0], 10.0, (0.0, 100.0)), [0.0, 10.0, 90.0]);
        assert_eq!(spread(&[1.0, 1.0, 1.0], 10.0, (0.0, 10.0)), [0.0, 5.0, 10.0], "no room");
        assert!(spread(&[], 10.0, (0.0, 10.0)).is_empty());
    }

    #[test]
    fn shared_areas_are_those_of_rectangles() {
        let frame = |x, y| Frame { x, y };
        let one = frame((0.0, 4.0), (0.0, 2.0));
        assert_eq!(one.overlap(&frame((3.0, 9.0), (1.0, 9.0))), 1.0);
        assert_eq!(one.overlap(&frame((5.0, 9.0), (0.0, 2.0))), 0.0);
        assert_eq!(one.outside(&frame((0.0, 3.0), (0.0, 9.0))), 2.0);
    }

    proptest! {
        #[test]
        fn labels_keep_their_order_their_distance_and_within_their_bounds(
            wanted in prop::collection::vec(0.0..100.0_f64, 1..20), gap in 0.0..12.0_f64,
        ) {
            let found = spread(&wanted, gap, (0.0, 100.0));
            let gap = gap.min(100.0 / (wanted.len() as f64 - 1.0).max(1.0));
            for (i, a) in wanted.iter().enumerate() {
                // Twenty sums of numbers up to 2,000 are exact to 10⁻¹¹.
                prop_assert!(found[i] > -1e-9 && found[i] < 100.0 + 1e-9, "{found:?}");
                for (j, _) in wanted.iter().enumerate().filter(|(_, b)| a < *b) {
                    prop_assert!(found[j] - found[i] > gap - 1e-9, "{wanted:?} became {found:?}, {i} and {j}");
                }
            }
        }
    }
}
