//! Any bytes, or a sound journal edited or damaged, as a journal: refused, or read; what is read of a damaged one are
//! the first of the records that were written.

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

/// The sound journal with up to eight damages of five bytes each: cut short, zeros, bytes lost, bytes of another place,
/// or a flipped bit, of which CRC-32 finds any three. None brings bytes of the fuzzer's choosing: a checksum stops
/// nobody who computes it, and libFuzzer does, from the comparisons it watches.
fn damaged(sound: &[u8], input: &[u8]) -> Vec<u8> {
    let (mut bytes, mut flips) = (sound.to_vec(), 0);
    for damage in input.chunks_exact(5).take(8) {
        let place = |low: u8, high: u8| usize::from(u16::from_le_bytes([low, high])) % (bytes.len() + 1);
        let (at, other) = (place(damage[1], damage[2]), place(damage[3], damage[4]));
        match damage[0] % 5 {
            0 => bytes.truncate(at),
            1 => bytes[at.min(other)..at.max(other)].fill(0),
            2 => drop(bytes.drain(at.min(other)..at.max(other))),
            3 => {
                let copy = bytes[at..bytes.len().min(at + 64)].to_vec();
                bytes.splice(other..other, copy);
            }
            _ if flips < 3 && at < bytes.len() => {
                bytes[at] ^= 1 << (other % 8);
                flips += 1;
            }
            _ => {}
        }
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let (records, sound) = &*SOUND;
    let Some((choice, input)) = input.split_first() else { return };
    let from_sound = choice % 2 == 0;
    let bytes = if from_sound { damaged(sound, input) } else { edited::edited(&[sound], input).0 };
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
