//! Which parameters are worth their gradients: importance against what the backward pass costs, exactly.
//!
//! *What it is.* [`select`] takes operators from the loss down, each with what it costs to pass through it and into its
//! parameter and with what the parameter is worth, and answers the set of the largest worth that a budget pays for: every
//! operator down to the deepest of the set is passed through. It is a knapsack that is solved once for all depths
//! ([`Priced`] makes its integers), in one pass and without an approximation.
//!
//! *What it is not.* Where worth and costs come from: [`super::importance`] and the oracle.
//!
//! *What must stay true.* A set never costs more than the budget, and of sets that are worth the same the shallowest is
//! answered.

use crate::optim::{Cost, OperatorCost, OptionValue, Share};

/// An operator's costs in units, and what its parameter is worth; 0 or less, if it is not to be selected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    /// What it costs to pass through.
    pub through: u64,
    /// What the gradient of its parameter costs on top.
    pub into: u64,
    /// What its parameter is worth.
    pub worth: f64,
}

/// The set of items, given from the loss down, of the largest worth among those that cost at most `budget`.
pub fn select(items: &[Item], budget: u64) -> Vec<bool> {
    let room = usize::try_from(budget).expect("a budget in units");
    // best[t]: the worth of the best set among the items so far for `into` costs of at most t, all passages being paid.
    let mut best = vec![0.0_f64; room + 1];
    let mut takes = vec![vec![0_u64; room / BITS + 1]; items.len()];
    let (mut passage, mut found) = (0_usize, None);
    let mut found_worth = 0.0;
    for (deepest, (item, takes)) in items.iter().zip(&mut takes).enumerate() {
        let [through, into] = [item.through, item.into].map(|cost| usize::try_from(cost).unwrap_or(usize::MAX));
        passage = passage.saturating_add(through);
        if passage > room {
            break;
        }
        // What is too dear here is so for every set that goes deeper.
        let left = room.checked_sub(passage.saturating_add(into)).filter(|_| item.worth > 0.0);
        if let Some(left) = left {
            if best[left] + item.worth > found_worth {
                (found, found_worth) = (Some((deepest, left)), best[left] + item.worth);
            }
            for t in (into..=room).rev() {
                if best[t - into] + item.worth > best[t] {
                    best[t] = best[t - into] + item.worth;
                    takes[t / BITS] |= 1 << (t % BITS);
                }
            }
        }
    }
    let mut selected = vec![false; items.len()];
    if let Some((deepest, mut left)) = found {
        selected[deepest] = true;
        for at in (0..deepest).rev() {
            if takes[at][left / BITS] >> (left % BITS) & 1 == 1 {
                selected[at] = true;
                left -= items[at].into as usize;
            }
        }
    }
    selected
}

/// Bits of a word of the table of what was taken.
const BITS: usize = u64::BITS as usize;

/// Into how many units the cost of a whole backward pass is cut, as long as no operator's is rounded up. Norms and biases
/// cost a few ten-thousandths of a model's pass, so that hundreds of them rounded up to a unit each count as one percent.
const UNITS: u64 = 100_000;

/// The part of the backward pass that is paid for: given, or what is left of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BackwardBudget {
    /// What is left of the share of a step after its forward pass.
    Auto,
    /// This share of the backward pass.
    Share(Share),
}

impl OptionValue for BackwardBudget {
    const EXPECTED: &'static str = "\"auto\" or a number from 0 to 1";
    fn read(value: &toml::Value) -> Option<Self> {
        match value.as_str() {
            Some(name) => (name == "auto").then_some(BackwardBudget::Auto),
            None => Share::read(value).map(BackwardBudget::Share),
        }
    }
    fn show(&self) -> String {
        match self {
            BackwardBudget::Auto => "\"auto\"".to_owned(),
            BackwardBudget::Share(share) => share.show(),
        }
    }
}

/// How much of a step the gradients may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Of the forward and the backward pass of all parameters.
    pub step: Share,
    /// Of the backward pass alone, instead.
    pub backward: BackwardBudget,
    /// Of the backward pass, where the forward pass alone takes all of `step`.
    pub floor: Share,
}

impl Budget {
    /// The share of a backward pass that costs `backward`, beside a forward pass that costs `forward`.
    ///
    /// `ρ (1 + F/B) − F/B`, or the floor if that is not positive. It is computed as `1 − (1 − ρ)(1 + F/B)`: 1 of ρ = 1, whatever F/B.
    fn share(&self, forward: f64, backward: f64) -> f64 {
        match self.backward {
            BackwardBudget::Share(share) => share.get(),
            BackwardBudget::Auto => {
                let share = 1.0 - (1.0 - self.step.get()) * (1.0 + forward / backward);
                if share > 0.0 { share } else { self.floor.get() }
            }
        }
    }
}

/// Costs in units, and a budget in the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Priced {
    /// Of each operator, passed through and gone into.
    pub units: Vec<(u64, u64)>,
    /// What may be spent; none, where the budget is a share of 0, which buys not even what costs nothing.
    pub budget: Option<u64>,
}

impl Priced {
    /// The costs of operators in units, each rounded up, and the budget's share of their sum, rounded down: a set that keeps to
    /// it costs no more than that share of the units, and all of them are admitted by a share of 1.
    pub fn new(operators: &[OperatorCost], budget: &Budget) -> Priced {
        let sum =
            |of: fn(&Cost) -> u64| operators.iter().map(|operator| of(&operator.cost)).fold(0, u64::saturating_add);
        let (forward, backward) = (sum(|cost| cost.forward), sum(|cost| cost.through.saturating_add(cost.into)));
        let unit = backward.div_ceil(UNITS).max(1);
        let in_units = |cost: u64| cost.div_ceil(unit);
        let units: Vec<_> =
            operators.iter().map(|operator| (in_units(operator.cost.through), in_units(operator.cost.into))).collect();
        let total: u64 = units.iter().map(|(through, into)| through + into).sum();
        let share = budget.share(forward as f64, backward.max(1) as f64);
        Priced { units, budget: (share > 0.0).then_some((share * total as f64) as u64) }
    }

    /// Whether the budget pays for each operator's parameter alone.
    pub fn reachable(&self) -> Vec<bool> {
        let mut passage = 0;
        let reach = |&(through, into): &(u64, u64)| {
            passage += through;
            self.budget.is_some_and(|budget| passage + into <= budget)
        };
        self.units.iter().map(reach).collect()
    }

    /// The selection for these worths, one an operator.
    pub fn select(&self, worths: impl IntoIterator<Item = f64>) -> Vec<bool> {
        let Some(budget) = self.budget else { return vec![false; self.units.len()] };
        let item = |(&(through, into), worth)| Item { through, into, worth };
        select(&self.units.iter().zip(worths).map(item).collect::<Vec<_>>(), budget)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a set costs.
    fn cost(items: &[Item], selected: &[bool]) -> u64 {
        let Some(deepest) = selected.iter().rposition(|&selected| selected) else { return 0 };
        let passage: u64 = items[..=deepest].iter().map(|item| item.through).sum();
        passage + items.iter().zip(selected).filter(|(_, selected)| **selected).map(|(item, _)| item.into).sum::<u64>()
    }

    fn worth(items: &[Item], selected: &[bool]) -> f64 {
        items.iter().zip(selected).filter(|(_, selected)| **selected).map(|(item, _)| item.worth).sum()
    }

    /// The largest worth of any of all sets.
    fn brute_force(items: &[Item], budget: u64) -> f64 {
        let sets =
            (0..1_u32 << items.len()).map(|set| (0..items.len()).map(|at| set >> at & 1 == 1).collect::<Vec<_>>());
        let paid = sets.filter(|set| cost(items, set) <= budget);
        paid.map(|set| worth(items, &set)).fold(0.0, f64::max)
    }

    fn items() -> impl Strategy<Value = Vec<Item>> {
        // Whole worths: their sums are exact in any order. Some operators have no parameter worth a gradient.
        let item = (0..6_u64, 0..9_u64, -3..12_i32).prop_map(|(through, into, worth)| Item {
            through,
            into,
            worth: f64::from(worth),
        });
        prop::collection::vec(item, 0..=12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn no_set_that_the_budget_pays_for_is_worth_more(items in items(), budget in 0..140_u64) {
            let selected = select(&items, budget);
            prop_assert!(cost(&items, &selected) <= budget);
            prop_assert_eq!(worth(&items, &selected), brute_force(&items, budget));
            prop_assert!(items.iter().zip(&selected).all(|(item, selected)| !selected || item.worth > 0.0));
        }
    }

    fn operators() -> impl Strategy<Value = Vec<OperatorCost>> {
        let cost = prop_oneof![0..20_u64, 0..1_u64 << 40];
        let operator = (cost.clone(), cost.clone(), cost).prop_map(|(forward, through, into)| OperatorCost {
            parameter: None,
            cost: Cost { forward, through, into },
        });
        prop::collection::vec(operator, 1..40)
    }

    fn budget(step: f64) -> Budget {
        Budget { step: Share::new(step), backward: BackwardBudget::Auto, floor: Share::new(0.05) }
    }

    proptest! {
        #[test]
        fn the_whole_step_admits_everything_and_more_of_it_never_less(
            operators in operators(),
            worths in prop::collection::vec(1..100_u32, 40),
            shares in (0.0..=1.0_f64, 0.0..=1.0_f64),
        ) {
            let worths = || worths.iter().copied().map(f64::from);
            let whole = Priced::new(&operators, &budget(1.0));
            prop_assert!(whole.select(worths()).iter().all(|selected| *selected));
            let of = |share| {
                let priced = Priced::new(&operators, &budget(share));
                let selected = priced.select(worths());
                // What is selected is reachable by itself, and the units are no less than the costs.
                prop_assert!(selected.iter().zip(priced.reachable()).all(|(selected, reachable)| reachable || !selected));
                Ok(worths().zip(&selected).filter(|(_, selected)| **selected).map(|(worth, _)| worth).sum::<f64>())
            };
            let (less, more) = (shares.0.min(shares.1), shares.0.max(shares.1));
            // Below the share that the forward pass takes the floor counts, which may be more than a little.
            let (forward, backward) = operators.iter().fold((0.0, 0.0), |(forward, backward), operator| {
                let Cost { forward: f, through, into } = operator.cost;
                (forward + f as f64, backward + (through + into) as f64)
            });
            let least = 1.0 - 0.95 / (1.0 + forward / f64::max(backward, 1.0));
            if less >= least {
                prop_assert!(of(less)? <= of(more)?);
            }
        }
    }

    #[test]
    fn budgets_are_shares_of_the_backward_pass() {
        let operator = |forward, through, into| OperatorCost { parameter: None, cost: Cost { forward, through, into } };
        // A backward pass that costs twice as much as the forward pass.
        let operators = [operator(1000, 1000, 1000), operator(1000, 1000, 1000)];
        let paid = |budget| Priced::new(&operators, &budget).budget;
        // 0.75 · 1.5 − 0.5, and the floor from a third of the step down.
        assert_eq!((paid(budget(0.75)), paid(budget(0.3))), (Some(2500), Some(200)));
        let explicit = |share| Budget { backward: BackwardBudget::Share(Share::new(share)), ..budget(0.6) };
        assert_eq!((paid(explicit(0.0)), paid(explicit(0.5)), paid(explicit(1.0))), (None, Some(2000), Some(4000)));
        let nothing = Priced::new(&operators, &explicit(0.0));
        assert_eq!(nothing.select([1.0, 1.0]), [false, false]);
    }

    #[test]
    fn what_costs_nothing_is_bought_by_any_share_but_0() {
        let free = [OperatorCost { parameter: None, cost: Cost { forward: 0, through: 0, into: 0 } }];
        let bought = |share| {
            let explicit = Budget { backward: BackwardBudget::Share(Share::new(share)), ..budget(0.6) };
            let priced = Priced::new(&free, &explicit);
            (priced.reachable(), priced.select([1.0]))
        };
        assert_eq!(bought(1.0), (vec![true], vec![true]));
        assert_eq!(bought(0.001), (vec![true], vec![true]));
        assert_eq!(bought(0.0), (vec![false], vec![false]));
    }

    #[test]
    fn a_gradient_that_costs_nothing_is_taken_within_what_is_passed() {
        let item = |through, into, worth| Item { through, into, worth };
        let items = [item(5, 0, 1.0), item(5, 3, 4.0), item(1, 9, 0.5)];
        assert_eq!(select(&items, 13), [true, true, false]);
        assert_eq!(select(&items, 12), [true, false, false]);
        assert_eq!(select(&items, 4), [false, false, false]);
        assert_eq!(select(&[], 4), [false; 0]);
    }
}
