//! Scaled dot-product attention with grouped heads (Vaswani et al., 2017, arXiv:1706.03762; Ainslie et al., 2023,
//! arXiv:2305.13245).

use super::Rows;
use crate::{kernels::Mask, model::AttentionSpec};

pub(super) fn attention(spec: &AttentionSpec, queries: &Rows, keys: &Rows, values: &Rows) -> Rows {
    let AttentionSpec { heads, kv_heads, head_dim, mask, .. } = *spec;
    let tokens = queries.len();
    let mut mixed = vec![vec![0.0; heads * head_dim]; tokens];
    for head in 0..heads {
        let (query_at, key_at) = (head * head_dim, head / (heads / kv_heads) * head_dim);
        for query in 0..tokens {
            let seen: Vec<usize> = (0..tokens).filter(|&key| sees(mask, query, key)).collect();
            let score = |&key: &usize| {
                let products = (0..head_dim).map(|i| queries[query][query_at + i] * keys[key][key_at + i]);
                products.sum::<f64>() / (head_dim as f64).sqrt()
            };
            let weights = softmax(&seen.iter().map(score).collect::<Vec<_>>());
            for (&key, weight) in seen.iter().zip(weights) {
                for i in 0..head_dim {
                    mixed[query][query_at + i] += weight * values[key][key_at + i];
                }
            }
        }
    }
    mixed
}

fn sees(mask: Mask, query: usize, key: usize) -> bool {
    match mask {
        Mask::Bidirectional => true,
        Mask::Causal => key <= query,
        Mask::Window(width) => key <= query && query - key < width,
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}
