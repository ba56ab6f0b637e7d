//! The zeroth-order optimizer that another one wraps, as an option of that one.
//!
//! *What it is.* [`Inner`] is a name, or a table like `[optimizer]` itself: a name and options. [`Rate`] puts a learning
//! rate in the place of that of the table.

use crate::optim::{NonNegative, OptimError, Optimizer, OptionReader, OptionValue, find, nonfinite::Patience};

/// What is wrapped where no name is given.
const DEFAULT: &str = "mezo";

/// An optimizer and its options.
#[derive(Clone, Debug)]
pub struct Inner {
    name: String,
    options: toml::Table,
}

impl Default for Inner {
    fn default() -> Self {
        Inner { name: DEFAULT.to_owned(), options: toml::Table::new() }
    }
}

impl Inner {
    /// Makes the optimizer of `reader`'s option `inner`. It is as patient as the one around it, unless its own options say
    /// otherwise.
    ///
    /// # Errors
    /// [`OptimError`] if there is none of the name, if it takes gradients, or naming its first option that is wrong.
    pub fn build(&self, reader: &OptionReader<'_>, lr: Rate) -> Result<Box<dyn Optimizer>, OptimError> {
        let mut options = self.options.clone();
        if let Rate::Of(lr) = lr {
            options.insert("lr".to_owned(), lr.get().into());
        }
        let patience = i64::from(Patience::read(reader)?.max_nonfinite.get());
        options.entry("max_nonfinite").or_insert_with(|| patience.into());
        let inner = find(&self.name)?.build(&options)?;
        if inner.needs_gradients() { Err(reader.refusal("inner", Inner::EXPECTED)) } else { Ok(inner) }
    }
}

impl OptionValue for Inner {
    const EXPECTED: &'static str = "the name of a zeroth-order optimizer, or a table of its name and options";
    fn read(value: &toml::Value) -> Option<Self> {
        if let Some(name) = value.as_str() {
            return Some(Inner { name: name.to_owned(), ..Inner::default() });
        }
        let mut options = value.as_table()?.clone();
        let name = match options.remove("name") {
            Some(name) => name.as_str()?.to_owned(),
            None => DEFAULT.to_owned(),
        };
        Some(Inner { name, options })
    }
    fn show(&self) -> String {
        let name = toml::Value::from(self.name.as_str());
        if self.options.is_empty() {
            return name.to_string();
        }
        let mut table = self.options.clone();
        table.insert("name".to_owned(), name);
        toml::Value::from(table).to_string()
    }
}

/// The learning rate of the optimizer that is wrapped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// That of its own options.
    Inner,
    /// This one.
    Of(NonNegative),
}

impl OptionValue for Rate {
    const EXPECTED: &'static str = "\"inner\", 0 or a number from 1e-18 to 1e18";
    fn read(value: &toml::Value) -> Option<Self> {
        match value.as_str() {
            Some(name) => (name == "inner").then_some(Rate::Inner),
            None => NonNegative::read(value).map(Rate::Of),
        }
    }
    fn show(&self) -> String {
        match self {
            Rate::Inner => "\"inner\"".to_owned(),
            Rate::Of(lr) => lr.show(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::fixture::build;

    /// What building `adalezo` with these options says.
    fn refused(options: &str) -> String {
        let entry = find("adalezo").expect("registered");
        entry.build(&options.parse().expect("TOML")).map(drop).expect_err(options).to_string()
    }

    #[test]
    fn an_inner_optimizer_is_a_name_or_a_table_like_that_of_a_run_file() {
        for options in [
            "inner = \"lozo\"",
            "inner = { name = \"lozo\", rank = 4, lr = 1 }",
            "lr = 1e-5\ninner.epsilon = 1e-2",
            "[inner]\nname = \"adalezo\"\ninner = \"fzoo\"",
        ] {
            build("adalezo", options);
        }
    }

    #[test]
    fn what_is_wrong_with_it_is_said_as_of_any_optimizer() {
        let message = "option inner of adalezo is \"sgd\", expected the name of a zeroth-order optimizer, or a table of its \
                       name and options";
        assert_eq!(refused("inner = \"sgd\""), message);
        assert!(refused("inner = 3").starts_with("option inner of adalezo is 3, expected the name of"));
        assert!(refused("inner.name = 3").starts_with("option inner of adalezo is { name = 3 }, expected the name of"));
        assert!(
            refused("inner = \"mexo\"").starts_with("there is no optimizer \"mexo\"; the nearest name is \"mezo\"")
        );
        let message = "optimizer lozo has no option \"rnk\"; the nearest name is \"rank\"";
        assert_eq!(refused("inner = { name = \"lozo\", rnk = 2 }"), message);
        assert!(refused("inner.epsilon = 0").starts_with("option epsilon of mezo is 0, expected"));
        assert!(refused("lr = \"outer\"").starts_with("option lr of adalezo is \"outer\", expected \"inner\", 0 or"));
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["\"lozo\"", "{ name = \"lozo\", rank = 4 }", "{ epsilon = 0.01 }"] {
            let value = |text: &str| format!("value = {text}").parse::<toml::Table>().expect("TOML")["value"].clone();
            let inner = Inner::read(&value(text)).expect("an inner optimizer");
            let again = Inner::read(&value(&inner.show())).expect("an inner optimizer");
            assert_eq!((again.name, again.options), (inner.name, inner.options));
        }
        for rate in [Rate::Inner, Rate::Of(NonNegative::new(1e-6))] {
            let text = format!("rate = {}", rate.show());
            assert_eq!(Rate::read(&text.parse::<toml::Table>().expect("TOML")["rate"]), Some(rate));
        }
    }
}
