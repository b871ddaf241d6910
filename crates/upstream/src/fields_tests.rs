use super::*;

#[test]
fn what_connection_names_is_taken_out_but_for_what_the_gateway_says() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "close, X-One ,x-forwarded-for,,\u{7f}"),
        ("connection", "x-two, host"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("x-forwarded-for", "192.0.2.1"),
        ("host", "a"),
        ("te", "deflate"),
    ] {
        if let Ok(value) = value.parse() {
            headers.append(name, value);
        }
    }
    headers.append("connection", "X-One".parse().unwrap());
    strip_hop_by_hop(&mut headers);
    let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["host", "x-forwarded-for", "x-three"]);
}
