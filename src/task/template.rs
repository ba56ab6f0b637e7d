//! Texts from the fields of a row: Jinja with a few filters of our own.
//!
//! *What must stay true.* A template is a program from a file: it gets [`MAX_STEPS`] steps, a bounded output, no files and
//! no clock. A field that it names and a row lacks is an error, never an empty text. White space is what the template
//! says, its last line break included.

use std::io::{self, Write};

use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value, syntax::SyntaxConfig};

use crate::text::MAX_TEXT_BYTES;

/// Steps of a template's program; those of the built-in tasks take less than thirty. A list in a list, as deep as the steps
/// allow, is printed recursively: that takes up to 670 bytes of stack a step, of the 2 MB that a thread has.
pub const MAX_STEPS: u64 = 2000;

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    fields: Vec<String>,
}

impl Template {
    /// Compiles `source`; `variables` are those it may use besides the fields of a row.
    pub(super) fn new(source: &str, variables: &[&str]) -> Result<Template, Error> {
        let mut environment = environment();
        environment.add_template_owned(NAME, source.to_owned())?;
        let used = environment.get_template(NAME)?.undeclared_variables(false);
        let known =
            |name: &String| variables.contains(&name.as_str()) || environment.globals().any(|(it, _)| it == name);
        let mut fields: Vec<String> = used.into_iter().filter(|name| !known(name)).collect();
        fields.sort();
        Ok(Template { environment, fields })
    }

    /// The fields that a row must have, in alphabetical order.
    pub(super) fn fields(&self) -> &[String] {
        &self.fields
    }

    /// The text for these variables.
    pub(super) fn render(&self, variables: &[(&str, Value)]) -> Result<String, Error> {
        let mut output = Bounded(Vec::new());
        let context = Value::from_pairs(variables.iter().cloned());
        self.environment.get_template(NAME)?.render_captured_to(context, &mut output)?;
        Ok(String::from_utf8(output.0).expect("a template writes text"))
    }
}

const NAME: &str = "template";

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(MAX_STEPS));
    environment.add_filter("upper_first", |text: &str| with_first(text, |first| first.to_uppercase().collect()));
    environment.add_filter("lower_first", |text: &str| with_first(text, |first| first.to_lowercase().collect()));
    environment.add_filter("inside_sentence", inside_sentence);
    environment.add_filter("as_question", as_question);
    environment.add_filter("without_period", |text: &str| text.strip_suffix('.').unwrap_or(text).to_owned());
    environment.add_filter("without_last", without_last);
    environment
}

/// `text` with another first character.
fn with_first(text: &str, change: impl FnOnce(char) -> String) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| change(first) + rest.as_str())
}

/// A sentence as the end of another: its first word in lower case, unless it is `I`.
fn inside_sentence(text: &str) -> String {
    let (first, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    if first == "I" { text.to_owned() } else { first.to_lowercase() + rest }
}

/// With a capital letter in front and a question mark at the end.
fn as_question(text: &str) -> String {
    let mut question = with_first(text, |first| first.to_uppercase().collect());
    if !question.ends_with('?') {
        question.push('?');
    }
    question
}

/// Without the last character: a sentence without its full stop.
fn without_last(text: &str) -> String {
    let mut rest = text.chars();
    rest.next_back();
    rest.as_str().to_owned()
}

/// Output up to [`MAX_TEXT_BYTES`], the most that is encoded in one piece.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > MAX_TEXT_BYTES - self.0.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, text: &str) -> String {
        Template::new(source, &[]).expect("a template").render(&[("x", Value::from(text))]).expect("a text")
    }

    #[test]
    fn filters_change_the_ends_of_a_text_only() {
        for (filter, text, expected) in [
            ("upper_first", "ist ÖL da", "Ist ÖL da"),
            ("upper_first", "ßa", "SSa"),
            ("lower_first", "The DOG", "the DOG"),
            ("inside_sentence", "THE Dog ran.", "the Dog ran."),
            ("inside_sentence", "I ran.", "I ran."),
            ("inside_sentence", "It", "it"),
            ("as_question", "is it so", "Is it so?"),
            ("as_question", "Is it so?", "Is it so?"),
            ("without_period", "It rains...", "It rains.."),
            ("without_period", "It rains", "It rains"),
            ("without_last", "It rains é", "It rains "),
        ] {
            assert_eq!(rendered(&format!("{{{{ x | {filter} }}}}"), text), expected, "{filter} of {text:?}");
            assert!(rendered(&format!("{{{{ x | {filter} }}}}"), "").len() <= 1, "{filter} of nothing");
        }
    }

    #[test]
    fn white_space_and_signs_stay_as_they_are() {
        assert_eq!(rendered("{{ x }}\nYes or No?\n", "a < b & \"c\""), "a < b & \"c\"\nYes or No?\n");
    }

    #[test]
    fn fields_are_what_a_template_names_and_does_not_define() {
        let template = Template::new("{{ b }}{% for c in a %}{{ c }}{{ loop.index }}{{ own }}{% endfor %}", &["own"]);
        assert_eq!(template.expect("a template").fields(), ["a", "b"]);
    }

    #[test]
    fn steps_and_output_are_bounded() {
        let failure = |source: &str, text: &str| {
            Template::new(source, &[]).expect("a template").render(&[("x", Value::from(text))]).expect_err("too much")
        };
        let endless = failure("{% for i in range(9999) %}{{ x }}{% endfor %}", "a");
        assert_eq!(endless.kind(), minijinja::ErrorKind::OutOfFuel);
        let half = "a".repeat(MAX_TEXT_BYTES / 2 + 1);
        assert_eq!(rendered("{{ x }}", &half), half);
        assert_eq!(failure("{{ x }}{{ x }}", &half).kind(), minijinja::ErrorKind::WriteFailure);
        // The deepest list that the steps allow, printed on the stack of a test thread.
        let nested =
            "{% set s = namespace(x=[]) %}{% for i in range(9999) %}{% set s.x = [s.x] %}{{ s.x }}{% endfor %}";
        assert_eq!(failure(nested, "").kind(), minijinja::ErrorKind::OutOfFuel);
    }
}
