//! The file `metrics.jsonl`: one JSON object a step, for plots and for whoever watches.
//!
//! *What it is not.* It is not the record of the run (`journal`): nothing is computed from it, and it is not synced.
//! *What must stay true.* Each line is handed to the system in one write as soon as its step is committed; after a
//! resume no step stands twice.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::TrainError;

/// No line is longer: a record of the journal has at most 8,192 values, each of at most 25 characters.
const LONGEST_LINE: u64 = 1 << 20;

/// What a step is known by. Numbers that are not finite are written as `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepMetrics {
    /// How many steps are complete with this one.
    pub step: u64,
    /// The mean of the losses that the step saw.
    pub loss: f64,
    /// The learning rate.
    pub lr: f32,
    /// The slope along each direction.
    pub projected_grad: Vec<f64>,
    /// The root mean square of what the trained weights were changed by.
    pub update_rms: f64,
    /// The root mean square of what storing them in 16 bits changed; 0 where they are stored exactly.
    pub rounding_rms: f64,
    /// How many forward passes the step took, each branch counted.
    pub forwards: u64,
    /// How many tokens went through them.
    pub tokens: u64,
    /// How long the step took.
    pub seconds: f64,
    /// How long the run has taken, evaluations and earlier processes included.
    pub elapsed: f64,
    /// The memory of the process after it.
    pub rss_bytes: u64,
    /// Whether a loss was not finite, so that nothing was committed.
    pub nonfinite: bool,
    /// What else the optimizer says of the step, by name; left out where that is nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scalars: BTreeMap<&'static str, f64>,
}

/// The file, at its end.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    elapsed: f64,
    training: f64,
    changes: Changes,
}

/// Sums of mean squares over steps.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    updates: f64,
    rounding: f64,
}

impl Changes {
    fn add(&mut self, update_rms: f64, rounding_rms: f64) {
        self.updates += update_rms * update_rms;
        self.rounding += rounding_rms * rounding_rms;
    }
}

impl Metrics {
    /// Opens the file at `path`, or makes it, and keeps the lines of the first `step` steps: those that a journal which
    /// goes on from there does not repeat. What follows the first line that is none is cut off.
    ///
    /// # Errors
    /// [`TrainError::Read`], [`TrainError::Write`].
    pub fn open(path: &Path, step: u64) -> Result<Metrics, TrainError> {
        #[derive(Deserialize)]
        struct Line {
            step: u64,
            #[serde(default)]
            elapsed: f64,
            #[serde(default)]
            seconds: f64,
            #[serde(default)]
            update_rms: f64,
            #[serde(default)]
            rounding_rms: f64,
        }
        let write_failed = |source| TrainError::Write { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(write_failed)?;
        let (mut lines, mut line, mut kept) = (BufReader::new(&file), Vec::new(), 0);
        let (mut elapsed, mut training, mut changes) = (0.0, 0.0, Changes::default());
        loop {
            line.clear();
            let read = lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
            read.map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
            let kept_line = serde_json::from_slice::<Line>(&line).ok().filter(|line| line.step <= step);
            let Some(known) = kept_line.filter(|_| line.ends_with(b"\n")) else { break };
            kept += line.len() as u64;
            elapsed = known.elapsed;
            training += known.seconds;
            changes.add(known.update_rms, known.rounding_rms);
        }
        file.set_len(kept).and_then(|()| file.seek(SeekFrom::Start(kept))).map_err(write_failed)?;
        Ok(Metrics { path: path.to_owned(), file, elapsed, training, changes })
    }

    /// How long the run had taken by the last line that was kept.
    pub fn elapsed(&self) -> f64 {
        self.elapsed
    }

    /// How long the steps took whose lines there are, evaluations not counted.
    pub fn training(&self) -> f64 {
        self.training
    }

    /// What rounding changed of the weights over what updates did, root mean squares over all steps; 0 before the first.
    pub fn rounding_per_update(&self) -> f64 {
        let Changes { updates, rounding } = self.changes;
        if updates > 0.0 { (rounding / updates).sqrt() } else { 0.0 }
    }

    /// Writes the line of a step.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn append(&mut self, step: &StepMetrics) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(step).expect("numbers and names");
        line.push(b'\n');
        self.changes.add(step.update_rms, step.rounding_rms);
        self.training += step.seconds;
        self.file.write_all(&line).map_err(|source| TrainError::Write { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn metrics(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: 0.5,
            lr: 1e-6,
            projected_grad: vec![-1.5],
            update_rms: 1e-7,
            rounding_rms: 0.0,
            forwards: 2,
            tokens: 640,
            seconds: 0.25,
            elapsed: 0.5,
            rss_bytes: 1 << 20,
            nonfinite: false,
            scalars: BTreeMap::new(),
        }
    }

    #[test]
    fn a_step_is_a_line_as_soon_as_it_is_appended() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("metrics.jsonl");
        let mut file = Metrics::open(&path, 0).expect("new");
        file.append(&metrics(1)).expect("room");
        let expected =
            r#"{"step":1,"loss":0.5,"lr":0.000001,"projected_grad":[-1.5],"update_rms":1e-7,"rounding_rms":0.0,"#
                .to_owned()
                + r#""forwards":2,"tokens":640,"seconds":0.25,"elapsed":0.5,"rss_bytes":1048576,"nonfinite":false}"#;
        assert_eq!(fs::read_to_string(&path).expect("there"), format!("{expected}\n"));
        let scalars = BTreeMap::from([("noise", f64::INFINITY), ("gain", 0.5)]);
        file.append(&StepMetrics { loss: f64::NAN, nonfinite: true, scalars, ..metrics(2) }).expect("room");
        let text = fs::read_to_string(&path).expect("there");
        let last: serde_json::Value = serde_json::from_str(text.lines().nth(1).expect("a line")).expect("JSON");
        assert!(last["loss"].is_null() && last["nonfinite"] == true, "{text}");
        assert!(text.ends_with(",\"scalars\":{\"gain\":0.5,\"noise\":null}}\n"), "{text}");
    }

    #[test]
    fn going_on_keeps_whole_lines_of_the_steps_that_are_kept_and_no_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("metrics.jsonl");
        let mut file = Metrics::open(&path, 0).expect("new");
        (1..=4).for_each(|step| file.append(&metrics(step)).expect("room"));
        assert_eq!(file.rounding_per_update(), 0.0, "no update was rounded");
        file.append(&StepMetrics { rounding_rms: 4e-7, ..metrics(5) }).expect("room");
        // Five updates of 1e-7 and one rounding of 4e-7: √(16/5), in f64.
        assert!((file.rounding_per_update() - 3.2_f64.sqrt()).abs() < 1e-12);
        drop(file);
        let again = Metrics::open(&path, 5).expect("readable");
        assert!((again.rounding_per_update() - 3.2_f64.sqrt()).abs() < 1e-12);
        let mut file = Metrics::open(&path, 0).expect("readable");
        (1..=4).for_each(|step| file.append(&metrics(step)).expect("room"));
        drop(file);
        let whole = fs::read(&path).expect("there");
        let length = whole.len() / 4;
        for cut in 0..=whole.len() {
            for step in 0..=5 {
                fs::write(&path, &whole[..cut]).expect("written");
                let mut file = Metrics::open(&path, step).expect("readable");
                let kept = (cut / length).min(usize::try_from(step).expect("small"));
                assert!(fs::read(&path).expect("there") == whole[..kept * length], "{cut}, {step}");
                file.append(&metrics(9)).expect("room");
                assert_eq!(fs::metadata(&path).expect("there").len(), ((kept + 1) * length) as u64);
            }
        }
    }

    #[test]
    fn what_is_no_line_of_metrics_ends_what_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("metrics.jsonl");
        let long = format!("{{\"step\":1,\"pad\":\"{}\"}}\n", "x".repeat(1 << 20));
        for bad in ["\n", "{}\n", "{\"step\":-1}\n", "\0\0\0\0", "{\"step\":1", &long] {
            fs::write(&path, format!("{{\"step\":1}}\n{bad}{{\"step\":2}}\n")).expect("written");
            drop(Metrics::open(&path, 9).expect("readable"));
            assert_eq!(fs::read_to_string(&path).expect("there"), "{\"step\":1}\n", "{:?}", &bad[..bad.len().min(20)]);
        }
    }
}
