//! Sources that make their own rows: the Nexmark auction stream, and rows at random by a schema.
//!
//! Both are functions of a seed and a position, so a position is all that has to be remembered to go on
//! after a crash with exactly the rows that would have come.

pub mod nexmark;
