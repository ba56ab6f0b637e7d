//! `PyTorch` in a process of its own, step by step.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// What a step took, and its loss: the mean of both sides of a pair.
pub(crate) struct Step {
    pub(crate) seconds: f64,
    pub(crate) loss: f64,
}

/// A process of `PyTorch`.
pub(crate) struct Torch {
    child: Child,
    jobs: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) version: String,
}

impl Torch {
    /// Starts the process with a checkpoint and the optimizer `mezo` or `adamw`.
    pub(crate) fn start(python: &Path, checkpoint: &Path, optimizer: &str) -> Torch {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/step.py");
        let threads = rayon::current_num_threads().to_string();
        let mut command = Command::new(python);
        command.arg(script).arg(checkpoint).args([&threads, optimizer]).env("OMP_NUM_THREADS", &threads);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python");
        let jobs = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut torch = Torch { child, jobs, answers, version: String::new() };
        torch.version = torch.answer();
        torch
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    /// One step on a job, as `benches/peers/step.py` reads it.
    pub(crate) fn step(&mut self, job: &str) -> Step {
        writeln!(self.jobs, "{job}").expect("Python listens");
        let answer = self.answer();
        let numbers: Vec<f64> = answer.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [seconds, loss] = numbers[..] else { panic!("expected seconds and a loss, Python answered {answer:?}") };
        Step { seconds, loss }
    }

    /// The most memory it has had, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It ends by itself at the end of its input; nothing is lost if it is ended sooner.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
