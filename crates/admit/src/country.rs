//! The country of an address, by a database in MaxMind's format.
//!
//! Owns reading such a file once, into tables that are searched without looking at the file again.
//! Must not: trust the file, or say who is let in.
//!
//! Networks of IPv6 longer than a /64 are left out: that is what one subscriber has.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;
use vedette_limit::source_part;

/// The largest file that is read.
const LARGEST: usize = 64 << 20;

/// Two capitals, as in ISO 3166-1 alpha-2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

/// Countries of addresses.
pub struct Countries {
    v4: Table<u32>,
    v6: Table<u64>,
    built: u64,
    networks: usize,
}

/// From each start on, up to the next, the country is one; `None` for no country.
struct Table<T> {
    starts: Box<[T]>,
    countries: Box<[Option<Country>]>,
}

/// Why a database is not used.
#[derive(Debug)]
pub enum CountryError {
    /// It has more bytes than any database of countries.
    TooLarge {
        /// Bytes it may have.
        limit: usize,
    },
    /// It is no database, or a damaged one.
    Damaged(MaxMindDbError),
    /// Its tree has more leaves than nodes, or its networks are not in order.
    Knot,
    /// It says nothing of countries.
    NoCountries,
}

/// A record of a database: the flat form has the code itself, the usual one an object.
#[derive(Deserialize)]
struct Entry<'a> {
    country_code: Option<&'a str>,
    #[serde(borrow)]
    country: Option<Named<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    iso_code: Option<&'a str>,
}

impl Country {
    /// For "unknown" where there must be a word: ISO 3166-1 leaves ZZ to users.
    pub const UNKNOWN: Self = Self(*b"ZZ");

    /// Reads two letters.
    pub fn parse(code: &str) -> Option<Self> {
        let code: [u8; 2] = code.as_bytes().try_into().ok()?;
        code.iter()
            .all(u8::is_ascii_alphabetic)
            .then(|| Self(code.map(|letter| letter.to_ascii_uppercase())))
    }

    /// Its letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Countries {
    /// Reads a database.
    pub fn parse(file: &[u8]) -> Result<Self, CountryError> {
        if file.len() > LARGEST {
            return Err(CountryError::TooLarge { limit: LARGEST });
        }
        let reader = Reader::from_source(file).map_err(CountryError::Damaged)?;
        let most = usize::try_from(reader.metadata().node_count).unwrap_or(usize::MAX);
        // A tree has one leaf more than nodes. Nodes that share children could have 2^128.
        let most = most.saturating_add(1);
        let options = WithinOptions::default().include_networks_without_data();
        let found = reader.networks(options).map_err(CountryError::Damaged)?;
        let mut building = Both::default();
        for (index, entry) in found.enumerate() {
            if index >= most {
                return Err(CountryError::Knot);
            }
            building.add(&entry.map_err(CountryError::Damaged)?)?;
        }
        if building.networks == 0 {
            return Err(CountryError::NoCountries);
        }
        Ok(Self {
            v4: building.v4.table(),
            v6: building.v6.table(),
            built: reader.metadata().build_epoch,
            networks: building.networks,
        })
    }

    /// The country of an address; `None` where the database has none.
    pub fn of(&self, address: IpAddr) -> Option<Country> {
        let address = address.to_canonical();
        match address {
            IpAddr::V4(v4) => self.v4.at(u32::from(v4)),
            IpAddr::V6(_) => self.v6.at(source_part(address)),
        }
    }

    /// When the database was made, in Unix seconds.
    pub fn built(&self) -> u64 {
        self.built
    }

    /// How many networks have a country in it.
    pub fn networks(&self) -> usize {
        self.networks
    }

    /// Bytes it takes.
    pub fn memory_usage(&self) -> usize {
        self.v4.memory_usage() + self.v6.memory_usage()
    }
}

impl Entry<'_> {
    fn country(&self) -> Option<Country> {
        let named = self.country.as_ref().and_then(|it| it.iso_code);
        self.country_code.or(named).and_then(Country::parse)
    }
}

/// Tables that are being filled.
#[derive(Default)]
struct Both {
    v4: Building<u32>,
    v6: Building<u64>,
    /// Records that were read, by where they are: there are as many as countries.
    known: HashMap<usize, Option<Country>>,
    networks: usize,
}

impl Both {
    fn add(&mut self, entry: &LookupResult<'_, &[u8]>) -> Result<(), CountryError> {
        let country = self.country(entry)?;
        self.networks += usize::from(country.is_some());
        let network = entry.network().map_err(CountryError::Damaged)?;
        let prefix = u32::from(network.prefix());
        match network.ip() {
            IpAddr::V4(first) => {
                let first = u32::from(first);
                let size = 1u32.checked_shl(32 - prefix);
                let next = size.and_then(|it| first.checked_add(it));
                self.v4.add(first, next, country)
            }
            IpAddr::V6(first) if prefix <= 64 => {
                let first = upper(u128::from(first));
                let size = 1u64.checked_shl(64 - prefix);
                let next = size.and_then(|it| first.checked_add(it));
                self.v6.add(first, next, country)
            }
            IpAddr::V6(_) => Ok(()),
        }
    }

    fn country(
        &mut self,
        entry: &LookupResult<'_, &[u8]>,
    ) -> Result<Option<Country>, CountryError> {
        let Some(offset) = entry.offset() else {
            return Ok(None);
        };
        if let Some(country) = self.known.get(&offset) {
            return Ok(*country);
        }
        let read = entry.decode::<Entry>().map_err(CountryError::Damaged)?;
        let country = read.and_then(|it| it.country());
        self.known.insert(offset, country);
        Ok(country)
    }
}

struct Building<T> {
    starts: Vec<T>,
    countries: Vec<Option<Country>>,
    /// Where the last network ends; `None` at the end of all addresses.
    next: Option<T>,
}

impl<T: Default> Default for Building<T> {
    fn default() -> Self {
        Self {
            starts: Vec::new(),
            countries: Vec::new(),
            next: Some(T::default()),
        }
    }
}

impl<T: Copy + Ord> Building<T> {
    /// Networks come in order. Between two of them there is no country: the reader skips the places
    /// where IPv4 stands once more within IPv6.
    fn add(
        &mut self,
        first: T,
        next: Option<T>,
        country: Option<Country>,
    ) -> Result<(), CountryError> {
        let expected = self.next.filter(|it| *it <= first);
        let expected = expected.ok_or(CountryError::Knot)?;
        if expected < first {
            self.begin(expected, None);
        }
        self.begin(first, country);
        self.next = next;
        Ok(())
    }

    fn begin(&mut self, first: T, country: Option<Country>) {
        if self.countries.last() != Some(&country) {
            self.starts.push(first);
            self.countries.push(country);
        }
    }

    fn table(mut self) -> Table<T> {
        if let Some(next) = self.next {
            self.begin(next, None);
        }
        Table {
            starts: self.starts.into_boxed_slice(),
            countries: self.countries.into_boxed_slice(),
        }
    }
}

impl<T: Copy + Ord> Table<T> {
    fn at(&self, address: T) -> Option<Country> {
        let after = self.starts.partition_point(|start| *start <= address);
        self.countries.get(after.checked_sub(1)?).copied()?
    }

    fn memory_usage(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.countries)
    }
}

fn upper(address: u128) -> u64 {
    u64::try_from(address >> 64).unwrap_or_default()
}

impl fmt::Display for Country {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Country({})", self.as_str())
    }
}

impl fmt::Debug for Countries {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Countries({} networks)", self.networks)
    }
}

impl fmt::Display for CountryError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(to, "the database has more than {limit} bytes"),
            Self::Damaged(error) => write!(to, "the database cannot be read: {error}"),
            Self::Knot => to.write_str("the database's tree is no tree"),
            Self::NoCountries => to.write_str("the database has no countries"),
        }
    }
}

impl std::error::Error for CountryError {}

#[cfg(test)]
#[path = "country_tests.rs"]
mod tests;
