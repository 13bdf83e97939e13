//! Wire types as [`Value`]s: a serde serializer that keeps the order of fields and the ones left out.
//!
//! `serde_json::to_value` would sort the fields and drop what a type skips; both show in templates.

use std::fmt;

use serde::ser::{self, Serialize};

use super::value::{Field, Nothing, Value};

/// The value a template sees of `object`.
///
/// # Errors
/// What the type's own serializer says; the wire's types say nothing.
pub fn value_of(object: &impl Serialize) -> Result<Value, String> {
    object.serialize(Builder).map_err(|Failed(text)| text)
}

#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: fmt::Display>(message: T) -> Failed {
        Failed(message.to_string())
    }
}

struct Builder;

macro_rules! integers {
    ($($name:ident: $type:ty),*) => {$(
        fn $name(self, number: $type) -> Result<Value, Failed> {
            Ok(Value::Int(number.into()))
        }
    )*};
}

impl ser::Serializer for Builder {
    type Ok = Value;
    type Error = Failed;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    integers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    );

    fn serialize_bool(self, on: bool) -> Result<Value, Failed> {
        Ok(Value::Bool(on))
    }
    fn serialize_f32(self, number: f32) -> Result<Value, Failed> {
        Ok(Value::Float(number.into()))
    }
    fn serialize_f64(self, number: f64) -> Result<Value, Failed> {
        Ok(Value::Float(number))
    }
    fn serialize_char(self, letter: char) -> Result<Value, Failed> {
        Ok(Value::Text(letter.into()))
    }
    fn serialize_str(self, text: &str) -> Result<Value, Failed> {
        Ok(Value::Text(text.to_owned()))
    }
    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, Failed> {
        Ok(Value::List(bytes.iter().map(|byte| Value::Int((*byte).into())).collect()))
    }
    fn serialize_none(self) -> Result<Value, Failed> {
        Ok(Value::Null(Nothing::Pointer))
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Failed> {
        value.serialize(Builder)
    }
    fn serialize_unit(self) -> Result<Value, Failed> {
        Ok(Value::Null(Nothing::Pointer))
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Failed> {
        Ok(Value::Null(Nothing::Pointer))
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Failed> {
        Ok(Value::Text(variant.to_owned()))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Value, Failed> {
        value.serialize(Builder)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Failed> {
        Ok(one_field(variant, value.serialize(Builder)?))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Items, Failed> {
        Ok(Items { variant: None, items: Vec::new() })
    }
    fn serialize_tuple(self, _: usize) -> Result<Items, Failed> {
        self.serialize_seq(None)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items, Failed> {
        self.serialize_seq(None)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items, Failed> {
        Ok(Items { variant: Some(variant), items: Vec::new() })
    }
    fn serialize_map(self, length: Option<usize>) -> Result<Entries, Failed> {
        Ok(Entries { is_struct: length.is_none(), key: String::new(), entries: Vec::new() })
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, Failed> {
        Ok(Fields { variant: None, fields: Vec::new() })
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields, Failed> {
        Ok(Fields { variant: Some(variant), fields: Vec::new() })
    }
}

fn one_field(name: &str, value: Value) -> Value {
    Value::Struct(vec![Field { name: name.to_owned(), value, shown: true }])
}

fn in_variant(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(name) => one_field(name, value),
        None => value,
    }
}

struct Items {
    variant: Option<&'static str>,
    items: Vec<Value>,
}

macro_rules! items {
    ($($trait:ident, $method:ident);*) => {$(
        impl ser::$trait for Items {
            type Ok = Value;
            type Error = Failed;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
                self.items.push(value.serialize(Builder)?);
                Ok(())
            }
            fn end(self) -> Result<Value, Failed> {
                Ok(in_variant(self.variant, Value::List(self.items)))
            }
        }
    )*};
}
items!(
    SerializeSeq, serialize_element; SerializeTuple, serialize_element;
    SerializeTupleStruct, serialize_field; SerializeTupleVariant, serialize_field
);

/// Fields that docker leaves out of a container's `HostConfig`, which is flattened on the wire and so cannot
/// say what it left out.
const LEFT_OUT: &[&str] = &["Annotations", "Init", "Mounts", "StorageOpt", "Sysctls", "Tmpfs"];

struct Entries {
    /// Whether this is a type with flattened fields: serde writes it as a map of unknown length, which real
    /// maps never are.
    is_struct: bool,
    key: String,
    entries: Vec<(String, Value)>,
}

impl ser::SerializeMap for Entries {
    type Ok = Value;
    type Error = Failed;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failed> {
        self.key = key.serialize(Builder)?.show();
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        self.entries.push((std::mem::take(&mut self.key), value.serialize(Builder)?));
        Ok(())
    }
    fn end(self) -> Result<Value, Failed> {
        if !self.is_struct {
            return Ok(Value::map_of("", self.entries.into_iter().collect()));
        }
        let mut fields: Vec<Field> =
            self.entries.into_iter().map(|(name, value)| field(name, value)).collect();
        for name in LEFT_OUT {
            if fields.iter().all(|field| field.name != *name) {
                let value = Value::zero_of(name);
                fields.push(Field { name: (*name).to_owned(), value, shown: false });
            }
        }
        Ok(Value::Struct(fields))
    }
}

/// A field that is there; its name tells what a null or an empty map in it would be.
fn field(name: String, value: Value) -> Field {
    let value = match value {
        Value::Null(_) => Value::null_of(&name),
        Value::Map { entries, .. } => Value::map_of(&name, entries),
        other => other,
    };
    Field { name, value, shown: true }
}

struct Fields {
    variant: Option<&'static str>,
    fields: Vec<Field>,
}

macro_rules! fields {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Fields {
            type Ok = Value;
            type Error = Failed;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Failed> {
                self.fields.push(field(name.to_owned(), value.serialize(Builder)?));
                Ok(())
            }
            fn skip_field(&mut self, name: &'static str) -> Result<(), Failed> {
                self.fields.push(Field { name: name.to_owned(), value: Value::zero_of(name), shown: false });
                Ok(())
            }
            fn end(self) -> Result<Value, Failed> {
                Ok(in_variant(self.variant, Value::Struct(self.fields)))
            }
        }
    )*};
}
fields!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Thing {
        zebra: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        health: Option<String>,
        binds: Option<Vec<String>>,
        labels: BTreeMap<String, String>,
        ports: BTreeMap<String, String>,
        pair: [u16; 2],
    }

    #[derive(serde::Serialize)]
    struct Outer {
        #[serde(rename = "Zoo")]
        zoo: bool,
        #[serde(flatten)]
        inner: Inner,
    }

    #[derive(serde::Serialize)]
    struct Inner {
        #[serde(rename = "CapAdd")]
        cap_add: Option<Vec<String>>,
        #[serde(rename = "Ape")]
        ape: bool,
    }

    #[test]
    fn flattened_fields_are_fields() {
        let value = value_of(&Outer { zoo: true, inner: Inner { cap_add: None, ape: false } }).unwrap();
        assert_eq!(value.json(false), r#"{"Zoo":true,"CapAdd":null,"Ape":false}"#);
        assert!(value.show().starts_with("{true [] false "), "{}", value.show());
    }

    #[test]
    fn order_gaps_and_kinds_are_kept() {
        let thing = Thing {
            zebra: u64::MAX,
            health: None,
            binds: None,
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ports: BTreeMap::new(),
            pair: [1, 2],
        };
        let value = value_of(&thing).unwrap();
        assert_eq!(value.json(false), serde_json::to_string(&thing).unwrap());
        assert_eq!(value.show(), "{18446744073709551615 <nil> [] map[a:b] map[] [1 2]}");
    }
}
