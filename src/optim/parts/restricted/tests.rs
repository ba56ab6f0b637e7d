use super::*;
use crate::{
    noise::Law,
    optim::{Clock, parts::spsa},
    testing::{assert_same_bits, worlds},
};

/// `a` of [`worlds::mixed_ranks`], with this weight.
fn only_a(weight: f64) -> BTreeMap<ParamId, f64> {
    let world = worlds::mixed_ranks();
    BTreeMap::from([(Space::trainable(&world)[0], weight)])
}

/// A direction of both of its trainable parameters, and of `a` alone.
fn directions() -> [Arc<DirectionSet>; 2] {
    let (world, clock) = (worlds::mixed_ranks(), Clock { seed: 3, step: 0, steps: 1 });
    let ids = Space::trainable(&world);
    [ids, &ids[..1]].map(|ids| spsa::direction(ids, clock, Law::Gaussian, 0))
}

#[test]
fn losses_and_slopes_are_those_along_what_is_kept_and_are_not_weighed() {
    let ([both, alone], weights) = (directions(), only_a(3.0));
    let (mut world, mut plain) = (worlds::mixed_ranks(), worlds::mixed_ranks());
    let [batch, other] = [&mut world, &mut plain].map(|world| world.draw(Pool::Train, None).expect("a toy"));
    let mut restricted = Restricted::new(&mut world, &weights);
    let probes = |set: &Arc<DirectionSet>| [Displacement::along(set, 0.25), Displacement::along(set, -0.25)];
    let losses = restricted.losses(batch, &probes(&both)).expect("a toy");
    assert_eq!(losses, plain.losses(other, &probes(&alone)).expect("a toy"));
    let slopes = restricted.slopes(batch, &[both]).expect("a toy");
    assert_eq!(slopes, plain.slopes(other, &[alone]).expect("a toy"));
}

#[test]
fn estimates_are_weighed_in_an_update_and_what_is_made_of_the_weights_is_not() {
    let [both, alone] = directions();
    let (mut world, mut plain) = (worlds::mixed_ranks(), worlds::mixed_ranks());
    let made = |world: &worlds::World, ids: &[ParamId]| {
        let drift = |&id: &ParamId| (id, Direction::Drift(Space::anchor(world, id)));
        let masked = |&id: &ParamId| {
            let words = vec![0b0101; Space::params(world)[id].rows()];
            (id, Direction::Masked { of: Box::new(Direction::Weights), mask: words.into() })
        };
        [DirectionSet::new(ids.iter().map(drift)), DirectionSet::new(ids.iter().map(masked))].map(Arc::new)
    };
    let update = |estimate: (&Arc<DirectionSet>, f32), made: [Arc<DirectionSet>; 2]| {
        let mut update = Displacement::along(estimate.0, estimate.1);
        update.terms.extend(made.iter().flat_map(|set| Displacement::along(set, 0.5).terms));
        update
    };
    // So that there is a drift.
    for world in [&mut world, &mut plain] {
        world.commit(&Displacement::along(&both, 1.0)).expect("a toy");
    }
    let ids = Space::trainable(&world).to_vec();
    let (all, a) = (made(&world, &ids), made(&plain, &ids[..1]));
    Restricted::new(&mut world, &only_a(3.0)).commit(&update((&both, 0.25), all)).expect("a toy");
    plain.commit(&update((&alone, 0.75), a)).expect("a toy");
    for (found, expected) in world.values().iter().zip(plain.values()) {
        assert_same_bits(found, expected, "the update");
    }
}

#[test]
fn a_pair_of_probes_shares_its_directions_still() {
    let ([both, _], weights) = (directions(), only_a(1.0));
    let mut world = worlds::mixed_ranks();
    let restricted = Restricted::new(&mut world, &weights);
    let kept = restricted.keep(&Displacement::along(&both, 0.5), |_, _| 1.0);
    assert!(Arc::ptr_eq(&kept.terms[0].set, &both));
}
