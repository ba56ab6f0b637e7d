//! Running cells: each is `zofo train` in a process of its own, so that its peak of memory is its own.
//!
//! *What must stay true.* At most one cell runs at a time, also after this process was killed and its child was not: a run
//! directory is locked by whoever works in it, and whoever comes later waits. A cell that was cut off goes on where it was
//! left.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Cell, CompareError, Outcome, measure::measure};
use crate::train::{Interrupt, Layout, TrainError, replace_file};

/// Between two looks at a child.
const POLL: Duration = Duration::from_millis(50);
/// Until somebody else's run is asked for again.
const WAIT: Duration = Duration::from_secs(2);
/// A child that has not left by itself so long after a signal is killed: its journal survives that as well.
const GRACE: Duration = Duration::from_secs(5);

/// Exit codes of `zofo train` that say something about the method: a loss that is not finite, and what does not fit.
const OF_THE_METHOD: [i32; 2] = [3, 5];
/// Another process works in the directory.
const LOCKED: i32 = 6;
/// SIGINT and SIGTERM.
const SIGNALLED: [i32; 2] = [130, 143];

/// How cells are started.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// How a cell ended, or was left.
#[derive(Debug)]
pub enum Ending {
    /// It is over, after so many seconds of its last process.
    Over(Outcome, f64),
    /// A signal came; it can go on.
    Interrupted(u8),
}

/// What a cell does while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// So many steps are complete.
    Steps(u64),
    /// A process of an earlier comparison still works on it.
    Waiting,
}

impl Launcher {
    /// Starts `program`, which is `zofo`, with these further arguments.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Launcher {
        Launcher { program, arguments }
    }

    /// The command line of a run file, as a person would type it.
    pub fn shown(&self, run_file: &Path) -> String {
        let arguments = self.arguments.iter().map(|argument| quoted(&argument.to_string_lossy()));
        let line = ["zofo".to_owned(), "train".to_owned(), quoted(&run_file.to_string_lossy())];
        line.into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
    }

    /// Runs `cell` to its end, from where it was left. `tell` is told how it goes.
    ///
    /// # Errors
    /// [`CompareError::Cell`] if it ends for a reason that is not its method's.
    pub fn run(&self, cell: &Cell, interrupt: &Interrupt, tell: &mut dyn FnMut(Sign)) -> Result<Ending, CompareError> {
        let output = &cell.config.output;
        let (run_file, log) = (run_file(output), output.with_extension("log"));
        let write_failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Write { path, source }
        };
        fs::create_dir_all(output.parent().unwrap_or(output)).map_err(write_failed(output))?;
        replace_file(&run_file, cell.config.to_toml().as_bytes())?;
        loop {
            let begin = Instant::now();
            let lines = OpenOptions::new().append(true).create(true).open(&log).map_err(write_failed(&log))?;
            let mut command = Command::new(&self.program);
            command.arg("train").arg(&run_file).args(["--resume", "--json"]).args(&self.arguments);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(lines);
            let read_failed = |source| TrainError::Read { path: self.program.clone(), source };
            let mut child = command.spawn().map_err(read_failed)?;
            let status = watch(&mut child, &Layout::of(output).metrics(), interrupt, tell).map_err(read_failed)?;
            let seconds = begin.elapsed().as_secs_f64();
            if let Some(code) = interrupt.exit_code().filter(|_| !status.success()) {
                return Ok(Ending::Interrupted(code));
            }
            match status.code() {
                Some(0) => {
                    let measured = measure(&cell.name(), &Layout::of(output))?;
                    return Ok(Ending::Over(Outcome::Finished(Box::new(measured)), seconds));
                }
                Some(LOCKED) => {
                    tell(Sign::Waiting);
                    thread::sleep(WAIT);
                }
                Some(code) if SIGNALLED.contains(&code) => return Ok(Ending::Interrupted(code as u8)),
                Some(exit) if !OF_THE_METHOD.contains(&exit) => {
                    return Err(CompareError::Cell { cell: cell.name(), exit, message: said(&mut child), log });
                }
                exit => {
                    let message = match exit {
                        Some(_) => said(&mut child),
                        None => format!("the process was ended: {status}"),
                    };
                    return Ok(Ending::Over(Outcome::Failed { exit, message }, seconds));
                }
            }
        }
    }
}

/// The run file of the cell with this output directory.
pub(super) fn run_file(output: &Path) -> PathBuf {
    output.with_extension("toml")
}

/// Removes the weights that the run in `output` kept.
///
/// # Errors
/// [`TrainError::Write`].
pub(super) fn forget_weights(output: &Path) -> Result<(), TrainError> {
    let layout = Layout::of(output);
    [layout.last(), layout.best()].into_iter().try_for_each(|path| match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(TrainError::Write { path, source: error }),
        _ => Ok(()),
    })
}

/// Waits for a child.
fn watch(
    child: &mut Child,
    metrics: &Path,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(Sign),
) -> io::Result<ExitStatus> {
    let (mut steps, mut told, mut since) = (Lines::default(), 0, None);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if interrupt.exit_code().is_some() && since.get_or_insert_with(Instant::now).elapsed() > GRACE {
            child.kill()?;
        }
        let count = steps.count(metrics);
        if count != told {
            told = count;
            tell(Sign::Steps(count));
        }
        thread::sleep(POLL);
    }
}

/// What a child that failed said: the message of its one JSON object.
fn said(child: &mut Child) -> String {
    let mut text = String::new();
    // Nothing that cannot be read is lost: the log has it.
    let _ = child.stdout.take().map(|mut out| out.read_to_string(&mut text));
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    answer["error"]["message"].as_str().unwrap_or("no message").to_owned()
}

/// The lines of a file that grows.
#[derive(Debug, Default)]
struct Lines {
    read: u64,
    lines: u64,
}

impl Lines {
    /// How many there are by now; a file that became shorter was begun anew.
    fn count(&mut self, path: &Path) -> u64 {
        use io::{Seek, SeekFrom};
        let grown = || -> io::Result<(u64, Vec<u8>)> {
            let mut file = File::open(path)?;
            let begin = if file.metadata()?.len() < self.read { 0 } else { self.read };
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(begin))?;
            file.read_to_end(&mut bytes)?;
            Ok((begin, bytes))
        };
        let Ok((begin, bytes)) = grown() else { return self.lines };
        if begin < self.read {
            *self = Lines::default();
        }
        self.read = begin + bytes.len() as u64;
        self.lines += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.lines
    }
}

/// A word of a command line for a shell of POSIX.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_shell_would_take_apart_are_quoted() {
        let launcher = Launcher::new("/opt/zofo".into(), vec!["--threads".into(), "2".into()]);
        assert_eq!(launcher.shown(Path::new("runs/a b/it's.toml")), r"zofo train 'runs/a b/it'\''s.toml' --threads 2");
        assert_eq!((quoted(""), quoted("$x")), ("''".to_owned(), "'$x'".to_owned()));
    }

    #[test]
    fn lines_are_counted_as_they_come_and_anew_where_the_file_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, mut lines) = (dir.path().join("metrics.jsonl"), Lines::default());
        assert_eq!(lines.count(&path), 0, "there is none yet");
        for (text, count) in [("a\nb", 1), ("a\nb\nc\n", 3), ("a\nb\nc\n", 3), ("x\n", 1)] {
            fs::write(&path, text).expect("written");
            assert_eq!(lines.count(&path), count, "{text:?}");
        }
    }
}
