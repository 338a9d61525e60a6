//! Reads tables of a TOML document and collects all mistakes.
//!
//! A [`Section`] remembers the keys that were read; the remaining ones are unknown. A wrong value
//! leaves its field unchanged, so that reading continues to the next mistake.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Position, Problem};

/// The most characters of a name that are compared or printed.
const MAX_NAME: usize = 64;

/// The mistakes in a text.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    text: &'a str,
    found: RefCell<Vec<Problem>>,
}

impl<'a> Problems<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::new(Vec::new()) }
    }

    pub(super) fn position(&self, span: &Range<usize>) -> Position {
        Position::of(self.text, span.start)
    }

    pub(super) fn add(&self, span: &Range<usize>, message: String) {
        self.add_at(self.position(span), message);
    }

    pub(super) fn add_at(&self, position: Position, message: String) {
        self.found.borrow_mut().push(Problem { position, message });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.found.into_inner()
    }
}

/// A value with its position.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A table.
#[derive(Debug)]
pub(super) struct Section<'p, 't, 'i> {
    pub(super) problems: &'p Problems<'p>,
    table: &'t DeTable<'i>,
    span: Range<usize>,
    /// The prefix of keys in errors, with a dot.
    prefix: String,
    known: Vec<&'static str>,
}

impl<'p, 't, 'i> Section<'p, 't, 'i> {
    pub(super) fn root(problems: &'p Problems<'p>, table: &'t Spanned<DeTable<'i>>) -> Self {
        Self {
            problems,
            table: table.get_ref(),
            span: 0..0,
            prefix: String::new(),
            known: Vec::new(),
        }
    }

    /// The name of a key in errors.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The value of a key. The key counts as known from now on.
    pub(super) fn get(&mut self, key: &'static str) -> Option<&'t Value<'i>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// Whether the table has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// Notes that the value of a key is wrong.
    pub(super) fn wrong(&self, value: &Value<'_>, key: &str, must: &str) {
        self.problems.add(&value.span(), format!("`{}` must be {must}", self.name(key)));
    }

    /// Notes that a key is missing.
    pub(super) fn missing(&self, key: &str, what: &str) {
        let mut position = self.position();
        if self.prefix.is_empty() {
            // The whole file has no line to point to; its first line is unrelated.
            position.text.clear();
        }
        self.problems.add_at(position, format!("`{}` is missing: {what}", self.name(key)));
    }

    /// The position where the table begins.
    pub(super) fn position(&self) -> Position {
        self.problems.position(&self.span)
    }

    /// A table within this one.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Self> {
        let value = self.get(key)?;
        let section = self.inner(value, key);
        if section.is_none() {
            self.wrong(value, key, "a table of keys");
        }
        section
    }

    /// A value as a table; notes a mistake if it is none.
    pub(super) fn inner(&self, value: &'t Value<'i>, key: &str) -> Option<Self> {
        let table = value.get_ref().as_table()?;
        let prefix = format!("{}.", self.name(key));
        Some(Self { problems: self.problems, table, span: value.span(), prefix, known: Vec::new() })
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let must = format!("tables, each opened by [[{key}]]");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(value, key, &must);
            return Vec::new();
        };
        let one = |item| {
            let section = self.inner(item, key);
            if section.is_none() {
                self.wrong(item, key, &must);
            }
            section
        };
        array.iter().filter_map(one).collect()
    }

    /// Reads text with a number of characters within `chars`.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        chars: RangeInclusive<usize>,
    ) -> Option<&'t str> {
        let value = self.get(key)?;
        let text = value.get_ref().as_str().filter(|text| chars.contains(&text.chars().count()));
        if text.is_none() {
            let (least, most) = chars.into_inner();
            self.wrong(value, key, &format!("text of {least} to {most} characters, in quotes"));
        }
        text
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, field: &mut bool) {
        if let Some(value) = self.get(key) {
            match value.get_ref().as_bool() {
                Some(flag) => *field = flag,
                None => self.wrong(value, key, "true or false"),
            }
        }
    }

    /// Reads a whole number within bounds.
    pub(super) fn whole<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
        field: &mut T,
    ) {
        if let Some(value) = self.get(key) {
            match whole(value, &bounds) {
                Some(whole) => *field = whole,
                None => self.wrong(value, key, &whole_within(&bounds)),
            }
        }
    }

    /// Reads a whole number into a field that may stay empty.
    pub(super) fn whole_option<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
        field: &mut Option<T>,
    ) {
        if let Some(value) = self.get(key) {
            *field = whole(value, &bounds);
            if field.is_none() {
                self.wrong(value, key, &whole_within(&bounds));
            }
        }
    }

    /// Reads a whole number, or a list of them.
    pub(super) fn wholes(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
        most: usize,
        field: &mut Vec<u32>,
    ) {
        let Some(value) = self.get(key) else { return };
        let list = match value.get_ref().as_array() {
            None => whole(value, &bounds).map(|one| vec![one]),
            Some(array) if array.is_empty() || array.len() > most => None,
            Some(array) => array.iter().map(|item| whole(item, &bounds)).collect(),
        };
        match list {
            Some(list) => *field = list,
            None => {
                let must = format!("{}, or a list of 1 to {most} of them", whole_within(&bounds));
                self.wrong(value, key, &must);
            }
        }
    }

    /// Reads a number within bounds.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<f64>,
        field: &mut f64,
    ) {
        if let Some(value) = self.get(key) {
            match number(value, &bounds) {
                Some(number) => *field = number,
                None => self.wrong(value, key, &number_within(&bounds)),
            }
        }
    }

    /// Reads a number within bounds and multiplies it by the factor to the field's unit.
    pub(super) fn scaled(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<f64>,
        unit: f64,
        field: &mut u64,
    ) {
        let mut number = f64::NAN;
        self.number(key, bounds, &mut number);
        if !number.is_nan() {
            *field = (number * unit).round() as u64;
        }
    }

    /// Reads one of the names of an enum's variants.
    pub(super) fn choice<T>(&mut self, key: &'static str, field: &mut T) -> bool
    where
        T: strum::VariantArray + Copy + Into<&'static str>,
    {
        let names: Vec<(&str, T)> =
            T::VARIANTS.iter().map(|variant| ((*variant).into(), *variant)).collect();
        self.choice_of(key, &names, field)
    }

    /// Reads one of these names.
    pub(super) fn choice_of<T: Copy>(
        &mut self,
        key: &'static str,
        names: &[(&str, T)],
        field: &mut T,
    ) -> bool {
        let Some(value) = self.get(key) else { return false };
        let chosen = value.get_ref().as_str().and_then(|text| names.iter().find(|n| n.0 == text));
        match chosen {
            Some((_, choice)) => *field = *choice,
            None => {
                let all: Vec<String> =
                    names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                self.wrong(value, key, &format!("one of {}", all.join(", ")));
            }
        }
        chosen.is_some()
    }

    /// Reads a list of two numbers, the smaller first.
    pub(super) fn pair(
        &mut self,
        key: &'static str,
        bounds: &RangeInclusive<f64>,
        field: &mut Option<(f64, f64)>,
    ) {
        let Some(value) = self.get(key) else { return };
        let pair = match value.get_ref().as_array().map(|array| &array[..]) {
            Some([low, high]) => number(low, bounds).zip(number(high, bounds)),
            _ => None,
        };
        match pair.filter(|(low, high)| low <= high) {
            Some(pair) => *field = Some(pair),
            None => {
                let must =
                    format!("[least, most] with least ≤ most, each {}", number_within(bounds));
                self.wrong(value, key, &must);
            }
        }
    }

    /// Notes the remaining keys as unknown.
    pub(super) fn finish(self) {
        for (key, value) in self.table.iter() {
            let name = key.get_ref();
            if self.known.iter().any(|known| known == name) {
                continue;
            }
            let what = if value.get_ref().is_table() { "table" } else { "key" };
            let full = self.name(&shortened(name));
            let message = match nearest(name, &self.known) {
                Some(nearest) => format!("unknown {what} `{full}`, did you mean `{nearest}`?"),
                None => {
                    let known = self.known.join(", ");
                    format!("unknown {what} `{full}`; known are {known}")
                }
            };
            self.problems.add(&key.span(), message);
        }
    }
}

/// The whole number of a value, if it is one within bounds.
pub(super) fn whole<T: TryFrom<u64>>(value: &Value<'_>, bounds: &RangeInclusive<u64>) -> Option<T> {
    let integer = value.get_ref().as_integer()?;
    let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    if bounds.contains(&number) { T::try_from(number).ok() } else { None }
}

/// The number of a value, with or without a point, if it is within bounds.
pub(super) fn number(value: &Value<'_>, bounds: &RangeInclusive<f64>) -> Option<f64> {
    let number = match value.get_ref() {
        DeValue::Integer(integer) => {
            // Whole numbers in scenarios are far below 2^53.
            i64::from_str_radix(integer.as_str(), integer.radix()).ok()? as f64
        }
        DeValue::Float(float) => float.as_str().parse().ok()?,
        _ => return None,
    };
    bounds.contains(&number).then_some(number)
}

pub(super) fn whole_within(bounds: &RangeInclusive<u64>) -> String {
    match bounds.end() {
        &u64::MAX => format!("a whole number from {} on", bounds.start()),
        end => format!("a whole number from {} to {end}", bounds.start()),
    }
}

pub(super) fn number_within(bounds: &RangeInclusive<f64>) -> String {
    format!("a number from {} to {}", bounds.start(), bounds.end())
}

/// The part of a user's text that an error shows.
pub(super) fn shortened(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// The known name that is probably meant: at most a quarter of its letters differ, or one of the
/// two begins with the other.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = shortened(name).to_lowercase();
    let distance = |known: &str| crate::input::edits(&name, &known.to_lowercase());
    let best = known.iter().copied().min_by_key(|known| distance(known))?;
    if distance(best) <= 1 + best.chars().count() / 4 {
        return Some(best);
    }
    let begins = |known: &&str| {
        let shorter = name.chars().count().min(known.chars().count());
        shorter > 2 && (known.starts_with(&name) || name.starts_with(known))
    };
    known.iter().copied().find(|known| begins(known))
}
