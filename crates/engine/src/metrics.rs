//! Counters, a shard per worker, added up when somebody asks.
//!
//! Bounded: a row per route that was ever deployed since the start, and per status, stage and country of
//! it; and one per version of a model.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use vedette_admit::country::Country;

use crate::models::TIER;
use crate::node::Node;
use crate::plan::Target;
use crate::record::Record;
use crate::refusal::{Cause, Stage};
use crate::services::{self, ServiceRow};

/// Upper bounds of the histogram of answer times, in seconds: OpenTelemetry's advice for
/// `http.server.request.duration`, with finer steps below, where this engine answers.
pub const BOUNDS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
    0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
];

/// The shards of all workers.
#[derive(Default)]
pub struct Shards(Mutex<Vec<Arc<Shard>>>);

/// The counters of one worker.
#[derive(Default)]
pub struct Shard {
    counts: Mutex<Counts>,
    records_dropped: AtomicU64,
}

#[derive(Default)]
struct Counts {
    routes: HashMap<String, RouteCounts>,
    /// By name and version; as bounded as routes are.
    models: BTreeMap<(String, u64), ModelCounts>,
    /// By model, version, tier that answered and what the memory said; tiers are as bounded as routes are.
    model_answers: BTreeMap<(String, u64, Arc<str>, &'static str), u64>,
    /// By tier and why its answer did not count.
    tier_calls: BTreeMap<(Arc<str>, &'static str), u64>,
    cold_starts: u64,
    inspections_known: u64,
    fault_delays: u64,
    /// Connections, by cause.
    turned_away: BTreeMap<&'static str, u64>,
    /// Requests refused or failed, by cause.
    refusals: BTreeMap<&'static str, u64>,
    passes: u64,
}

#[derive(Default)]
struct RouteCounts {
    function: String,
    /// By status, the stage that refused and the country.
    answers: BTreeMap<(u16, &'static str, Option<Country>), u64>,
    buckets: [u64; BOUNDS.len() + 1],
    sum: Duration,
    count: u64,
}

#[derive(Default, Clone, Copy)]
struct ModelCounts {
    requests: u64,
    queue_micros: u64,
    run_micros: u64,
}

impl Shards {
    /// A new shard, for a worker.
    pub fn add(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        lock(&self.0).push(Arc::clone(&shard));
        shard
    }
}

impl Shard {
    /// Counts a request that has ended.
    pub fn count(&self, record: &Record, total: Duration) {
        let target = record.target.as_deref();
        let route = target.map_or("", |target| target.route.as_str());
        let stage = record.stage().map_or("", |stage| stage.as_str());
        let mut counts = lock(&self.counts);
        counts.cold_starts += u64::from(record.is_cold);
        counts.inspections_known += u64::from(record.is_known);
        counts.fault_delays += u64::from(record.fault_delay_millis > 0);
        if let Some(refusal) = &record.refusal {
            let (stage, name, ..) = refusal.cause.outcome();
            // Of connections that are turned away some are recorded; all of them are counted apart.
            if record.status != 0 || stage != Stage::Admit {
                *counts.refusals.entry(name).or_default() += 1;
            }
        }
        if let Some(model) = target.and_then(|it| it.model()) {
            let declared = &model.declared;
            let row = counts
                .models
                .entry((declared.name.clone(), declared.version));
            row.or_default().add(&ModelCounts {
                requests: 1,
                queue_micros: record.queue_micros.unwrap_or(0),
                run_micros: record.run_micros.unwrap_or(0),
            });
        }
        if let Some(target) = target.filter(|it| it.tiers.is_some() || it.remembered.is_some()) {
            counts.add_escalated(record, target);
        }
        if !counts.routes.contains_key(route) {
            let row = RouteCounts {
                function: target.and_then(|it| it.function()).unwrap_or("").to_owned(),
                ..RouteCounts::default()
            };
            counts.routes.insert(route.to_owned(), row);
        }
        if let Some(row) = counts.routes.get_mut(route) {
            row.add((record.status, stage, record.country), total);
        }
    }

    /// Counts a connection that was closed before its first request.
    pub fn count_turned_away(&self, cause: Cause) {
        let (_, name, ..) = cause.outcome();
        *lock(&self.counts).turned_away.entry(name).or_default() += 1;
    }

    /// Counts a call of a function to a version of a model, with how long it waited and ran.
    pub fn count_prediction(
        &self,
        (model, version): (&str, u64),
        queue_micros: u64,
        run_micros: u64,
    ) {
        let mut counts = lock(&self.counts);
        let row = counts.models.entry((model.to_owned(), version));
        row.or_default().add(&ModelCounts {
            requests: 1,
            queue_micros,
            run_micros,
        });
    }

    /// Counts a pass that was given for the work of a challenge.
    pub fn count_pass(&self) {
        lock(&self.counts).passes += 1;
    }

    /// Says how many records this worker has lost so far.
    pub fn set_records_dropped(&self, dropped: u64) {
        self.records_dropped.store(dropped, Ordering::Relaxed);
    }
}

impl Counts {
    /// Counts where a request was answered that the model here need not answer.
    fn add_escalated(&mut self, record: &Record, target: &Target) {
        for tried in record.tiers.iter().filter(|it| &*it.tier != TIER) {
            let key = (Arc::clone(&tried.tier), tried.cause.unwrap_or(""));
            *self.tier_calls.entry(key).or_default() += 1;
        }
        let Some(model) = target.model().filter(|_| record.status == 200) else {
            return;
        };
        if model.process.is_none() && record.tier.is_none() {
            // What the node says of a model that only tiers have is no answer of it.
            return;
        }
        let declared = &model.declared;
        let tier = record.tier.clone().unwrap_or_else(|| TIER.into());
        let memory = match record.is_cached {
            None => "",
            Some(true) => "hit",
            Some(false) => "miss",
        };
        let key = (declared.name.clone(), declared.version, tier, memory);
        *self.model_answers.entry(key).or_default() += 1;
    }
}

impl ModelCounts {
    /// What a model's process says is added without overflow, whatever it says.
    fn add(&mut self, more: &Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.queue_micros = self.queue_micros.saturating_add(more.queue_micros);
        self.run_micros = self.run_micros.saturating_add(more.run_micros);
    }
}

impl RouteCounts {
    fn add(&mut self, answer: (u16, &'static str, Option<Country>), total: Duration) {
        *self.answers.entry(answer).or_default() += 1;
        let seconds = total.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
        self.sum += total;
        self.count += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything counted, as control reads it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    requests: Vec<RequestsRow>,
    durations: Vec<DurationsRow>,
    bucket_bounds: &'static [f64],
    errors: u64,
    cold_starts: u64,
    inspections_known: u64,
    fault_delays: u64,
    memory_bytes: Vec<MemoryRow>,
    models: Vec<ModelRow>,
    model_answers: Vec<ModelAnswersRow>,
    tier_calls: Vec<TierCallsRow>,
    records_dropped: u64,
    logs_dropped: u64,
    in_flight: usize,
    connections: usize,
    connections_turned_away: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<&'static str, u64>,
    challenge_passes: u64,
    pressure_level: u8,
    upstreams: Vec<ServiceRow>,
}

#[derive(Serialize)]
struct RequestsRow {
    route: String,
    function: String,
    status: u16,
    stage: &'static str,
    country: String,
    count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DurationsRow {
    route: String,
    buckets: Vec<u64>,
    sum_seconds: f64,
    count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelRow {
    model: String,
    version: u64,
    requests: u64,
    queue_micros: u64,
    run_micros: u64,
}

#[derive(Serialize)]
struct ModelAnswersRow {
    model: String,
    version: u64,
    tier: Arc<str>,
    cache: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct TierCallsRow {
    tier: Arc<str>,
    cause: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct MemoryRow {
    function: String,
    bytes: u64,
}

/// Adds up the shards of `node`.
pub fn report(node: &Node) -> Report {
    let mut totals: BTreeMap<String, RouteCounts> = BTreeMap::new();
    let mut models: BTreeMap<(String, u64), ModelCounts> = BTreeMap::new();
    let (mut model_answers, mut tier_calls) = (BTreeMap::new(), BTreeMap::new());
    let (mut cold_starts, mut inspections_known, mut records_dropped) = (0, 0, 0);
    let mut fault_delays = 0;
    let (mut turned_away, mut refusals, mut passes) = (BTreeMap::new(), BTreeMap::new(), 0);
    for shard in lock(&node.shards.0).iter() {
        let counts = lock(&shard.counts);
        cold_starts += counts.cold_starts;
        inspections_known += counts.inspections_known;
        fault_delays += counts.fault_delays;
        records_dropped += shard.records_dropped.load(Ordering::Relaxed);
        passes += counts.passes;
        add(&mut turned_away, &counts.turned_away);
        add(&mut refusals, &counts.refusals);
        add(&mut model_answers, &counts.model_answers);
        add(&mut tier_calls, &counts.tier_calls);
        for (model, row) in &counts.models {
            models.entry(model.clone()).or_default().add(row);
        }
        for (route, row) in &counts.routes {
            merge(totals.entry(route.clone()).or_default(), row);
        }
    }
    let errors = totals
        .values()
        .flat_map(|row| &row.answers)
        .filter(|((status, ..), _)| *status >= 500)
        .map(|(_, count)| count)
        .sum();
    Report {
        requests: totals
            .iter()
            .flat_map(|(route, row)| requests(route, row))
            .collect(),
        durations: totals.into_iter().map(durations).collect(),
        bucket_bounds: &BOUNDS,
        errors,
        cold_starts,
        inspections_known,
        fault_delays,
        memory_bytes: memory(node),
        models: models.into_iter().map(model).collect(),
        model_answers: model_answers.into_iter().map(answers).collect(),
        tier_calls: tier_calls.into_iter().map(calls).collect(),
        records_dropped,
        logs_dropped: node.log.dropped(),
        in_flight: node.in_flight.count(),
        connections: node.connections.count(),
        connections_turned_away: turned_away,
        refusals,
        challenge_passes: passes,
        pressure_level: node.pressure.number(),
        upstreams: node
            .plan()
            .map_or_else(Vec::new, |plan| services::report(&plan.services)),
    }
}

fn add<K: Ord + Clone>(totals: &mut BTreeMap<K, u64>, counts: &BTreeMap<K, u64>) {
    for (cause, count) in counts {
        *totals.entry(cause.clone()).or_default() += count;
    }
}

fn merge(total: &mut RouteCounts, row: &RouteCounts) {
    total.function.clone_from(&row.function);
    for (answer, count) in &row.answers {
        *total.answers.entry(*answer).or_default() += count;
    }
    for (sum, bucket) in total.buckets.iter_mut().zip(row.buckets) {
        *sum += bucket;
    }
    total.sum += row.sum;
    total.count += row.count;
}

fn requests(route: &str, row: &RouteCounts) -> Vec<RequestsRow> {
    let rows = row
        .answers
        .iter()
        .map(|((status, stage, country), count)| RequestsRow {
            route: route.to_owned(),
            function: row.function.clone(),
            status: *status,
            stage,
            country: country.unwrap_or(Country::UNKNOWN).to_string(),
            count: *count,
        });
    rows.collect()
}

fn durations((route, row): (String, RouteCounts)) -> DurationsRow {
    DurationsRow {
        route,
        buckets: row.buckets.to_vec(),
        sum_seconds: row.sum.as_secs_f64(),
        count: row.count,
    }
}

fn model(((model, version), row): ((String, u64), ModelCounts)) -> ModelRow {
    ModelRow {
        model,
        version,
        requests: row.requests,
        queue_micros: row.queue_micros,
        run_micros: row.run_micros,
    }
}

fn answers(
    ((model, version, tier, cache), count): ((String, u64, Arc<str>, &'static str), u64),
) -> ModelAnswersRow {
    ModelAnswersRow {
        model,
        version,
        tier,
        cache,
        count,
    }
}

fn calls(((tier, cause), count): ((Arc<str>, &'static str), u64)) -> TierCallsRow {
    TierCallsRow { tier, cause, count }
}

fn memory(node: &Node) -> Vec<MemoryRow> {
    let Some(plan) = node.plan() else {
        return Vec::new();
    };
    let rows = plan.functions().map(|function| MemoryRow {
        function: function.name.to_string(),
        bytes: function.spec.peak_memory.load(Ordering::Relaxed),
    });
    rows.collect()
}
