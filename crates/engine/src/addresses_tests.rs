//! Rules about countries.

use super::*;

fn rule(action: CountryRuleAction, codes: &[&str]) -> CountryRule {
    let codes = codes.iter().map(|&it| it.to_owned()).collect();
    CountryRule::compile("r", &snapshot::CountryRule { action, codes }).unwrap()
}

#[test]
fn a_route_for_some_countries_is_closed_to_others_and_to_addresses_without_one() {
    let only = rule(CountryRuleAction::Allow, &["CH", "DE"]);
    assert!(only.permits(Country::parse("CH")));
    assert!(!only.permits(Country::parse("FR")));
    assert!(!only.permits(None));
}

#[test]
fn a_route_closed_to_some_countries_is_open_to_others_and_to_addresses_without_one() {
    let but = rule(CountryRuleAction::Block, &["CH", "DE"]);
    assert!(!but.permits(Country::parse("DE")));
    assert!(but.permits(Country::parse("FR")));
    assert!(but.permits(None));
}

#[test]
fn what_is_no_country_is_refused_with_the_name_of_its_route() {
    let declared = snapshot::CountryRule {
        action: CountryRuleAction::Allow,
        codes: vec!["C1".to_owned()],
    };
    let error = CountryRule::compile("shop", &declared).err().unwrap();
    assert_eq!(
        error.to_string(),
        "route_invalid: shop: \"C1\" is no country"
    );
}
