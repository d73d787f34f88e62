//! Which features of a record a program reads, and as what.

use backend_api::{Error, Result};

use super::parse::{FeatureSpec, Plan, Rule};
use crate::data::column::{Dims, element_count};
use crate::data::sample::{Field, Sample, Schema};
use crate::data::values::{ByteStrings, ColumnType, Values};

/// An element type that records hold: `i64`, `f32` or [`ByteStrings`].
///
/// ```
/// use recurrent::data::{Example, ExampleSpec, Field, FixedLen, RecordType};
/// use recurrent::Result;
///
/// # fn main() -> recurrent::Result<()> {
/// fn scalar<T: RecordType>(spec: &mut ExampleSpec, name: &str) -> Result<Field<T>> {
///     spec.context(FixedLen::<T>::new(name, &[]))
/// }
/// let mut spec = ExampleSpec::new();
/// let (age, weight) = (scalar::<i64>(&mut spec, "age")?, scalar::<f32>(&mut spec, "weight")?);
/// let record = Example::new().feature("age", [7i64]).feature("weight", [21.5f32]).to_bytes();
/// let sample = spec.parse(&record)?;
/// assert_eq!((sample.get(age)?, sample.get(weight)?), (&[7i64][..], &[21.5f32][..]));
/// # Ok(()) }
/// ```
pub trait RecordType: ColumnType {}

impl RecordType for i64 {}
impl RecordType for f32 {}
impl RecordType for ByteStrings {}

/// A context feature with a fixed number of values: TensorFlow's `FixedLenFeature`.
///
/// Its column has the shape given. The feature must be present unless it has a default.
///
/// ```
/// use recurrent::data::{Example, ExampleSpec, FixedLen};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut spec = ExampleSpec::new();
/// let size = spec.context(FixedLen::<i64>::new("size", &[2]))?;
/// let speaker = spec.context(FixedLen::<i64>::new("speaker", &[]).default_values([-1]))?;
/// let sample = spec.parse(&Example::new().feature("size", [28i64, 28]).to_bytes())?;
/// assert_eq!((sample.get(size)?, sample.get(speaker)?), (&[28i64, 28][..], &[-1i64][..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct FixedLen<T: RecordType> {
    name: Naming,
    dims: Dims,
    default: Option<Vec<T::Scalar>>,
}

impl<T: RecordType> FixedLen<T> {
    /// The feature `name`, of shape `dims`: `&[]` for one value.
    pub fn new(name: impl Into<String>, dims: &[usize]) -> Self {
        Self {
            name: Naming::new(name),
            dims: dims.into(),
            default: None,
        }
    }

    /// The values that a record without the feature has, as many as the shape holds.
    #[must_use]
    pub fn default_values(mut self, values: impl IntoIterator<Item = T::Scalar>) -> Self {
        self.default = Some(values.into_iter().collect());
        self
    }
}

/// A feature list whose steps all have the same number of values: TensorFlow's
/// `FixedLenSequenceFeature`.
///
/// Its column has the steps as a first axis, followed by the shape given.
///
/// ```
/// use recurrent::data::{ExampleSpec, FixedLenSequence, SequenceExample};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut spec = ExampleSpec::new();
/// let values = spec.sequence(FixedLenSequence::<f32>::new("values", &[2]))?;
/// let notes = spec.sequence(FixedLenSequence::<i64>::new("notes", &[]).allow_missing())?;
/// let record = SequenceExample::new().feature_list("values", [[0.1f32, 0.2], [0.3, 0.4]]);
/// let sample = spec.parse(&record.to_bytes())?;
/// assert_eq!(sample.column(values)?.dims(), [2, 2]); // two steps of two values
/// assert_eq!(sample.steps(notes)?, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct FixedLenSequence<T> {
    name: Naming,
    dims: Dims,
    allow_missing: bool,
    element: std::marker::PhantomData<fn() -> T>,
}

impl<T: RecordType> FixedLenSequence<T> {
    /// The feature list `name`, each step of shape `dims`: `&[]` for one value a step.
    pub fn new(name: impl Into<String>, dims: &[usize]) -> Self {
        Self {
            name: Naming::new(name),
            dims: dims.into(),
            allow_missing: false,
            element: std::marker::PhantomData,
        }
    }

    /// A record without the list counts as one with no steps.
    #[must_use]
    pub fn allow_missing(mut self) -> Self {
        self.allow_missing = true;
        self
    }
}

/// A feature, or a feature list whose steps have any number of values: TensorFlow's
/// `VarLenFeature`.
///
/// Of the context its column has one axis; of a feature list it is ragged, with a row for each
/// step. [`Column::sparse`](crate::data::Column::sparse) returns the form of TensorFlow. A feature
/// that is missing has no values.
///
/// ```
/// use recurrent::data::{ExampleSpec, SequenceExample, VarLen};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut spec = ExampleSpec::new();
/// let tags = spec.sequence(VarLen::<i64>::new("tags"))?;
/// let record = SequenceExample::new().feature_list("tags", [vec![7i64], vec![], vec![8, 9]]);
/// let sample = spec.parse(&record.to_bytes())?;
/// assert_eq!(sample.column(tags)?.row_lengths(), Some(&[1usize, 0, 2][..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct VarLen<T> {
    name: Naming,
    element: std::marker::PhantomData<fn() -> T>,
}

impl<T: RecordType> VarLen<T> {
    /// The feature or feature list `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: Naming::new(name),
            element: std::marker::PhantomData,
        }
    }
}

macro_rules! field_name {
    ($($spec:ident),*) => {$(
        impl<T: RecordType> $spec<T> {
            /// The name of the field in samples, where it is not the feature's.
            #[must_use]
            pub fn field(mut self, name: impl Into<String>) -> Self {
                self.name.field = Some(name.into());
                self
            }
        }
    )*};
}

field_name!(FixedLen, FixedLenSequence, VarLen);

/// The names of a feature in records and in samples.
#[derive(Clone, Debug)]
struct Naming {
    feature: String,
    field: Option<String>,
}

impl Naming {
    fn new(feature: impl Into<String>) -> Self {
        Self {
            feature: feature.into(),
            field: None,
        }
    }

    fn declare<T: RecordType>(
        self,
        schema: &mut Schema,
        rule: Rule,
    ) -> Result<(Field<T>, FeatureSpec)> {
        let field = schema.add::<T>(self.field.unwrap_or_else(|| self.feature.clone()))?;
        let spec = FeatureSpec {
            name: self.feature,
            kind: T::KIND,
            rule,
        };
        Ok((field, spec))
    }
}

mod private {
    #[expect(unnameable_types, reason = "only this crate implements it")]
    pub trait Sealed {}
}

/// A feature that a record's context can have: [`FixedLen`] or [`VarLen`].
///
/// ```
/// use recurrent::Result;
/// use recurrent::data::{ContextFeature, Example, ExampleSpec, FixedLen, VarLen};
///
/// # fn main() -> recurrent::Result<()> {
/// fn count(feature: impl ContextFeature<i64>) -> Result<usize> {
///     let mut spec = ExampleSpec::new();
///     let field = spec.context(feature)?;
///     let record = Example::new().feature("ids", [1i64, 2, 3]).to_bytes();
///     Ok(spec.parse(&record)?.get(field)?.len())
/// }
/// assert_eq!(count(VarLen::new("ids"))?, 3);
/// assert_eq!(count(FixedLen::new("ids", &[3]))?, 3);
/// assert!(count(FixedLen::new("ids", &[2])).is_err());
/// # Ok(()) }
/// ```
pub trait ContextFeature<T: RecordType>: private::Sealed {
    #[doc(hidden)]
    fn declare(self, schema: &mut Schema) -> Result<Declared<T>>;
}

/// A feature list that a record can have: [`FixedLenSequence`] or [`VarLen`].
///
/// ```
/// use recurrent::Result;
/// use recurrent::data::{ExampleSpec, FixedLenSequence, SequenceExample, SequenceFeature, VarLen};
///
/// # fn main() -> recurrent::Result<()> {
/// fn steps(feature: impl SequenceFeature<i64>) -> Result<usize> {
///     let mut spec = ExampleSpec::new();
///     let field = spec.sequence(feature)?;
///     let record = SequenceExample::new().feature_list("ids", [vec![1i64], vec![2, 3]]);
///     spec.parse(&record.to_bytes())?.steps(field)
/// }
/// assert_eq!(steps(VarLen::new("ids"))?, 2);
/// assert!(steps(FixedLenSequence::new("ids", &[])).is_err()); // a step has two values
/// # Ok(()) }
/// ```
pub trait SequenceFeature<T: RecordType>: private::Sealed {
    #[doc(hidden)]
    fn declare(self, schema: &mut Schema) -> Result<Declared<T>>;
}

/// A field, and the feature that is read into it.
#[doc(hidden)]
#[derive(Debug)]
#[expect(
    unnameable_types,
    reason = "only passed from one hidden method to another"
)]
pub struct Declared<T>(Field<T>, FeatureSpec)
where
    T: ColumnType;

impl<T: RecordType> private::Sealed for FixedLen<T> {}
impl<T: RecordType> private::Sealed for FixedLenSequence<T> {}
impl<T: RecordType> private::Sealed for VarLen<T> {}

impl<T: RecordType> ContextFeature<T> for FixedLen<T> {
    fn declare(self, schema: &mut Schema) -> Result<Declared<T>> {
        let name = &self.name.feature;
        let count = count(name, &self.dims)?;
        let default = self.default.map(|scalars| {
            let found = scalars.len();
            if found != count {
                let arg = format!("default_values of `{name}`");
                let problem = format!("have length {found}, but the shape is {:?}", self.dims);
                return Err(Error::argument("ExampleSpec", arg, problem));
            }
            let mut values = Values::empty(T::KIND);
            for scalar in scalars {
                values.fill(&T::scalar(scalar), 1)?;
            }
            Ok(values)
        });
        let rule = Rule::Fixed {
            count,
            default: default.transpose()?,
            dims: self.dims,
        };
        let (field, spec) = self.name.declare(schema, rule)?;
        Ok(Declared(field, spec))
    }
}

impl<T: RecordType> SequenceFeature<T> for FixedLenSequence<T> {
    fn declare(self, schema: &mut Schema) -> Result<Declared<T>> {
        let rule = Rule::Steps {
            count: count(&self.name.feature, &self.dims)?,
            dims: self.dims,
            allow_missing: self.allow_missing,
        };
        let (field, spec) = self.name.declare(schema, rule)?;
        Ok(Declared(field, spec))
    }
}

impl<T: RecordType> ContextFeature<T> for VarLen<T> {
    fn declare(self, schema: &mut Schema) -> Result<Declared<T>> {
        let (field, spec) = self.name.declare(schema, Rule::Any)?;
        Ok(Declared(field, spec))
    }
}

impl<T: RecordType> SequenceFeature<T> for VarLen<T> {
    fn declare(self, schema: &mut Schema) -> Result<Declared<T>> {
        ContextFeature::declare(self, schema)
    }
}

fn count(name: &str, dims: &[usize]) -> Result<usize> {
    element_count(dims).ok_or_else(|| {
        let problem = format!("is {dims:?}, which is too large");
        Error::argument("ExampleSpec", format!("shape of `{name}`"), problem)
    })
}

/// The features that a program reads from `SequenceExample` and `Example` records.
///
/// Declared once; each declaration returns the typed [`Field`] that reads the feature's column from
/// samples and batches. Features that are not declared are skipped.
///
/// ```
/// use recurrent::data::{ExampleSpec, FixedLen, FixedLenSequence, SequenceExample, VarLen};
///
/// # fn main() -> recurrent::Result<()> {
/// let mut spec = ExampleSpec::new();
/// let label = spec.context(FixedLen::<i64>::new("label", &[]))?;
/// let values = spec.sequence(FixedLenSequence::<f32>::new("values", &[2]))?;
/// let tags = spec.sequence(VarLen::<i64>::new("tags"))?;
///
/// let record = SequenceExample::new()
///     .context("label", [3i64])
///     .feature_list("values", [[0.1f32, 0.2], [0.3, 0.4]])
///     .to_bytes();
/// let sample = spec.parse(&record)?;
/// assert_eq!(sample.get(label)?, [3]);
/// assert_eq!(sample.column(values)?.dims(), [2, 2]);
/// assert_eq!(sample.steps(tags)?, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ExampleSpec {
    schema: Schema,
    plan: Plan,
}

impl ExampleSpec {
    /// No features.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a feature of the context, or a feature of an `Example`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a field with this name exists, or the default does not fit the shape.
    pub fn context<T: RecordType>(&mut self, feature: impl ContextFeature<T>) -> Result<Field<T>> {
        let Declared(field, spec) = feature.declare(&mut self.schema)?;
        self.plan.context.push((field.key().1, spec));
        Ok(field)
    }

    /// Reads a feature list.
    ///
    /// # Errors
    /// [`Error::Argument`] if a field with this name exists.
    pub fn sequence<T: RecordType>(
        &mut self,
        feature: impl SequenceFeature<T>,
    ) -> Result<Field<T>> {
        let Declared(field, spec) = feature.declare(&mut self.schema)?;
        self.plan.lists.push((field.key().1, spec));
        Ok(field)
    }

    /// The fields of the samples.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Reads a serialized `SequenceExample`, or an `Example` if only context features are declared.
    /// TensorFlow's `parse_single_sequence_example` and `parse_single_example`.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the feature, if the bytes are no such message, a feature is
    /// missing, or it has another type or number of values than declared.
    pub fn parse(&self, serialized: &[u8]) -> Result<Sample> {
        Ok(self.schema.sample_of(self.plan.parse(serialized)?))
    }
}
