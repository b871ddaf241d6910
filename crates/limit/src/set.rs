//! All limits of a plan: asks those of a request in the order of their names.

use std::collections::HashMap;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::config::{CompileError, Limit, Memory, in_order};
use crate::decision::{Allowed, Places, Refused, Standing};
use crate::image::{Image, Keyed, TableImage, Writer};
use crate::key::{OF_A_SITE, RequestKeys, Seed, Tag, random_key, site_part, source_part};
use crate::rules::{Cell, Denied, Now, Room, Rules};
use crate::table::{LEAST_BYTES, Table};

/// The limits of a plan. Workers share one.
pub struct LimitSet {
    seed: Seed,
    limits: Vec<Arc<Compiled>>,
    /// Limits of the routes that a limit names.
    routes: HashMap<Box<str>, Box<[Arc<Compiled>]>>,
    /// Limits of every other route.
    elsewhere: Box<[Arc<Compiled>]>,
}

struct Compiled {
    limit: Limit,
    rules: Rules,
    /// Those of a /48, where sources count.
    of_site: Option<Rules>,
    table: Arc<Table>,
}

/// What the table of one limit holds.
#[derive(Clone, Debug)]
pub struct TableStats {
    /// The name of the limit.
    pub limit: Arc<str>,
    /// Keys that have a count of their own.
    pub keys: usize,
    /// Bytes in use.
    pub bytes: usize,
    /// Most bytes it will ever use.
    pub capacity_bytes: usize,
    /// Keys that were dropped while they owed something; their debts stay.
    pub dropped: u64,
    /// Requests that found no way free and were asked to count with others.
    pub shared: u64,
}

/// A request that passed one limit.
struct Passed<'a> {
    compiled: &'a Compiled,
    rules: &'a Rules,
    tag: Tag,
    shared: bool,
}

impl LimitSet {
    /// Limits ready to be asked. A limit of `previous` with the same name, `per` and routes keeps
    /// its counts and its size, also when its numbers have changed.
    ///
    /// # Errors
    /// When the limits make no sense.
    pub fn compile(
        limits: Vec<Limit>,
        memory: Memory,
        previous: Option<&Self>,
    ) -> Result<Self, CompileError> {
        let seed = previous.map_or_else(|| Seed(random_key()), |it| it.seed);
        Ok(Self::build(in_order(limits)?, memory, seed, previous))
    }

    /// The same with the quotas of an image. For the first plan of a process; a limit whose keys
    /// have changed starts anew.
    ///
    /// # Errors
    /// When the limits make no sense.
    pub fn restore(
        limits: Vec<Limit>,
        memory: Memory,
        image: &Image<'_>,
        now: Now,
    ) -> Result<Self, CompileError> {
        let set = Self::build(in_order(limits)?, memory, image.seed, None);
        for table in &image.tables {
            let same = |it: &&Arc<Compiled>| {
                &*it.limit.name == table.name && keyed(&it.limit) == table.keyed
            };
            if let Some(compiled) = set.limits.iter().find(same) {
                compiled.restore(table, now);
            }
        }
        Ok(set)
    }

    fn build(limits: Vec<Limit>, memory: Memory, seed: Seed, previous: Option<&Self>) -> Self {
        let kept: Vec<_> = limits.iter().map(|it| previous?.table_of(it)).collect();
        let taken: usize = kept.iter().flatten().map(|table| table.capacity()).sum();
        let fresh = kept.iter().filter(|table| table.is_none()).count().max(1);
        let share = memory.total_bytes.saturating_sub(taken) / fresh;
        let bytes = memory.table_bytes.min(share).max(LEAST_BYTES);
        let compile = |(limit, kept): (Limit, Option<Arc<Table>>)| {
            let table = kept.unwrap_or_else(|| Arc::new(table_for(&limit, bytes)));
            Arc::new(Compiled {
                rules: Rules::of(&limit, 1),
                of_site: limit.per.source.then(|| Rules::of(&limit, OF_A_SITE)),
                limit,
                table,
            })
        };
        let limits: Vec<_> = limits.into_iter().zip(kept).map(compile).collect();
        Self {
            seed,
            routes: by_route(&limits),
            elsewhere: limits_of(&limits, None),
            limits,
        }
    }

    fn table_of(&self, limit: &Limit) -> Option<Arc<Table>> {
        let same = self.limits.iter().find(|it| it.limit.counts_like(limit))?;
        Some(Arc::clone(&same.table))
    }

    /// Whether there is no limit.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// Whether there is something to export.
    pub fn has_quotas(&self) -> bool {
        self.limits.iter().any(|it| it.limit.quota.is_some())
    }

    /// Asks every limit of the request's route, by name. The first that refuses ends it, and what
    /// those before it have counted is taken back.
    ///
    /// # Errors
    /// When a limit refuses.
    pub fn check<'a>(&'a self, keys: &RequestKeys<'_>, now: Now) -> Result<Allowed<'a>, Refused> {
        let limits = self.routes.get(keys.route).unwrap_or(&self.elsewhere);
        let mut parts = Parts::new(&self.seed, keys);
        let mut passed = Vec::new();
        let mut tightest: Option<(&Compiled, Room)> = None;
        // One that is asked alone has nothing to take back.
        let is_alone = limits.len() == 1 && keys.source.is_ipv4();
        let asked = limits.iter().flat_map(|it| parts.asked(it));
        for (compiled, tag, rules) in asked {
            match compiled.table.take(tag, rules, now) {
                Ok(taken) => {
                    tightest = tighter(tightest, compiled, taken.room);
                    if !is_alone || rules.concurrency.is_some() {
                        let shared = taken.shared;
                        passed.push(Passed {
                            compiled,
                            rules,
                            tag,
                            shared,
                        });
                    }
                }
                Err(denied) => {
                    take_back(&passed, now);
                    let is_of_site = !std::ptr::eq(rules, &raw const compiled.rules);
                    return Err(compiled.refused(denied, is_of_site));
                }
            }
        }
        Ok(Allowed {
            places: places_of(&passed),
            standing: tightest.map(|(compiled, room)| compiled.standing(room)),
        })
    }

    /// The quotas as an image. Locks one shard at a time; takes as long as the tables are large, so
    /// not on a worker.
    pub fn export(&self, now: Now) -> Vec<u8> {
        let quotas = || self.limits.iter().filter(|it| it.limit.quota.is_some());
        let mut writer = Writer::new(&self.seed, quotas().count());
        for compiled in quotas() {
            compiled.export(&mut writer, now);
        }
        writer.finish()
    }

    /// What the tables hold, by name. Walks them: for metrics, not for the path.
    pub fn stats(&self) -> Vec<TableStats> {
        self.limits.iter().map(|it| it.stats()).collect()
    }
}

impl Compiled {
    fn refused(&self, denied: Denied, is_of_site: bool) -> Refused {
        Refused {
            limit: Arc::clone(&self.limit.name),
            is_of_site,
            kind: denied.kind,
            retry_after: denied.wait,
        }
    }

    fn standing(&self, room: Room) -> Standing<'_> {
        Standing {
            limit: &self.limit.name,
            most: room.most,
            window_seconds: room.window_seconds,
            remaining: room.remaining,
            reset_seconds: room.reset_seconds,
        }
    }

    fn export(&self, writer: &mut Writer, now: Now) {
        let Some(window) = self.rules.window(now) else {
            return;
        };
        writer.table(&self.limit.name, keyed(&self.limit), window);
        self.table.each(|tag, is_rest, cell| {
            if cell.count > 0 && window.or_next(cell.window) == cell.window {
                writer.record(tag, is_rest, cell.count);
            }
        });
        writer.end_table();
    }

    fn restore(&self, image: &TableImage<'_>, now: Now) {
        for (tag, is_rest, count) in image.records() {
            let cell = Cell {
                count,
                window: image.window,
                ..Cell::default()
            };
            self.table.put(Tag(tag), is_rest, &cell, &self.rules, now);
        }
    }

    fn stats(&self) -> TableStats {
        let filled = self.table.filled();
        TableStats {
            limit: Arc::clone(&self.limit.name),
            keys: filled.keys,
            bytes: filled.bytes,
            capacity_bytes: self.table.capacity(),
            dropped: filled.dropped,
            shared: filled.shared,
        }
    }
}

/// Hashes of what a request is counted by, each made once.
struct Parts<'a> {
    seed: &'a Seed,
    keys: &'a RequestKeys<'a>,
    principal: Option<u64>,
    route: Option<u64>,
}

impl<'a> Parts<'a> {
    fn new(seed: &'a Seed, keys: &'a RequestKeys<'a>) -> Self {
        let (principal, route) = (None, None);
        Self {
            seed,
            keys,
            principal,
            route,
        }
    }

    /// By what a limit counts the request, and with which rules: also the /48, where sources count.
    fn asked<'c>(
        &mut self,
        it: &'c Compiled,
    ) -> impl Iterator<Item = (&'c Compiled, Tag, &'c Rules)> + use<'c> {
        let of_site = it.of_site.as_ref();
        let site = of_site.and_then(|rules| Some((site_part(self.keys.source)?, rules)));
        let site = site.map(|(part, rules)| (it, self.tag(&it.limit, Some(part)), rules));
        let source = it.limit.per.source.then(|| source_part(self.keys.source));
        let own = (it, self.tag(&it.limit, source), &it.rules);
        [Some(own), site].into_iter().flatten()
    }

    fn tag(&mut self, limit: &Limit, source: Option<u64>) -> Tag {
        let (seed, keys, per) = (self.seed, self.keys, limit.per);
        let principal = per.principal.then(|| {
            let hash = || keys.principal.map_or(0, |it| seed.of(it.as_bytes()));
            *self.principal.get_or_insert_with(hash)
        });
        let route = per.route.then(|| {
            let hash = || seed.of(keys.route.as_bytes());
            *self.route.get_or_insert_with(hash)
        });
        seed.tag([principal, route, source])
    }
}

fn tighter<'a>(
    one: Option<(&'a Compiled, Room)>,
    compiled: &'a Compiled,
    room: Option<Room>,
) -> Option<(&'a Compiled, Room)> {
    match (one, room) {
        (Some(one), Some(room)) if room.remaining >= one.1.remaining => Some(one),
        (one, None) => one,
        (_, Some(room)) => Some((compiled, room)),
    }
}

fn take_back(passed: &[Passed<'_>], now: Now) {
    for Passed {
        compiled,
        rules,
        tag,
        shared,
    } in passed
    {
        compiled.table.refund(*tag, *shared, rules, now);
        if rules.concurrency.is_some() {
            compiled.table.leave(*tag, *shared);
        }
    }
}

fn places_of(passed: &[Passed<'_>]) -> Places {
    let mut places = Places::default();
    for Passed {
        compiled,
        rules,
        tag,
        shared,
    } in passed
    {
        if rules.concurrency.is_some() {
            places.hold(&compiled.table, *tag, *shared);
        }
    }
    places
}

fn table_for(limit: &Limit, bytes: usize) -> Table {
    if limit.per.bits() == 0 {
        Table::single()
    } else {
        Table::within(bytes)
    }
}

/// The same in every process: the image has it.
fn keyed(limit: &Limit) -> Keyed {
    let routes = limit.routes.join("\n");
    Keyed {
        per: limit.per.bits(),
        routes: SipHasher13::new().hash(routes.as_bytes()),
    }
}

fn by_route(limits: &[Arc<Compiled>]) -> HashMap<Box<str>, Box<[Arc<Compiled>]>> {
    let named = limits.iter().flat_map(|it| &it.limit.routes);
    named
        .map(|route| (route.clone(), limits_of(limits, Some(route))))
        .collect()
}

fn limits_of(limits: &[Arc<Compiled>], route: Option<&str>) -> Box<[Arc<Compiled>]> {
    let is_for = |it: &&Arc<Compiled>| {
        let routes = &it.limit.routes;
        routes.is_empty() || routes.iter().any(|each| Some(&**each) == route)
    };
    limits.iter().filter(is_for).cloned().collect()
}

#[cfg(test)]
#[path = "set_tests.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
