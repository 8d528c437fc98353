"""fakesnow's server, with MERGE made to work inside BEGIN … COMMIT.

The stock version writes an empty comment on MERGE's scratch table into a second DuckDB database,
which a transaction that has written to the first one may not do; that comment is skipped here.
"""
import sys

import fakesnow.info_schema as info_schema

_insert_table_comment_sql = info_schema.insert_table_comment_sql


def _skipping_scratch_tables(catalog, schema, table, comment):
    if table.lower() == "merge_candidates" or not comment:
        return "SELECT 1"
    return _insert_table_comment_sql(catalog, schema, table, comment)


info_schema.insert_table_comment_sql = _skipping_scratch_tables

from fakesnow.cli import main  # noqa: E402  (the patch above must come first)

sys.exit(main(sys.argv[1:]))
