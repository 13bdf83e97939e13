//! JSON whose objects keep the order of their keys, so that writing a file somebody else keeps changes what was
//! meant and nothing beside it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Number, Value};

/// One JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    /// A text, a number, a truth value or null.
    Plain(Value),
}

impl Json {
    /// The object with nothing in it.
    pub fn object() -> Json {
        Json::Object(Vec::new())
    }

    /// The value at `key`; made, as an object, if there is none. `None` if this is no object.
    pub fn at(&mut self, key: &str) -> Option<&mut Json> {
        let Json::Object(entries) = self else { return None };
        let index = match entries.iter().position(|(name, _)| name == key) {
            Some(index) => index,
            None => {
                entries.push((key.to_owned(), Json::object()));
                entries.len() - 1
            }
        };
        Some(&mut entries[index].1)
    }

    /// Takes `key` out; whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let Json::Object(entries) = self else { return false };
        let count = entries.len();
        entries.retain(|(name, _)| name != key);
        entries.len() < count
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Object(entries) => {
                serializer.collect_map(entries.iter().map(|(name, value)| (name, value)))
            }
            Json::Array(items) => serializer.collect_seq(items),
            Json::Plain(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Json>()? {
            // The last of several counts, as everywhere.
            match entries.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => entries.push((name, value)),
            }
        }
        Ok(Json::Object(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Plain(text.into()))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Json, E> {
        Ok(Json::Plain(truth.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Plain(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Plain(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Plain(Number::from_f64(number).map_or(Value::Null, Value::Number)))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Plain(Value::Null))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        let text = r#"{"z":[1,-2,3.5,null,true],"a":{"y":"\n","b":{}},"m":18446744073709551615}"#;
        let mut json: Json = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
        *json.at("a").and_then(|a| a.at("c")).unwrap() = Json::Plain("d".into());
        assert!(json.remove("z") && !json.remove("z"));
        let changed = r#"{"a":{"y":"\n","b":{},"c":"d"},"m":18446744073709551615}"#;
        assert_eq!(serde_json::to_string(&json).unwrap(), changed);
        assert!(Json::Plain(Value::Null).at("x").is_none());
    }
}
