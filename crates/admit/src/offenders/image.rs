//! Blocks as bytes, so that they outlive a restart: who is blocked, for how long, for which time in a row.
//!
//! Points are not in it: they are gone in minutes. The checksum is against torn writes and none against
//! forgery: the file is the engine's own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::{Offenders, Sets, Terms, Way, lock, millis};

const MAGIC: &[u8; 8] = b"vdblock1";
/// Source, end of the block in milliseconds since the epoch, its number in a row.
const RECORD: usize = 8 + 8 + 1;
const CHECKSUM: usize = 8;

impl Offenders {
    /// The blocks that still count at `now`, which is `wall` since the epoch. Locks one shard at a time;
    /// not for the request path.
    pub fn export(&self, now: Duration, wall: Duration) -> Vec<u8> {
        let (now, wall) = (millis(now), millis(wall));
        let mut image = MAGIC.to_vec();
        for shard in &self.shards {
            let shard = lock(shard);
            let ways = shard.sets.iter().flat_map(|set| &set.0);
            for way in
                ways.filter(|way| way.block(now).is_some() || way.is_remembered(now, &self.terms))
            {
                let until = wall.saturating_add(way.until).saturating_sub(now);
                image.extend(way.source.to_le_bytes());
                image.extend(until.to_le_bytes());
                image.push(way.strike);
            }
        }
        let sum = checksum(&image);
        image.extend(sum);
        image
    }

    /// Takes up the blocks of an image, as far as there is room; how many. One that is damaged has none.
    pub fn restore(&self, image: &[u8], now: Duration, wall: Duration) -> usize {
        let Some((body, sum)) = image.split_last_chunk::<CHECKSUM>() else {
            return 0;
        };
        let Some(records) = body.strip_prefix(MAGIC) else {
            return 0;
        };
        if checksum(body) != *sum {
            return 0;
        }
        let (now, wall) = (millis(now), millis(wall));
        let (records, _) = records.as_chunks::<RECORD>();
        let ways = records
            .iter()
            .filter_map(|record| way_of(record, now, wall, &self.terms));
        let taken = ways.filter(|way| {
            let (mut shard, index) = self.place(way.source);
            shard.put(index, *way, now, &self.terms)
        });
        let count = taken.count();
        if count > 0 {
            self.is_empty.store(false, Ordering::Relaxed);
        }
        count
    }
}

/// On this process's clock; none that is over and forgotten. No block is longer than the terms say, whatever
/// clock or image is wrong.
fn way_of(record: &[u8; RECORD], now: u64, wall: u64, terms: &Terms) -> Option<Way> {
    let (source, rest) = record.split_first_chunk()?;
    let (until, strike) = rest.split_first_chunk()?;
    let until = u64::from_le_bytes(*until);
    let way = Way {
        source: u64::from_le_bytes(*source),
        strike: *strike.first()?,
        at: now,
        until: (now.saturating_add(until).saturating_sub(wall))
            .min(now.saturating_add(millis(terms.longest_block))),
        ..Way::default()
    };
    // Here and not by the way: this process's clock may have begun after the block ended.
    let counts = wall.saturating_sub(until) < millis(terms.forget_after);
    (counts && way.source != 0 && way.strike > 0).then_some(way)
}

impl Sets {
    /// Whether there was room: the source's own way, or one that weighs less.
    fn put(&mut self, index: usize, new: Way, now: u64, terms: &Terms) -> bool {
        let Some(set) = self.sets.get_mut(index) else {
            return false;
        };
        let own = set.0.iter().position(|way| way.source == new.source);
        let weighed = || {
            let ways = set.0.iter().enumerate();
            let weights = ways.map(|(place, way)| (way.weight(now, terms), place));
            let (weight, place) = weights.min_by(|(one, _), (other, _)| one.total_cmp(other))?;
            (weight < new.weight(now, terms)).then_some(place)
        };
        let Some(place) = own.or_else(weighed) else {
            return false;
        };
        match set.0.get_mut(place) {
            Some(way) if way.source != new.source || way.until < new.until => {
                *way = new;
                true
            }
            _ => false,
        }
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    SipHasher13::new().hash(body).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn terms() -> Terms {
        Terms {
            threshold: 10.0,
            first_block: HOUR,
            ..Terms::default()
        }
    }

    fn table() -> Offenders {
        Offenders::within(1 << 20, terms())
    }

    #[test]
    fn a_block_goes_on_in_another_process_for_as_long_as_it_would_have() {
        let (source, other) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let (now, wall) = (HOUR * 5, HOUR * 1_000_000);
        let before = table();
        before.offend(source, 10.0, now).unwrap();
        before.offend(other, 5.0, now);
        let image = before.export(now + HOUR / 4, wall);
        let after = table();
        let start = Duration::from_secs(1);
        assert_eq!(after.restore(&image, start, wall + HOUR / 4), 1);
        let block = after.block(source, start).unwrap();
        assert_eq!((block.until, block.strike), (start + HOUR / 2, 1));
        assert!(after.block(other, start).is_none(), "points are forgotten");
        assert!(after.block(source, start + HOUR).is_none());
        let again = after.offend(source, 10.0, start + HOUR).unwrap();
        assert_eq!(again.block.strike, 2, "its next block is twice as long");
    }

    #[test]
    fn a_damaged_image_blocks_nobody_and_no_block_is_longer_than_the_terms_say() {
        let before = table();
        for number in 0..100u32 {
            let source = std::net::Ipv4Addr::from(0xc000_0200 + number).into();
            before.offend(source, 10.0, HOUR).unwrap();
        }
        let image = before.export(HOUR, HOUR * 1_000);
        assert_eq!(table().restore(&image, HOUR, HOUR * 1_000), 100);
        for length in 0..image.len() {
            let torn = image.get(..length).unwrap();
            assert_eq!(table().restore(torn, HOUR, HOUR * 1_000), 0, "{length}");
        }
        // The clock was set back by a year: no block is of a year.
        let after = table();
        after.restore(&image, HOUR, HOUR * 10);
        let blocked = after.blocked(HOUR, 1_000);
        let longest = terms().longest_block;
        assert_eq!(blocked.len(), 100);
        assert!(blocked.iter().all(|it| it.block.until <= HOUR + longest));
    }

    #[test]
    fn a_block_that_ended_long_ago_counts_no_more_when_the_machine_has_just_started() {
        let source = "192.0.2.1".parse().unwrap();
        let before = table();
        before.offend(source, 10.0, HOUR).unwrap();
        let image = before.export(HOUR, HOUR * 1_000);
        let start = Duration::from_secs(1);
        for (later, strike) in [(HOUR * 20, 2), (HOUR * 30, 1)] {
            let after = table();
            after.restore(&image, start, HOUR * 1_000 + later);
            assert!(after.block(source, start).is_none());
            let again = after.offend(source, 10.0, start).unwrap();
            assert_eq!(again.block.strike, strike);
        }
    }
}
