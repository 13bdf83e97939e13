//! JSON as Docker reads it: `null` is unset at every depth, and a list is no object.
//!
//! serde fills a struct from a list field by field, and takes a null for a value; Go does neither. This wraps a
//! parsed value so that every type gets Go's rules without saying so.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde_json::{Error, Value};

/// A parsed value to be decoded by Docker's rules.
#[derive(Debug)]
pub struct Strict(pub Value);

impl<'de> Deserializer<'de> for Strict {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Strict));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Value::Object(fields) => {
                let set = fields.into_iter().filter(|(_, field)| !field.is_null());
                visitor.visit_map(MapDeserializer::new(set.map(|(name, field)| (name, Strict(field)))))
            }
            // One by one: handing the value over would compile serde_json's own lists and objects for each type.
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::String(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier
    }
}

impl<'de> IntoDeserializer<'de, Error> for Strict {
    type Deserializer = Strict;

    fn into_deserializer(self) -> Strict {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Thing {
        number: i64,
        list: Vec<String>,
        inner: Option<Box<Thing>>,
        pair: [u16; 2],
        free: Value,
    }

    fn read(text: &str) -> Result<Thing, Error> {
        Thing::deserialize(Strict(serde_json::from_str(text).unwrap()))
    }

    #[test]
    fn nulls_are_unset_and_lists_are_no_objects() {
        let text =
            r#"{"number":null,"list":["a"],"inner":{"list":null,"number":2},"pair":[1,2],"free":{"a":[1]}}"#;
        let thing = read(text).unwrap();
        assert_eq!((thing.number, thing.list.len(), thing.pair), (0, 1, [1, 2]));
        assert_eq!(thing.inner.unwrap().number, 2);
        assert_eq!(thing.free, serde_json::json!({"a": [1]}));
        for bad in [
            "[]",
            "[1]",
            "3",
            r#"{"inner":[]}"#,
            r#"{"inner":"x"}"#,
            r#"{"list":{}}"#,
            r#"{"list":[1]}"#,
            r#"{"number":1.5}"#,
            r#"{"number":"1"}"#,
            r#"{"number":9223372036854775808}"#,
            r#"{"pair":[1]}"#,
            r#"{"pair":[1,2,3]}"#,
            r#"{"pair":[70000,1]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
