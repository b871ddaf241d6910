//! Crawlers, and points with their reasons.

use super::*;
use crate::ranges::Network;

const CHROME: &[u8] =
    b"Mozilla/5.0 (X11; Linux) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36";
const MODERN: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";
const TOOL: &str = "t13d4312h1_c7886603b240_b26ce05bbdd6";
const OLD: &str = "t12i151400_8daaf6152771_e5627efa2ab1";

fn ja4(text: &str) -> Ja4 {
    Ja4::parse(text).unwrap()
}

fn known() -> KnownClients {
    let list = format!(
        "# clients\n{MODERN} browser Chrome\n{TOOL} tool curl\n\nt13d0000h2_000000000000_000000000000 bad x # seen\n"
    );
    KnownClients::parse(&list).unwrap()
}

fn browser(fingerprint: &Ja4) -> Shown<'_> {
    Shown {
        user_agent: Some(CHROME),
        has_accept: true,
        has_accept_language: true,
        has_accept_encoding: true,
        ja4: Some(fingerprint),
        crawling: Crawling::No,
    }
}

fn reasons(shown: &Shown) -> Vec<Reason> {
    score(shown, &known()).reasons
}

fn crawlers() -> Crawlers {
    let from = |network: &str| AddressSet::of([Network::parse(network).unwrap()]);
    Crawlers::new(vec![
        Crawler {
            name: "google".into(),
            token: "Googlebot".into(),
            addresses: from("192.0.2.0/24"),
        },
        Crawler {
            name: "google6".into(),
            token: "googlebot".into(),
            addresses: from("2001:db8::/32"),
        },
    ])
}

#[test]
fn a_crawler_is_verified_by_its_addresses_and_not_by_its_word() {
    let crawlers = crawlers();
    let agent = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    let judge = |agent: &[u8], address: &str| match crawlers.judge(agent, address.parse().unwrap())
    {
        Crawling::Verified(name) => format!("verified {name}"),
        Crawling::Pretended(name) => format!("pretended {name}"),
        Crawling::No => "no".to_owned(),
    };
    assert_eq!(judge(agent, "192.0.2.9"), "verified google");
    assert_eq!(judge(agent, "2001:db8::9"), "verified google6");
    assert_eq!(judge(b"GOOGLEBOT", "198.51.100.1"), "pretended google6");
    assert_eq!(judge(CHROME, "192.0.2.9"), "no");
    assert_eq!(judge(b"", "192.0.2.9"), "no");
}

#[test]
fn a_browser_as_it_is_has_no_points() {
    let fingerprint = ja4(MODERN);
    assert_eq!(score(&browser(&fingerprint), &known()), Score::default());
    // Nor one that is too new for the list.
    assert_eq!(
        score(&browser(&fingerprint), &KnownClients::default()),
        Score::default()
    );
}

#[test]
fn a_browser_s_name_over_a_tool_s_tls_is_a_mismatch() {
    let (tool, old) = (ja4(TOOL), ja4(OLD));
    assert_eq!(reasons(&browser(&tool)), [Reason::BrowserWithToolsTls]);
    assert_eq!(reasons(&browser(&old)), [Reason::BrowserWithPoorTls]);
}

#[test]
fn a_tool_that_says_what_it_is_has_few_points() {
    let fingerprint = ja4(TOOL);
    let curl = Shown {
        user_agent: Some(b"curl/8.5.0"),
        has_accept_language: false,
        has_accept_encoding: false,
        ..browser(&fingerprint)
    };
    assert_eq!(reasons(&curl), [Reason::ToolByName]);
    assert_eq!(score(&curl, &known()).points, 30);
}

#[test]
fn fields_that_every_browser_sends_are_missed() {
    let fingerprint = ja4(MODERN);
    let bare = Shown {
        has_accept: false,
        has_accept_language: false,
        has_accept_encoding: false,
        ..browser(&fingerprint)
    };
    let wanted = [
        Reason::BrowserWithoutLanguage,
        Reason::BrowserWithoutEncoding,
        Reason::NoAccept,
    ];
    assert_eq!(reasons(&bare), wanted);
    let silent = Shown {
        user_agent: None,
        ..browser(&fingerprint)
    };
    assert_eq!(reasons(&silent), [Reason::NoUserAgent]);
}

#[test]
fn points_are_the_sum_of_their_reasons_and_at_most_a_hundred() {
    let bad = ja4("t13d0000h2_000000000000_000000000000");
    let worst = Shown {
        user_agent: None,
        has_accept: false,
        crawling: Crawling::Pretended("google"),
        ..browser(&bad)
    };
    let found = score(&worst, &known());
    let wanted = [
        Reason::BadClient,
        Reason::PretendedCrawler,
        Reason::NoUserAgent,
        Reason::NoAccept,
    ];
    assert_eq!((found.points, found.reasons.as_slice()), (100, &wanted[..]));
    let fingerprint = ja4(MODERN);
    let quiet = Shown {
        has_accept: false,
        has_accept_encoding: false,
        ..browser(&fingerprint)
    };
    assert_eq!(score(&quiet, &known()).points, 30);
}

#[test]
fn a_verified_crawler_has_no_points_whatever_it_sends() {
    let bad = ja4("t13d0000h2_000000000000_000000000000");
    let crawler = Shown {
        user_agent: None,
        crawling: Crawling::Verified("google"),
        ..browser(&bad)
    };
    assert_eq!(score(&crawler, &known()), Score::default());
}

#[test]
fn a_list_of_clients_with_a_bad_line_is_refused_with_its_number() {
    for (list, line) in [
        ("\nhello tool", 2),
        (&*format!("{TOOL} friend"), 1),
        (TOOL, 1),
    ] {
        let error = KnownClients::parse(list).unwrap_err();
        assert_eq!(error.line, line, "{list}");
    }
}
