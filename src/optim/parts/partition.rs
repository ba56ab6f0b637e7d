//! Which parameters take gradients, as a run remembers it.
//!
//! *What it is.* [`Partition`] asks for the costs of a batch and for scores, selects, and keeps the selection until it is to be
//! made again.
//!
//! *What must stay true.* A resumed run has the selection that the broken one had: it is part of the state, scores are functions
//! of the batch, and so are costs, or the journal has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    importance::{Importance, importance},
    select::{BackwardBudget, Budget, Priced},
};
use crate::{
    direction::{Direction, ParamId},
    optim::{BatchId, Clock, CostUnit, OperatorCost, Oracle, OracleError, Share, StateVisitor, options::options},
    tensor::Block,
};

options! {
    /// What gradients may cost, and when that is asked.
    pub struct Selection {
        /// Share of the forward and backward pass of all parameters that a step may cost: ρ.
        budget: Share = Share::new(0.6), "of a step";
        /// Share of the backward pass alone, instead: 0 selects nothing.
        backward_budget: BackwardBudget = BackwardBudget::Auto, "of a backward pass";
        /// Share of the backward pass that is paid for where budget is no more than the forward pass.
        budget_floor: Share = Share::new(0.05), "of a backward pass";
        /// What costs are counted in: "time" is measured at the sizes of the batch, and comes out otherwise every time.
        cost_unit: CostUnit = CostUnit::Flops, "";
        /// After how many steps parameters are selected anew; 0: once, at the first step.
        reselect_every: u64 = 0, "steps";
    }
}

/// The parameters that take gradients.
#[derive(Debug, Default)]
pub struct Partition {
    /// 1 for each of them, and 0 for the other parameters that may move, by name; empty before the first selection.
    selected: BTreeMap<String, Arc<[f32]>>,
    /// The step after the one that selected them; 0 before the first.
    since: u64,
}

/// What a selection came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// There was nothing to do.
    Kept,
    /// The same parameters as before, after so many evaluations.
    Same(usize),
    /// Others.
    Changed(usize),
    /// A loss or gradient was not finite: nothing was selected. The loss at θ, and how many were evaluated.
    NotFinite(f64, usize),
}

impl Partition {
    /// Selects, if there is no selection or it is old. `first` makes a first step's direction of a gradient.
    ///
    /// # Errors
    /// [`OracleError`] if the oracle has no answer.
    pub fn update(
        &mut self,
        oracle: &mut dyn Oracle,
        (batch, clock, lr): (BatchId, Clock, f64),
        selection: &Selection,
        first: impl Fn(Block<f32>) -> Direction,
    ) -> Result<Outcome, OracleError> {
        let Selection { budget, backward_budget, budget_floor, cost_unit, reselect_every } = *selection;
        let is_old = reselect_every > 0 && clock.step + 1 >= self.since.saturating_add(reselect_every);
        if self.since > 0 && !is_old {
            return Ok(Outcome::Kept);
        }
        let operators = oracle.backward_costs(batch, cost_unit)?;
        let budget = Budget { step: budget, backward: backward_budget, floor: budget_floor };
        let priced = Priced::new(&operators, &budget);
        let reachable = reachable(oracle, &operators, &priced);
        let mut evaluations = 0;
        let importance = if reachable.is_empty() {
            Importance::new()
        } else {
            let probed = importance(oracle, batch, &reachable, lr, first)?;
            let Some(importance) = probed.importance else {
                return Ok(Outcome::NotFinite(probed.loss, probed.evaluations));
            };
            evaluations = probed.evaluations;
            importance
        };
        let worth = |operator: &OperatorCost| operator.parameter.and_then(|id| importance.get(&id)).copied();
        let chosen = priced.select(operators.iter().map(|operator| worth(operator).unwrap_or(0.0)));
        let chosen = operators.iter().zip(chosen).filter(|(_, chosen)| *chosen);
        let chosen: BTreeSet<ParamId> = chosen.filter_map(|(operator, _)| operator.parameter).collect();
        let mark = |id: &ParamId| (oracle.params()[*id].name().to_owned(), Arc::from([f32::from(chosen.contains(id))]));
        let selected: BTreeMap<_, Arc<[f32]>> = oracle.trainable().iter().map(mark).collect();
        let is_same = selected == self.selected;
        (self.selected, self.since) = (selected, clock.step + 1);
        Ok(if is_same { Outcome::Same(evaluations) } else { Outcome::Changed(evaluations) })
    }

    /// The parameters that take gradients, and the others that may move, both ascending.
    pub fn sides(&self, oracle: &dyn Oracle) -> (Vec<ParamId>, Vec<ParamId>) {
        let is_selected =
            |id: ParamId| self.selected.get(oracle.params()[id].name()).is_some_and(|mark| mark[0] != 0.0);
        oracle.trainable().iter().partition(|&&id| is_selected(id))
    }

    /// Whether each parameter that may move takes gradients, once that is selected.
    pub fn by_name(&self) -> Option<BTreeMap<String, bool>> {
        let of = |(name, mark): (&String, &Arc<[f32]>)| (name.clone(), mark[0] != 0.0);
        (self.since > 0).then(|| self.selected.iter().map(of).collect())
    }

    /// Shows `visitor` the selection.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("selected_since", &mut self.since);
        visitor.factors("selected", &mut self.selected, &|_| 1);
    }
}

/// The trainable parameters that the budget pays for, each by itself, ascending.
fn reachable(oracle: &dyn Oracle, operators: &[OperatorCost], priced: &Priced) -> Vec<ParamId> {
    let reached = operators.iter().zip(priced.reachable()).filter(|(_, reachable)| *reachable);
    let reached: BTreeSet<ParamId> = reached.filter_map(|(operator, _)| operator.parameter).collect();
    oracle.trainable().iter().copied().filter(|id| reached.contains(id)).collect()
}
