//! The database itself, its users, settings and fixed furniture.

use super::Context;
use super::oids;
use super::rows::{Rows, Value};
use crate::error::Result;

/// The access method of sources.
pub const SOURCE_ACCESS: u32 = 13_010;

pub fn pg_am(_: &Context, out: &mut Rows) -> Result<()> {
    for (oid, name, kind) in
        [(oids::HEAP, "heap", "t"), (oids::BTREE, "btree", "i"), (SOURCE_ACCESS, "source", "t")]
    {
        out.push([("oid", oid.into()), ("amname", name.into()), ("amtype", kind.into())])?;
    }
    Ok(())
}

pub fn pg_collation(_: &Context, out: &mut Rows) -> Result<()> {
    for (oid, name, provider, collate) in
        [(100u32, "default", "d", None), (950, "C", "c", Some("C")), (951, "POSIX", "c", Some("POSIX"))]
    {
        out.push([
            ("oid", oid.into()),
            ("collname", name.into()),
            ("collnamespace", oids::PG_CATALOG.into()),
            ("collowner", oids::OWNER.into()),
            ("collprovider", provider.into()),
            ("collisdeterministic", true.into()),
            ("collencoding", (-1).into()),
            ("collcollate", collate.into()),
            ("collctype", collate.into()),
        ])?;
    }
    Ok(())
}

pub fn pg_database(cx: &Context, out: &mut Rows) -> Result<()> {
    out.push([
        ("oid", oids::DATABASE.into()),
        ("datname", cx.database.as_str().into()),
        ("datdba", oids::OWNER.into()),
        ("encoding", UTF8.into()),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1).into()),
        ("dattablespace", oids::TABLESPACE.into()),
        // Strings compare by their bytes.
        ("datcollate", "C".into()),
        ("datctype", "C".into()),
    ])
}

/// PostgreSQL's number of the encoding UTF8.
pub const UTF8: i32 = 6;

pub fn pg_tablespace(_: &Context, out: &mut Rows) -> Result<()> {
    out.push([
        ("oid", oids::TABLESPACE.into()),
        ("spcname", "pg_default".into()),
        ("spcowner", oids::OWNER.into()),
    ])
}

/// The session's user: whoever can connect may do everything.
pub fn pg_roles(cx: &Context, out: &mut Rows) -> Result<()> {
    out.push([
        ("rolname", cx.user.as_str().into()),
        ("rolsuper", true.into()),
        ("rolinherit", true.into()),
        ("rolcreaterole", true.into()),
        ("rolcreatedb", true.into()),
        ("rolcanlogin", true.into()),
        ("rolconnlimit", (-1).into()),
        ("rolpassword", "********".into()),
        ("rolbypassrls", true.into()),
        ("oid", oids::OWNER.into()),
    ])
}

pub fn pg_authid(cx: &Context, out: &mut Rows) -> Result<()> {
    out.push([
        ("oid", oids::OWNER.into()),
        ("rolname", cx.user.as_str().into()),
        ("rolsuper", true.into()),
        ("rolinherit", true.into()),
        ("rolcreaterole", true.into()),
        ("rolcreatedb", true.into()),
        ("rolcanlogin", true.into()),
        ("rolbypassrls", true.into()),
        ("rolconnlimit", (-1).into()),
    ])
}

pub fn pg_user(cx: &Context, out: &mut Rows) -> Result<()> {
    out.push([
        ("usename", cx.user.as_str().into()),
        ("usesysid", oids::OWNER.into()),
        ("usecreatedb", true.into()),
        ("usesuper", true.into()),
        ("usebypassrls", true.into()),
        ("passwd", "********".into()),
    ])
}

pub fn pg_settings(cx: &Context, out: &mut Rows) -> Result<()> {
    for (name, value, about) in &cx.settings {
        out.push([
            ("name", name.as_str().into()),
            ("setting", value.as_str().into()),
            ("category", "Tidemill".into()),
            ("short_desc", about.as_str().into()),
            ("context", "user".into()),
            ("vartype", "string".into()),
            ("source", "session".into()),
            ("boot_val", value.as_str().into()),
            ("reset_val", value.as_str().into()),
            ("sourceline", Value::Null),
        ])?;
    }
    Ok(())
}
