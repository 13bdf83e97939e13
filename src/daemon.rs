//! The engine: containers, images and their state on disk.

pub mod error;
pub mod images;
