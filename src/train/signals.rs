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

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Lines},
        process::{Child, ChildStdout, Command, Stdio},
        time::Duration,
    };

    use super::*;

    /// What the process of the tests does once it was asked to stop: leaves, or does not.
    const STUBBORN: &str = "ZOFO_TEST_STUBBORN";

    #[test]
    #[ignore = "the other process of the tests below"]
    fn a_run_that_listens() {
        let Ok(stubborn) = std::env::var(STUBBORN) else { return };
        let interrupt = Interrupt::listen().expect("signals");
        println!("\nlistening");
        // A minute at most, should the test that started this process be gone.
        for _ in 0..6000 {
            std::thread::sleep(Duration::from_millis(10));
            if let Some(code) = interrupt.exit_code() {
                println!("asked");
                if stubborn == "no" {
                    std::process::exit(code.into());
                }
                std::thread::sleep(Duration::from_secs(60));
            }
        }
    }

    fn run(stubborn: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "--ignored", "--nocapture"])
            .arg(format!("{}::a_run_that_listens", module_path!().split_once("::").expect("a crate").1))
            .env(STUBBORN, stubborn)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a second process");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        (child, lines)
    }

    fn await_line(lines: &mut Lines<BufReader<ChildStdout>>, expected: &str) {
        assert!(lines.any(|line| line.expect("text") == expected), "the process never says {expected:?}");
    }

    fn send(child: &Child, signal: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -s {signal} {}", child.id())).status();
        assert!(sent.expect("a shell").success());
    }

    #[test]
    fn the_first_signal_lets_the_run_leave_with_its_code() {
        for (signal, code) in [("INT", 130), ("TERM", 143)] {
            let (mut child, mut lines) = run("no");
            await_line(&mut lines, "listening");
            send(&child, signal);
            await_line(&mut lines, "asked");
            assert_eq!(child.wait().expect("gone").code(), Some(code));
        }
    }

    #[test]
    fn the_second_signal_of_either_kind_ends_the_process_at_once() {
        for (first, second, code) in [("INT", "INT", 130), ("INT", "TERM", 143), ("TERM", "INT", 130)] {
            let (mut child, mut lines) = run("yes");
            await_line(&mut lines, "listening");
            send(&child, first);
            await_line(&mut lines, "asked");
            send(&child, second);
            assert_eq!(child.wait().expect("gone").code(), Some(code));
        }
    }
}
