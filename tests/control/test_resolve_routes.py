"""What an HTTPRoute and a Route mean; the samples follow the Gateway API's own conformance tests."""

# ruff: noqa: E501 - a table that is read across
from __future__ import annotations

from typing import Any

import pytest
from tests.control.manifest_texts import GATEWAY, OUR, SHOP, resolved, routes

from vedette.config.manifests import Attachment
from vedette.config.model import wire_value
from vedette.config.snapshot import StaticFile
from vedette.errors import ConfigError

BACK = "backendRefs: [{name: shop, port: 8080}]"


def http_route(rules: str, spec: str = "", name: str = "one") -> str:
    return (
        f"{GATEWAY}kind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  rules:\n{rules}"
    )


def our_route(rules: str, name: str = "one") -> str:
    return f"{OUR}kind: Route\nmetadata: {{name: {name}}}\nspec:\n  rules:\n{rules}"


def one(rules: str) -> dict[str, Any]:
    (route,) = routes(http_route(rules))
    return dict(wire_value(route))


def refused(text: str, code: str = "manifest_invalid") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolved(SHOP + text)
    assert caught.value.code == code
    return caught.value


# --- HTTPRouteSimpleSameNamespace, HTTPRouteMatching


def test_a_rule_without_matches_takes_every_path() -> None:
    assert one(f"    - {BACK}\n") == {
        "name": "one",
        "hosts": [],
        "path": {"type": "PathPrefix", "value": "/"},
        "headers": [],
        "query": [],
        "cookies": [],
        "backend": {
            "type": "Services",
            "services": [{"kind": "Upstream", "name": "shop", "weight": 1}],
        },
    }


def test_each_rule_and_match_is_a_route_in_order() -> None:
    text = f"""\
    - matches: [{{path: {{value: /v2}}}}, {{headers: [{{name: Version, value: two}}]}}]
      {BACK}
    - {BACK}
"""
    found = routes(http_route(text, "hostnames: [shop.example.com, '*.example.com']"))
    assert [each.name for each in found] == ["one", "one-2", "one-3"]
    assert [each.path.value for each in found] == ["/v2", "/", "/"]
    assert found[1].headers[0].name == "version"
    assert {each.hosts for each in found} == {("*.example.com", "shop.example.com")}


def test_a_prefix_may_end_in_a_slash_and_an_exact_path_keeps_it() -> None:
    # HTTPPathMatch: a trailing slash of a prefix is ignored; Exact is exact and case-sensitive.
    assert one(f"    - matches: [{{path: {{value: /a/}}}}]\n      {BACK}\n")["path"] == {
        "type": "PathPrefix",
        "value": "/a",
    }
    exact = f"    - matches: [{{path: {{type: Exact, value: /A/}}}}]\n      {BACK}\n"
    assert one(exact)["path"] == {"type": "Exact", "value": "/A/"}


def test_of_two_header_matches_with_one_name_the_first_counts_and_a_note_says_so() -> None:
    rules = f"""\
    - matches:
        - headers: [{{name: Color, value: blue}}, {{name: color, value: red}}]
          queryParams: [{{name: animal, value: whale}}, {{name: Animal, value: dog}}]
          method: GET
      {BACK}
"""
    route = one(rules)
    assert route["headers"] == [{"type": "Exact", "name": "color", "value": "blue"}]
    assert [each["name"] for each in route["query"]] == ["Animal", "animal"]
    assert route["method"] == "GET"
    notes = resolved(SHOP + http_route(rules)).notes
    assert [note for note in notes if "only the first counts" in note]


# --- HTTPRouteWeight, HTTPRouteInvalidNonExistentBackendRef


def test_weights_are_shares_and_0_is_kept() -> None:
    text = """\
    - backendRefs:
        - {name: shop, port: 8080, weight: 90}
        - {kind: Function, group: vedette.dev, name: hello, weight: 10}
        - {name: shop, port: 8080, weight: 0}
"""
    assert one(text)["backend"]["services"] == [
        {"kind": "Function", "name": "hello", "weight": 10},
        {"kind": "Upstream", "name": "shop", "weight": 90},
    ]


def test_one_function_is_a_function_backend() -> None:
    text = "    - backendRefs: [{kind: Function, group: vedette.dev, name: hello}]\n"
    assert one(text)["backend"] == {"type": "Function", "function": "hello"}


# --- filters: HTTPRouteRequestHeaderModifier, …RedirectHostAndStatus, …RewritePath, …Mirror


def test_header_modifiers_fold_names() -> None:
    text = f"""\
    - filters:
        - type: RequestHeaderModifier
          requestHeaderModifier:
            set: [{{name: X-Header-Set, value: a}}]
            add: [{{name: X-Header-Add, value: b}}]
            remove: [X-Header-Remove]
        - type: ResponseHeaderModifier
          responseHeaderModifier: {{remove: [Server]}}
      {BACK}
"""
    route = one(text)
    assert route["requestHeaders"] == {
        "set": [{"name": "x-header-set", "value": "a"}],
        "add": [{"name": "x-header-add", "value": "b"}],
        "remove": ["x-header-remove"],
    }
    assert route["responseHeaders"]["remove"] == ["server"]


def test_a_redirect_needs_no_backend() -> None:
    text = """\
    - filters:
        - type: RequestRedirect
          requestRedirect:
            scheme: https
            hostname: Example.org
            port: 8443
            statusCode: 301
            path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}
"""
    assert one(text)["backend"] == {
        "type": "Redirect",
        "scheme": "https",
        "hostname": "example.org",
        "port": 8443,
        "status": 301,
        "path": {"type": "ReplacePrefixMatch", "value": "/new"},
    }


def test_a_rewrite_a_mirror_and_times() -> None:
    text = f"""\
    - filters:
        - type: URLRewrite
          urlRewrite: {{hostname: in.example.org, path: {{type: ReplaceFullPath, replaceFullPath: /x}}}}
        - type: RequestMirror
          requestMirror: {{backendRef: {{name: shop, port: 8080}}, fraction: {{numerator: 1, denominator: 4}}}}
      timeouts: {{request: 10s}}
      retry: {{codes: [503, 500, 503], attempts: 3, backoff: 100ms}}
      sessionPersistence: {{sessionName: stay}}
      {BACK}
"""
    route = one(text)
    assert route["rewrite"]["path"] == {"type": "ReplaceFullPath", "value": "/x"}
    assert route["mirror"] == {"upstream": "shop", "percent": 25}
    assert (route["timeoutMillis"], route["sticky"]) == (10_000, {"cookie": "stay"})
    assert route["retry"] == {"attempts": 3, "codes": [500, 503], "backoffMillis": 100}


def test_a_timeout_of_0_is_none_and_each_try_has_one_of_its_own() -> None:
    none = one(f"    - timeouts: {{request: 0s, backendRequest: 0s}}\n      {BACK}\n")
    assert not {"timeoutMillis", "tryMillis"} & none.keys()
    timeouts = "timeouts: {request: 9s, backendRequest: 2s}"
    route = one(f"    - {timeouts}\n      retry: {{attempts: 3}}\n      {BACK}\n")
    assert (route["timeoutMillis"], route["tryMillis"]) == (9_000, 2_000)
    assert route["retry"]["attempts"] == 3


def test_a_route_may_have_hedges_and_faults() -> None:
    text = f"""\
    - hedge: {{after: 50ms, attempts: 2}}
      fault: {{delay: {{percentage: 0.0001, fixedDelay: 5s}}}}
      {BACK}
"""
    (route,) = routes(our_route(text))
    made = wire_value(route)
    assert made["hedge"] == {"afterMillis": 50, "attempts": 2}
    assert made["fault"] == {"delay": {"perMillion": 1, "fixedMillis": 5_000}}


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("static: {body: x}\n      hedge: {after: 50ms}", "a hedge needs an Upstream"),
        (f"{BACK}\n      hedge: {{after: 0s}}", "afterMillis"),
        (f"{BACK}\n      hedge: {{after: 1s, attempts: 6}}", "attempts"),
        (f"{BACK}\n      fault: {{abort: {{percentage: 1, httpStatus: 200}}}}", "status"),
        (f"{BACK}\n      fault: {{delay: {{percentage: 1, fixedDelay: 11m}}}}", "fixedMillis"),
        (f"{BACK}\n      fault: {{}}", "nothing goes wrong"),
    ],
)
def test_hedges_and_faults_that_cannot_be_meant_are_refused(rule: str, sentence: str) -> None:
    assert sentence in refused(our_route(f"    - {rule}\n")).message


# --- what cannot be honoured is refused, with its line


@pytest.mark.parametrize(
    ("rule", "line", "sentence"),
    [
        (f"matches: [{{path: {{type: RegularExpression, value: /a.*}}}}]\n      {BACK}", 12, "regular"),
        (f"matches: [{{path: {{value: a}}}}]\n      {BACK}", 12, "'a' is not a path"),
        (f"matches: [{{path: {{value: /a/../b}}}}]\n      {BACK}", 12, "is not a path"),
        (f"matches: [{{headers: [{{type: RegularExpression, name: a, value: '(?=x)'}}]}}]\n      {BACK}", 12, "look-around"),
        (f"{BACK}\n      filters: [{{type: CORS, cors: {{}}}}]", 13, "no filter CORS"),
        (f"{BACK}\n      filters: [{{type: ExtensionRef, extensionRef: {{}}}}]", 13, "kind Route"),
        (f"{BACK}\n      filters: [{{type: ExternalAuth}}]", 13, "no filter ExternalAuth"),
        (f"{BACK}\n      filters: [{{type: URLRewrite}}]", 13, "has its own field"),
        (f"{BACK}\n      filters: [{{type: RequestRedirect, requestRedirect: {{}}}}]", 12, "exclude each other"),
        (f"{BACK}\n      filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-vedette-subject, value: me}}]}}}}]", 13, "node's own"),
        (f"{BACK}\n      filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{kind: Function, name: hello}}}}}}]", 13, "mirrored to a function"),
        (f"{BACK}\n      filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: shop}}, fraction: {{numerator: 1, denominator: 3}}}}}}]", 13, "whole percent"),
        (f"matches: [{{path: {{type: Exact, value: /a}}}}]\n      {BACK}\n      filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /}}}}}}]", 14, "needs matches of type PathPrefix"),
        ("name: empty", 12, "nobody answers"),
        ("backendRefs: [{name: shop, weight: 0}]", 12, "all weights are 0"),
        ("backendRefs: [{name: shopp, port: 1}]", 12, "there is no Upstream 'shopp'; did you mean 'shop'?"),
        ("backendRefs: [{name: hello, port: 1}]", 12, "write kind: Function"),
        ("backendRefs: [{kind: Function, group: vedette.dev, name: helo}]", 12, "there is no Function 'helo'; did you mean 'hello'?"),
        ("backendRefs: [{group: apps, name: shop}]", 12, "in the group 'apps'"),
        ("backendRefs: [{name: shop, filters: [{type: URLRewrite}]}]", 12, "filters of its own"),
        (f"{BACK}\n      sessionPersistence: {{type: Header}}", 13, "by a cookie only"),
        (f"{BACK}\n      sessionPersistence: {{idleTimeout: 1h}}", 13, "leave it out"),
        (f"{BACK}\n      sessionPersistence: {{cookieConfig: {{lifetimeType: Permanent}}}}", 13, "ends with the session"),
        (f"{BACK}\n      hedge: {{after: 50ms}}", 13, "unknown field 'hedge'"),
        (f"{BACK}\n      fault: {{abort: {{percentage: 1, httpStatus: 503}}}}", 13, "unknown field 'fault'"),
        (f"{BACK}\n      timeouts: {{request: 1s, backendRequest: 2s}}", 13, "longer than request"),
        (f"{BACK}\n      cookies: []", 13, "unknown field 'cookies'"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_with_its_line(
    rule: str, line: int, sentence: str
) -> None:
    error = refused(http_route(f"    - {rule}\n"))
    assert sentence in error.message
    assert (error.file, error.line) == ("edge.yaml", line)


def test_every_problem_of_a_route_is_told_at_once() -> None:
    text = (
        "    - backendRefs: [{name: shopp}]\n    - matches: [{path: {value: x}}]\n      name: y\n"
    )
    assert refused(http_route(text)).message.startswith("3 problems:")


def test_what_is_ignored_is_said() -> None:
    spec = "parentRefs: [{name: gateway}]"
    text = http_route("    - backendRefs: [{name: shop, namespace: web, port: 80}]\n", spec)
    notes = "\n".join(resolved(SHOP + text).notes)
    assert "parentRefs are ignored" in notes
    assert "a namespace is ignored" in notes
    assert "port 80 is ignored" in notes
    assert "port" not in "\n".join(resolved(SHOP + http_route(f"    - {BACK}\n")).notes)


# --- conflicts


def test_one_place_taken_twice_is_a_conflict_that_names_both() -> None:
    text = http_route(f"    - {BACK}\n") + "---\n" + http_route(f"    - {BACK}\n", name="two")
    error = refused(text, "route_conflict")
    assert "route 'one' in edge.yaml:12 already takes every host /" in error.message
    assert error.line == 20
    same = f"    - matches: [{{method: GET}}, {{method: GET}}]\n      {BACK}\n"
    assert "already takes" in refused(http_route(same), "route_conflict").message


def test_a_place_that_is_taken_on_the_node_is_a_conflict() -> None:
    rules = f"    - matches: [{{path: {{type: Exact, value: /health}}}}]\n      {BACK}\n"
    error = refused(http_route(rules), "route_conflict")
    assert "route 'health' already takes every host /health" in error.message


def test_a_route_of_another_condition_is_no_conflict() -> None:
    rules = f"    - matches: [{{method: GET}}, {{method: PUT}}, {{}}]\n      {BACK}\n"
    assert len(routes(http_route(rules))) == 3


def test_names_that_are_made_never_meet_another() -> None:
    two = f"    - matches: [{{method: GET}}, {{method: PUT}}]\n      {BACK}\n"
    text = http_route(two) + "---\n" + http_route(f"    - {BACK}\n", name="one-2")
    assert "the Route 'one-2' is made by HTTPRoute 'one' too" in refused(text).message
    long = "x" * 62
    assert "is too long" in refused(http_route(two, name=long)).message


# --- our own kind


def test_our_own_kind_has_cookies_and_fixed_answers() -> None:
    text = our_route(
        "    - matches: [{cookies: [{name: group, value: b}]}]\n"
        "      static: {status: 404, contentType: text/html, body: no}\n"
    )
    (route,) = routes(text)
    assert wire_value(route)["cookies"] == [{"type": "Exact", "name": "group", "value": "b"}]
    assert wire_value(route)["backend"] == {
        "type": "Static",
        "status": 404,
        "contentType": "text/html",
        "body": "no",
    }


def test_files_are_the_folders_and_the_fallback_is_one_of_them() -> None:
    file = StaticFile(
        path="index.html", blob="sha256:" + "d" * 64, size=3, content_type="text/html"
    )
    attachments = {"site": Attachment(files=(file,))}
    text = our_route("    - files: {folder: site, fallback: index.html}\n")
    made = resolved(text, attachments=attachments)
    assert "sha256:" + "d" * 64 in made.snapshot.blobs()
    with pytest.raises(ConfigError, match=r"no file 'index.htm' .* did you mean 'index.html'"):
        resolved(text.replace("index.html", "index.htm"), attachments=attachments)
    with pytest.raises(ConfigError, match="holds no file"):
        resolved(text)


def test_public_opens_the_route_and_no_other_place_of_its_function() -> None:
    text = our_route(
        "    - matches: [{path: {value: /a*b}, method: GET}]\n"
        "      backendRefs: [{kind: Function, name: hello}]\n"
    ).replace("rules:", "public: true\n  hostnames: ['*.example.com']\n  rules:")
    made = resolved(text)
    (policy,) = [each for each in made.snapshot.policy.policies if "public" in each.name]
    assert policy.name == "public-route.one.cedar"
    assert made.texts[policy.blob].endswith(
        'resource == Function::"hello"\n)\nwhen { (context.host like "*.example.com")'
        r' && (context.path == "/a*b" || context.path like "/a\*b/*")'
        ' && context.method == "GET" };\n'
    )
