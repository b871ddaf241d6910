//! The operators of SecLang by name.

use std::net::IpAddr;

use super::error::nearest;
use super::macros::Macro;

/// How numbers are compared: value, then operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NumberTest {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// How texts are compared: value, then operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TextTest {
    Equal,
    Contains,
    ContainsWord,
    BeginsWith,
    EndsWith,
    /// The operand contains the value.
    Within,
}

/// An operator without its operand's data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operand {
    Pattern { text: Box<str>, every_match: bool },
    Phrases(Vec<Box<[u8]>>),
    PhrasesFrom(Vec<Box<str>>),
    Number(NumberTest, Macro),
    Text(TextTest, Macro),
    Addresses(Vec<(IpAddr, u8)>),
    AddressesFrom(Box<str>),
    ByteRange([u64; 4]),
    UrlEncoding,
    Utf8,
    SqlInjection,
    Xss,
    CardNumber(Box<str>),
    Country,
    Always,
    Never,
}

/// An operator as a rule writes it.
#[derive(Clone, Debug)]
pub(crate) struct OperatorSpec {
    pub(crate) negated: bool,
    pub(crate) operand: Operand,
}

const NAMES: &[&str] = &[
    "rx",
    "rxGlobal",
    "pm",
    "pmFromFile",
    "pmf",
    "eq",
    "gt",
    "ge",
    "lt",
    "le",
    "streq",
    "strmatch",
    "contains",
    "containsWord",
    "beginsWith",
    "endsWith",
    "within",
    "ipMatch",
    "ipMatchFromFile",
    "ipMatchF",
    "validateByteRange",
    "validateUrlEncoding",
    "validateUtf8Encoding",
    "detectSQLi",
    "detectXSS",
    "verifyCC",
    "geoLookup",
    "unconditionalMatch",
    "noMatch",
];

/// Known to ModSecurity, refused here, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("inspectFile", "it runs a program"),
    (
        "rbl",
        "it asks the DNS on the request path; use an address feed",
    ),
    ("gsbLookup", "its service is gone"),
    ("fuzzyHash", "it needs ssdeep"),
    ("validateDTD", "document types are never read"),
    ("validateSchema", "schemas are never read"),
    ("rsub", "a judge does not change what it judges"),
    (
        "verifySSN",
        "it needs allocation tables that are no longer issued",
    ),
    ("verifyCPF", "it is not implemented"),
    ("verifySVNR", "it is not implemented"),
];

pub(super) fn parse(text: &str) -> Result<OperatorSpec, String> {
    let text = text.trim_start();
    let (negated, rest) = text
        .strip_prefix('!')
        .map_or((false, text), |rest| (true, rest.trim_start()));
    let Some(named) = rest.strip_prefix('@') else {
        let operand = Operand::Pattern {
            text: rest.into(),
            every_match: false,
        };
        return Ok(OperatorSpec { negated, operand });
    };
    let (name, argument) = named.split_once(char::is_whitespace).unwrap_or((named, ""));
    Ok(OperatorSpec {
        negated,
        operand: operand(name, argument.trim_start())?,
    })
}

fn operand(name: &str, argument: &str) -> Result<Operand, String> {
    use {NumberTest as N, TextTest as T};
    let number = |test| Macro::parse(argument.trim()).map(|operand| Operand::Number(test, operand));
    let text = |test| Macro::parse(argument).map(|operand| Operand::Text(test, operand));
    match name.to_ascii_lowercase().as_str() {
        "rx" => Ok(Operand::Pattern {
            text: argument.into(),
            every_match: false,
        }),
        "rxglobal" => Ok(Operand::Pattern {
            text: argument.into(),
            every_match: true,
        }),
        "pm" => phrases(argument),
        "pmf" | "pmfromfile" => files(name, argument).map(Operand::PhrasesFrom),
        "eq" => number(N::Equal),
        "gt" => number(N::Greater),
        "ge" => number(N::GreaterOrEqual),
        "lt" => number(N::Less),
        "le" => number(N::LessOrEqual),
        "streq" => text(T::Equal),
        "contains" | "strmatch" => text(T::Contains),
        "containsword" => text(T::ContainsWord),
        "beginswith" => text(T::BeginsWith),
        "endswith" => text(T::EndsWith),
        "within" => text(T::Within),
        "ipmatch" => addresses(argument).map(Operand::Addresses),
        "ipmatchf" | "ipmatchfromfile" => Ok(Operand::AddressesFrom(argument.trim().into())),
        "validatebyterange" => byte_range(argument).map(Operand::ByteRange),
        "validateurlencoding" => Ok(Operand::UrlEncoding),
        "validateutf8encoding" => Ok(Operand::Utf8),
        "detectsqli" => Ok(Operand::SqlInjection),
        "detectxss" => Ok(Operand::Xss),
        "verifycc" => Ok(Operand::CardNumber(argument.into())),
        "geolookup" => Ok(Operand::Country),
        "unconditionalmatch" => Ok(Operand::Always),
        "nomatch" => Ok(Operand::Never),
        lower => match REFUSED
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(lower))
        {
            Some((known, why)) => Err(format!("the operator @{known} is not supported: {why}")),
            None => Err(format!(
                "unknown operator `@{name}`{}",
                nearest(name, NAMES.iter().copied())
            )),
        },
    }
}

/// The phrases of `@pm`: words, in which `|41 42|` holds bytes in hexadecimal.
fn phrases(argument: &str) -> Result<Operand, String> {
    let mut found = Vec::new();
    for word in argument.split_whitespace() {
        found.push(phrase(word)?);
    }
    if found.is_empty() {
        return Err("@pm has no phrases".to_owned());
    }
    Ok(Operand::Phrases(found))
}

fn phrase(word: &str) -> Result<Box<[u8]>, String> {
    let parts: Vec<&str> = word.split('|').collect();
    if parts.len() < 3 || parts.len().is_multiple_of(2) {
        return Ok(word.as_bytes().into());
    }
    let mut bytes = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        if index % 2 == 0 {
            bytes.extend_from_slice(part.as_bytes());
        } else {
            let byte = u8::from_str_radix(part, 16)
                .map_err(|_| format!("|{part}| is no byte in hexadecimal"))?;
            bytes.push(byte);
        }
    }
    Ok(bytes.into())
}

fn files(name: &str, argument: &str) -> Result<Vec<Box<str>>, String> {
    let files: Vec<Box<str>> = argument.split_whitespace().map(Into::into).collect();
    if files.is_empty() {
        Err(format!("@{name} names no file"))
    } else {
        Ok(files)
    }
}

/// Addresses and networks, separated by commas.
pub(crate) fn addresses(argument: &str) -> Result<Vec<(IpAddr, u8)>, String> {
    argument
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(address)
        .collect()
}

fn address(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("`{text}` is no address and no network such as 192.0.2.0/24");
    let (address, length) = text
        .split_once('/')
        .map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.map_or(Ok(most), |length| length.parse().map_err(|_| wrong()))?;
    if length > most {
        Err(wrong())
    } else {
        Ok((address, length))
    }
}

fn byte_range(argument: &str) -> Result<[u64; 4], String> {
    let mut allowed = [0u64; 4];
    for part in argument.split(',').map(str::trim) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (Ok(low), Ok(high)) = (low.trim().parse::<u8>(), high.trim().parse::<u8>()) else {
            return Err(format!(
                "`{part}` is no byte and no range of bytes from 0 to 255"
            ));
        };
        for byte in low..=high {
            if let Some(word) = allowed.get_mut(usize::from(byte >> 6)) {
                *word |= 1 << (byte & 63);
            }
        }
    }
    Ok(allowed)
}
