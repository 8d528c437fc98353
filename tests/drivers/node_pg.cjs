// node-postgres against the server at PGHOST, PGPORT. It is found by NODE_PATH.
'use strict';

const assert = require('node:assert');
const { Client } = require('pg');

const columns = ['id', 'b', 'i2', 'i4', 'i8', 'f8', 'n', 't', 'by', 'ts', 'tz', 'u', 'j', 'ai', 'at'];
const row = {
  id: '1', // bigint arrives as a string, it would not fit a number
  b: true,
  i2: 7,
  i4: -123456,
  i8: '9007199254740993',
  f8: 0.1,
  n: '12345.60',
  t: "it's \\ \"quoted\" ✓",
  by: Buffer.from([0, 1, 254, 255]),
  ts: new Date(2020, 1, 29, 12, 34, 56, 789),
  tz: new Date('2021-03-04T05:06:07.890Z'),
  u: '123e4567-e89b-12d3-a456-426614174000',
  j: { a: [1, 'zwei', null] },
  ai: [3, 1, 2],
  at: ['x', null, 'with, comma and "quote"'],
};

async function failsWith(client, sql, code) {
  await assert.rejects(client.query(sql), (e) => {
    assert.strictEqual(e.code, code, `${sql}: ${e.message}`);
    return true;
  });
}

async function main() {
  const client = new Client({
    host: process.env.PGHOST,
    port: Number(process.env.PGPORT),
    user: 'tidemill',
    database: 'tidemill',
  });
  await client.connect();

  await client.query('DROP TABLE IF EXISTS node_types');
  await client.query(`CREATE TABLE node_types (id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint,
    f8 double precision, n numeric(12,2), t text, by bytea, ts timestamp, tz timestamptz, u uuid, j jsonb, ai integer[],
    at text[])`);
  const marks = columns.map((_, i) => `$${i + 1}`).join(', ');
  const insert = `INSERT INTO node_types (${columns.join(', ')}) VALUES (${marks})`;
  await client.query(insert, columns.map((c) => row[c]));
  await client.query(insert, ['2', ...columns.slice(1).map(() => null)]);
  const one = await client.query('SELECT * FROM node_types WHERE id = $1', [1]);
  assert.deepStrictEqual({ ...one.rows[0] }, row);
  const two = await client.query({ name: 'by-id', text: 'SELECT * FROM node_types WHERE id = $1', values: [2] });
  assert.ok(columns.slice(1).every((c) => two.rows[0][c] === null), 'a row of NULLs');
  const again = await client.query({ name: 'by-id', text: 'SELECT * FROM node_types WHERE id = $1', values: [1] });
  assert.strictEqual(again.rows[0].t, row.t, 'a named statement, used again');

  await client.query('BEGIN');
  const updated = await client.query("UPDATE node_types SET t = 'changed' WHERE id = 1");
  assert.deepStrictEqual([updated.command, updated.rowCount], ['UPDATE', 1]);
  await client.query('ROLLBACK');
  const kept = await client.query('SELECT t FROM node_types WHERE id = 1');
  assert.strictEqual(kept.rows[0].t, row.t, 'after a rollback');

  const many = await client.query('SELECT 1 AS a; SELECT 2 AS b');
  assert.deepStrictEqual(many.map((r) => r.rows), [[{ a: 1 }], [{ b: 2 }]], 'two statements in one string');

  await failsWith(client, 'SELECT * FROM no_such_table', '42P01');
  await failsWith(client, 'SELEKT 1', '42601');
  await failsWith(client, 'SELECT 1 / 0', '22012');
  await failsWith(client, "INSERT INTO node_types (id, t) VALUES (1, 'twice')", '23505');
  await assert.rejects(client.query('SELECT $1::int', ['no number']), { code: '22P02' });
  assert.deepStrictEqual((await client.query('SELECT 1 AS one')).rows, [{ one: 1 }], 'after errors');

  await client.query('DROP TABLE node_types');
  await client.end();
  console.log('node-pg: ok');
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
