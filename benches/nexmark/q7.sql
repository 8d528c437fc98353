-- Highest bid of every 10 seconds.
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') AS b
JOIN (
  SELECT max(price) AS maxprice, window_start FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') GROUP BY 2
) AS m ON b.price = m.maxprice AND b.window_start = m.window_start
