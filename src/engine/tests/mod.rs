//! The engine as a whole, from plans to answers.

mod checkpoint;
mod compact;
mod fixture;
mod hydrate;
mod inspect;
mod journal;
mod lookups;
mod replace;
mod replay;
mod shapes;
mod ticks;
mod time;
mod widen;
mod windows;
