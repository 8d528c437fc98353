-- Highest bid of every 10 seconds.
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM (SELECT *, date_bin(INTERVAL '10 seconds', date_time) AS starttime FROM bid) AS b
JOIN (
  SELECT max(price) AS maxprice, date_bin(INTERVAL '10 seconds', date_time) AS starttime FROM bid GROUP BY 2
) AS m ON b.price = m.maxprice AND b.starttime = m.starttime
