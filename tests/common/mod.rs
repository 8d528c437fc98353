//! What several test binaries share. Each binary uses its own part of it.
#![allow(dead_code)]

pub mod pgclient;
