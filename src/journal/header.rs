//! The header of a journal: which run its numbers belong to.
//!
//! *What it is not.* It does not compare itself with files: whoever resumes or replays makes the header that is
//! expected and asks for the [`Header::first_difference`].

use super::HeaderProblem;

/// The version of the format that this module writes and the only one it reads.
pub const FORMAT_VERSION: u16 = 1;

/// The longest configuration a header carries; run files have some hundred bytes.
pub const MAX_CONFIG_BYTES: usize = 64 << 10;

const MAGIC: [u8; 8] = *b"zofo run";
/// The bytes before the configuration's text.
pub(super) const FIXED: usize = 188;
const CRC: usize = 4;
/// More bytes than any header has.
pub(super) const MAX_HEADER: usize = FIXED + MAX_CONFIG_BYTES + CRC;
/// Stands where there is no file to digest: no file is known that has it.
const NONE: Sha256Digest = [0; 32];

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

/// The numeric profile of a run's linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NumericProfile {
    /// `strict-f32`.
    StrictF32 = 1,
    /// `strict-bf16`.
    StrictBf16 = 2,
}

/// Whether the records say all there is to know about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunKind {
    /// Every step is made of the scalars of its record: base and journal replay to the weights.
    Scalar = 1,
    /// Some steps are of first order: a replay needs the data as well.
    Hybrid = 2,
}

/// What identifies a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The numeric profile.
    pub profile: NumericProfile,
    /// Whether scalars are all there is.
    pub run: RunKind,
    /// The version of the noise that directions are made of.
    pub noise_version: u32,
    /// The run's seed.
    pub seed: u64,
    /// The digest of the configuration.
    pub config_digest: Sha256Digest,
    /// The digest of the weights that the run starts from.
    pub base_weights: Sha256Digest,
    /// The digest of the training data.
    pub train: Sha256Digest,
    /// The digest of the validation data, if there is any.
    pub valid: Option<Sha256Digest>,
    /// The digest of the task's template, if it is a file of the user's.
    pub template: Option<Sha256Digest>,
    /// The resolved configuration: what a replay needs to know besides the numbers.
    pub config: String,
}

impl Header {
    /// The header's bytes, the checksum last.
    ///
    /// # Panics
    /// If the configuration is longer than [`MAX_CONFIG_BYTES`].
    pub(super) fn encode(&self) -> Vec<u8> {
        assert!(self.config.len() <= MAX_CONFIG_BYTES, "a configuration of {} bytes", self.config.len());
        let mut bytes = Vec::with_capacity(FIXED + self.config.len() + CRC);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend([self.profile as u8, self.run as u8]);
        bytes.extend(self.noise_version.to_le_bytes());
        bytes.extend(self.seed.to_le_bytes());
        bytes.extend(self.config_digest);
        bytes.extend(self.base_weights);
        bytes.extend(self.train);
        bytes.extend(self.valid.unwrap_or(NONE));
        bytes.extend(self.template.unwrap_or(NONE));
        bytes.extend((self.config.len() as u32).to_le_bytes());
        assert_eq!(bytes.len(), FIXED);
        bytes.extend(self.config.bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a header from the first bytes of a file, at least [`MAX_HEADER`] of them or all that there are. Answers it
    /// with its length and its checksum, from which the chain of the records starts.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Header, usize, u32), HeaderProblem> {
        let short = |expected| HeaderProblem::TooShort { bytes: bytes.len(), expected };
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>().ok_or_else(|| short(FIXED + CRC))?;
        let found = array::<8>(fixed, 0);
        if found != MAGIC {
            return Err(HeaderProblem::Magic { found });
        }
        let found = u16::from_le_bytes(array(fixed, 8));
        if found != FORMAT_VERSION {
            return Err(HeaderProblem::Version { found });
        }
        let declared = u32::from_le_bytes(array(fixed, FIXED - 4));
        let length = declared as usize;
        if length > MAX_CONFIG_BYTES {
            return Err(HeaderProblem::ConfigLength { declared });
        }
        let stored = rest.get(length..length + CRC).ok_or_else(|| short(FIXED + length + CRC))?;
        let (found, expected) = (u32::from_le_bytes(array(stored, 0)), crc32fast::hash(&bytes[..FIXED + length]));
        if found != expected {
            return Err(HeaderProblem::Checksum { found, expected });
        }
        let digest = |at| array::<32>(fixed, at);
        let optional = |at| Some(digest(at)).filter(|digest| *digest != NONE);
        let header = Header {
            profile: match fixed[10] {
                1 => NumericProfile::StrictF32,
                2 => NumericProfile::StrictBf16,
                found => return Err(HeaderProblem::Unknown { field: "profile", found }),
            },
            run: match fixed[11] {
                1 => RunKind::Scalar,
                2 => RunKind::Hybrid,
                found => return Err(HeaderProblem::Unknown { field: "kind of run", found }),
            },
            noise_version: u32::from_le_bytes(array(fixed, 12)),
            seed: u64::from_le_bytes(array(fixed, 16)),
            config_digest: digest(24),
            base_weights: digest(56),
            train: digest(88),
            valid: optional(120),
            template: optional(152),
            config: std::str::from_utf8(&rest[..length])
                .map_err(|error| HeaderProblem::ConfigText { valid: error.valid_up_to() })?
                .to_owned(),
        };
        Ok((header, FIXED + length + CRC, expected))
    }

    /// The first fact in which another run differs, in words; the text of the configuration is compared by its digest
    /// only, because it names paths as well.
    pub fn first_difference(&self, other: &Header) -> Option<&'static str> {
        [
            (self.noise_version != other.noise_version, "the version of the noise"),
            (self.profile != other.profile, "the numeric profile"),
            (self.base_weights != other.base_weights, "the model's weights"),
            (self.train != other.train, "the training data, or the configuration or tokenizer that read them,"),
            (self.valid != other.valid, "the validation data"),
            (self.template != other.template, "the task's template"),
            (self.seed != other.seed, "the seed"),
            (self.run != other.run, "whether the run has first-order steps"),
            (self.config_digest != other.config_digest, "the configuration"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }
}

/// The `N` bytes at `at`, which lie within `bytes`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the length was checked")
}
