//! The types of options: what values each takes, and how a person writes them.
//!
//! *What must stay true.* A value of a type is within its bounds, however it came to be.

use std::num::NonZeroU32;

use toml::Value;

use super::OptionValue;

/// A number above zero that f32 holds with room to square it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Positive(f64);

/// Zero, or a [`Positive`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonNegative(f64);

/// A number from 0 that is less than 1: how much of a running mean is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decay(f64);

/// How many directions a step has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queries(u32);

/// How many columns thin factors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank(u32);

/// Factors of more columns are not thin, and their decompositions take longer than the model.
const MAX_RANK: u32 = 1024;

impl Rank {
    /// This number.
    ///
    /// # Panics
    /// If it is out of range.
    pub fn new(rank: u32) -> Self {
        assert!((1..=MAX_RANK).contains(&rank), "factors of rank {rank}");
        Rank(rank)
    }
    /// The number.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

impl OptionValue for Rank {
    const EXPECTED: &'static str = "an integer from 1 to 1024";
    fn read(value: &Value) -> Option<Self> {
        let rank = value.as_integer().and_then(|integer| u32::try_from(integer).ok());
        rank.filter(|rank| (1..=MAX_RANK).contains(rank)).map(Rank)
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A journal's record counts the losses of a step in 16 bits; two for each direction leave room for a few more.
const MAX_QUERIES: u32 = 10_000;

impl Queries {
    /// This number.
    ///
    /// # Panics
    /// If it is out of range.
    pub fn new(queries: u32) -> Self {
        assert!((1..=MAX_QUERIES).contains(&queries), "{queries} queries a step");
        Queries(queries)
    }
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl OptionValue for Queries {
    const EXPECTED: &'static str = "an integer from 1 to 10000";
    fn read(value: &Value) -> Option<Self> {
        let queries = value.as_integer().and_then(|integer| u32::try_from(integer).ok());
        queries.filter(|queries| (1..=MAX_QUERIES).contains(queries)).map(Queries)
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// Squares of f32 in these bounds are f32 as well.
const RANGE: std::ops::RangeInclusive<f64> = 1e-18..=1e18;

impl Positive {
    /// This number.
    ///
    /// # Panics
    /// If it is out of range.
    pub fn new(value: f64) -> Self {
        assert!(RANGE.contains(&value), "{value} is no positive number in {RANGE:?}");
        Positive(value)
    }
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl NonNegative {
    /// This number.
    ///
    /// # Panics
    /// If it is out of range.
    pub fn new(value: f64) -> Self {
        assert!(value == 0.0 || RANGE.contains(&value), "{value} is neither 0 nor in {RANGE:?}");
        NonNegative(value)
    }
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// TOML writes `1` and `1.0` apart; a user means the same.
fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))
}

/// A value as a person writes it: 1e-6, where TOML's own display counts out the zeros.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Float(number) if number.is_finite() => format!("{number:?}"),
        value => value.to_string(),
    }
}

impl OptionValue for Positive {
    const EXPECTED: &'static str = "a number from 1e-18 to 1e18";
    fn read(value: &Value) -> Option<Self> {
        number(value).filter(|number| RANGE.contains(number)).map(Positive)
    }
    fn show(&self) -> String {
        shown(&Value::Float(self.0))
    }
}

impl OptionValue for NonNegative {
    const EXPECTED: &'static str = "0 or a number from 1e-18 to 1e18";
    fn read(value: &Value) -> Option<Self> {
        number(value).filter(|&number| number == 0.0 || RANGE.contains(&number)).map(NonNegative)
    }
    fn show(&self) -> String {
        shown(&Value::Float(self.0))
    }
}

impl Decay {
    /// This number.
    ///
    /// # Panics
    /// If it is out of range.
    pub fn new(value: f64) -> Self {
        assert!((0.0..1.0).contains(&value), "{value} is no decay");
        Decay(value)
    }
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl OptionValue for Decay {
    const EXPECTED: &'static str = "a number from 0 that is less than 1";
    fn read(value: &Value) -> Option<Self> {
        number(value).filter(|number| (0.0..1.0).contains(number)).map(Decay)
    }
    fn show(&self) -> String {
        shown(&Value::Float(self.0))
    }
}

/// A value, or the word for one that the algorithm finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto<T> {
    /// Found by the algorithm.
    Auto,
    /// This one.
    Given(T),
}

impl<T> Auto<T> {
    /// The value, if one was given.
    pub fn given(self) -> Option<T> {
        match self {
            Auto::Auto => None,
            Auto::Given(value) => Some(value),
        }
    }
}

/// A type of options that an algorithm may find a value of.
pub trait Found: OptionValue {
    /// The values that [`Auto`] takes.
    const EXPECTED: &'static str;
}

impl Found for Positive {
    const EXPECTED: &'static str = "\"auto\" or a number from 1e-18 to 1e18";
}

impl Found for Rank {
    const EXPECTED: &'static str = "\"auto\" or an integer from 1 to 1024";
}

impl<T: Found> OptionValue for Auto<T> {
    const EXPECTED: &'static str = <T as Found>::EXPECTED;
    fn read(value: &Value) -> Option<Self> {
        if value.as_str() == Some("auto") { Some(Auto::Auto) } else { T::read(value).map(Auto::Given) }
    }
    fn show(&self) -> String {
        match self {
            Auto::Auto => "\"auto\"".to_owned(),
            Auto::Given(value) => value.show(),
        }
    }
}

/// A number from 0 to 1: a part of something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    /// This number.
    ///
    /// # Panics
    /// If it is out of range.
    pub fn new(value: f64) -> Self {
        assert!((0.0..=1.0).contains(&value), "{value} is no share");
        Share(value)
    }
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl OptionValue for Share {
    const EXPECTED: &'static str = "a number from 0 to 1";
    fn read(value: &Value) -> Option<Self> {
        number(value).filter(|number| (0.0..=1.0).contains(number)).map(Share)
    }
    fn show(&self) -> String {
        shown(&Value::Float(self.0))
    }
}

/// Parts of the names of parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// These parts.
    pub fn new(parts: &[&str]) -> Self {
        Names(parts.iter().map(|&part| part.to_owned()).collect())
    }
    /// Whether one of them stands in `name`.
    pub fn stand_in(&self, name: &str) -> bool {
        self.0.iter().any(|part| name.contains(part.as_str()))
    }
}

impl OptionValue for Names {
    const EXPECTED: &'static str = "a list of parts of names";
    fn read(value: &Value) -> Option<Self> {
        let part = |value: &Value| value.as_str().filter(|part| !part.is_empty()).map(str::to_owned);
        value.as_array()?.iter().map(part).collect::<Option<_>>().map(Names)
    }
    fn show(&self) -> String {
        shown(&Value::from(self.0.clone()))
    }
}

impl OptionValue for u64 {
    const EXPECTED: &'static str = "an integer from 0";
    fn read(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|integer| integer.try_into().ok())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl OptionValue for NonZeroU32 {
    const EXPECTED: &'static str = "an integer from 1 to 4294967295";
    fn read(value: &Value) -> Option<Self> {
        value.as_integer().and_then(|integer| u32::try_from(integer).ok()).and_then(NonZeroU32::new)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}
