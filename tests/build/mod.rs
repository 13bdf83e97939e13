//! Building images.

mod bases;
mod cached;
mod copies;
mod endings;
mod site;
mod stages;
mod steps;
