-- New users: who registered and opened an auction within the same 10 seconds.
SELECT p.id, p.name, p.window_start AS starttime
FROM (
  SELECT id, name, window_start FROM TUMBLE(person, date_time, INTERVAL '10 seconds') GROUP BY 1, 2, 3
) AS p
JOIN (
  SELECT seller, window_start FROM TUMBLE(auction, date_time, INTERVAL '10 seconds') GROUP BY 1, 2
) AS a ON p.id = a.seller AND p.window_start = a.window_start
