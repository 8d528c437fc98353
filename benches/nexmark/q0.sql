-- Pass-through: what it costs to hand every bid on.
SELECT auction, bidder, price, date_time, extra FROM bid
