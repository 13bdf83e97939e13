//! Query strings as types: [`Query`] is written for the client and read by the server.

use std::collections::BTreeMap;

/// The pairs of a query string, decoded, in order.
pub type Pairs = Vec<(String, String)>;

/// A set of query parameters.
///
/// Implemented by [`query!`](crate::query); `()` is the empty set.
pub trait Query: Sized {
    /// Appends the parameters that differ from their default.
    fn write(&self, pairs: &mut Pairs);
    /// Reads the known parameters and ignores the others, as Docker does. The error names the parameter.
    ///
    /// Of a parameter that is given twice and is no list, the first counts: what looks at requests before they
    /// are served reads them so too.
    fn read(pairs: &Pairs) -> Result<Self, String>;
}

impl Query for () {
    fn write(&self, _pairs: &mut Pairs) {}
    fn read(_pairs: &Pairs) -> Result<(), String> {
        Ok(())
    }
}

/// One query parameter's value.
pub trait Parameter: Sized + Default {
    /// The text to send, or `None` to leave the parameter out.
    fn to_text(&self) -> Option<String>;
    /// Reads the text received. The error says what was expected.
    fn from_text(text: &str) -> Result<Self, String>;
}

impl Parameter for String {
    fn to_text(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.clone())
    }
    fn from_text(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }
}

/// Docker's rule: "", "0", "no", "false" and "none" are false whatever their case, all else is true.
impl Parameter for bool {
    fn to_text(&self) -> Option<String> {
        self.then(|| "1".to_owned())
    }
    fn from_text(text: &str) -> Result<bool, String> {
        let text = text.trim().to_ascii_lowercase();
        Ok(!matches!(text.as_str(), "" | "0" | "no" | "false" | "none"))
    }
}

/// Absent and present are told apart, for parameters whose default is not "zero".
impl<T: Parameter> Parameter for Option<T> {
    fn to_text(&self) -> Option<String> {
        self.as_ref().map(|value| value.to_text().unwrap_or_else(|| "0".to_owned()))
    }
    fn from_text(text: &str) -> Result<Option<T>, String> {
        T::from_text(text).map(Some)
    }
}

macro_rules! number_parameter {
    ($($type:ty),*) => {$(
        impl Parameter for $type {
            fn to_text(&self) -> Option<String> {
                Some(self.to_string())
            }
            fn from_text(text: &str) -> Result<$type, String> {
                text.trim().parse().map_err(|_| format!("invalid number {text:?}"))
            }
        }
    )*};
}
number_parameter!(i64, u32, u64);

/// `filters={"label":["a=b"]}`: for each key the values that may match.
///
/// Compat: Go clients send a map of maps (`{"label":{"a=b":true}}`), docker-py and curl a map of lists.
/// Both are read; lists are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, Vec<String>>);

impl Filters {
    /// The values given for `key`, empty when the key is absent.
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Adds one `key=value`.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().push(value.to_owned());
    }

    /// A filter that is true or false, said at most one way; the error is Docker's.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, String> {
        let mut found = None;
        for text in self.get(key) {
            let value = match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => return Err(format!("invalid filter '{key}={text}'")),
            };
            if found.is_some_and(|other| other != value) {
                return Err(format!("invalid filter '{key}=[true false]'"));
            }
            found = Some(value);
        }
        Ok(found)
    }

    /// The first key that is not in `known`.
    pub fn unknown<'a>(&'a self, known: &[&str]) -> Option<&'a str> {
        self.0.keys().map(String::as_str).find(|key| !known.contains(key))
    }
}

impl Parameter for Filters {
    fn to_text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| serde_json::json!(self.0).to_string())
    }

    fn from_text(text: &str) -> Result<Filters, String> {
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let invalid = || "invalid filter".to_owned();
        let map: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).map_err(|_| invalid())?;
        let mut filters = Filters::default();
        for (key, values) in map {
            let values = match values {
                serde_json::Value::Array(items) => items
                    .into_iter()
                    .map(|item| item.as_str().map(str::to_owned).ok_or_else(invalid))
                    .collect::<Result<Vec<_>, _>>()?,
                serde_json::Value::Object(items) => items
                    .into_iter()
                    .filter(|(_, on)| on.as_bool() == Some(true))
                    .map(|(value, _)| value)
                    .collect(),
                serde_json::Value::Null => Vec::new(),
                _ => return Err(invalid()),
            };
            filters.0.insert(key, values);
        }
        Ok(filters)
    }
}

/// Declares a set of query parameters: `query! { /// doc pub struct Name { field: Type = "name", … } }`.
#[macro_export]
macro_rules! query {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),* }

        impl $crate::http::api::query::Query for $name {
            fn write(&self, pairs: &mut $crate::http::api::query::Pairs) {
                $(if let Some(text) = $crate::http::api::query::Parameter::to_text(&self.$field) {
                    pairs.push(($text.to_owned(), text));
                })*
            }
            fn read(pairs: &$crate::http::api::query::Pairs) -> Result<Self, String> {
                let mut query = $name::default();
                for (name, value) in pairs.iter().rev() {
                    match name.as_str() {
                        $($text => {
                            query.$field = $crate::http::api::query::Parameter::from_text(value)
                                .map_err(|cause| format!("invalid query parameter {name:?}: {cause}"))?;
                        })*
                        _ => {}
                    }
                }
                Ok(query)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_as_map_of_lists_and_as_map_of_maps() {
        let lists = Filters::from_text(r#"{"label":["a=b"],"name":[]}"#).unwrap();
        let maps = Filters::from_text(r#"{"label":{"a=b":true,"c":false},"name":{}}"#).unwrap();
        assert_eq!(lists, maps);
        assert!(Filters::from_text("[1]").is_err());
        assert!(Filters::from_text(r#"{"label":[1]}"#).is_err());
    }

    crate::query! { pub struct Sample { force: bool = "force", name: String = "name" } }

    #[test]
    fn the_first_of_two_counts() {
        let pairs = [("name", "a"), ("force", "1"), ("name", "b"), ("force", "0")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let sample = Sample::read(&pairs).unwrap();
        assert_eq!((sample.name.as_str(), sample.force), ("a", true));
    }

    #[test]
    fn booleans_follow_dockers_list_of_falsehoods() {
        for text in ["", "0", "no", "False", " none "] {
            assert_eq!(bool::from_text(text), Ok(false), "{text:?}");
        }
        for text in ["1", "true", "yes", "2"] {
            assert_eq!(bool::from_text(text), Ok(true), "{text:?}");
        }
    }
}
