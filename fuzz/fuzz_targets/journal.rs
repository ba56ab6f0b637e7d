//! Any bytes, or a sound journal edited, as a journal: refused, or the records read are the first of those written.

#![no_main]

mod edited;

use std::{fs, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use zofo::journal::{Flags, Header, JournalError, Kind, NumericProfile, Reader, Record, RunKind, SyncPolicy, Writer};

/// The sound journal: its records, and its bytes.
static SOUND: LazyLock<(Vec<Record>, Vec<u8>)> = LazyLock::new(|| {
    let header = Header {
        profile: NumericProfile::StrictF32,
        run: RunKind::Scalar,
        noise_version: 1,
        seed: 1,
        config_digest: [1; 32],
        base_weights: [2; 32],
        train: [3; 32],
        valid: None,
        template: None,
        config: "seed = 1\n".to_owned(),
    };
    let record = |step: u64| Record {
        step,
        kind: if step % 5 == 0 { Kind::Evaluation } else { Kind::Step },
        flags: Flags::NONE,
        values: (0..step % 4).map(|value| value as f64 / 4.0).collect(),
        lr: 0.5,
        coefficients: step as u32,
    };
    let records: Vec<Record> = (1..=12).map(record).collect();
    let dir = tempfile::tempdir().expect("a directory for the sound journal");
    let path = dir.path().join("journal.zofo");
    let mut writer = Writer::create(&path, &header, SyncPolicy::default()).expect("a new journal");
    for record in &records {
        writer.append(record).expect("room for the sound journal");
    }
    let bytes = fs::read(&path).expect("the sound journal");
    (records, bytes)
});

fuzz_target!(|input: &[u8]| {
    let (records, sound) = &*SOUND;
    let from_sound = input.first().is_some_and(|choice| choice % 2 == 0);
    let (bytes, _) = edited::edited(&[sound], input);
    let Ok(mut reader) = Reader::new(&bytes[..], Path::new("journal.zofo")) else { return };
    let (mut count, header) = (0, reader.header().clone());
    let end = loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                if from_sound {
                    assert_eq!(Some(&record), records.get(count), "record {count}");
                }
                count += 1;
            }
            Ok(None) => break Ok(reader.dropped().expect("the end was met")),
            Err(error) => break Err(error),
        }
    };
    match end {
        Ok(dropped) => assert_eq!(reader.offset() + dropped, bytes.len() as u64),
        Err(JournalError::Damaged { offset, step, .. }) => {
            assert_eq!((offset, step), (reader.offset(), reader.step()));
            assert!(offset < bytes.len() as u64);
        }
        Err(_) => {}
    }
    assert_eq!(header.first_difference(reader.header()), None);
});
