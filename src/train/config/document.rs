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
    Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

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
#[derive(Debug, Default)]
pub(super) struct Document {
    values: BTreeMap<(String, String), Given>,
}

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
        let place = |span: Range<usize>| place(text, span, origin);
        let syntax = |error: toml::de::Error, span: Range<usize>| TrainError::Syntax {
            place: place(error.span().unwrap_or(span)),
            message: error.message().to_owned(),
        };
        let table = DeTable::parse(text).map_err(|error| syntax(error, 0..0))?;
        for (key, value) in table.into_inner() {
            let (name, span) = (key.get_ref().to_string(), key.span());
            let whole = value.span();
            let known = sections.iter().find(|(section, ..)| *section != TOP && *section == name);
            match (known, value.into_inner()) {
                (Some((section, ..)), DeValue::Table(keys)) => {
                    for (key, value) in keys {
                        let (name, span) = (key.get_ref().to_string(), key.span());
                        let parsed = Value::deserialize(ValueDeserializer::from(value));
                        let value = parsed.map_err(|error| syntax(error, span.clone()))?;
                        let given = Given { value, place: place(span) };
                        if nesting(&given.value) > MAX_NESTING {
                            let expected = format!("at most {MAX_NESTING} lists and sections within each other");
                            return Err(given.found(&dotted(section, &name), "nested deeper".to_owned(), &expected));
                        }
                        self.values.insert(((*section).to_owned(), name), given);
                    }
                }
                (section, value) => {
                    let parsed = Value::deserialize(ValueDeserializer::from(toml::Spanned::new(whole, value)));
                    let given =
                        Given { value: parsed.map_err(|error| syntax(error, span.clone()))?, place: place(span) };
                    if section.is_some() {
                        return Err(given.refused(&name, "a section of keys"));
                    }
                    self.values.insert((TOP.to_owned(), name), given);
                }
            }
        }
        Ok(())
    }

    /// Refuses the first key that no section knows.
    pub(super) fn check_keys(&self, sections: &[Section]) -> Result<(), TrainError> {
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
        let keys: Vec<_> = self.values.keys().filter(|(name, _)| name == section).cloned().collect();
        keys.into_iter()
            .map(|name| {
                let given = self.values.remove(&name).expect("listed above");
                (name.1, given.value)
            })
            .collect()
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
        match read(&given.value) {
            Some(value) => Ok(Some(value)),
            None => Err(given.refused(&dotted(section, key), expected)),
        }
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
        self.take(section, key, "a name of letters, digits, `_` and `-`", |value| {
            let is_name = |name: &&str| {
                !name.is_empty()
                    && name.len() <= 64
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
            };
            value.as_str().filter(is_name).map(str::to_owned)
        })
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

/// The line and column at which `span` begins.
fn place(text: &str, span: Range<usize>, origin: &Origin) -> Box<Place> {
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
