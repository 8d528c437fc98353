-- Bounded side input join: a table of 10 000 rows beside the bids.
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM (SELECT *, auction % 10000 AS mod FROM bid) AS b JOIN side_input AS s ON b.mod = s.key
