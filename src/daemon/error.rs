//! The engine's error: a class the API knows, and one message.
//!
//! The class is chosen where the failure is understood; `http::reply` turns it into a status.

use std::fmt::Display;

use crate::http::api::{Class, Failure};

/// Why the engine refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub class: Class,
    /// Attempt, object and cause joined by ": ", or Docker's text where clients match on it.
    pub message: String,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $class:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Error {
            Error { class: Class::$class, message: message.into() }
        }
    )*};
}

impl Error {
    constructors! {
        /// 304
        not_modified => NotModified,
        /// 400
        invalid => InvalidParameter,
        /// 401
        unauthorized => Unauthorized,
        /// 403
        forbidden => Forbidden,
        /// 404
        not_found => NotFound,
        /// 409
        conflict => Conflict,
        /// 501
        not_implemented => NotImplemented,
    }

    /// 500: `attempt` failed because of `cause`.
    pub fn system(attempt: impl Display, cause: impl Display) -> Error {
        Error { class: Class::System, message: format!("{attempt}: {cause}") }
    }

    /// The same failure, said to have happened while doing `attempt`.
    pub fn during(mut self, attempt: impl Display) -> Error {
        self.message = format!("{attempt}: {}", self.message);
        self
    }
}

impl From<crate::runtime::Error> for Error {
    /// The kernel's refusals are the system's fault unless the caller says otherwise; that something has ended
    /// in the meantime is nobody's.
    fn from(error: crate::runtime::Error) -> Error {
        let class = if error.is_too_late() { Class::Conflict } else { Class::System };
        Error { class, message: error.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { class: error.class, message: error.message }
    }
}
