//! How a product is cut: cache blocks, row tiles, and who computes what. No result depends on it.

use std::ops::Range;

/// Depth of a block of `k`, a multiple of [`super::DEPTH_BLOCK`]: one tile of packed rows
/// (14 × 768 × 4 = 43 KB) stays near the L1 while it meets every panel of a chunk, and `y` is
/// re-read only every 768 steps. On Emerald Rapids tiles ran slower at 256 and 384, no faster at 1024 to 2048.
const KC: usize = 768;

/// Bytes of packed panels of one branch a thread keeps in its own L2 (1 MiB on Zen 4, 2 MiB on Sapphire Rapids). Half and
/// one and a half times as much measured the same on Emerald Rapids.
const CHUNK_BYTES: usize = 640 << 10;

/// Branches that have a chunk of [`CHUNK_BYTES`] each; more share as many bytes, or a step of many queries would take
/// gigabytes.
const WHOLE_BRANCHES: usize = 8;

/// Below this many multiply-adds waking another thread (about 5 µs) is taken to cost more than it saves; not measured yet.
const MIN_PARALLEL: usize = 1 << 18;

/// The blocks of `k` in order.
pub(super) fn depth_blocks(depth: usize) -> impl Iterator<Item = Range<usize>> {
    let count = depth.div_ceil(KC).max(1);
    let size = depth.div_ceil(count).next_multiple_of(super::DEPTH_BLOCK);
    (0..count).map(move |i| (i * size).min(depth)..((i + 1) * size).min(depth)).filter(|block| !block.is_empty())
}

/// The depth of the longest block of `k`.
pub(super) fn longest_depth_block(depth: usize) -> usize {
    depth_blocks(depth).map(|block| block.len()).max().unwrap_or(0)
}

/// Panels per chunk so that a branch of it, `depth` steps at a time, stays in L2. Branches take turns: each meets its own rows
/// while the panels of the others wait, so that rows are read as seldom as for a single branch.
pub(super) fn panels_per_chunk(depth: usize, width: usize, branches: usize) -> usize {
    let panel_bytes = depth.max(1) * width * size_of::<f32>();
    (CHUNK_BYTES * branches.min(WHOLE_BRANCHES) / (panel_bytes * branches)).max(1)
}

/// Cuts `rows` into tiles of at most `tallest`, heights differing by at most one: 16 rows are 8 + 8, not 14 + 2.
pub(super) fn row_tiles(rows: usize, tallest: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(tallest);
    (0..count).map(move |i| rows * i / count..rows * (i + 1) / count)
}

/// Which part of the output one task computes: whole row tiles by whole panels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Tile indices.
    pub(super) tiles: Range<usize>,
    /// Panel indices.
    pub(super) panels: Range<usize>,
}

/// Cuts `tiles × panels` into at most `threads` regions: by panels, so that each packed panel belongs
/// to one thread's cache and is packed once; by row tiles only where panels are too few to share.
pub(super) fn regions(tiles: usize, panels: usize, threads: usize, multiply_adds: usize) -> Vec<Region> {
    let threads = if multiply_adds < MIN_PARALLEL { 1 } else { threads };
    let by_panels = threads.min(panels).max(1);
    let by_tiles = if by_panels * 2 > threads { 1 } else { (threads / by_panels).min(tiles).max(1) };
    let cut = |n: usize, parts: usize, i: usize| n * i / parts..n * (i + 1) / parts;
    (0..by_tiles)
        .flat_map(|t| {
            (0..by_panels).map(move |p| Region { tiles: cut(tiles, by_tiles, t), panels: cut(panels, by_panels, p) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_blocks_cover_every_step_once_and_start_at_noise_blocks() {
        for depth in [0, 1, 255, 256, 576, 768, 769, 1000, 1536, 2048, 4096, 8191] {
            let blocks: Vec<_> = depth_blocks(depth).collect();
            assert!(blocks.iter().all(|b| b.start % super::super::DEPTH_BLOCK == 0 && !b.is_empty()));
            assert_eq!(blocks.into_iter().flatten().collect::<Vec<_>>(), (0..depth).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_chunk_of_few_branches_is_that_of_one_and_many_share_its_bytes() {
        let panels = |branches| panels_per_chunk(576, 32, branches);
        assert!(panels(1) > 1 && panels(2) == panels(1) && panels(8) == panels(1));
        assert!([9, 20, 60].iter().all(|&branches| panels(branches) * branches <= panels(1) * 8 + branches));
        assert_eq!(panels(20_000), 1);
    }

    #[test]
    fn row_tiles_cover_every_row_once_with_even_heights() {
        for rows in 0..200 {
            let tiles: Vec<_> = row_tiles(rows, 14).collect();
            let heights = tiles.iter().map(ExactSizeIterator::len);
            assert!(heights.clone().max().unwrap_or(1) <= 14);
            assert!(heights.clone().max().unwrap_or(0) - heights.min().unwrap_or(0) <= 1);
            assert_eq!(tiles.into_iter().flatten().collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn regions_cover_every_tile_and_panel_once() {
        for (tiles, panels) in [(1, 1), (1, 18), (74, 18), (74, 1), (3, 2), (5, 1536)] {
            for threads in 1..=9 {
                let regions = regions(tiles, panels, threads, usize::MAX);
                assert!(regions.len() <= threads.max(1));
                let mut seen = vec![0; tiles * panels];
                for region in regions {
                    for t in region.tiles {
                        for p in region.panels.clone() {
                            seen[t * panels + p] += 1;
                        }
                    }
                }
                assert!(seen.into_iter().all(|count| count == 1), "{tiles} {panels} {threads}");
            }
        }
    }
}
