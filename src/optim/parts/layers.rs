//! Layers by the names of their parameters: an optimizer knows no architecture.

use std::collections::BTreeSet;

use crate::{direction::ParamId, optim::Space};

/// What the parameters of a layer have in common: their names up to the first number between dots, or up to the last dot.
fn layer(name: &str) -> &str {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty() {
            return &name[..end];
        }
        end += 1;
    }
    name.rsplit_once('.').map_or(name, |(layer, _)| layer)
}

/// The trainable parameters of each layer that has some, in the order of the forward pass.
pub fn layers(space: &dyn Space) -> Vec<Vec<ParamId>> {
    let of = |id: &ParamId| layer(space.params()[*id].name());
    space.trainable().chunk_by(|id, next| of(id) == of(next)).map(<[ParamId]>::to_vec).collect()
}

/// The trainable parameters of the last `count` layers.
pub fn last_layers(space: &dyn Space, count: u64) -> BTreeSet<ParamId> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    layers(space).into_iter().rev().take(count).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::worlds::{Dual, Facts, World};

    #[test]
    fn a_block_a_norm_and_a_head_are_layers() {
        for (name, expected) in [
            ("model.layers.12.self_attn.q_proj.weight", "model.layers.12"),
            ("h.0.attn.c_attn.bias", "h.0"),
            ("model.norm.weight", "model.norm"),
            ("fc1.weight", "fc1"),
            ("a", "a"),
            ("", ""),
            ("a..b", "a."),
        ] {
            assert_eq!(layer(name), expected);
        }
    }

    #[test]
    fn the_last_layers_are_counted_from_the_loss() {
        let names = ["embed.weight", "h.0.w", "h.0.b", "h.1.w", "h.1.b", "norm.weight", "norm.bias"];
        let tensors = names.map(|name| (name, &[1][..], vec![0.0], vec![0.0]));
        let facts = Facts { smoothness: 1.0, convexity: 0.0 };
        let world = World::new(&tensors, &["h.1.b"], facts, Box::new(|_, _| vec![Dual::from(0.0)]));
        let found = |count| {
            let last = last_layers(&world, count);
            Space::params(&world).iter().filter(|(id, _)| last.contains(id)).map(|(_, p)| p.name()).collect::<Vec<_>>()
        };
        assert_eq!(found(0), [""; 0]);
        assert_eq!(found(1), ["norm.weight", "norm.bias"]);
        assert_eq!(found(2), ["h.1.w", "norm.weight", "norm.bias"]);
        assert_eq!(found(9).len(), 6);
    }
}
