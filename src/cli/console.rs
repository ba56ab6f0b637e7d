//! Where output goes: results to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use super::{Exit, Failure};

/// The two streams of a command and who reads them.
#[derive(Debug)]
pub(super) struct Console {
    json: bool,
    live: bool,
}

impl Console {
    /// A console for a program (`json`) or a person.
    pub(super) fn new(json: bool) -> Self {
        Console { json, live: io::stderr().is_terminal() }
    }

    /// Prints a result: as one JSON object, or as `text`.
    pub(super) fn result(&mut self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        let line = if self.json {
            serde_json::to_string(value).map_err(io::Error::from)
        } else {
            Ok(text.trim_end().to_owned())
        };
        let mut out = io::stdout().lock();
        match line.and_then(|line| writeln!(out, "{line}")).and_then(|()| out.flush()) {
            // Whoever reads has seen enough (`| head -1`).
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|source| Failure::Output { source }),
        }
    }

    /// Prints help or version text; for a program as `{field: text}`.
    pub(super) fn notice(&mut self, field: &str, text: &str) -> Result<Exit, Failure> {
        self.result(&json!({ field: text.trim_end() }), text).map(|()| Exit::Ok)
    }

    /// Reports `failure` to whoever reads.
    pub(super) fn report(&self, failure: Failure) {
        if self.json {
            // Nothing is left to tell if standard output is gone; the exit code still says it.
            let _ = writeln!(io::stdout(), "{}", failure.to_json());
        } else {
            let _ = writeln!(io::stderr(), "{:?}", miette::Report::new(failure));
        }
    }

    /// Shows progress on standard error: on a terminal `line` replaces the one before, elsewhere only
    /// a line that is `kept` is written.
    pub(super) fn progress(&mut self, line: &str, kept: bool) {
        let mut err = io::stderr().lock();
        let _ = match (self.live, kept) {
            // Carriage return, text, erase to the end of the line (ECMA-48 EL).
            (true, _) => write!(err, "\r{line}\x1b[K{}", if kept { "\n" } else { "" }),
            (false, true) => writeln!(err, "{line}"),
            (false, false) => Ok(()),
        };
        let _ = err.flush();
    }

    /// Removes a progress line that was not kept.
    pub(super) fn clear(&mut self) {
        if self.live {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    /// Whether a program reads the result.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether progress goes to a terminal, where drawing pays.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }
}
