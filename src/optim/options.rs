//! Options of optimizers: declared once as the fields of a struct, with name, type, default, unit and documentation.
//!
//! *What it is.* The macro `options!` makes of one declaration the struct that the algorithm reads, its defaults, and
//! the list that help and tables are printed from. [`OptionReader`] takes values from the `[optimizer]` table of a
//! run file.
//!
//! *What must stay true.* A value is checked where it is read; an algorithm never sees one that is out of range.

mod values;

pub use values::{Auto, Decay, Names, NonNegative, Positive, Queries, Rank, Share};

use toml::{Table, Value};

use super::OptimError;
use values::shown;

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
            /// How many, or found.
            found: Auto<Rank> = Auto::Auto, "columns";
            /// How wide, or found.
            width: Auto<Positive> = Auto::Auto, "";
        }
    }

    fn read(text: &str) -> Result<Sample, OptimError> {
        let table: Table = text.parse().expect("TOML");
        Sample::read(&OptionReader::new("sample", &table, Sample::SPECS.iter())?)
    }

    #[test]
    fn given_options_are_read_and_the_others_keep_their_defaults() {
        let given = "queries = 5\nlr = 1\ncolour = \"deep-blue\"\nanew = true\npart = 1\nnames = [\"x.\"]\nfound = 7";
        let sample = read(given).expect("sound options");
        assert_eq!((sample.part.get(), sample.names.stand_in("ax.b"), sample.names.stand_in("a")), (1.0, true, false));
        assert_eq!((sample.queries.get(), sample.lr.get(), sample.warmup), (5, 1.0, 3));
        assert_eq!((sample.colour, sample.anew, sample.rank.get()), (Colour::DeepBlue, true, 2));
        assert_eq!((sample.found.given(), sample.width.given()), (Some(Rank::new(7)), None));
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
            ("found = 0", "option found of sample is 0, expected \"auto\" or an integer from 1 to 1024"),
            ("width = \"\"", "option width of sample is \"\", expected \"auto\" or a number from 1e-18 to 1e18"),
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
                    prop_assert!((1..=10_000).contains(&sample.queries.get()));
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
