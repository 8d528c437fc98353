-- Hot items: the auctions with the most bids in windows of 10 seconds, one every 2 seconds.
WITH counts AS (
  SELECT auction, window_start AS starttime, count(*) AS num
  FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
  GROUP BY auction, window_start
), most AS (
  SELECT starttime, max(num) AS num FROM counts GROUP BY starttime
)
SELECT c.auction, c.num, c.starttime
FROM counts AS c JOIN most AS m ON c.starttime = m.starttime AND c.num = m.num
