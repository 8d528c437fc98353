-- Auction top 10: its ten highest bids, with their places.
SELECT * FROM (
  SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid
) AS q
WHERE place <= 10
