//! Writers: full disks, failing syncs, going back and going on.

use std::fs;

use super::{super::record::Link, *};

/// A disk that takes so many bytes and no more.
#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    room: usize,
    cuts_fail: bool,
    syncs: usize,
}

impl Medium for Disk {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("small");
        let fits = bytes.len().min(self.room.saturating_sub(offset));
        self.bytes.resize(self.bytes.len().max(offset + fits), 0);
        self.bytes[offset..offset + fits].copy_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        if self.cuts_fail {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.bytes.truncate(usize::try_from(length).expect("small"));
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.syncs > 100 { Err(io::Error::other("worn out")) } else { Ok(()) }
    }
}

fn on_disk(mut disk: Disk, policy: SyncPolicy) -> Writer<Disk> {
    disk.bytes = header().encode();
    let link = Link { crc: Header::decode(&disk.bytes).expect("a header").2, step: 0 };
    let end = disk.bytes.len() as u64;
    Writer::new(disk, path(), policy, link, end)
}

#[test]
fn a_disk_that_is_full_at_any_byte_leaves_the_records_before_and_takes_the_rest_when_there_is_room() {
    let (bytes, starts) = encoded(&header(), &records());
    for (room, cuts_fail) in (starts[0]..bytes.len()).flat_map(|room| [(room, false), (room, true)]) {
        let mut writer = on_disk(Disk { room, cuts_fail, ..Disk::default() }, NEVER);
        let mut full = None;
        for (number, record) in records().iter().enumerate() {
            match writer.append(record) {
                Ok(()) => assert!(full.is_none(), "a record of {number} fits where the one before it did not"),
                Err(JournalError::Write { source, .. }) => {
                    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
                    full = full.or(Some(number));
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        let full = full.unwrap_or_else(|| panic!("{room} bytes hold the journal"));
        assert_eq!(starts.iter().filter(|&&start| start <= room).count() - 1, full);
        let (found, dropped) = read(&writer.medium.bytes).expect("readable");
        assert!(found.len() == full && is_prefix(&found, &records()), "{room}");
        assert_eq!(dropped, if cuts_fail { (room - starts[full]) as u64 } else { 0 });
        writer.medium.room = usize::MAX;
        records()[full..].iter().for_each(|record| writer.append(record).expect("room"));
        assert!(writer.medium.bytes == bytes, "{room}");
        assert_eq!(writer.bytes(), bytes.len() as u64);
    }
}

#[test]
fn syncs_follow_the_policy_and_a_failed_one_is_reported() {
    let room = usize::MAX;
    let steps =
        |writer: &mut Writer<Disk>, count: u64| (1..=count).try_for_each(|number| writer.append(&step(number, &[0.5])));
    let mut writer = on_disk(Disk { room, ..Disk::default() }, SyncPolicy { records: 3, every: Duration::MAX });
    steps(&mut writer, 11).expect("room");
    assert_eq!(writer.medium.syncs, 3);
    let mut writer = on_disk(Disk { room, ..Disk::default() }, SyncPolicy { every: Duration::ZERO, ..NEVER });
    steps(&mut writer, 100).expect("room");
    assert_eq!(writer.medium.syncs, 100);
    let failed = writer.append(&step(101, &[0.5])).expect_err("worn out");
    assert_eq!((failed.path(), failed.to_string()), (path(), "cannot write the journal run/journal.zofo".to_owned()));
    assert_eq!(writer.step(), 101, "the record is there, only the sync is not");
}

#[test]
fn a_file_cut_to_any_step_and_continued_is_the_unbroken_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.zofo");
    let (bytes, starts) = encoded(&header(), &records());
    for keep in 0..=6 {
        let mut writer = Writer::create(&path, &header(), SyncPolicy::default()).expect("new");
        records().iter().for_each(|record| writer.append(record).expect("room"));
        writer.sync().expect("synced");
        assert!(fs::read(&path).expect("written") == bytes);
        let kept = records().iter().take_while(|record| record.step <= keep).count();
        let left = Writer::truncate_to(&path, keep).expect("sound");
        assert_eq!(left, records()[..kept].last().map_or(0, |record| record.step));
        assert!(fs::read(&path).expect("cut") == bytes[..starts[kept]], "{keep}");
        // A crash tears the next record; resuming cuts it off.
        fs::write(&path, &bytes[..(starts[kept] + 5).min(bytes.len())]).expect("torn");
        let mut reader = Reader::open(&path).expect("a journal");
        let (found, _) = read_all(&mut reader).expect("recovers");
        assert_eq!(found.len(), kept);
        let mut writer = Writer::resume(&reader, NEVER).expect("resumed");
        assert_eq!((writer.step(), writer.bytes()), (left, starts[kept] as u64));
        records()[kept..].iter().for_each(|record| writer.append(record).expect("room"));
        assert!(fs::read(&path).expect("written") == bytes, "{keep}");
        fs::remove_file(&path).expect("removed");
    }
}

#[test]
fn going_back_behind_damage_does_not_need_what_is_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.zofo");
    let (mut bytes, starts) = encoded(&header(), &records());
    bytes[starts[4] + 8] ^= 16;
    fs::write(&path, &bytes).expect("written");
    let (offset, step) = damage(Reader::open(&path).and_then(|mut reader| read_all(&mut reader)));
    assert_eq!((offset, step), (starts[4] as u64, 4));
    assert!(matches!(Writer::truncate_to(&path, 5), Err(JournalError::Damaged { .. })));
    assert!(fs::read(&path).expect("unchanged") == bytes);
    let mut reader = Reader::open(&path).expect("a journal");
    while reader.step() < step {
        assert!(reader.next_record().expect("sound").is_some());
    }
    drop(Writer::resume(&reader, NEVER).expect("cut"));
    assert!(fs::read(&path).expect("cut") == bytes[..starts[4]]);
}

#[test]
fn a_journal_is_not_begun_over_another_nor_where_there_is_no_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.zofo");
    drop(Writer::create(&path, &header(), NEVER).expect("new"));
    for (path, kind) in
        [(path, io::ErrorKind::AlreadyExists), (dir.path().join("none/journal.zofo"), io::ErrorKind::NotFound)]
    {
        match Writer::create(&path, &header(), NEVER) {
            Err(JournalError::Write { source, .. }) => assert_eq!(source.kind(), kind),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing is left beside the journal");
}
