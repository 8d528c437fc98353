//! Time zones: fixed offsets, and places whose distance from UTC depends on the date.

use arrow::array::timezone::Tz;
use chrono::{DateTime, LocalResult, Offset, TimeZone};

use super::datetime::{DAY_MICROS, SECOND_MICROS, parse_zone};

/// A time zone; UTC by default.
#[derive(Clone, Copy, Debug)]
pub struct Zone(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Seconds east of UTC.
    Fixed(i32),
    Place(Tz),
}

impl Default for Zone {
    fn default() -> Self {
        Zone(Kind::Fixed(0))
    }
}

impl Zone {
    /// A zone by its name or its offset: `UTC`, `Europe/Berlin`, `-02:00`, `<+02>-02`. `None`: not known.
    ///
    /// As in PostgreSQL, offsets are POSIX's, which count to the west: `-02:00` is east of Greenwich.
    pub fn parse(text: &str) -> Option<Zone> {
        let text = text.trim();
        // The name in front of an offset only says how POSIX would print the zone.
        let offset = match text.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            Some((_, offset)) => offset,
            None => text,
        };
        match parse_zone(offset) {
            Some(west) => Some(Zone(Kind::Fixed(-west))),
            None => text.parse().ok().map(|place| Zone(Kind::Place(place))),
        }
    }

    /// How many seconds east of UTC its clocks are at a moment, given in microseconds since 1970-01-01 UTC.
    pub fn offset_at(self, micros: i64) -> i32 {
        match self.0 {
            Kind::Fixed(offset) => offset,
            // What is no date of this calendar has the offset of 1970.
            Kind::Place(place) => {
                let moment = DateTime::from_timestamp_micros(micros).unwrap_or_default();
                place.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc()
            }
        }
    }

    /// How many seconds east of UTC its clocks are when they show a local time, given in microseconds as if it were
    /// UTC. What they show twice is standard time; what they leave out is counted on from before, as in PostgreSQL.
    pub fn offset_of_local(self, local: i64) -> i32 {
        let Kind::Place(place) = self.0 else { return self.offset_at(local) };
        let shown = DateTime::from_timestamp_micros(local).unwrap_or_default().naive_utc();
        match place.offset_from_local_datetime(&shown) {
            LocalResult::Single(offset) => offset.fix().local_minus_utc(),
            LocalResult::Ambiguous(a, b) => a.fix().local_minus_utc().min(b.fix().local_minus_utc()),
            LocalResult::None => {
                let before = local.saturating_sub(DAY_MICROS);
                self.offset_at(before.saturating_sub(i64::from(self.offset_at(before)) * SECOND_MICROS))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_summer_time() {
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        // 2024-01-15 and 2024-07-15, noon UTC.
        let (winter, summer) = (1_705_320_000 * SECOND_MICROS, 1_721_044_800 * SECOND_MICROS);
        assert_eq!((berlin.offset_at(winter), berlin.offset_at(summer)), (3600, 7200));
        assert_eq!((berlin.offset_of_local(winter), berlin.offset_of_local(summer)), (3600, 7200));
        // 2024-03-31 02:30 is left out, 2024-10-27 02:30 is shown twice.
        assert_eq!(berlin.offset_of_local(1_711_852_200 * SECOND_MICROS), 3600);
        assert_eq!(berlin.offset_of_local(1_729_996_200 * SECOND_MICROS), 3600);
        assert_eq!(Zone::parse("-05:30").unwrap().offset_at(winter), 19_800);
        assert_eq!(Zone::parse("<+02>-02").unwrap().offset_at(winter), 7200);
        assert!(Zone::parse("Mars/Olympus").is_none());
        assert_eq!(berlin.offset_at(i64::MAX), 3600);
    }
}
