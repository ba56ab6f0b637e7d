//! One record of a journal: what a step, an evaluation or the end of a run leaves behind, byte by byte.
//!
//! A record is `18 + 8·values` bytes, little-endian: step delta (u8), kind and flags (u8: low and high half), head
//! check (u16), number of values (u16), the values (f64), lr (f32), the CRC of the committed coefficients (u32), and
//! the chained CRC (u32). The chained CRC is the CRC-32 of all bytes before it, header included and stored CRCs of
//! records excluded. The head check is the low half of the same CRC continued over delta, kind, flags and number:
//! without it, a flipped bit of the number could pass for a record that a crash cut off.

use super::{RecordProblem, header::array};

/// The most values of a record: it bounds what a reader holds in memory. A step of 64 queries over 128 examples fits.
pub const MAX_VALUES: usize = 8192;

/// The most steps between two records.
pub const MAX_STEP_DELTA: u64 = 255;

/// The bytes that say how long a record is.
pub(super) const HEAD: usize = 6;
/// The bytes of a record without values.
const EMPTY: usize = 18;
/// The bytes of the longest record.
pub(super) const MAX_RECORD: usize = EMPTY + 8 * MAX_VALUES;
const CRC: usize = 4;

/// What a record is about; the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A step: all numbers that its optimizer was answered, in the order of asking.
    Step = 1,
    /// An evaluation of the weights after `step`.
    Evaluation = 2,
    /// The run is over; nothing is missing.
    End = 3,
}

/// What else is to be known about a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// A loss or gradient was infinite or NaN: the step committed nothing or, in place, not all of its update.
    pub const NONFINITE: Flags = Flags(1);
    /// The step is of first order, or has a part that is: scalars do not make it again.
    pub const FIRST_ORDER: Flags = Flags(2);
    /// The values are slopes, or have slopes among them.
    pub const SLOPES: Flags = Flags(4);
    /// The weights of this evaluation are the best so far.
    pub const BEST: Flags = Flags(8);

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
    /// The flags of both.
    #[must_use]
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// One entry of a journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// How many steps are complete with this record: the first step's record says 1.
    pub step: u64,
    /// What it is about.
    pub kind: Kind,
    /// What else is to be known.
    pub flags: Flags,
    /// Losses, slopes or scores, at most [`MAX_VALUES`].
    pub values: Vec<f64>,
    /// The learning rate; 0 where none applies.
    pub lr: f32,
    /// [`coefficients_crc`] of what was committed; 0 where nothing was.
    pub coefficients: u32,
}

/// The CRC-32 of committed coefficients: a replay that computes others is noticed at the first step.
pub fn coefficients_crc(coefficients: impl IntoIterator<Item = f32>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for coefficient in coefficients {
        crc.update(&coefficient.to_le_bytes());
    }
    crc.finalize()
}

/// What a record continues: the CRC of all before it, and the steps complete before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) crc: u32,
    pub(super) step: u64,
}

impl Record {
    /// Appends the record's bytes to `out`; answers what the next one continues.
    ///
    /// # Panics
    /// If there are too many values, or if the step does not follow: at least one for [`Kind::Step`], at most
    /// [`MAX_STEP_DELTA`].
    pub(super) fn encode(&self, before: Link, out: &mut Vec<u8>) -> Link {
        assert!(self.values.len() <= MAX_VALUES, "a record of {} values", self.values.len());
        let delta = self.step.checked_sub(before.step).filter(|&delta| delta <= MAX_STEP_DELTA);
        let delta = delta.unwrap_or_else(|| panic!("step {} recorded after step {}", self.step, before.step)) as u8;
        assert!(self.kind != Kind::Step || delta > 0, "step {} recorded twice", self.step);
        let (what, count) = (self.kind as u8 | self.flags.0 << 4, (self.values.len() as u16).to_le_bytes());
        let start = out.len();
        out.extend([delta, what]);
        out.extend(head_check(before.crc, [delta, what, count[0], count[1]]));
        out.extend(count);
        for value in &self.values {
            out.extend(value.to_le_bytes());
        }
        out.extend(self.lr.to_le_bytes());
        out.extend(self.coefficients.to_le_bytes());
        let crc = continued(before.crc, &out[start..]);
        out.extend(crc.to_le_bytes());
        Link { crc, step: self.step }
    }

    /// Reads a whole record ([`is_intact`]) that follows `before`; answers it and what the next one continues.
    pub(super) fn decode(bytes: &[u8], before: Link) -> Result<(Record, Link), RecordProblem> {
        let (delta, what) = (bytes[0], bytes[1]);
        let kind = match what & 15 {
            1 if delta == 0 => return Err(RecordProblem::NoStep),
            1 => Kind::Step,
            2 => Kind::Evaluation,
            3 => Kind::End,
            found => return Err(RecordProblem::Kind { found }),
        };
        let end = bytes.len() - EMPTY + HEAD;
        let (values, _) = bytes[HEAD..end].as_chunks::<8>();
        let step = before.step + u64::from(delta);
        let record = Record {
            step,
            kind,
            flags: Flags(what >> 4),
            values: values.iter().map(|value| f64::from_le_bytes(*value)).collect(),
            lr: f32::from_le_bytes(array(bytes, end)),
            coefficients: u32::from_le_bytes(array(bytes, end + 4)),
        };
        Ok((record, Link { crc: u32::from_le_bytes(array(bytes, end + 8)), step }))
    }
}

/// The length of the record that these bytes begin with, if its head is the one that was written after `crc`.
pub(super) fn length(bytes: &[u8], crc: u32) -> Option<usize> {
    let &[delta, what, check0, check1, count0, count1] = bytes.first_chunk::<HEAD>()?;
    let sound = head_check(crc, [delta, what, count0, count1]) == [check0, check1];
    let count = usize::from(u16::from_le_bytes([count0, count1]));
    (sound && count <= MAX_VALUES).then_some(EMPTY + 8 * count)
}

/// Whether these bytes are one record as it was written after `crc`.
pub(super) fn is_intact(bytes: &[u8], crc: u32) -> bool {
    length(bytes, crc) == Some(bytes.len()) && {
        let (body, stored) = bytes.split_at(bytes.len() - CRC);
        continued(crc, body).to_le_bytes() == stored
    }
}

/// Whether an intact record begins anywhere within `bytes`, whatever comes before it: the four bytes before a record
/// are the CRC that it continues.
pub(super) fn holds_intact(bytes: &[u8]) -> bool {
    (CRC..bytes.len()).any(|at| {
        let crc = u32::from_le_bytes(array(bytes, at - CRC));
        let whole = length(&bytes[at..], crc).and_then(|length| bytes.get(at..at + length));
        whole.is_some_and(|record| is_intact(record, crc))
    })
}

fn head_check(crc: u32, head: [u8; 4]) -> [u8; 2] {
    let [low, high, ..] = continued(crc, &head).to_le_bytes();
    [low, high]
}

fn continued(crc: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}
