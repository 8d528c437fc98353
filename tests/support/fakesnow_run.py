"""fakesnow's server, with what a sync that is killed needs of Snowflake and fakesnow lacks.

* MERGE works inside BEGIN … COMMIT. The stock version writes an empty comment on MERGE's scratch table into
  a second DuckDB database, which a transaction that has written to the first one may not do; that comment is
  skipped here.
* SHOW LOCKS and SYSTEM$ABORT_TRANSACTION. A client that dies leaves its transaction open, as with Snowflake;
  there is no other way to end it.
"""
import importlib
import itertools
import json
import sys

import fakesnow
import fakesnow.info_schema as info_schema

_insert_table_comment_sql = info_schema.insert_table_comment_sql


def _skipping_scratch_tables(catalog, schema, table, comment):
    if table.lower() == "merge_candidates" or not comment:
        return "SELECT 1"
    return _insert_table_comment_sql(catalog, schema, table, comment)


info_schema.insert_table_comment_sql = _skipping_scratch_tables

# The module hides the function of the same name that starts it, and that function looks for the module there.
_start = fakesnow.server
server = importlib.import_module("fakesnow.server")  # the patch above must come first
fakesnow.server = _start
_start.app = server.app
from starlette.responses import JSONResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

_numbers = itertools.count(1)
_open = {}  # token -> (number of its transaction, the tables that it has changed)


def _answer(columns, rows):
    types = [{"name": c, "type": "text", "nullable": True, "scale": None} for c in columns]
    data = {"rowtype": types, "queryResultFormat": "json", "rowset": rows, "total": len(rows)}
    return JSONResponse({"data": data, "success": True})


async def _query(request):
    token = request.headers.get("Authorization", "")[17:-1]
    sql = json.loads(await request.body())["sqlText"].strip()
    words = sql.split()
    first = words[0].upper()
    if token in server.sessions:
        if sql.upper() == "SHOW LOCKS":
            rows = [[t, str(n), "HOLDING"] for n, tables in _open.values() for t in tables]
            return _answer(["resource", "transaction", "status"], rows)
        if "SYSTEM$ABORT_TRANSACTION(" in sql.upper():
            number = int(sql[sql.index("(") + 1 : sql.index(")")])
            for other, (open_number, _) in list(_open.items()):
                if open_number == number:
                    server.sessions[other]._duck_conn.rollback()
                    del _open[other]
            return _answer(["SYSTEM$ABORT_TRANSACTION"], [["Aborted"]])
    response = await server.query_request(request)
    if first == "BEGIN":
        _open[token] = (next(_numbers), set())
    elif first in ("COMMIT", "ROLLBACK"):
        _open.pop(token, None)
    elif first in ("UPDATE", "DELETE", "MERGE", "INSERT") and token in _open:
        _open[token][1].add(words[1] if first == "UPDATE" else words[2])
    return response


async def _session(request):
    token = request.headers.get("Authorization", "")[17:-1]
    response = await server.session(request)
    if token not in server.sessions:
        _open.pop(token, None)
    return response


_patched = {"/queries/v1/query-request": _query, "/session": _session}
server.app.router.routes[:] = [
    Route(r.path, _patched.get(r.path, r.endpoint), methods=["POST"]) if r.path in _patched else r
    for r in server.app.router.routes
]

from fakesnow.cli import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
