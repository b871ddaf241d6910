//! What policies say at a glance: whom they are about, and which resources they name.
//!
//! Must not: judge a request. An outline is for people who look for a policy, and for warnings about
//! names that nothing has.

use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy, PrincipalConstraint, ResourceConstraint,
};
use serde::Serialize;

use crate::policy::{place_of, statements};

/// One policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outline {
    file: String,
    line: usize,
    /// Its `@id`, else file and place, as in records.
    id: String,
    effect: &'static str,
    principal: Scope,
    /// Names of the actions that it is about; none: every action.
    actions: Vec<String>,
    resource: Scope,
    /// Whether it asks more than its scope says.
    conditional: bool,
    /// Functions, models and routes it names, wherever.
    names: Vec<Named>,
}

/// What a part of a scope takes; everything when both are absent.
#[derive(Debug, Default, Serialize)]
struct Scope {
    /// Entities of this type.
    r#type: Option<String>,
    /// The one with this id.
    id: Option<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Named {
    r#type: String,
    id: String,
}

/// The outlines of a file's policies, in the order of the text.
pub fn outlines<'a>(
    file: &str,
    text: &str,
    policies: impl Iterator<Item = &'a Policy>,
) -> Vec<Outline> {
    let places = statements(text);
    let outline =
        |policy: &'a Policy| outline(file, place_of(Policy::id(policy), &places).0, policy);
    let mut found: Vec<_> = policies.map(outline).collect();
    found.sort_by_key(|it| it.line);
    found
}

fn outline(file: &str, line: usize, policy: &Policy) -> Outline {
    let id = policy.annotation("id");
    Outline {
        file: file.to_owned(),
        line,
        id: id.map_or_else(|| format!("{file}/{}", policy.id()), str::to_owned),
        effect: match policy.effect() {
            Effect::Permit => "permit",
            Effect::Forbid => "forbid",
        },
        principal: principal(policy),
        actions: actions(policy),
        resource: resource(policy),
        conditional: policy.has_non_scope_constraint(),
        names: named(policy),
    }
}

fn principal(policy: &Policy) -> Scope {
    match policy.principal_constraint() {
        PrincipalConstraint::Any => Scope::default(),
        // Nothing is a member of anything here: `in` is `==`.
        PrincipalConstraint::Eq(one)
        | PrincipalConstraint::In(one)
        | PrincipalConstraint::IsIn(_, one) => Scope::of(&one),
        PrincipalConstraint::Is(kind) => Scope::kind(kind.to_string()),
    }
}

fn actions(policy: &Policy) -> Vec<String> {
    let named = match policy.action_constraint() {
        ActionConstraint::Any => Vec::new(),
        ActionConstraint::Eq(one) => vec![one],
        ActionConstraint::In(some) => some,
    };
    let names = named.iter().map(|it| it.id().unescaped().to_owned());
    names.collect()
}

fn resource(policy: &Policy) -> Scope {
    match policy.resource_constraint() {
        ResourceConstraint::Any => Scope::default(),
        ResourceConstraint::Eq(one)
        | ResourceConstraint::In(one)
        | ResourceConstraint::IsIn(_, one) => Scope::of(&one),
        ResourceConstraint::Is(kind) => Scope::kind(kind.to_string()),
    }
}

fn named(policy: &Policy) -> Vec<Named> {
    let literals = policy.entity_literals();
    let resources = literals.iter().map(|one| Named {
        r#type: one.type_name().to_string(),
        id: one.id().unescaped().to_owned(),
    });
    let mut found: Vec<_> = resources
        .filter(|one| matches!(one.r#type.as_str(), "Function" | "Model" | "Route"))
        .collect();
    found.sort();
    found.dedup();
    found
}

impl Scope {
    fn of(one: &EntityUid) -> Self {
        Self {
            r#type: Some(one.type_name().to_string()),
            id: Some(one.id().unescaped().to_owned()),
        }
    }

    fn kind(kind: String) -> Self {
        Self {
            r#type: Some(kind),
            id: None,
        }
    }
}
