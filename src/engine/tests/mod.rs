//! The engine as a whole, from plans to answers.

mod fixture;
mod ticks;
