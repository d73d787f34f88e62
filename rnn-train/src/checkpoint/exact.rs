//! Conversion to JSON of values that can be read back.
//!
//! JSON has no NaN and no infinity, for which `serde_json` writes `null`, and its reader refuses
//! deep nesting, which its writer does not. Either would make a checkpoint that cannot be loaded.

use std::fmt::{self, Display, Write};

use backend_api::{Error, Result};
use serde::Serialize;
use serde::ser::{self, Serializer};
use serde_json::Value;

/// Levels of arrays and objects that a value may have. The reader allows 127, of which the metadata
/// around a value takes up to 3.
const MAX_DEPTH: usize = 124;

/// Converts a value to JSON. `arg` is the name of the value in error messages.
///
/// # Errors
/// [`Error::Argument`], naming the field, if the value has a number that is not finite, is nested
/// too deep, or cannot be written as JSON.
pub(crate) fn to_value(op: &'static str, arg: &str, value: &impl Serialize) -> Result<Value> {
    let mut at = arg.to_owned();
    let walk = Walk {
        at: &mut at,
        depth: 0,
    };
    let walked = value.serialize(walk);
    // The names of a hundred levels say less than those of the first ones.
    walked.map_err(|Refusal(problem)| {
        Error::argument(op, at.chars().take(200).collect::<String>(), problem)
    })?;
    let json = serde_json::to_value(value);
    json.map_err(|e| Error::argument(op, arg, format!("cannot be written as JSON: {e}")))
}

/// Why a value cannot be written.
#[derive(Debug)]
struct Refusal(String);

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl ser::Error for Refusal {
    fn custom<T: Display>(message: T) -> Self {
        Self(format!("cannot be written as JSON: {message}"))
    }
}

type Walked = Result<(), Refusal>;

/// Visits all parts of a value. `at` is the path of the part, and stays at the refused one.
struct Walk<'a> {
    at: &'a mut String,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn float(self, value: f64) -> Walked {
        if value.is_finite() {
            return Ok(());
        }
        let problem = format!("is {value}, which JSON cannot represent: it must be finite");
        Err(Refusal(problem))
    }

    /// The parts of an array or object, `levels` deeper.
    fn inside(self, levels: usize) -> Result<Parts<'a>, Refusal> {
        let depth = self.depth + levels;
        if depth > MAX_DEPTH {
            let problem = format!("is nested more than {MAX_DEPTH} levels deep");
            return Err(Refusal(problem));
        }
        Ok(Parts {
            at: self.at,
            depth,
            index: 0,
        })
    }
}

/// The parts of an array or object.
struct Parts<'a> {
    at: &'a mut String,
    depth: usize,
    /// The index of the next element.
    index: usize,
}

impl Parts<'_> {
    fn visit<T: Serialize + ?Sized>(&mut self, name: fmt::Arguments<'_>, value: &T) -> Walked {
        let length = self.at.len();
        // Writing to a string cannot fail.
        let _ = self.at.write_fmt(name);
        self.again(value)?;
        self.at.truncate(length);
        Ok(())
    }

    /// Visits a part whose name was added to the path.
    fn again<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        value.serialize(Walk {
            at: self.at,
            depth: self.depth,
        })
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        let index = self.index;
        self.index += 1;
        self.visit(format_args!("[{index}]"), value)
    }
}

/// Types that have no parts and are no floats.
macro_rules! leaves {
    ($($name:ident($type:ty)),*) => {
        $(fn $name(self, _: $type) -> Walked {
            Ok(())
        })*
    };
}

impl<'a> Serializer for Walk<'a> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Pairs<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    leaves!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8]),
        serialize_unit_struct(&'static str)
    );

    fn serialize_f32(self, value: f32) -> Walked {
        self.float(value.into())
    }

    fn serialize_f64(self, value: f64) -> Walked {
        self.float(value)
    }

    fn serialize_none(self) -> Walked {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Walked {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Walked {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Walked {
        self.inside(1)?.visit(format_args!(".{variant}"), value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Refusal> {
        self.inside(1)
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Refusal> {
        self.inside(1)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Refusal> {
        self.inside(1)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Refusal> {
        self.inside(2)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Pairs<'a>, Refusal> {
        Ok(Pairs {
            parts: self.inside(1)?,
            key: String::new(),
        })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Refusal> {
        self.inside(1)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Refusal> {
        self.inside(2)
    }
}

macro_rules! elements {
    ($($kind:ident $method:ident),*) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = Refusal;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
                self.element(value)
            }

            fn end(self) -> Walked {
                Ok(())
            }
        })*
    };
}

macro_rules! fields {
    ($($kind:ident),*) => {
        $(impl ser::$kind for Parts<'_> {
            type Ok = ();
            type Error = Refusal;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Walked {
                self.visit(format_args!(".{name}"), value)
            }

            fn end(self) -> Walked {
                Ok(())
            }
        })*
    };
}

elements!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);
fields!(SerializeStruct, SerializeStructVariant);

/// The pairs of a map, whose keys become texts.
struct Pairs<'a> {
    parts: Parts<'a>,
    key: String,
}

impl ser::SerializeMap for Pairs<'_> {
    type Ok = ();
    type Error = Refusal;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Walked {
        self.parts.again(key)?;
        let key = serde_json::to_string(key).map_err(ser::Error::custom)?;
        self.key = key.trim_matches('"').to_owned();
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        self.parts.visit(format_args!(".{}", self.key), value)
    }

    fn end(self) -> Walked {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    struct Config {
        rate: f64,
        decay: Option<f32>,
        layers: Vec<Layer>,
        more: BTreeMap<String, (f64, f64)>,
    }

    #[derive(Serialize)]
    enum Layer {
        Linear,
        Scaled(f32),
        Clipped { from: f64, to: f64 },
        Pair(f64, f64),
    }

    fn config() -> Config {
        Config {
            rate: 0.5,
            decay: None,
            layers: vec![
                Layer::Linear,
                Layer::Scaled(2.0),
                Layer::Clipped {
                    from: -1.0,
                    to: 1.0,
                },
                Layer::Pair(0.0, 1.0),
            ],
            more: BTreeMap::from([("a".to_owned(), (1.0, 2.0))]),
        }
    }

    #[test]
    fn finite_values_become_json() {
        let found = to_value("test", "config", &config()).unwrap();
        assert_eq!(found, serde_json::to_value(config()).unwrap());
        let any = json!({"a": [null, true, "b", {"c": -0.5}], "d": u64::MAX});
        assert_eq!(to_value("test", "config", &any).unwrap(), any);
    }

    #[test]
    fn a_number_that_is_not_finite_is_named() {
        let changes: [(fn(&mut Config), &str); 7] = [
            (|c| c.rate = f64::NAN, "config.rate is NaN"),
            (|c| c.rate = f64::NEG_INFINITY, "config.rate is -inf"),
            (|c| c.decay = Some(f32::INFINITY), "config.decay is inf"),
            (
                |c| c.layers[1] = Layer::Scaled(f32::NAN),
                "config.layers[1].Scaled is NaN",
            ),
            (
                |c| {
                    c.layers[2] = Layer::Clipped {
                        from: 0.0,
                        to: f64::INFINITY,
                    };
                },
                "config.layers[2].to is inf",
            ),
            (
                |c| c.layers[3] = Layer::Pair(0.0, f64::NAN),
                "config.layers[3][1] is NaN",
            ),
            (
                |c| c.more.get_mut("a").unwrap().1 = f64::NAN,
                "config.more.a[1] is NaN",
            ),
        ];
        for (change, part) in changes {
            let mut config = config();
            change(&mut config);
            let message = to_value("test", "config", &config).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |levels| (1..levels).fold(json!([]), |inner, _| json!([inner]));
        to_value("test", "config", &nested(MAX_DEPTH)).unwrap();
        let refused = to_value("test", "config", &nested(MAX_DEPTH + 1)).unwrap_err();
        assert!(
            refused.to_string().contains("more than 124 levels"),
            "{refused}"
        );
    }
}
