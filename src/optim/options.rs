//! Options of optimizers: declared once as the fields of a struct, with name, type, default, unit and documentation.
//!
//! *What it is.* The macro `options!` makes of one declaration the struct that the algorithm reads, its defaults, and
//! the list that help and tables are printed from. [`OptionReader`] takes values from the `[optimizer]` table of a
//! run file.
//!
//! *What must stay true.* A value is checked where it is read; an algorithm never sees one that is out of range.

use std::num::NonZeroU32;

use toml::{Table, Value};

use super::OptimError;

/// What help says about an option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its key in the run file.
    pub name: &'static str,
    /// What values it takes.
    pub expected: &'static str,
    /// The value where none is given, as it would stand in a run file.
    pub default: fn() -> String,
    /// The unit of its value, empty if it has none.
    pub unit: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// A type of options.
pub trait OptionValue: Sized {
    /// The values it takes, for messages and help.
    const EXPECTED: &'static str;
    /// The value, unless it is of another type or out of range.
    fn read(value: &Value) -> Option<Self>;
    /// As it would stand in a run file.
    fn show(&self) -> String;
}

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
fn shown(value: &Value) -> String {
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

/// Takes the options of one optimizer from a table.
#[derive(Clone, Copy, Debug)]
pub struct OptionReader<'a> {
    optimizer: &'static str,
    table: &'a Table,
}

impl<'a> OptionReader<'a> {
    /// Reads `table`, all keys of which must be options of the groups `specs`.
    ///
    /// # Errors
    /// [`OptimError::UnknownOption`] naming the first key that is none.
    pub fn new(
        optimizer: &'static str,
        table: &'a Table,
        specs: impl Iterator<Item = &'static OptionSpec>,
    ) -> Result<Self, OptimError> {
        let known: Vec<_> = specs.map(|spec| spec.name).collect();
        match table.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(OptionReader { optimizer, table }),
            Some(key) => Err(OptimError::UnknownOption { optimizer, found: key.clone(), nearest: nearest(key, known) }),
        }
    }

    /// The value of an option, `default` if none is given.
    ///
    /// # Errors
    /// [`OptimError::OptionValue`] if it is not one of the option's.
    pub fn get<T: OptionValue>(&self, option: &'static str, default: T) -> Result<T, OptimError> {
        let Some(value) = self.table.get(option) else { return Ok(default) };
        T::read(value).ok_or_else(|| self.refusal(option, T::EXPECTED))
    }

    /// That the value of an option, which the run file gives, is not `expected`.
    pub(super) fn refusal(&self, option: &'static str, expected: &'static str) -> OptimError {
        let found = self.table.get(option).map_or_else(|| "not given".to_owned(), shown);
        OptimError::OptionValue { optimizer: self.optimizer, option, found, expected }
    }
}

/// The candidate with the fewest edits to `found`, the first of several.
///
/// # Panics
/// If there is no candidate.
pub(super) fn nearest(found: &str, candidates: impl IntoIterator<Item = &'static str>) -> &'static str {
    let candidates = candidates.into_iter();
    candidates.min_by_key(|candidate| strsim::levenshtein(found, candidate)).expect("something to choose from")
}

/// Declares a struct of options: `/// about`, `name: Type = default, "unit";` for each.
macro_rules! options {
    (
        $(#[doc = $about:literal])+
        $vis:vis struct $group:ident {
            $($(#[doc = $doc:literal])+ $option:ident: $kind:ty = $default:expr, $unit:literal;)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        $vis struct $group {
            $($(#[doc = $doc])+ $vis $option: $kind,)+
        }

        impl $group {
            /// What help says about each.
            $vis const SPECS: &'static [$crate::optim::OptionSpec] = &[$(
                $crate::optim::OptionSpec {
                    name: stringify!($option),
                    expected: <$kind as $crate::optim::OptionValue>::EXPECTED,
                    default: || <$kind as $crate::optim::OptionValue>::show(&$default),
                    unit: $unit,
                    about: concat!($($doc),+).trim_ascii(),
                },
            )+];

            /// The options that a run file gives, and the defaults of the others.
            ///
            /// # Errors
            /// [`OptimError`](crate::optim::OptimError) naming the first that is not of its type or out of range.
            $vis fn read(reader: &$crate::optim::OptionReader<'_>) -> Result<Self, $crate::optim::OptimError> {
                Ok($group { $($option: reader.get(stringify!($option), $default)?,)+ })
            }
        }
    };
}
pub(super) use options;

/// Declares an option that is one of some names.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        $vis:vis enum $choice:ident { $($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+ }
        expected $expected:literal
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $choice { $($(#[doc = $doc])+ $variant,)+ }

        impl $crate::optim::OptionValue for $choice {
            const EXPECTED: &'static str = $expected;
            fn read(value: &toml::Value) -> Option<Self> {
                match value.as_str()? {
                    $($name => Some($choice::$variant),)+
                    _ => None,
                }
            }
            fn show(&self) -> String {
                match self { $($choice::$variant => concat!('"', $name, '"').to_owned(),)+ }
            }
        }
    };
}
pub(super) use choice;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    choice! {
        /// A colour.
        enum Colour {
            /// Red.
            Red = "red",
            /// Deep blue.
            DeepBlue = "deep-blue",
        }
        expected "\"red\" or \"deep-blue\""
    }

    options! {
        /// For tests.
        struct Sample {
            /// Scale of a step,
            /// in two lines.
            lr: NonNegative = NonNegative::new(1e-6), "1/slope";
            /// How many.
            queries: Queries = Queries::new(1), "";
            /// Steps to wait.
            warmup: u64 = 3, "steps";
            /// Which.
            colour: Colour = Colour::Red, "";
            /// How much is kept.
            kept: Decay = Decay::new(0.9), "";
            /// How thin.
            rank: Rank = Rank::new(2), "columns";
            /// Whether to begin anew.
            anew: bool = false, "";
            /// How much of it.
            part: Share = Share::new(0.5), "";
            /// Which ones.
            names: Names = Names::new(&["a", "b.c"]), "";
        }
    }

    fn read(text: &str) -> Result<Sample, OptimError> {
        let table: Table = text.parse().expect("TOML");
        Sample::read(&OptionReader::new("sample", &table, Sample::SPECS.iter())?)
    }

    #[test]
    fn given_options_are_read_and_the_others_keep_their_defaults() {
        let given = "queries = 5\nlr = 1\ncolour = \"deep-blue\"\nanew = true\npart = 1\nnames = [\"x.\"]";
        let sample = read(given).expect("sound options");
        assert_eq!((sample.part.get(), sample.names.stand_in("ax.b"), sample.names.stand_in("a")), (1.0, true, false));
        assert_eq!((sample.queries.get(), sample.lr.get(), sample.warmup), (5, 1.0, 3));
        assert_eq!((sample.colour, sample.anew, sample.rank.get()), (Colour::DeepBlue, true, 2));
    }

    #[test]
    fn defaults_read_back_from_the_text_that_help_shows() {
        let text: String = Sample::SPECS.iter().map(|spec| format!("{} = {}\n", spec.name, (spec.default)())).collect();
        assert_eq!(format!("{:?}", read(&text).expect("defaults")), format!("{:?}", read("").expect("nothing")));
        assert_eq!(Sample::SPECS[0].about, "Scale of a step, in two lines.");
        assert_eq!((Sample::SPECS[0].default)(), "1e-6");
    }

    #[test]
    fn an_unknown_option_is_refused_with_the_nearest_name() {
        let message = read("warm_up = 3").expect_err("no such option").to_string();
        assert_eq!(message, "optimizer sample has no option \"warm_up\"; the nearest name is \"warmup\"");
    }

    #[test]
    fn a_value_of_another_type_or_out_of_range_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("lr = -1.0", "option lr of sample is -1.0, expected 0 or a number from 1e-18 to 1e18"),
            ("lr = nan", "option lr of sample is nan, expected 0 or a number from 1e-18 to 1e18"),
            ("lr = 1e-19", "option lr of sample is 1e-19, expected 0 or a number from 1e-18 to 1e18"),
            ("lr = 2e18", "option lr of sample is 2e18, expected 0 or a number from 1e-18 to 1e18"),
            ("lr = inf", "option lr of sample is inf, expected 0 or a number from 1e-18 to 1e18"),
            ("lr = \"1\"", "option lr of sample is \"1\", expected 0 or a number from 1e-18 to 1e18"),
            ("queries = 0", "option queries of sample is 0, expected an integer from 1 to 10000"),
            ("queries = 1.5", "option queries of sample is 1.5, expected an integer from 1 to 10000"),
            ("kept = 1", "option kept of sample is 1, expected a number from 0 that is less than 1"),
            ("kept = -0.1", "option kept of sample is -0.1, expected a number from 0 that is less than 1"),
            ("rank = 0", "option rank of sample is 0, expected an integer from 1 to 1024"),
            ("rank = 1025", "option rank of sample is 1025, expected an integer from 1 to 1024"),
            ("anew = 1", "option anew of sample is 1, expected true or false"),
            ("part = 1.5", "option part of sample is 1.5, expected a number from 0 to 1"),
            ("names = [\"a\", 1]", "option names of sample is [\"a\", 1], expected a list of parts of names"),
            ("names = [\"\"]", "option names of sample is [\"\"], expected a list of parts of names"),
            ("warmup = -1", "option warmup of sample is -1, expected an integer from 0"),
            ("colour = \"Red\"", "option colour of sample is \"Red\", expected \"red\" or \"deep-blue\""),
        ] {
            assert_eq!(read(text).expect_err(text).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read_within_its_range_or_refused_by_name(
            key in prop::sample::select(vec!["lr", "queries", "warmup", "colour", "kept", "rank", "anew", "lrs", ""]),
            value in prop_oneof![
                any::<i64>().prop_map(Value::Integer),
                any::<f64>().prop_map(Value::Float),
                any::<bool>().prop_map(Value::Boolean),
                ".*".prop_map(Value::String),
                Just(Value::Array(vec![Value::Integer(1)])),
            ],
        ) {
            let table = Table::from_iter([(key.to_owned(), value)]);
            let read = OptionReader::new("sample", &table, Sample::SPECS.iter()).and_then(|reader| Sample::read(&reader));
            match read {
                Ok(sample) => {
                    let lr = sample.lr.get();
                    prop_assert!(lr == 0.0 || ((lr as f32).is_normal() && (lr as f32 * lr as f32).is_normal()));
                    prop_assert!((1..=MAX_QUERIES).contains(&sample.queries.get()));
                    prop_assert!((0.0..1.0).contains(&sample.kept.get()));
                    prop_assert!((1..=1024).contains(&sample.rank.get()));
                }
                Err(OptimError::UnknownOption { found, .. }) => prop_assert_eq!(found, key),
                Err(OptimError::OptionValue { option, .. }) => prop_assert_eq!(option, key),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn the_fewest_edits_win_and_of_equals_the_first() {
        assert_eq!(nearest("mezzo", ["fzoo", "mezo"]), "mezo");
        assert_eq!(nearest("x", ["a", "b"]), "a");
    }
}
