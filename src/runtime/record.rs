//! Files the runtime leaves for a later daemon: JSON objects that say their format.
//!
//! A later format is refused, an older one has none to say. Fields that are not known are passed over.

use serde::{Serialize, de::DeserializeOwned};

/// Raised when an older dewar could not make sense of what is written.
const FORMAT: u64 = 1;

/// `value`, a struct, with the format in front.
///
/// # Errors
/// It has no place in JSON.
pub fn encode<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let fields = serde_json::to_vec(value)?;
    let mut text = format!("{{\"format\":{FORMAT},").into_bytes();
    text.extend_from_slice(fields.strip_prefix(b"{").unwrap_or(&fields));
    Ok(text)
}

/// What [`encode`] wrote.
///
/// # Errors
/// In words: damaged, or of a later format.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match value.get("format").map(serde_json::Value::as_u64) {
        None | Some(Some(..=FORMAT)) => {}
        Some(Some(format)) => {
            return Err(format!("written in format {format}, this dewar knows {FORMAT}"));
        }
        Some(None) => return Err("its format is not a number".to_owned()),
    }
    T::deserialize(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Exit;

    #[test]
    fn an_older_format_is_read_and_a_later_one_refused() {
        let exit =
            Exit { code: 3, oom_killed: true, finished_at: "t".into(), checkpointed: false, reason: None };
        assert_eq!(decode::<Exit>(&encode(&exit).unwrap()).unwrap(), exit);
        let old = br#"{"code":3,"oom_killed":true,"finished_at":"t","more":[]}"#;
        assert_eq!(decode::<Exit>(old).unwrap(), exit);
        let later = br#"{"format":2,"code":3,"oom_killed":true,"finished_at":"t"}"#;
        assert!(decode::<Exit>(later).unwrap_err().contains("format 2"));
        for broken in [&b""[..], b"{\"format\":1,\"code\"", b"[]", b"\0\0"] {
            assert!(decode::<Exit>(broken).is_err());
        }
    }
}
