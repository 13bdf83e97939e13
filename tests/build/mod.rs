//! Building images.

mod bases;
mod cached;
mod client;
mod copies;
mod endings;
mod fixture;
mod instructions;
mod site;
mod stages;
mod steps;
