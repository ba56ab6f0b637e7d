//! What can be wrong with a GGUF file, or missing from what zofo makes of one.

use super::{blocks::BlockType, families, pre_tokenizer};
use crate::tensor::DType;

/// Why a GGUF file cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufProblem {
    /// The file does not start as GGUF does.
    #[error("it is no GGUF file: it starts with the bytes {found:02x?}, expected the letters \"GGUF\"")]
    Magic {
        /// The first bytes.
        found: Vec<u8>,
    },
    /// Numbers are stored most significant byte first.
    #[error("it is big-endian; import a little-endian GGUF (gguf_convert_endian of llama.cpp makes one)")]
    BigEndian,
    /// A version of the container that is not read.
    #[error("it has GGUF version {found}; versions 2 and 3 are read: convert the original model anew")]
    Version {
        /// The declared version.
        found: u32,
    },
    /// The file ends inside something.
    #[error("it ends inside {what} at byte {at}: the file is cut short, or damaged")]
    Truncated {
        /// What is being read.
        what: &'static str,
        /// Where that starts.
        at: usize,
    },
    /// A declared count or length that no sound file has.
    #[error("it declares {found} {what}; at most {limit} are read")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The declared number.
        found: u64,
        /// Our limit, or what the rest of the file can hold.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} at byte {at} is not UTF-8")]
    Utf8 {
        /// What is being read.
        what: &'static str,
        /// Where it starts.
        at: usize,
    },
    /// A key or tensor stands twice: readers differ in which they take.
    #[error("{what} {name:?} stands twice")]
    Duplicate {
        /// Metadata key or tensor.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A value type that GGUF does not have.
    #[error("metadata {key:?} has the value type {found}, GGUF has 0 to 12")]
    ValueType {
        /// The key.
        key: String,
        /// The declared type.
        found: u32,
    },
    /// An array of arrays, which no model file needs.
    #[error("metadata {key:?} is an array of arrays, expected an array of plain values")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A metadata value that the import needs is not there.
    #[error("metadata {key:?} is missing: the file is not a whole model, or was written by an old converter")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value has another type or range than its meaning.
    #[error("metadata {key:?} is {found}, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Metadata that may change what the model computes, and that zofo does not know.
    #[error("metadata {key:?} is not understood; an import without it could compute something else than the model")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A quantisation that is not decoded.
    #[error("tensor {name:?} has the GGML type {found}; decoded are {}", BlockType::names())]
    BlockType {
        /// The tensor.
        name: String,
        /// GGML's number of the type.
        found: u32,
    },
    /// A shape that no tensor of this type can have.
    #[error("tensor {name:?} of dimensions {dims:?} {reason}")]
    Dimensions {
        /// The tensor.
        name: String,
        /// As declared, innermost first.
        dims: Vec<u64>,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A tensor's place in the file breaks the format.
    #[error("tensor {name:?} at offset {offset} {reason}")]
    Offset {
        /// The tensor.
        name: String,
        /// From the start of the data.
        offset: u64,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Two tensors share bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other.
        second: String,
    },
    /// An architecture whose layout is not known.
    #[error("its architecture is {found:?}; imported are {}", families::names())]
    Architecture {
        /// As in `general.architecture`.
        found: String,
    },
    /// The model lacks a tensor.
    #[error("tensor {name:?} is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor that the architecture has no place for.
    #[error("tensor {name:?} has no place in a {family} model; an import without it would be another model")]
    UnexpectedTensor {
        /// The tensor.
        name: String,
        /// The architecture.
        family: &'static str,
    },
    /// A tensor's shape contradicts the metadata.
    #[error("tensor {name:?} has shape {found:?}, expected {expected:?} by the metadata")]
    Shape {
        /// The tensor.
        name: String,
        /// Outermost first.
        found: Vec<usize>,
        /// Outermost first.
        expected: Vec<usize>,
    },
    /// Frequency factors that no Hugging Face configuration produces.
    #[error(
        "rope_freqs.weight holds factors that are not Llama 3's (entry {entry} is {found}, expected {expected}); \
         config.json cannot express them: use the original Hugging Face model"
    )]
    RopeFactors {
        /// Which frequency.
        entry: usize,
        /// Its factor.
        found: f32,
        /// The factor of Llama 3's rule with the same largest factor.
        expected: f64,
    },
    /// A tokenizer that cannot be rebuilt.
    #[error(
        "its tokenizer is of the kind {found:?}; rebuilt are \"gpt2\" (byte-level BPE) and \"llama\" (SentencePiece)"
    )]
    TokenizerModel {
        /// As in `tokenizer.ggml.model`.
        found: String,
    },
    /// How text is split before BPE is not known.
    #[error(
        "tokenizer.ggml.pre is {}; known are {}",
        found.as_deref().map_or("missing".to_owned(), |name| format!("{name:?}")),
        pre_tokenizer::names()
    )]
    PreTokenizer {
        /// As in `tokenizer.ggml.pre`.
        found: Option<String>,
    },
    /// A token of the vocabulary that cannot be one.
    #[error("token {id} ({token:?}) {reason}")]
    Token {
        /// Its id.
        id: usize,
        /// Its text, or the start of it.
        token: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A merge rule whose parts or result are no tokens.
    #[error("merge {index} ({merge:?}) is not two tokens, one space between them, that make a third")]
    Merge {
        /// Its place in `tokenizer.ggml.merges`.
        index: usize,
        /// Its text.
        merge: String,
    },
    /// A finite weight that the asked type cannot hold.
    #[error(
        "tensor {name:?} holds a value beyond the range of {dtype}: import as a type of more exponent bits (f32 has all)"
    )]
    Range {
        /// The tensor.
        name: String,
        /// The asked type.
        dtype: DType,
    },
}
