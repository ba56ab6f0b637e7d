//! What a kernel needs besides its operands.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{simd::Isa, tensor::Workspace};

/// The numeric profile of linear layers: part of a run's identity (contract C1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// f32 operands, one chain of fused multiply-adds per output.
    #[default]
    StrictF32,
    /// Operands rounded to bf16, magnitudes below 2⁻⁵⁵ to zero; products of pairs odd element first.
    StrictBf16,
}

impl Profile {
    /// The spelling of run files.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::StrictF32 => "strict-f32",
            Profile::StrictBf16 => "strict-bf16",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A profile name that is neither `strict-f32` nor `strict-bf16`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown numeric profile {found:?}: expected strict-f32 or strict-bf16")]
pub struct UnknownProfile {
    /// What was asked for.
    pub found: String,
}

impl FromStr for Profile {
    type Err = UnknownProfile;
    fn from_str(text: &str) -> Result<Self, UnknownProfile> {
        [Profile::StrictF32, Profile::StrictBf16]
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| UnknownProfile { found: text.to_owned() })
    }
}

/// The instruction set, numeric profile and scratch memory of a computation. Threads are those of the
/// rayon pool the kernel is called in.
#[derive(Clone, Debug)]
pub struct Context {
    /// The instruction set.
    pub isa: Isa,
    /// The numeric profile of linear layers; all other kernels are f32 in every profile.
    pub profile: Profile,
    /// Scratch memory, shared by clones.
    pub workspace: Arc<Workspace>,
}

impl Context {
    /// A context on `isa` with profile `strict-f32` and an empty workspace.
    pub fn new(isa: Isa) -> Self {
        Context { isa, profile: Profile::default(), workspace: Arc::default() }
    }

    /// The same context with another numeric profile.
    #[must_use]
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }
}
