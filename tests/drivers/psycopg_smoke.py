"""psycopg 3 against the server at PGHOST, PGPORT: types both ways in both formats, transactions, errors, COPY."""

import datetime as dt
import os
import uuid
from decimal import Decimal

import psycopg
from psycopg.types.json import Jsonb

URL = f"host={os.environ['PGHOST']} port={os.environ['PGPORT']} user=tidemill dbname=tidemill"
UTC = dt.timezone.utc

ROW = {
    "id": 1,
    "b": True,
    "i2": -7,
    "i4": 123456,
    "i8": -(2**40),
    "f4": 1.5,
    "f8": 3.141592653589793,
    "n": Decimal("1234567.89"),
    "t": "héllo \\ 'wörld'\n\t",
    "by": b"\x00\xff\x10abc",
    "d": dt.date(2024, 2, 29),
    "tm": dt.time(23, 59, 59, 999999),
    "ts": dt.datetime(1999, 12, 31, 23, 59, 59, 123456),
    "tz": dt.datetime(2024, 7, 1, 12, 0, tzinfo=UTC),
    "iv": dt.timedelta(days=3, seconds=3661, microseconds=5),
    "u": uuid.UUID("123e4567-e89b-12d3-a456-426614174000"),
    "j": {"a": [1, 2, {"b": None}], "c": "d"},
    "ai": [1, 2, 3],
    "at": ["x", 'y "q" {z}', "NULL"],
}
COLUMNS = ", ".join(ROW)


def check(got, expected, what):
    assert got == expected, f"{what}: got {got!r}, expected {expected!r}"


def types(conn):
    conn.execute("DROP TABLE IF EXISTS psycopg_types")
    conn.execute(
        """CREATE TABLE psycopg_types (id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real,
           f8 double precision, n numeric(12,2), t text, by bytea, d date, tm time, ts timestamp, tz timestamptz,
           iv interval, u uuid, j jsonb, ai integer[], at text[])"""
    )
    values = {**ROW, "j": Jsonb(ROW["j"])}
    marks = ", ".join(f"%({name})s" for name in ROW)
    conn.execute(f"INSERT INTO psycopg_types ({COLUMNS}) VALUES ({marks})", values)
    nulls = {**{name: None for name in ROW}, "id": 2}
    conn.execute(f"INSERT INTO psycopg_types ({COLUMNS}) VALUES ({marks})", nulls)
    for binary in (False, True):
        with conn.cursor(binary=binary) as cur:
            cur.execute(f"SELECT {COLUMNS} FROM psycopg_types WHERE id = %s", [1])
            row = dict(zip(ROW, cur.fetchone()))
            for name, expected in ROW.items():
                check(row[name], expected, f"{name} in {'binary' if binary else 'text'} format")
            cur.execute(f"SELECT {COLUMNS} FROM psycopg_types WHERE id = %s", [2])
            check(cur.fetchone(), tuple(nulls.values()), "a row of NULLs")
        binary_marks = marks.replace("%(", "%(").replace(")s", ")b")
        values["id"] = 10 + binary
        conn.execute(f"INSERT INTO psycopg_types ({COLUMNS}) VALUES ({binary_marks})", values)
    check(conn.execute("SELECT count(*) FROM psycopg_types WHERE u = %s", [ROW["u"]]).fetchone(), (3,), "by uuid")


def transactions(conn):
    conn.execute("DROP TABLE IF EXISTS psycopg_tx")
    conn.execute("CREATE TABLE psycopg_tx (k integer PRIMARY KEY, v text)")
    with conn.transaction():
        conn.execute("INSERT INTO psycopg_tx VALUES (1, 'kept')")
        check(conn.execute("SELECT v FROM psycopg_tx").fetchall(), [("kept",)], "own writes")
    try:
        with conn.transaction():
            conn.execute("INSERT INTO psycopg_tx VALUES (2, 'lost')")
            raise RuntimeError("rolled back on purpose")
    except RuntimeError:
        pass
    check(conn.execute("SELECT k FROM psycopg_tx").fetchall(), [(1,)], "after a rollback")


def errors(conn):
    for sql, sqlstate in [
        ("SELECT * FROM no_such_table", "42P01"),
        ("SELEKT 1", "42601"),
        ("SELECT 1 / 0", "22012"),
        ("INSERT INTO psycopg_tx VALUES (1, 'twice')", "23505"),
    ]:
        try:
            conn.execute(sql)
        except psycopg.Error as e:
            check(e.sqlstate, sqlstate, sql)
        else:
            raise AssertionError(f"{sql} did not fail")
    with psycopg.connect(URL) as block:
        try:
            block.execute("SELECT 1 / 0")
        except psycopg.Error:
            pass
        check(block.info.transaction_status, psycopg.pq.TransactionStatus.INERROR, "after an error in a block")
        try:
            block.execute("SELECT 1")
        except psycopg.Error as e:
            check(e.sqlstate, "25P02", "a statement in a failed block")
        else:
            raise AssertionError("a failed block went on")
        block.rollback()
        check(block.execute("SELECT 1").fetchone(), (1,), "after the rollback")


def copies(conn):
    with conn.cursor() as cur:
        with cur.copy("COPY psycopg_tx (k, v) FROM STDIN") as copy:
            for k in range(100, 200):
                copy.write_row((k, None if k % 10 == 0 else f"row\t{k}\n"))
        check(cur.rowcount, 100, "rows copied in")
        with cur.copy("COPY (SELECT k, v FROM psycopg_tx WHERE k >= 100) TO STDOUT") as copy:
            rows = sorted(copy.rows(), key=lambda r: int(r[0]))
        check(len(rows), 100, "rows copied out")
        check(rows[:2], [("100", None), ("101", "row\t101\n")], "what was copied out")


def pipelines(conn):
    with conn.pipeline():
        cursors = [conn.execute("SELECT %s::int + 1", [i]) for i in range(50)]
        check([c.fetchone()[0] for c in cursors], list(range(1, 51)), "a pipeline")


def main():
    with psycopg.connect(URL, autocommit=True) as conn:
        assert conn.info.server_version >= 160000, conn.info.server_version
        types(conn)
        transactions(conn)
        errors(conn)
        copies(conn)
        pipelines(conn)
        with conn.cursor() as cur:
            cur.executemany("INSERT INTO psycopg_tx VALUES (%s, %s)", [(i, str(i)) for i in range(1000, 1100)])
            check(conn.execute("SELECT count(*) FROM psycopg_tx WHERE k >= 1000").fetchone(), (100,), "executemany")
        for name in ("psycopg_types", "psycopg_tx"):
            conn.execute(f"DROP TABLE {name}")
    print("psycopg: ok")


main()
