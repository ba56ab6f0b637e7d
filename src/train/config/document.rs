//! The text of a run file and its overrides as keys with values and places; typed values are taken out of it one by
//! one.
//!
//! *What it is not.* It does not know what the keys mean. *What must stay true*: a key that nobody knows is an error
//! before any value is; depth is bounded, because sections are the only tables that are looked into and the parser
//! refuses nesting beyond 80.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    path::Path,
};

use serde::Deserialize;
use toml::{
    Spanned, Value,
    de::{DeString, DeTable, DeValue, ValueDeserializer},
};

use super::compare;
use crate::train::{Origin, Place, TrainError, nearest::nearest};

/// The section of the keys that stand before any section.
pub(super) const TOP: &str = "";

/// A section's name, its keys, and whether it may have others.
pub(super) type Section = (&'static str, &'static [&'static str], Keys);

/// What a section makes of keys that are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// They are errors.
    Closed,
    /// They are kept for somebody else.
    Open,
}

/// A value and where its key stands.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) place: Box<Place>,
}

/// Keys by section and name.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    values: BTreeMap<(String, String), Given>,
    /// What methods of a comparison have otherwise, by their labels.
    methods: BTreeMap<String, Document>,
}

/// A text that keys are read from.
#[derive(Clone, Copy)]
struct Source<'t> {
    text: &'t str,
    origin: &'t Origin,
}

/// A key and a value, with their spans.
type Key<'t> = Spanned<DeString<'t>>;
type Keyed<'t> = Spanned<DeValue<'t>>;

/// The most lists and tables within each other in a value: what is nested deeper may be read but, written as sections,
/// not read again.
const MAX_NESTING: usize = 8;

/// A key with its section, as messages name it: quoted if it is no bare word.
pub(super) fn dotted(section: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if section == TOP { key } else { format!("{section}.{key}") }
}

impl Document {
    /// Reads the run file's `text`, of which errors say that it stands in `path`.
    pub(super) fn read(&mut self, text: &str, path: &Path, sections: &[Section]) -> Result<(), TrainError> {
        self.merge(text, &Origin::File(path.to_owned()), sections)
    }

    /// Reads an override. A value that is not TOML is a text, if it is made of letters, digits and `_./+~@:-` only:
    /// shells take quotes away.
    pub(super) fn set(&mut self, argument: &str, sections: &[Section]) -> Result<(), TrainError> {
        let origin = Origin::Set(argument.to_owned());
        let Some((key, value)) = argument.split_once('=') else {
            return Err(TrainError::Set { argument: argument.to_owned() });
        };
        let value = value.trim();
        let is_bare = |c: char| c.is_alphanumeric() || "_./+~@:-".contains(c);
        if !value.is_empty() && value.chars().all(is_bare) && DeValue::parse(value).is_err() {
            return self.merge(&format!("{key}=\"{value}\""), &origin, sections);
        }
        self.merge(argument, &origin, sections)
    }

    fn merge(&mut self, text: &str, origin: &Origin, sections: &[Section]) -> Result<(), TrainError> {
        let source = Source { text, origin };
        let table = DeTable::parse(text).map_err(|error| source.syntax(&error, 0..0))?;
        self.merge_table(table.into_inner(), source, sections)
    }

    fn merge_table(&mut self, table: DeTable<'_>, source: Source<'_>, sections: &[Section]) -> Result<(), TrainError> {
        for (key, value) in table {
            let (name, span, whole) = (key.get_ref().to_string(), key.span(), value.span());
            let known = sections.iter().find(|(section, ..)| *section != TOP && *section == name);
            match (known, value.into_inner()) {
                (Some((section, ..)), DeValue::Table(keys)) => {
                    keys.into_iter().try_for_each(|(key, value)| self.merge_key(section, &key, value, source))?;
                }
                (section, value) => {
                    let given = source.given(span, Spanned::new(whole, value))?;
                    if section.is_some() {
                        return Err(given.refused(&name, "a section of keys"));
                    }
                    self.values.insert((TOP.to_owned(), name), given);
                }
            }
        }
        Ok(())
    }

    fn merge_key(
        &mut self,
        section: &str,
        key: &Key<'_>,
        value: Keyed<'_>,
        source: Source<'_>,
    ) -> Result<(), TrainError> {
        let (name, whole) = (key.get_ref().to_string(), value.span());
        match value.into_inner() {
            DeValue::Table(methods) if (section, &*name) == (compare::NAME, compare::METHODS) => {
                methods.into_iter().try_for_each(|(label, keys)| self.merge_method(&label, keys, source))
            }
            value => {
                let given = source.given(key.span(), Spanned::new(whole, value))?;
                if nesting(&given.value) > MAX_NESTING {
                    let expected = format!("at most {MAX_NESTING} lists and sections within each other");
                    return Err(given.found(&dotted(section, &name), "nested deeper".to_owned(), &expected));
                }
                self.values.insert((section.to_owned(), name), given);
                Ok(())
            }
        }
    }

    fn merge_method(&mut self, label: &Key<'_>, keys: Keyed<'_>, source: Source<'_>) -> Result<(), TrainError> {
        let (name, whole) = (label.get_ref().to_string(), keys.span());
        match keys.into_inner() {
            DeValue::Table(keys) if is_name(&name) => {
                self.methods.entry(name).or_default().merge_table(keys, source, compare::METHOD_SECTIONS)
            }
            keys => {
                let given = source.given(label.span(), Spanned::new(whole, keys))?;
                let key = dotted(compare::NAME, compare::METHODS);
                Err(match given.value {
                    Value::Table(_) => given.found(&key, format!("a section named {name:?}"), NAME),
                    _ => given.refused(&format!("{key}.{name}"), "a section of keys"),
                })
            }
        }
    }

    /// Refuses the first key that no section knows.
    pub(super) fn check_keys(&self, sections: &[Section]) -> Result<(), TrainError> {
        self.methods.values().try_for_each(|method| method.check_keys(compare::METHOD_SECTIONS))?;
        let unknown = self.values.iter().filter(|((section, key), _)| {
            !sections
                .iter()
                .any(|(name, keys, open)| name == section && (*open == Keys::Open || keys.contains(&&**key)))
        });
        let first =
            unknown.min_by_key(|(_, given)| (matches!(given.place.origin, Origin::Set(_)), given.place.span.start));
        let Some(((section, key), given)) = first else { return Ok(()) };
        let all = sections.iter().flat_map(|(name, keys, _)| keys.iter().map(|known| (*name, *known)));
        let mut known_as = all.clone().map(|(name, known)| (known, dotted(name, known)));
        let elsewhere = known_as.find_map(|(known, name)| (known == key || name == *key).then_some(name));
        // A table with an unknown name was meant to be a section.
        let names = sections.iter().map(|(name, ..)| *name).filter(|name| *name != TOP);
        let meant = match &given.value {
            Value::Table(_) if section == TOP => format!("[{}]", nearest(key, names)),
            _ => elsewhere.unwrap_or_else(|| {
                let keys = all.filter(|(name, _)| name == section).map(|(_, known)| known);
                dotted(section, nearest(key, keys))
            }),
        };
        Err(TrainError::Unknown { place: given.place.clone(), key: dotted(section, key), nearest: meant })
    }

    /// Where each key stands, by its dotted name.
    pub(super) fn places(&self) -> BTreeMap<String, Place> {
        self.values.iter().map(|((section, key), given)| (dotted(section, key), Place::clone(&given.place))).collect()
    }

    /// Takes what is left of a section.
    pub(super) fn rest(&mut self, section: &str) -> toml::Table {
        self.take_section(section).into_iter().map(|(key, given)| (key, given.value)).collect()
    }

    /// The same with the places.
    pub(super) fn take_section(&mut self, section: &str) -> BTreeMap<String, Given> {
        let (taken, left) = std::mem::take(&mut self.values).into_iter().partition(|((name, _), _)| name == section);
        self.values = left;
        let taken: BTreeMap<(String, String), Given> = taken;
        taken.into_iter().map(|((_, key), given)| (key, given)).collect()
    }

    /// What the method of this label has otherwise.
    pub(super) fn method(&self, label: &str) -> Option<&Document> {
        self.methods.get(label)
    }

    /// The labels of methods that have something otherwise.
    pub(super) fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(String::as_str)
    }

    /// Whether a key of this section is given and not yet taken.
    pub(super) fn has(&self, section: &str) -> bool {
        self.values.keys().any(|(name, _)| name == section)
    }

    /// Forgets the keys of a section but some.
    pub(super) fn retain(&mut self, section: &str, keep: impl Fn(&str) -> bool) {
        self.values.retain(|(name, key), _| name != section || keep(key));
    }

    /// Takes in what `other` says, which counts.
    pub(super) fn extend(&mut self, other: Document) {
        self.values.extend(other.values);
    }

    /// Where a key stands that is given and not yet taken.
    pub(super) fn place(&self, section: &str, key: &str) -> Option<&Place> {
        self.values.get(&(section.to_owned(), key.to_owned())).map(|given| &*given.place)
    }

    /// Takes a value that `read` accepts.
    pub(super) fn take<T>(
        &mut self,
        section: &str,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, TrainError> {
        let Some(given) = self.values.remove(&(section.to_owned(), key.to_owned())) else { return Ok(None) };
        given.read(section, key, expected, read).map(Some)
    }

    /// Takes an integer.
    pub(super) fn integer(
        &mut self,
        section: &str,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, TrainError> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.take(section, key, &expected, |value| {
            value.as_integer().and_then(|integer| u64::try_from(integer).ok()).filter(|integer| range.contains(integer))
        })
    }

    /// Takes one of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        section: &str,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, TrainError> {
        let expected = choices.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        self.take(section, key, &expected, |value| {
            choices.iter().find(|(word, _)| value.as_str() == Some(word)).map(|(_, choice)| *choice)
        })
    }

    /// Takes a name: what may be part of a file's name on every system.
    pub(super) fn name(&mut self, section: &str, key: &str) -> Result<Option<String>, TrainError> {
        self.take(section, key, NAME, |value| value.as_str().filter(|name| is_name(name)).map(str::to_owned))
    }

    /// Takes a path; a relative one is one of `base`.
    pub(super) fn path(
        &mut self,
        section: &str,
        key: &str,
        base: &Path,
    ) -> Result<Option<std::path::PathBuf>, TrainError> {
        self.take(section, key, "a path", |value| {
            value.as_str().filter(|path| !path.is_empty() && !path.contains('\0')).map(|path| base.join(path))
        })
    }

    /// Takes a list that has at least one item, each of which `item` accepts.
    pub(super) fn list<T>(
        &mut self,
        section: &str,
        key: &str,
        expected: &str,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, TrainError> {
        self.take(section, key, expected, |value| {
            let items: Option<Vec<T>> = value.as_array()?.iter().map(item).collect();
            items.filter(|items| !items.is_empty())
        })
    }
}

impl Given {
    /// What `read` makes of the value of this key.
    pub(super) fn read<T>(
        &self,
        section: &str,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, TrainError> {
        read(&self.value).ok_or_else(|| self.refused(&dotted(section, key), expected))
    }

    fn refused(&self, key: &str, expected: &str) -> TrainError {
        let kind = match &self.value {
            Value::String(text) => return self.found(key, format!("{text:?}"), expected),
            Value::Array(_) => "a list",
            Value::Table(_) => "a section",
            Value::Datetime(_) => "a date",
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                return self.found(key, self.value.to_string(), expected);
            }
        };
        self.found(key, kind.to_owned(), expected)
    }

    fn found(&self, key: &str, found: String, expected: &str) -> TrainError {
        const LONGEST: usize = 60;
        let found = match found.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &found[..end]),
            None => found,
        };
        TrainError::Value { place: self.place.clone(), key: key.to_owned(), found, expected: expected.to_owned() }
    }
}

/// How many lists and tables lie within each other; the parser has bounded it.
fn nesting(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
        Value::Table(table) => 1 + table.values().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

/// What may be part of a file's name on every system.
const NAME: &str = "a name of letters, digits, `_` and `-`";

/// Whether a text is one.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

impl Source<'_> {
    /// The line and column at which `span` begins.
    fn place(self, span: Range<usize>) -> Box<Place> {
        let Source { text, origin } = self;
        // A span may end up within a character that is no TOML.
        let start = (0..=span.start.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Box::new(Place {
            origin: origin.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span,
        })
    }

    /// What the parser says about `span`, or about a part of it.
    fn syntax(self, error: &toml::de::Error, span: Range<usize>) -> TrainError {
        TrainError::Syntax { place: self.place(error.span().unwrap_or(span)), message: error.message().to_owned() }
    }

    /// The value of the key that stands at `span`.
    fn given(self, span: Range<usize>, value: Keyed<'_>) -> Result<Given, TrainError> {
        let parsed = Value::deserialize(ValueDeserializer::from(value));
        let value = parsed.map_err(|error| self.syntax(&error, span.clone()))?;
        Ok(Given { value, place: self.place(span) })
    }
}
