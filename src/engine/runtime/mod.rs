//! The circuit and its clock.

pub mod operator;
