//! The only dispatch site: what this CPU has, which instruction set runs, and the forced choice of tests.

use std::{fmt, str::FromStr, sync::OnceLock};

use super::{
    Simd, SimdOp,
    portable::{HardwareFma, Portable, SoftwareFma},
};

/// The environment variable that forces an instruction set.
const VARIABLE: &str = "ZOFO_ISA";

/// The instruction sets zofo has code for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IsaName {
    /// `wide` vectors of four lanes, with the CPU's fused multiply-add.
    Portable,
    /// `wide` vectors of four lanes, with the fused multiply-add computed from f64.
    PortableSoft,
    /// x86-64 AVX2 + FMA + F16C, eight lanes.
    Avx2,
    /// x86-64 AVX-512 F + BW + DQ + VL, sixteen lanes.
    Avx512,
    /// `AArch64` Advanced SIMD, four lanes.
    Neon,
}

impl IsaName {
    /// Every name, slowest first: the last available one is the default.
    pub const ALL: [IsaName; 5] =
        [IsaName::PortableSoft, IsaName::Portable, IsaName::Neon, IsaName::Avx2, IsaName::Avx512];

    /// The spelling of `ZOFO_ISA` and `--isa`.
    pub fn as_str(self) -> &'static str {
        match self {
            IsaName::Portable => "portable",
            IsaName::PortableSoft => "portable-soft",
            IsaName::Avx2 => "avx2",
            IsaName::Avx512 => "avx512",
            IsaName::Neon => "neon",
        }
    }
}

impl fmt::Display for IsaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IsaName {
    type Err = IsaError;
    fn from_str(text: &str) -> Result<Self, IsaError> {
        IsaName::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| IsaError::Unknown { found: text.to_owned() })
    }
}

/// Why an instruction set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsaError {
    /// The name is not one of [`IsaName::ALL`].
    #[error("unknown instruction set {found:?}: expected one of portable-soft, portable, neon, avx2, avx512")]
    Unknown {
        /// What was asked for.
        found: String,
    },
    /// zofo has code for it, this CPU does not.
    #[error("this CPU has no {name}: available here are {}; unset {VARIABLE} to let zofo choose", Isa::list())]
    Unavailable {
        /// What was asked for.
        name: IsaName,
    },
}

/// An instruction set that this CPU has: a value of this type is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa {
    name: IsaName,
}

impl Isa {
    /// The instruction set of that name, if this CPU has it.
    ///
    /// # Errors
    /// [`IsaError::Unavailable`] if it has not.
    pub fn new(name: IsaName) -> Result<Isa, IsaError> {
        let available = match name {
            IsaName::PortableSoft => true,
            IsaName::Portable => HardwareFma::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx2 => super::avx2::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx512 => super::avx512::Avx512::<false>::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            IsaName::Neon => super::neon::Neon::detect().is_some(),
            #[cfg(not(all(target_arch = "x86_64", target_arch = "aarch64")))]
            #[allow(unreachable_patterns, reason = "which names are left depends on the target")]
            _ => false,
        };
        if available { Ok(Isa { name }) } else { Err(IsaError::Unavailable { name }) }
    }

    /// All instruction sets of this CPU, slowest first.
    pub fn available() -> Vec<Isa> {
        IsaName::ALL.into_iter().filter_map(|name| Isa::new(name).ok()).collect()
    }

    /// The instruction set of this process: `ZOFO_ISA` if set, else the fastest; decided once.
    ///
    /// # Errors
    /// [`IsaError`] if `ZOFO_ISA` names something unknown or something this CPU lacks.
    pub fn active() -> Result<Isa, IsaError> {
        static ACTIVE: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
        ACTIVE
            .get_or_init(|| match std::env::var(VARIABLE) {
                Ok(text) if !text.is_empty() => Isa::new(text.parse()?),
                _ => Ok(Isa::fastest()),
            })
            .clone()
    }

    /// The fastest instruction set of this CPU.
    pub fn fastest() -> Isa {
        Isa::available().pop().expect("portable-soft runs on every CPU")
    }

    /// Which one it is.
    pub fn name(self) -> IsaName {
        self.name
    }

    /// Whether [`Isa::dispatch_bf16`] has a bf16 dot product instruction here.
    pub fn has_bf16_dot(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.name == IsaName::Avx512 {
            return bf16_dot_token().is_some();
        }
        false
    }

    /// Runs `op` compiled for this instruction set.
    pub fn dispatch<O: SimdOp>(self, op: O) -> O::Output {
        match self.name {
            IsaName::PortableSoft => Portable::<SoftwareFma>::new(SoftwareFma).vectorize(op),
            IsaName::Portable => Portable::new(HardwareFma::detect().expect(PROVEN)).vectorize(op),
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx2 => super::avx2::Avx2::detect().expect(PROVEN).vectorize(op),
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx512 => super::avx512::Avx512::<false>::detect().expect(PROVEN).vectorize(op),
            #[cfg(target_arch = "aarch64")]
            IsaName::Neon => super::neon::Neon::detect().expect(PROVEN).vectorize(op),
            #[allow(unreachable_patterns, reason = "which names are left depends on the target")]
            _ => unreachable!("{PROVEN}"),
        }
    }

    /// As [`Isa::dispatch`], with the bf16 dot product instruction where the CPU has it and it was
    /// found to give the bits of its definition.
    pub fn dispatch_bf16<O: SimdOp>(self, op: O) -> O::Output {
        #[cfg(target_arch = "x86_64")]
        if self.name == IsaName::Avx512
            && let Some(token) = bf16_dot_token()
        {
            return token.vectorize(op);
        }
        self.dispatch(op)
    }

    fn list() -> String {
        let names: Vec<_> = Isa::available().into_iter().map(|isa| isa.name.as_str()).collect();
        names.join(", ")
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

const PROVEN: &str = "an Isa value exists only for an instruction set this CPU has";

/// The `AVX512_BF16` token, if its instruction is right and worth it.
///
/// Right: the start-up check of contract C1, 4,096 fixed vectors against the two fused multiply-adds
/// that define the profile. (Their order was measured on Zen 4 and on Emerald Rapids only; another
/// CPU that differs falls back, with a line on stderr.) Worth it: a race of about 50 µs against those
/// two instructions. Zen 4 does a dot product in the time of one of them, Emerald Rapids
/// in the time of four, where expanding to f32 wins. The bits are the same either way.
#[cfg(target_arch = "x86_64")]
fn bf16_dot_token() -> Option<super::avx512::Avx512<true>> {
    static TOKEN: OnceLock<Option<super::avx512::Avx512<true>>> = OnceLock::new();
    *TOKEN.get_or_init(|| {
        let token = super::avx512::Avx512::<true>::detect()?;
        if !token.vectorize(Bf16DotCheck) {
            eprintln!("zofo: this CPU's vdpbf16ps does not round as defined; strict-bf16 uses f32 instructions");
            return None;
        }
        let plain = super::avx512::Avx512::<false>::detect()?;
        let fastest = |race: &dyn Fn() -> std::time::Duration| (0..8).map(|_| race()).min();
        let dot = fastest(&|| token.vectorize(Bf16DotRace));
        let two_fma = fastest(&|| plain.vectorize(Bf16DotRace));
        (dot < two_fma).then_some(token)
    })
}

/// Times 2,048 independent steps of the profile's arithmetic: dot products where the token has the
/// instruction, else pairs of fused multiply-adds on operands already widened.
#[cfg(target_arch = "x86_64")]
struct Bf16DotRace;

#[cfg(target_arch = "x86_64")]
impl SimdOp for Bf16DotRace {
    type Output = std::time::Duration;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> std::time::Duration {
        let operand = simd.splat(std::hint::black_box(1e-3));
        let mut acc = [simd.splat(0.0); 16];
        let start = std::time::Instant::now();
        for _ in 0..128 {
            for acc in &mut acc {
                *acc = if S::BF16_DOT {
                    simd.dot_bf16_pairs(simd.to_bits(operand), simd.to_bits(operand), *acc)
                } else {
                    simd.mul_add(operand, operand, simd.mul_add(operand, operand, *acc))
                };
            }
        }
        let elapsed = start.elapsed();
        let sum = acc.into_iter().fold(simd.splat(0.0), |sum, x| simd.add(sum, x));
        let mut lanes = [0.0; super::MAX_LANES];
        simd.store(sum, &mut lanes);
        std::hint::black_box(lanes);
        elapsed
    }
}

/// Compares `dot_bf16_pairs` with its definition on 4,096 vectors within the profile's operand range.
#[cfg(target_arch = "x86_64")]
struct Bf16DotCheck;

#[cfg(target_arch = "x86_64")]
impl SimdOp for Bf16DotCheck {
    type Output = bool;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> bool {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u32
        };
        // bf16 exponents within 2^±24: products cover cancellation, ties and far-apart addends.
        let pair = |bits: u32| (bits & 0x80ff_80ff) | (bits & 0x1800_1800) | 0x3400_3400;
        let mut acc = [0.0_f32; super::MAX_LANES];
        (0..4096).all(|round| {
            let a: [u32; super::MAX_LANES] = std::array::from_fn(|_| pair(word()));
            let b: [u32; super::MAX_LANES] = std::array::from_fn(|_| pair(word()));
            let start = acc;
            let sum = simd.dot_bf16_pairs(simd.load_u32(&a), simd.load_u32(&b), simd.load(&start));
            simd.store(sum, &mut acc);
            let same = (0..S::LANES).all(|i| {
                let odd = |x: u32| f32::from_bits(x & 0xffff_0000);
                let even = |x: u32| f32::from_bits(x << 16);
                let twin = even(a[i]).mul_add(even(b[i]), odd(a[i]).mul_add(odd(b[i]), start[i]));
                twin.to_bits() == acc[i].to_bits()
            });
            if round % 64 == 63 {
                acc = [0.0; super::MAX_LANES];
            }
            same
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_instruction_set_is_an_error_that_names_the_available_ones() {
        let foreign = if cfg!(target_arch = "x86_64") { IsaName::Neon } else { IsaName::Avx512 };
        let message = Isa::new(foreign).unwrap_err().to_string();
        assert!(message.contains(foreign.as_str()) && message.contains("portable"), "{message}");
    }

    #[test]
    fn names_round_trip_and_unknown_ones_list_the_choices() {
        for name in IsaName::ALL {
            assert_eq!(name.as_str().parse::<IsaName>(), Ok(name));
        }
        let message = "sse2".parse::<IsaName>().unwrap_err().to_string();
        assert!(message.contains("sse2") && message.contains("avx512"), "{message}");
    }
}
