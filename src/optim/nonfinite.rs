//! Steps whose loss is not finite: any optimizer survives some of them, and none goes on for ever.

use std::{collections::BTreeMap, num::NonZeroU32};

use super::{Clock, OptimError, Optimizer, Oracle, StateVisitor, StepReport, Tunes, options::options};

options! {
    /// What every optimizer does about losses that are not finite.
    pub struct Patience {
        /// How many steps in a row may meet a loss that is not finite before the run ends; such a step changes no weight.
        max_nonfinite: NonZeroU32 = NonZeroU32::new(5).expect("not zero"), "steps";
    }
}

/// An optimizer that gives up when too many steps in a row change nothing.
pub(super) struct Patient {
    inner: Box<dyn Optimizer>,
    patience: Patience,
    in_a_row: u64,
}

impl Patient {
    /// `inner`, watched.
    pub(super) fn new(inner: Box<dyn Optimizer>, patience: Patience) -> Self {
        Patient { inner, patience, in_a_row: 0 }
    }
}

impl Optimizer for Patient {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let report = self.inner.step(oracle, clock)?;
        self.in_a_row = if report.nonfinite { self.in_a_row + 1 } else { 0 };
        if self.in_a_row >= u64::from(self.patience.max_nonfinite.get()) {
            return Err(OptimError::NonFinite { count: self.in_a_row, step: clock.step + 1 });
        }
        Ok(report)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("nonfinite_in_a_row", &mut self.in_a_row);
        self.inner.visit_state(visitor);
    }

    fn tunes(&self) -> Tunes {
        self.inner.tunes()
    }

    fn needs_gradients(&self) -> bool {
        self.inner.needs_gradients()
    }

    fn partition(&self) -> Option<BTreeMap<String, bool>> {
        self.inner.partition()
    }
}
