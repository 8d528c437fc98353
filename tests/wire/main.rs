//! The wire protocol, from outside: a server in this process, real clients and raw bytes against it.

mod driver;
mod malformed;
mod protocol;
mod psql;
mod raw;
mod server;
