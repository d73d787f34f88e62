//! Samples: the columns of one sequence, read by typed handles.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backend_api::{Error, Result};

use super::column::Column;
use super::values::{ColumnType, ValueKind};

/// The fields that samples of one kind have: names and element types.
///
/// Declaring a field returns a [`Field`], the typed handle that reads it from every sample and
/// batch of this schema. [`ExampleSpec`](super::ExampleSpec) makes one for records.
///
/// ```
/// use recurrent::data::{Column, Schema};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut schema = Schema::new();
/// let tokens = schema.add::<i64>("tokens")?;
/// let label = schema.add::<i64>("label")?;
///
/// let sample = schema.sample(vec![
///     Column::new(&[3], vec![7i64, 8, 9])?,
///     Column::scalar::<i64>(1),
/// ])?;
/// assert_eq!(sample.get(tokens)?, [7, 8, 9]);
/// assert_eq!(sample.get(label)?, [1]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Schema(Arc<Fields>);

#[derive(Clone, Debug, Default)]
struct Fields {
    fields: Vec<(String, ValueKind)>,
    /// A number for each field that no other field has. Two schemas whose last fields have the
    /// same number have the same fields, as fields are only appended.
    ids: Vec<u64>,
}

/// A typed handle of one field of a [`Schema`].
///
/// ```
/// use recurrent::data::{ByteStrings, Column, Field, Schema};
///
/// # fn main() -> recurrent::Result<()> {
/// /// What a program keeps of a schema: the compiler knows the type of each field.
/// struct Fields {
///     tokens: Field<i64>,
///     speaker: Field<ByteStrings>,
/// }
/// let mut schema = Schema::new();
/// let fields = Fields { tokens: schema.add("tokens")?, speaker: schema.add("speaker")? };
/// let speaker = Column::scalar::<ByteStrings>("Ahab".into());
/// let sample = schema.sample(vec![Column::new(&[2], vec![7i64, 8])?, speaker])?;
/// assert_eq!(sample.get(fields.tokens)?, [7, 8]);
/// assert_eq!(sample.get(fields.speaker)?.get(0), Some(&b"Ahab"[..]));
/// # Ok(()) }
/// ```
pub struct Field<T> {
    id: u64,
    index: usize,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T: ColumnType> std::fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Field<{}>({})", T::KIND, self.index)
    }
}

impl<T> Field<T> {
    /// The field's unique id, and its index in its schema.
    pub(super) fn key(self) -> (u64, usize) {
        (self.id, self.index)
    }
}

impl Default for Schema {
    fn default() -> Self {
        Self::new()
    }
}

impl Schema {
    /// No fields.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Adds a field.
    ///
    /// # Errors
    /// [`Error::Argument`] if a field with this name exists.
    pub fn add<T: ColumnType>(&mut self, name: impl Into<String>) -> Result<Field<T>> {
        let index = self.add_kind(name.into(), T::KIND)?;
        Ok(Field {
            id: self.0.ids[index],
            index,
            element: PhantomData,
        })
    }

    pub(super) fn add_kind(&mut self, name: String, kind: ValueKind) -> Result<usize> {
        if self.0.fields.iter().any(|(known, _)| *known == name) {
            let problem = format!("`{name}` already exists");
            return Err(Error::argument("schema", "field", problem));
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Fields { fields, ids } = Arc::make_mut(&mut self.0);
        fields.push((name, kind));
        ids.push(NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(fields.len() - 1)
    }

    /// Names and element types, in order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&str, ValueKind)> {
        self.0
            .fields
            .iter()
            .map(|(name, kind)| (name.as_str(), *kind))
    }

    /// A sample of these fields.
    ///
    /// # Errors
    /// [`Error::Argument`] if the columns are more or fewer than the fields or of another type.
    pub fn sample(&self, columns: Vec<Column>) -> Result<Sample> {
        if columns.len() != self.0.fields.len() {
            let (found, needed) = (columns.len(), self.0.fields.len());
            let problem = format!("have length {found}, but the schema has {needed} fields");
            return Err(Error::argument("sample", "columns", problem));
        }
        for ((name, kind), column) in self.0.fields.iter().zip(&columns) {
            if column.kind() != *kind {
                let problem = format!("is {}, but the field is {kind}", column.kind());
                return Err(Error::argument(
                    "sample",
                    format!("column `{name}`"),
                    problem,
                ));
            }
        }
        Ok(self.sample_of(columns))
    }

    /// A sample whose columns are known to fit.
    pub(super) fn sample_of(&self, columns: Vec<Column>) -> Sample {
        Sample {
            schema: self.clone(),
            columns,
        }
    }

    /// The id of the last field, which identifies the schema; 0 without fields.
    pub(super) fn id(&self) -> u64 {
        self.0.ids.last().copied().unwrap_or(0)
    }

    /// Whether a field with that [`Field::key`] belongs to this schema.
    pub(super) fn has(&self, (id, index): (u64, usize)) -> bool {
        self.0.ids.get(index) == Some(&id)
    }

    /// The [`Field::key`] of field number `index`.
    pub(super) fn key(&self, index: usize) -> (u64, usize) {
        (self.0.ids.get(index).copied().unwrap_or(0), index)
    }

    /// The handle of the field with this name, to read samples that a reader made, such as
    /// [`InMemory::from_arrays`](super::InMemory::from_arrays).
    ///
    /// # Errors
    /// [`Error::Argument`] if no field has this name, or its elements are not of type `T`.
    pub fn field<T: ColumnType>(&self, name: &str) -> Result<Field<T>> {
        let refuse = |problem: String| Err(Error::argument("schema", "field", problem));
        let Some(index) = self.0.fields.iter().position(|(known, _)| known == name) else {
            return refuse(format!("`{name}` does not exist"));
        };
        let kind = self.0.fields[index].1;
        if kind != T::KIND {
            return refuse(format!("`{name}` is {kind}, but {} is requested", T::KIND));
        }
        Ok(Field {
            id: self.0.ids[index],
            index,
            element: PhantomData,
        })
    }

    pub(super) fn index<T>(&self, field: Field<T>) -> Result<usize> {
        if !self.has(field.key()) {
            let problem = "is a field of another schema";
            return Err(Error::argument("sample", "field", problem));
        }
        Ok(field.index)
    }
}

/// The columns of one sequence; sources of sequences yield samples.
///
/// ```
/// use recurrent::data::{Column, Schema};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut schema = Schema::new();
/// let values = schema.add::<f32>("values")?;
/// let label = schema.add::<i64>("label")?;
/// let steps = Column::new(&[3, 2], vec![0.5f32; 6])?;
/// let sample = schema.sample(vec![steps, Column::scalar::<i64>(1)])?;
/// assert_eq!((sample.steps(values)?, sample.get(label)?), (3, &[1i64][..]));
/// assert_eq!(sample.named("values").map(Column::dims), Some(&[3usize, 2][..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Sample {
    schema: Schema,
    columns: Vec<Column>,
}

impl Sample {
    /// The fields.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// All columns, in the order of the fields.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The values of a field.
    ///
    /// # Errors
    /// [`Error::Argument`] if the field is of another schema.
    pub fn get<T: ColumnType>(&self, field: Field<T>) -> Result<&T::Slice> {
        self.column(field)?.values::<T>()
    }

    /// The column of a field: its values and shape.
    ///
    /// # Errors
    /// [`Error::Argument`] if the field is of another schema.
    pub fn column<T>(&self, field: Field<T>) -> Result<&Column> {
        Ok(&self.columns[self.schema.index(field)?])
    }

    /// The length of a field's first axis: of a feature list, its number of steps.
    ///
    /// # Errors
    /// [`Error::Argument`] if the field is of another schema.
    pub fn steps<T>(&self, field: Field<T>) -> Result<usize> {
        Ok(self.column(field)?.len())
    }

    /// The column of the field with this name.
    pub fn named(&self, name: &str) -> Option<&Column> {
        let index = self.schema.fields().position(|(known, _)| known == name)?;
        self.columns.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_reads_its_own_schema_only() {
        let (mut one, mut other) = (Schema::new(), Schema::new());
        let x = one.add::<f32>("x").unwrap();
        let y = other.add::<f32>("y").unwrap();
        assert!(one.add::<i64>("x").unwrap_err().to_string().contains("`x`"));
        let sample = one.sample(vec![Column::scalar::<f32>(2.0)]).unwrap();
        assert_eq!(sample.get(x).unwrap(), [2.0]);
        let message = sample.get(y).unwrap_err().to_string();
        assert_eq!(message, "sample: field is a field of another schema");
        let late = one.add::<i64>("late").unwrap();
        sample.get(late).unwrap_err();
        assert_eq!(sample.named("x").unwrap().dims(), [0usize; 0]);
        assert!(sample.named("y").is_none());
    }

    #[test]
    fn columns_must_match_the_fields() {
        let mut schema = Schema::new();
        schema.add::<f32>("x").unwrap();
        let message = schema.sample(vec![]).unwrap_err().to_string();
        assert_eq!(
            message,
            "sample: columns have length 0, but the schema has 1 fields"
        );
        let message = schema.sample(vec![Column::scalar::<i64>(1)]).unwrap_err();
        let expected = "sample: column `x` is i64, but the field is f32";
        assert_eq!(message.to_string(), expected);
    }
}
