-- New users: who registered and opened an auction within the same 10 seconds.
SELECT p.id, p.name, p.starttime
FROM (
  SELECT id, name, date_bin(INTERVAL '10 seconds', date_time) AS starttime FROM person GROUP BY 1, 2, 3
) AS p
JOIN (
  SELECT seller, date_bin(INTERVAL '10 seconds', date_time) AS starttime FROM auction GROUP BY 1, 2
) AS a ON p.id = a.seller AND p.starttime = a.starttime
