//! How a run is asked to stop: SIGINT and SIGTERM.
//!
//! *What it is.* The first signal sets a flag that the loop reads between steps: it finishes the step, syncs and
//! leaves. A second one, of either kind, ends the process at once, which the journal survives as it survives any crash.
//!
//! *What it is not.* It interrupts no computation and writes nothing. *What must stay true*: the exit code is 128 plus
//! the signal's number, of the first signal where the run leaves by itself, of the second where it does not.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use super::TrainError;

/// Whether a signal has come since it began to listen. The process listens to its end.
#[derive(Clone, Debug)]
pub struct Interrupt {
    /// The first signal's number; 0: none came.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`TrainError::Signals`].
    pub fn listen() -> Result<Interrupt, TrainError> {
        let interrupt = Interrupt { signal: Arc::default() };
        interrupt.register().map_err(|source| TrainError::Signals { source })?;
        Ok(interrupt)
    }

    /// Of one signal, actions run in the order of registration: the first signal finds the flag down, leaves its
    /// number, and raises it; the next finds it up.
    fn register(&self) -> io::Result<()> {
        let raised = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, raised.clone())?;
            flag::register_usize(signal, self.signal.clone(), signal as usize)?;
            flag::register(signal, raised.clone())?;
        }
        Ok(())
    }

    /// The exit code to leave with, once a signal has come: 130 for SIGINT, 143 for SIGTERM.
    pub fn exit_code(&self) -> Option<u8> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(128 + signal as u8),
        }
    }
}
