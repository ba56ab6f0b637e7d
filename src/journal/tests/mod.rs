//! Every way a journal can be cut, flipped, filled and spliced, on one small journal and on arbitrary ones.

mod writing;

use std::{io, path::Path, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::{record::Link, *};

const NEVER: SyncPolicy = SyncPolicy { records: u32::MAX, every: Duration::MAX };

fn header() -> Header {
    Header {
        profile: NumericProfile::StrictF32,
        run: RunKind::Scalar,
        noise_version: 1,
        seed: 7,
        config_digest: [1; 32],
        base_weights: [2; 32],
        train: [3; 32],
        valid: None,
        template: Some([4; 32]),
        config: "seed = 7\n".to_owned(),
    }
}

fn step(step: u64, values: &[f64]) -> Record {
    Record { step, kind: Kind::Step, flags: Flags::NONE, values: values.to_vec(), lr: 1e-6, coefficients: 0xdead_beef }
}

fn records() -> Vec<Record> {
    let evaluation = Flags::BEST;
    vec![
        step(1, &[0.5, 0.25]),
        Record { kind: Kind::Evaluation, flags: evaluation, lr: 0.0, coefficients: 0, ..step(1, &[0.75]) },
        Record { flags: Flags::NONFINITE.with(Flags::SLOPES), coefficients: 0, ..step(2, &[f64::NAN]) },
        step(4, &[]),
        step(5, &[1.0, -1.0, 0.0]),
        Record { kind: Kind::End, ..step(5, &[]) },
    ]
}

/// A journal's bytes and where each record begins, the end last.
fn encoded(header: &Header, records: &[Record]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = header.encode();
    let mut link = Link { crc: Header::decode(&bytes).expect("a header").2, step: 0 };
    let mut starts = vec![bytes.len()];
    for record in records {
        link = record.encode(link, &mut bytes);
        starts.push(bytes.len());
    }
    (bytes, starts)
}

fn path() -> &'static Path {
    Path::new("run/journal.zofo")
}

/// All records, and the bytes dropped after them.
fn read(bytes: &[u8]) -> Result<(Vec<Record>, u64), JournalError> {
    read_all(&mut Reader::new(bytes, path())?)
}

fn read_all<R: io::Read>(reader: &mut Reader<R>) -> Result<(Vec<Record>, u64), JournalError> {
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok((records, reader.dropped().expect("the end has been read")))
}

/// Whether `found` are the first of `all`, bit for bit (NaN equals itself).
fn is_prefix(found: &[Record], all: &[Record]) -> bool {
    let bits = |records: &[Record]| encoded(&header(), records).0;
    bits(all).starts_with(&bits(found))
}

fn damage(result: Result<(Vec<Record>, u64), JournalError>) -> (u64, u64) {
    match result {
        Err(JournalError::Damaged { offset, step, .. }) => (offset, step),
        other => panic!("expected damage, found {other:?}"),
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let (bytes, starts) = encoded(&header(), &[step(2, &[0.5])]);
    let mut expected = b"zofo run\x01\x00\x01\x01\x01\x00\x00\x00\x07\0\0\0\0\0\0\0".to_vec();
    for byte in [1, 2, 3, 0, 4] {
        expected.extend([byte; 32]);
    }
    expected.extend(b"\x09\0\0\0seed = 7\n");
    // CRC-32 as in zlib and PNG, here by Python's zlib.crc32.
    expected.extend(0x0acf_0be3_u32.to_le_bytes());
    assert_eq!(bytes[..starts[0]], expected);
    let mut expected = vec![2, 1];
    expected.extend(0x6f49_u16.to_le_bytes());
    expected.extend([1, 0]);
    expected.extend(0x3fe0_0000_0000_0000_u64.to_le_bytes());
    expected.extend(0x3586_37bd_u32.to_le_bytes());
    expected.extend(0xdead_beef_u32.to_le_bytes());
    expected.extend(0x5ae6_7496_u32.to_le_bytes());
    assert_eq!(bytes[starts[0]..], expected);
}

#[test]
fn twenty_thousand_two_sided_steps_take_less_than_720_000_bytes() {
    let records: Vec<_> = (1..=20_000).map(|number| step(number, &[0.5, 0.25])).collect();
    let (bytes, starts) = encoded(&Header { config: " ".repeat(4096), ..header() }, &records);
    assert_eq!(bytes.len() - starts[0], 20_000 * 34);
    assert!(bytes.len() <= 720_000, "{}", bytes.len());
    assert_eq!(read(&bytes).expect("sound").0.len(), 20_000);
}

#[test]
fn a_journal_cut_anywhere_gives_the_records_that_are_whole() {
    let (bytes, starts) = encoded(&header(), &records());
    for cut in 0..bytes.len() {
        let result = read(&bytes[..cut]);
        if cut < starts[0] {
            assert!(
                matches!(result, Err(JournalError::Header { problem: HeaderProblem::TooShort { .. }, .. })),
                "{cut}"
            );
            continue;
        }
        let whole = starts.iter().filter(|&&start| start <= cut).count() - 1;
        let (found, dropped) = result.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert!(found.len() == whole && is_prefix(&found, &records()), "cut at {cut}: {found:?}");
        assert_eq!(dropped, (cut - starts[whole]) as u64);
    }
}

#[test]
fn a_journal_that_ends_in_zeros_from_anywhere_on_gives_the_records_that_are_whole() {
    let (bytes, starts) = encoded(&header(), &records());
    for (from, more) in (starts[0]..=bytes.len()).flat_map(|from| [0, 1, 17, 4096, 300_000].map(|more| (from, more))) {
        let mut zeroed = bytes[..from].to_vec();
        zeroed.resize(bytes.len() + more, 0);
        // Zeros may be what was written there.
        let whole = starts.iter().filter(|&&start| zeroed[..start.min(zeroed.len())] == bytes[..start]).count() - 1;
        let (found, dropped) = read(&zeroed).unwrap_or_else(|error| panic!("{from}, {more}: {error}"));
        assert!(found.len() == whole && is_prefix(&found, &records()), "{from}, {more}: {found:?}");
        assert_eq!(dropped, (zeroed.len() - starts[whole]) as u64);
    }
}

#[test]
fn every_flipped_bit_is_found_where_it_is_and_costs_no_more_than_the_last_record() {
    let (bytes, starts) = encoded(&header(), &records());
    let last = starts.len() - 2;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let result = read(&flipped);
        match starts.iter().rposition(|&start| start <= bit / 8) {
            None => assert!(matches!(result, Err(JournalError::Header { .. })), "bit {bit}: {result:?}"),
            Some(record) if record < last => {
                let complete = records()[..record].last().map_or(0, |record| record.step);
                assert_eq!(damage(result), (starts[record] as u64, complete), "bit {bit}");
            }
            Some(_) => {
                let (found, dropped) = result.unwrap_or_else(|error| panic!("bit {bit}: {error}"));
                assert!(found.len() == last && is_prefix(&found, &records()), "bit {bit}");
                assert_eq!(dropped, (bytes.len() - starts[last]) as u64);
            }
        }
    }
}

#[test]
fn no_two_flipped_bits_in_the_head_of_a_record_look_sound() {
    // The check is linear: whether flips are seen does not depend on the bytes.
    let (bytes, starts) = encoded(&header(), &[step(1, &[])]);
    let crc = Header::decode(&bytes).expect("a header").2;
    let head = &bytes[starts[0]..starts[0] + record::HEAD];
    for (first, second) in (0..48).flat_map(|first| (0..48).map(move |second| (first, second))) {
        let mut flipped = head.to_vec();
        flipped[first / 8] ^= 1 << (first % 8);
        if second != first {
            flipped[second / 8] ^= 1 << (second % 8);
        }
        assert_eq!(record::length(&flipped, crc), None, "bits {first} and {second}");
    }
}

#[test]
fn records_moved_dropped_doubled_or_taken_from_another_run_are_damage() {
    let (bytes, starts) = encoded(&header(), &records());
    let part = |record: usize| &bytes[starts[record]..starts[record + 1]];
    let joined = |order: &[usize]| {
        [&bytes[..starts[0]], &order.iter().flat_map(|&record| part(record).to_vec()).collect::<Vec<_>>()].concat()
    };
    assert_eq!(damage(read(&joined(&[1, 0, 2, 3, 4, 5]))).0, starts[0] as u64);
    assert_eq!(damage(read(&joined(&[0, 1, 3, 4, 5]))).0, starts[2] as u64);
    assert_eq!(damage(read(&joined(&[0, 0, 1, 2, 3]))).0, starts[1] as u64);
    let (other, other_starts) = encoded(&Header { seed: 8, ..header() }, &records());
    assert_eq!(starts, other_starts);
    let spliced = [&bytes[..starts[3]], &other[starts[3]..]].concat();
    assert_eq!(damage(read(&spliced)), (starts[3] as u64, 2));
    // Two damaged records at the end are more than a crash leaves.
    let mut last_two = bytes.clone();
    last_two[starts[4] + record::HEAD] ^= 1;
    last_two[starts[5] + record::HEAD] ^= 1;
    assert_eq!(damage(read(&last_two)), (starts[4] as u64, 4));
}

#[test]
fn more_bytes_than_a_record_has_are_no_torn_record_wherever_they_lie() {
    let (bytes, _) = encoded(&header(), &records());
    for zeros in [0, 100, record::MAX_RECORD, 2 * record::MAX_RECORD, 5 * record::MAX_RECORD] {
        let long = [&bytes[..], &vec![0; zeros], &vec![0xaa; record::MAX_RECORD + 1]].concat();
        assert_eq!(damage(read(&long)), (bytes.len() as u64, 5), "{zeros}");
    }
    let after_zeros = [&bytes[..], &[0; 3 * record::MAX_RECORD], &[1]].concat();
    assert_eq!(damage(read(&after_zeros)).0, bytes.len() as u64);
}

#[test]
fn what_another_version_wrote_is_refused_and_not_dropped() {
    let (bytes, starts) = encoded(&header(), &[step(1, &[])]);
    let crc = Header::decode(&bytes).expect("a header").2;
    let sealed = |delta: u8, what: u8| {
        let continued = |bytes: &[u8]| {
            let mut hasher = crc32fast::Hasher::new_with_initial(crc);
            hasher.update(bytes);
            hasher.finalize().to_le_bytes()
        };
        let check = continued(&[delta, what, 0, 0]);
        let mut record = vec![delta, what, check[0], check[1], 0, 0];
        record.extend([0; 8]);
        record.extend(continued(&record));
        [&bytes[..starts[0]], &record].concat()
    };
    assert_eq!(read(&sealed(1, 1)).expect("sound").0.len(), 1);
    for (delta, what, expected) in [(0, 1, RecordProblem::NoStep), (1, 0x1f, RecordProblem::Kind { found: 15 })] {
        match read(&sealed(delta, what)) {
            Err(JournalError::Record { offset, problem, .. }) => {
                assert_eq!((offset, problem), (starts[0] as u64, expected));
            }
            other => panic!("{other:?}"),
        }
    }
    let resealed = |at: usize, byte: u8| {
        let mut bytes = bytes[..starts[0] - 4].to_vec();
        bytes[at] = byte;
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        Header::decode(&bytes).expect_err("changed")
    };
    assert_eq!(resealed(0, b'Z'), HeaderProblem::Magic { found: *b"Zofo run" });
    assert_eq!(resealed(8, 2), HeaderProblem::Version { found: 2 });
    assert_eq!(resealed(10, 9), HeaderProblem::Unknown { field: "profile", found: 9 });
    assert_eq!(resealed(11, 9), HeaderProblem::Unknown { field: "kind of run", found: 9 });
    assert_eq!(resealed(187, 1), HeaderProblem::ConfigLength { declared: (1 << 24) + 9 });
    assert_eq!(resealed(190, 0xff), HeaderProblem::ConfigText { valid: 2 });
}

#[test]
fn another_run_is_told_by_the_first_fact_that_differs() {
    assert_eq!(header().first_difference(&Header { config: String::new(), ..header() }), None);
    let other = Header { seed: 8, train: [9; 32], config_digest: [9; 32], ..header() };
    assert_eq!(
        header().first_difference(&other),
        Some("the training data, or the configuration or tokenizer that read them,")
    );
}

/// A source that answers a byte at a time and is interrupted before each.
struct Dribble<'a>(&'a [u8], bool);

impl io::Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut out[..1.min(self.0.len())]) }
    }
}

#[test]
fn a_source_that_answers_a_byte_at_a_time_and_is_interrupted_gives_the_same_records() {
    let (bytes, _) = encoded(&header(), &records());
    let mut reader = Reader::new(Dribble(&bytes[..bytes.len() - 3], false), path()).expect("a header");
    let (found, dropped) = read_all(&mut reader).expect("sound");
    assert!(found.len() == records().len() - 1 && is_prefix(&found, &records()));
    assert_eq!(dropped, 15);
}

#[test]
fn the_longest_records_and_the_longest_header_are_read() {
    let header = Header { config: "é".repeat(MAX_CONFIG_BYTES / 2), ..header() };
    let records: Vec<_> = (1..=9).map(|number| step(number * MAX_STEP_DELTA, &[0.1; MAX_VALUES])).collect();
    let (bytes, starts) = encoded(&header, &records);
    let mut reader = Reader::new(&bytes[..], path()).expect("a header");
    assert_eq!(reader.header(), &header);
    let (found, dropped) = read_all(&mut reader).expect("sound");
    assert_eq!((found, dropped), (records, 0));
    assert_eq!(read(&bytes[..bytes.len() - 1]).expect("torn").1, (starts[9] - starts[8] - 1) as u64);
}

fn arbitrary_records() -> impl Strategy<Value = Vec<Record>> {
    let kind = prop_oneof![Just(Kind::Step), Just(Kind::Evaluation), Just(Kind::End)];
    let flags = (0_u8..16).prop_map(|bits| {
        let all = [Flags::NONFINITE, Flags::FIRST_ORDER, Flags::SLOPES, Flags::BEST];
        (0..4).filter(|bit| bits >> bit & 1 == 1).fold(Flags::NONE, |flags, bit| flags.with(all[bit]))
    });
    let record = (1..=MAX_STEP_DELTA, kind, flags, vec(any::<u64>().prop_map(f64::from_bits), 0..5), any::<[u32; 2]>());
    vec(record, 0..12).prop_map(|parts| {
        let mut last = 0;
        let record = |(delta, kind, flags, values, [lr, coefficients]): (u64, _, _, _, [u32; 2])| {
            last += delta;
            Record { step: last, kind, flags, values, lr: f32::from_bits(lr), coefficients }
        };
        parts.into_iter().map(record).collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_with_the_same_bits(records in arbitrary_records(), seed: u64, config in ".{0,40}") {
        let header = Header { seed, config, valid: Some([5; 32]), template: None, ..header() };
        let (bytes, _) = encoded(&header, &records);
        let mut reader = Reader::new(&bytes[..], path()).expect("a header");
        prop_assert_eq!(reader.header(), &header);
        let (found, dropped) = read_all(&mut reader).expect("sound");
        prop_assert!(dropped == 0 && encoded(&header, &found).0 == bytes);
    }

    #[test]
    fn edits_never_give_records_that_are_not_the_first_of_the_true_ones(
        records in arbitrary_records(),
        edits in vec((any::<prop::sample::Index>(), 0_usize..40, vec(any::<u8>(), 0..40)), 1..4),
    ) {
        let (mut bytes, starts) = encoded(&header(), &records);
        for (at, removed, inserted) in &edits {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + removed);
            bytes.splice(at..end, inserted.iter().copied());
        }
        let mut reader = match Reader::new(&bytes[..], path()) {
            Ok(reader) => reader,
            Err(JournalError::Header { .. }) => return Ok(()),
            Err(other) => panic!("{other}"),
        };
        let mut found = Vec::new();
        let end = loop {
            match reader.next_record() {
                Ok(Some(record)) => found.push(record),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        prop_assert!(is_prefix(&found, &records), "{found:?}");
        prop_assert_eq!(reader.offset(), starts[found.len()] as u64);
        if let Err(JournalError::Damaged { offset, step, .. }) = end {
            prop_assert_eq!((offset, step), (reader.offset(), reader.step()));
            prop_assert!(reader.next_record().is_err(), "damage stays damage");
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..400)) {
        let is_refused = matches!(read(&bytes), Err(JournalError::Header { .. }));
        prop_assert!(is_refused);
    }
}
