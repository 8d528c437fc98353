-- Hot items: the auctions with the most bids in windows of 10 seconds, one every 2 seconds.
-- A hopping window is every bid once for each of the five windows that it falls into.
WITH hops AS (
  SELECT b.auction, date_bin(INTERVAL '2 seconds', b.date_time) - n.back * INTERVAL '2 seconds' AS starttime
  FROM bid AS b CROSS JOIN (VALUES (0), (1), (2), (3), (4)) AS n(back)
), counts AS (
  SELECT auction, starttime, count(*) AS num FROM hops GROUP BY auction, starttime
), most AS (
  SELECT starttime, max(num) AS num FROM counts GROUP BY starttime
)
SELECT c.auction, c.num, c.starttime
FROM counts AS c JOIN most AS m ON c.starttime = m.starttime AND c.num = m.num
