//! The wire as Docker's clients see it.

mod containers;
mod coverage;
mod framing;
mod python;
mod streams;
mod system;
