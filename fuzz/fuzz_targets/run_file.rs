//! Any text as a run file, or a sound one edited, with any texts as overrides: refused with a place that lies in the
//! text, or a configuration that is written and read again unchanged.

#![no_main]

mod edited;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zofo::train::{Origin, Place, RunFile, TrainError};

const SOUND: [&[u8]; 2] = [
    b"model = \"m\"\nseed = 3\n[data]\ntask = \"sst2\"\ntrain = \"t\"\n[optimizer]\nlr = 1e-6\n[train]\nsteps = 9\n",
    b"model = \"m\"\ndata = {task=\"custom\", template=\"x\", train = \"t\"}\ntune.scope = \"lora\"\ntune.rank = 4\n",
];

fuzz_target!(|input: &[u8]| {
    let (text, sets) = edited::edited(&SOUND, input);
    let (text, sets) = (String::from_utf8_lossy(&text), String::from_utf8_lossy(sets));
    let sets: Vec<String> = sets.split('\n').filter(|set| !set.is_empty()).map(str::to_owned).collect();
    let (path, base) = (Path::new("run.toml"), Path::new("/base"));
    match RunFile::parse(&text, path, base, &sets) {
        Ok(file) => {
            let written = file.config.to_toml();
            let again = RunFile::parse(&written, path, Path::new("/"), &[]).expect("the resolved run file");
            // Digests, because options may hold NaN.
            assert_eq!(again.config.digest(), file.config.digest());
            assert_eq!(again.config.to_toml(), written);
        }
        Err(
            TrainError::Syntax { place, .. }
            | TrainError::Unknown { place, .. }
            | TrainError::Value { place, .. }
            | TrainError::OutOfPlace { place, .. },
        ) => check(&place, &text),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn check(place: &Place, text: &str) {
    if matches!(place.origin, Origin::File(_)) {
        assert!(place.span.end <= text.len() && place.line <= text.split('\n').count(), "{place:?}");
    }
}
