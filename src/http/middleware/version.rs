//! The first middleware: what version the client speaks, and what every answer says of the daemon's.
//!
//! Texts and statuses are Docker's: clients and people know them.

use super::{Leave, Passing};
use crate::http::api::{self, API_VERSION, ApiVersion, Class, Failure, MIN_API_VERSION, Operation};

/// The headers of every answer.
pub fn headers() -> Vec<(&'static str, String)> {
    vec![
        ("Api-Version", API_VERSION.to_string()),
        // The stock CLI hides `checkpoint` from a daemon that does not call itself experimental.
        ("Docker-Experimental", "true".to_owned()),
        ("Ostype", "linux".to_owned()),
        ("Server", format!("Docker/{} (linux)", env!("CARGO_PKG_VERSION"))),
    ]
}

/// Reads the version and refuses one that is out of range or has no such operation.
pub fn enter<S>(_: &S, passing: &mut Passing<'_>) -> Result<Option<Leave>, Failure> {
    passing.request.raw.version = read(passing.version, passing.operation)?;
    Ok(None)
}

fn read(text: Option<&str>, operation: &Operation) -> Result<ApiVersion, Failure> {
    let version = text.map_or(Ok(API_VERSION), check)?;
    // Compat: 400, because clients take a 404 for the object's absence.
    if version < API_VERSION && version < api::since(operation) {
        return Err(invalid(format!(
            "{} {} requires minimum API version {}",
            operation.method.name(),
            operation.path,
            api::since(operation)
        )));
    }
    Ok(version)
}

fn invalid(message: String) -> Failure {
    Failure { class: Class::InvalidParameter, message }
}

fn check(text: &str) -> Result<ApiVersion, Failure> {
    let version = ApiVersion::parse(text)
        .or_else(|| ApiVersion::parse(&format!("{text}.0")))
        .ok_or_else(|| invalid(format!("invalid API version {text:?}")))?;
    if version < MIN_API_VERSION {
        return Err(invalid(format!(
            "client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, please \
             upgrade your client to a newer version",
        )));
    }
    if version > API_VERSION {
        return Err(invalid(format!(
            "client version {text} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::{Method, Shape};

    #[test]
    fn versions_out_of_range_say_what_is_possible() {
        for (text, part) in [
            ("1.23", "client version 1.23 is too old. Minimum supported API version is 1.24"),
            ("1.52", "client version 1.52 is too new. Maximum supported API version is 1.51"),
            ("2.0", "too new"),
            ("1", "client version 1 is too old"),
            ("1.2.3", "invalid API version \"1.2.3\""),
            (".", "invalid"),
            ("99999999999.1", "invalid"),
        ] {
            let failure = check(text).unwrap_err();
            assert!(failure.message.contains(part), "{text}: {}", failure.message);
            assert_eq!(failure.class, Class::InvalidParameter);
        }
        assert_eq!(check("1.24").unwrap(), MIN_API_VERSION);
    }

    #[test]
    fn an_operation_is_not_there_before_its_version() {
        let operation = Operation {
            id: "ContainerPrune",
            method: Method::Post,
            path: "/containers/prune",
            shape: Shape::Json,
            status: 200,
            slow: false,
        };
        let failure = read(Some("1.24"), &operation).unwrap_err();
        assert_eq!(failure.class, Class::InvalidParameter);
        assert_eq!(failure.message, "POST /containers/prune requires minimum API version 1.25");
        assert!(read(Some("1.25"), &operation).is_ok());
        assert_eq!(read(None, &operation).unwrap(), API_VERSION);
    }
}
