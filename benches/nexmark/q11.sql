-- User sessions: bids of a bidder until 10 seconds pass without one.
-- A session is told by how many gaps came before it.
SELECT bidder, count(*) AS bid_count, min(date_time) AS starttime, max(date_time) AS endtime
FROM (
  SELECT bidder, date_time,
         sum(gap) OVER (PARTITION BY bidder ORDER BY date_time) AS session
  FROM (
    SELECT bidder, date_time,
           CASE WHEN date_time - lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time) >= INTERVAL '10 seconds'
                THEN 1 ELSE 0 END AS gap
    FROM bid
  ) AS gaps
) AS sessions
GROUP BY bidder, session
