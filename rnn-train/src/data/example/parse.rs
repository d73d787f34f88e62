//! Reading declared features straight into columns.

use std::str;

use backend_api::{Error, Result};
use smallvec::SmallVec;

use super::wire::{Fields, Malformed, Value, only_field, varint};
use crate::data::column::{Column, Dims, element_count};
use crate::data::values::{ValueKind, Values};

const OP: &str = "parse_single_sequence_example";

/// The features declared, each with the index of its field.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) context: Vec<(usize, FeatureSpec)>,
    pub(super) lists: Vec<(usize, FeatureSpec)>,
}

/// The declaration of one feature.
#[derive(Clone, Debug)]
pub(super) struct FeatureSpec {
    pub(super) name: String,
    pub(super) kind: ValueKind,
    pub(super) rule: Rule,
}

/// The number of values that a feature must have.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// A fixed number of values; `default` if the feature is missing.
    Fixed {
        dims: Dims,
        count: usize,
        default: Option<Values>,
    },
    /// A fixed number of values per step.
    Steps {
        dims: Dims,
        count: usize,
        allow_missing: bool,
    },
    /// Any number of values.
    Any,
}

/// A message in parts: a field that occurs more than once is all of its occurrences, merged.
type Parts<'a> = SmallVec<[&'a [u8]; 1]>;

impl Plan {
    /// The column of each field.
    pub(super) fn parse(&self, serialized: &[u8]) -> Result<Vec<Column>> {
        let mut context = vec![None; self.context.len()];
        let mut lists = vec![None; self.lists.len()];
        self.find(serialized, &mut context, &mut lists)
            .map_err(|e| {
                Error::argument(OP, "serialized", format!("is not a SequenceExample: {e}"))
            })?;
        let fields = self.context.len() + self.lists.len();
        let mut columns: Vec<Option<Column>> = vec![None; fields];
        for ((index, spec), parts) in self.context.iter().zip(&context) {
            columns[*index] = Some(context_column(spec, parts.as_ref())?);
        }
        for ((index, spec), parts) in self.lists.iter().zip(&lists) {
            columns[*index] = Some(list_column(spec, parts.as_ref())?);
        }
        Ok(columns.into_iter().flatten().collect())
    }

    /// Finds the features declared, and checks that all others are well formed.
    fn find<'a>(
        &self,
        serialized: &'a [u8],
        context: &mut [Option<Parts<'a>>],
        lists: &mut [Option<Parts<'a>>],
    ) -> Result<(), Malformed> {
        let mut fields = Fields(serialized);
        while let Some((number, value)) = fields.next()? {
            match (number, value.bytes()) {
                (1, Some(map)) => each_entry(map, &self.context, context, check_feature)?,
                (2, Some(map)) => each_entry(map, &self.lists, lists, check_list)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Puts the values of a map's entries where the features of those names are declared. Of equal keys
/// the last one counts.
fn each_entry<'a>(
    map: &'a [u8],
    declared: &[(usize, FeatureSpec)],
    found: &mut [Option<Parts<'a>>],
    check: fn(&[&[u8]]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut entries = Fields(map);
    while let Some((number, entry)) = entries.next()? {
        let (1, Some(entry)) = (number, entry.bytes()) else {
            continue;
        };
        let (mut key, mut value): (&[u8], Parts<'a>) = (b"", Parts::new());
        let mut fields = Fields(entry);
        while let Some((number, field)) = fields.next()? {
            match (number, field.bytes()) {
                (1, Some(bytes)) => key = bytes,
                (2, Some(bytes)) => value.push(bytes),
                _ => {}
            }
        }
        str::from_utf8(key).map_err(|_| Malformed::Utf8)?;
        let index = declared
            .iter()
            .position(|(_, spec)| spec.name.as_bytes() == key);
        let unused = match index {
            Some(index) => found[index].replace(value),
            None => Some(value),
        };
        if let Some(unused) = unused {
            check(&unused)?;
        }
    }
    Ok(())
}

fn context_column(spec: &FeatureSpec, parts: Option<&Parts<'_>>) -> Result<Column> {
    let what = || format!("context feature `{}`", spec.name);
    let refuse = |problem: String| Err(Error::argument(OP, what(), problem));
    let mut values = Values::empty(spec.kind);
    let found = parts.map(|parts| read_feature(parts, &mut values));
    let found = found.transpose().map_err(|e| malformed(what(), e))?;
    match (&spec.rule, found) {
        (_, Some(Found::Other(kind))) => refuse(format!("is {kind}, but {} is needed", spec.kind)),
        (Rule::Fixed { dims, default, .. }, None) => match default {
            Some(default) => Ok(Column::of(dims.clone(), default.clone())),
            None => refuse("is missing and has no default".into()),
        },
        // The default replaces a missing feature, not a feature without values.
        (Rule::Fixed { dims, .. }, Some(Found::Unset)) => refuse(format!(
            "has no type and no values, but the shape is {dims:?}"
        )),
        (Rule::Fixed { dims, count, .. }, Some(Found::Values(n))) if n != *count => {
            refuse(format!("has {n} values, but the shape is {dims:?}"))
        }
        (Rule::Fixed { dims, .. }, _) => Ok(Column::of(dims.clone(), values)),
        _ => Ok(Column::of(Dims::from_slice(&[values.len()]), values)),
    }
}

fn list_column(spec: &FeatureSpec, parts: Option<&Parts<'_>>) -> Result<Column> {
    let what = || format!("feature list `{}`", spec.name);
    let refuse = |problem: String| Err(Error::argument(OP, what(), problem));
    if let (
        Rule::Steps {
            allow_missing: false,
            ..
        },
        None,
    ) = (&spec.rule, parts)
    {
        return refuse("is missing, which only `allow_missing` permits".into());
    }
    let mut values = Values::empty(spec.kind);
    let mut rows = Vec::new();
    let mut steps = 0;
    for part in parts.into_iter().flatten() {
        let mut fields = Fields(part);
        while let Some((number, field)) = fields.next().map_err(|e| malformed(what(), e))? {
            let (1, Some(feature)) = (number, field.bytes()) else {
                continue;
            };
            let read = read_feature(&[feature], &mut values);
            match (read.map_err(|e| malformed(what(), e))?, &spec.rule) {
                (Found::Other(kind), _) => {
                    return refuse(format!(
                        "is {kind} at step {steps}, but {} is needed",
                        spec.kind
                    ));
                }
                (Found::Unset, Rule::Steps { .. }) => {
                    return refuse(format!("has no type at step {steps}"));
                }
                (Found::Values(n), Rule::Steps { count, dims, .. }) if n != *count => {
                    let problem =
                        format!("has {n} values at step {steps}, but the shape is {dims:?}");
                    return refuse(problem);
                }
                (_, Rule::Steps { .. }) => {}
                (Found::Values(n), _) => rows.push(n),
                (Found::Unset, _) => rows.push(0),
            }
            steps += 1;
        }
    }
    match &spec.rule {
        Rule::Steps { dims, .. } => {
            let mut all = Dims::from_slice(&[steps]);
            all.extend_from_slice(dims);
            if element_count(&all).is_none() {
                return refuse(format!("has shape {all:?}, which is too large"));
            }
            Ok(Column::of(all, values))
        }
        _ => Column::ragged(&rows, values),
    }
}

fn malformed(what: String, problem: Malformed) -> Error {
    Error::argument(OP, what, format!("is malformed: {problem}"))
}

/// The content of a feature.
enum Found {
    /// Values of the declared type, which were appended; their number.
    Values(usize),
    /// No type.
    Unset,
    /// Values of another type.
    Other(&'static str),
}

/// The field numbers of a feature's types, and their names in TensorFlow.
const KINDS: [(u32, ValueKind, &str); 3] = [
    (1, ValueKind::Bytes, "bytes"),
    (2, ValueKind::F32, "float"),
    (3, ValueKind::I64, "int64"),
];

/// Appends the values of a feature. Values of another type are only checked.
fn read_feature(parts: &[&[u8]], values: &mut Values) -> Result<Found, Malformed> {
    let start = values.len();
    let wanted = values.kind();
    // Most features are one list of packed numbers and nothing else.
    if let [part] = parts
        && let number @ (2 | 3) = number_of(wanted)
        && let Some(packed) = only_field(part, number).and_then(|list| only_field(list, 1))
    {
        read_packed(packed, values)?;
        return Ok(Found::Values(values.len() - start));
    }
    let mut kind: Option<(ValueKind, &'static str)> = None;
    for part in parts {
        let mut fields = Fields(part);
        while let Some((number, field)) = fields.next()? {
            let known = KINDS.iter().find(|(known, ..)| *known == number);
            let (Some(&(_, is, name)), Some(list)) = (known, field.bytes()) else {
                continue;
            };
            // A feature has one type: the last one, whose lists are merged.
            if kind.is_some_and(|(before, _)| before != is) {
                values.truncate(start);
            }
            kind = Some((is, name));
            if is == wanted {
                read_list(list, values)?;
            } else {
                read_list(list, &mut Values::empty(is))?;
            }
        }
    }
    Ok(match kind {
        None => Found::Unset,
        Some((is, _)) if is == wanted => Found::Values(values.len() - start),
        Some((_, name)) => Found::Other(name),
    })
}

/// The field number of a type that records have.
fn number_of(kind: ValueKind) -> u8 {
    let entry = KINDS.iter().find(|(_, known, _)| *known == kind);
    entry.map_or(0, |(number, ..)| *number as u8)
}

/// Appends packed numbers.
fn read_packed(mut packed: &[u8], values: &mut Values) -> Result<(), Malformed> {
    match values {
        Values::F32(floats) => {
            let (chunks, []) = packed.as_chunks() else {
                return Err(Malformed::Packed);
            };
            floats.extend(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        Values::I64(ints) => {
            while !packed.is_empty() {
                ints.push(varint(&mut packed)?.cast_signed());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Appends the values of a list, packed or not.
fn read_list(list: &[u8], values: &mut Values) -> Result<(), Malformed> {
    let mut fields = Fields(list);
    while let Some((number, field)) = fields.next()? {
        if number != 1 {
            continue;
        }
        match (&mut *values, field) {
            (Values::F32(_) | Values::I64(_), Value::Bytes(packed)) => read_packed(packed, values)?,
            (Values::F32(floats), Value::Fixed32(bytes)) => {
                floats.push(f32::from_le_bytes(bytes));
            }
            (Values::I64(ints), Value::Varint(value)) => ints.push(value.cast_signed()),
            (Values::Bytes(strings), Value::Bytes(string)) => strings.push(string),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a feature that is not declared is well formed.
fn check_feature(parts: &[&[u8]]) -> Result<(), Malformed> {
    read_feature(parts, &mut Values::empty(ValueKind::Bytes))?;
    Ok(())
}

/// Whether a feature list that is not declared is well formed.
fn check_list(parts: &[&[u8]]) -> Result<(), Malformed> {
    for part in parts {
        let mut fields = Fields(part);
        while let Some((number, field)) = fields.next()? {
            if let (1, Some(feature)) = (number, field.bytes()) {
                check_feature(&[feature])?;
            }
        }
    }
    Ok(())
}
