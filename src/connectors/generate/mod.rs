//! Sources that make their own rows: the Nexmark auction stream, a shop, and rows at random by a schema.
//!
//! All are functions of a seed and a position, so a position is all that has to be remembered to go on
//! after a crash with exactly the rows that would have come.

pub mod chance;
pub mod datagen;
pub mod nexmark;
mod pace;
pub mod shop;
pub mod stream;

#[cfg(test)]
mod tests;
