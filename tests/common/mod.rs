//! What several test binaries share. Each binary uses its own part of it.
#![allow(dead_code)]

pub mod debezium;
pub mod fakesnow;
pub mod kafka;
pub mod mariadb;
pub mod pgclient;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod registry;
pub mod s3;
pub mod server;
