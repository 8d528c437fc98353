"""asyncpg against the server at PGHOST, PGPORT: it speaks only the extended protocol and only binary."""

import asyncio
import datetime as dt
import io
import json
import os
import uuid
from decimal import Decimal

import asyncpg

UTC = dt.timezone.utc

ROW = {
    "id": 1,
    "b": False,
    "i2": 32767,
    "i4": -(2**31),
    "i8": 2**63 - 1,
    "f4": -0.25,
    "f8": 1e300,
    "n": Decimal("-9999999.99"),
    "t": "zażółć 🦆",
    "by": bytes(range(256)),
    "d": dt.date(1969, 7, 20),
    "tm": dt.time(0, 0, 0, 1),
    "ts": dt.datetime(2038, 1, 19, 3, 14, 7, 1),
    "tz": dt.datetime(1970, 1, 1, tzinfo=UTC),
    "iv": dt.timedelta(days=-1, seconds=30),
    "u": uuid.UUID("00000000-0000-4000-8000-00000000000f"),
    "ai": [1, None, 3],
    "at": ["a", None, ""],
}
COLUMNS = ", ".join(ROW)


def check(got, expected, what):
    assert got == expected, f"{what}: got {got!r}, expected {expected!r}"


async def types(conn):
    await conn.execute("DROP TABLE IF EXISTS asyncpg_types")
    await conn.execute(
        """CREATE TABLE asyncpg_types (id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real,
           f8 double precision, n numeric(12,2), t text, by bytea, d date, tm time, ts timestamp, tz timestamptz,
           iv interval, u uuid, ai integer[], at text[])"""
    )
    marks = ", ".join(f"${i}" for i in range(1, len(ROW) + 1))
    insert = await conn.prepare(f"INSERT INTO asyncpg_types ({COLUMNS}) VALUES ({marks})")
    await insert.fetch(*ROW.values())
    await insert.fetch(2, *[None] * (len(ROW) - 1))
    row = await conn.fetchrow("SELECT * FROM asyncpg_types WHERE id = $1", 1)
    for name, expected in ROW.items():
        check(row[name], expected, name)
    row = await conn.fetchrow("SELECT * FROM asyncpg_types WHERE id = $1", 2)
    check(list(row.values()), [2] + [None] * (len(ROW) - 1), "a row of NULLs")
    value = await conn.fetchval("SELECT $1::jsonb", json.dumps({"k": [1, 2]}))
    check(json.loads(value), {"k": [1, 2]}, "jsonb")


async def transactions(conn):
    await conn.execute("DROP TABLE IF EXISTS asyncpg_tx")
    await conn.execute("CREATE TABLE asyncpg_tx (k integer PRIMARY KEY, v text)")
    async with conn.transaction():
        await conn.execute("INSERT INTO asyncpg_tx VALUES ($1, $2)", 1, "kept")
    try:
        async with conn.transaction():
            await conn.execute("INSERT INTO asyncpg_tx VALUES ($1, $2)", 2, "lost")
            raise RuntimeError("rolled back on purpose")
    except RuntimeError:
        pass
    check(await conn.fetch("SELECT k FROM asyncpg_tx"), [(1,)], "after a rollback")
    await conn.executemany("INSERT INTO asyncpg_tx VALUES ($1, $2)", [(i, str(i)) for i in range(10, 510)])
    async with conn.transaction():
        seen = [r["k"] async for r in conn.cursor("SELECT k FROM asyncpg_tx WHERE k >= 10 ORDER BY k", prefetch=37)]
    check(seen, list(range(10, 510)), "a cursor, portion by portion")


async def errors(conn):
    for sql, error in [
        ("SELECT * FROM no_such_table", asyncpg.UndefinedTableError),
        ("SELEKT 1", asyncpg.PostgresSyntaxError),
        ("SELECT 1 / 0", asyncpg.DivisionByZeroError),
        ("INSERT INTO asyncpg_tx VALUES (1, 'twice')", asyncpg.UniqueViolationError),
    ]:
        try:
            await conn.fetch(sql)
        except error:
            pass
        else:
            raise AssertionError(f"{sql} did not fail")
    check(await conn.fetchval("SELECT 1"), 1, "after errors")


async def copies(conn):
    lines = "".join(f"{k}\tcopied {k}\n" for k in range(1000, 1100)).encode()
    tag = await conn.copy_to_table("asyncpg_tx", source=io.BytesIO(lines), columns=["k", "v"])
    check(tag, "COPY 100", "rows copied in")
    out = io.BytesIO()
    tag = await conn.copy_from_query("SELECT k, v FROM asyncpg_tx WHERE k >= 1000 ORDER BY k", output=out)
    check((tag, out.getvalue()), ("COPY 100", lines), "rows copied out")


async def main():
    conn = await asyncpg.connect(
        host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]), user="tidemill", database="tidemill", ssl="prefer"
    )
    await types(conn)
    await transactions(conn)
    await errors(conn)
    await copies(conn)
    for name in ("asyncpg_types", "asyncpg_tx"):
        await conn.execute(f"DROP TABLE {name}")
    await conn.close()
    print("asyncpg: ok")


asyncio.run(main())
