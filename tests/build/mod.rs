//! Building images.

mod cached;
mod copies;
mod endings;
mod site;
mod stages;
mod steps;
