//! What the snapshot knows of addresses: lists, countries, and from where a route may be asked.
//!
//! Owns making them from blobs, and what `status` says of them. Must not: look anything up in a
//! file on the path, or know a request.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use vedette_admit::country::{Countries, Country};
use vedette_admit::ranges::{Feed, FeedLimits, Listing, Lists, OnBadLine};

use crate::load::{EngineDir, LoadError};
use crate::snapshot::{
    self, AddressListAction, AddressListOnBadLine, CountryDatabase, CountryRuleAction,
};

/// Lists and countries of a plan.
#[derive(Default)]
pub struct Addresses {
    declared: Option<snapshot::Addresses>,
    lists: Arc<Lists>,
    rows: Vec<ListRow>,
    countries: Option<Arc<Countries>>,
}

/// From which countries a route may be asked.
pub struct CountryRule {
    action: CountryRuleAction,
    codes: Vec<Country>,
}

/// What `status` says of a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListRow {
    name: String,
    action: &'static str,
    networks: usize,
    left_out: usize,
    bad_lines: Vec<String>,
}

/// What `status` says of the countries.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountriesRow {
    networks: usize,
    /// Seconds since the epoch.
    built: u64,
}

impl Addresses {
    /// Reads lists and database; what has not changed since `previous` is not read again.
    pub fn compile(
        declared: Option<snapshot::Addresses>,
        dir: &EngineDir,
        previous: Option<&Self>,
    ) -> Result<Self, LoadError> {
        let Some(declared) = declared else {
            return Ok(Self::default());
        };
        let before = previous.and_then(|it| Some((it, it.declared.as_ref()?)));
        let same_lists = before.filter(|(_, it)| it.lists == declared.lists);
        let (lists, rows) = match same_lists {
            Some((it, _)) => (Arc::clone(&it.lists), it.rows.clone()),
            None => read_lists(&declared.lists, dir)?,
        };
        let same_countries = before.filter(|(_, it)| it.countries == declared.countries);
        let countries = match (same_countries, &declared.countries) {
            (Some((it, _)), _) => it.countries.clone(),
            (None, Some(database)) => Some(Arc::new(read_countries(database, dir)?)),
            (None, None) => None,
        };
        Ok(Self {
            declared: Some(declared),
            lists,
            rows,
            countries,
        })
    }

    /// What the lists say of an address.
    pub fn judge(&self, address: IpAddr) -> Listing<'_> {
        self.lists.judge(address)
    }

    /// The country of an address, where one is known.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        self.countries.as_ref()?.of(address)
    }

    /// The lists, for `status`.
    pub fn lists(&self) -> &[ListRow] {
        &self.rows
    }

    /// The countries, for `status`.
    pub fn countries(&self) -> Option<CountriesRow> {
        self.countries.as_ref().map(|it| CountriesRow {
            networks: it.networks(),
            built: it.built(),
        })
    }
}

impl CountryRule {
    /// The rule of the route `name`.
    pub fn compile(name: &str, declared: &snapshot::CountryRule) -> Result<Self, LoadError> {
        let country = |code: &String| {
            Country::parse(code).ok_or_else(|| {
                LoadError::new("route_invalid", format!("{name}: {code:?} is no country"))
            })
        };
        Ok(Self {
            action: declared.action,
            codes: declared
                .codes
                .iter()
                .map(country)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether callers of this country may ask. An address without one is in none.
    pub fn permits(&self, country: Option<Country>) -> bool {
        let is_named = country.is_some_and(|it| self.codes.contains(&it));
        match self.action {
            CountryRuleAction::Allow => is_named,
            CountryRuleAction::Block => !is_named,
        }
    }
}

fn read_lists(
    declared: &[snapshot::AddressList],
    dir: &EngineDir,
) -> Result<(Arc<Lists>, Vec<ListRow>), LoadError> {
    let (mut allow, mut block, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for list in declared {
        let on_bad = match list.on_bad_line {
            AddressListOnBadLine::LeaveOut => OnBadLine::LeaveOut,
            AddressListOnBadLine::Refuse => OnBadLine::Refuse,
        };
        let feed = Feed::parse(&dir.blob(&list.blob)?, on_bad, FeedLimits::default())
            .map_err(|error| invalid(&format!("{}: {error}", list.name)))?;
        let row = |action| ListRow {
            name: list.name.clone(),
            action,
            networks: feed.networks,
            left_out: feed.left_out,
            bad_lines: feed
                .bad_lines
                .iter()
                .map(|bad| format!("line {}: {}", bad.line, bad.fault))
                .collect(),
        };
        match list.action {
            AddressListAction::Allow => {
                rows.push(row("Allow"));
                allow.push(feed.addresses);
            }
            AddressListAction::Block => {
                rows.push(row("Block"));
                block.push((list.name.as_str().into(), feed.addresses));
            }
        }
    }
    Ok((Arc::new(Lists::new(&allow, block)), rows))
}

fn read_countries(database: &CountryDatabase, dir: &EngineDir) -> Result<Countries, LoadError> {
    let file = dir.blob(&database.blob)?;
    Countries::parse(&file).map_err(|error| invalid(&format!("countries: {error}")))
}

fn invalid(what: &str) -> LoadError {
    LoadError::new("addresses_invalid", what)
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
