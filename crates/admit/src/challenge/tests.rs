//! Tokens, answers, passes and the page.

use super::*;

const NOW: Duration = Duration::from_secs(1_795_000_000);
const MINE: Binding = Binding {
    host: "shop.example",
    source: Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7))),
    agent: Agent::Firefox,
};

fn challenges() -> Challenges {
    let terms = Terms {
        difficulty: 8,
        ..Terms::default()
    };
    Challenges::new(&[7; 32], terms, 64 << 10)
}

fn later(seconds: u64) -> Duration {
    NOW + Duration::from_secs(seconds)
}

fn solve(token: &str, difficulty: u8) -> String {
    let mut numbers = (0..u64::MAX).map(|it| it.to_string());
    numbers
        .find(|number| is_solved(token, number, difficulty))
        .unwrap()
}

fn solved(challenges: &Challenges, number: u64) -> (String, String) {
    let token = challenges.issue(&MINE, number, NOW);
    let work = solve(&token, 8);
    (token, work)
}

#[test]
fn work_gets_a_pass_that_is_good_for_its_hour() {
    let challenges = challenges();
    let (token, work) = solved(&challenges, 1);
    let pass = challenges
        .answer(&token, Answer::Work(&work), &MINE, later(3))
        .unwrap();
    assert_eq!(pass.name, "vedette-pass-0000000000000001");
    assert_eq!(challenges.pass(&pass.value, &MINE, later(3602)), Ok(()));
    let over = challenges.pass(&pass.value, &MINE, later(3603));
    assert_eq!(over, Err(No::Expired));
}

#[test]
fn a_number_that_is_not_the_answer_gets_nothing() {
    let challenges = challenges();
    let token = challenges.issue(&MINE, 2, NOW);
    let wrong = (0..1000).map(|it| it.to_string());
    let wrong = wrong.filter(|it| !is_solved(&token, it, 8)).take(5);
    let odd = ["", "-1", "1e3", " 1", "0x10", "1234567890123456"].map(str::to_owned);
    for number in wrong.chain(odd) {
        let answer = challenges.answer(&token, Answer::Work(&number), &MINE, NOW);
        assert_eq!(answer, Err(No::Wrong), "{number:?}");
    }
}

#[test]
fn a_token_is_answered_once() {
    let challenges = challenges();
    let (token, work) = solved(&challenges, 3);
    let answer = |answer| challenges.answer(&token, answer, &MINE, later(20));
    assert!(answer(Answer::Work(&work)).is_ok());
    assert_eq!(answer(Answer::Work(&work)), Err(No::Spent));
    assert_eq!(answer(Answer::Wait), Err(No::Spent));
}

#[test]
fn who_cannot_work_waits() {
    let challenges = challenges();
    let token = challenges.issue(&MINE, 4, NOW);
    let wait = |now| challenges.answer(&token, Answer::Wait, &MINE, now);
    assert_eq!(wait(later(9)), Err(No::TooEarly));
    assert!(wait(later(10)).is_ok());
}

#[test]
fn a_token_ends_and_one_from_the_future_is_not_taken() {
    let challenges = challenges();
    let (token, work) = solved(&challenges, 5);
    let answer = |now| challenges.answer(&token, Answer::Work(&work), &MINE, now);
    assert_eq!(answer(later(611)), Err(No::Expired));
    assert_eq!(
        answer(Duration::from_secs(NOW.as_secs() - 6)),
        Err(No::Expired)
    );
    assert!(answer(later(610)).is_ok());
}

#[test]
fn tokens_and_passes_are_good_for_their_site_network_and_agent_only() {
    let challenges = challenges();
    let (token, work) = solved(&challenges, 6);
    let network = |text: &str| Some(text.parse().unwrap());
    let others = [
        Binding {
            host: "other.example",
            ..MINE
        },
        Binding {
            source: network("192.0.2.8"),
            ..MINE
        },
        Binding {
            source: None,
            ..MINE
        },
        Binding {
            agent: Agent::Chromium,
            ..MINE
        },
    ];
    for other in &others {
        let answer = challenges.answer(&token, Answer::Work(&work), other, NOW);
        assert_eq!(answer, Err(No::Forged), "{other:?}");
    }
    let pass = challenges
        .answer(&token, Answer::Work(&work), &MINE, NOW)
        .unwrap();
    for other in &others {
        let judged = challenges.pass(&pass.value, other, NOW);
        assert_eq!(judged, Err(No::Forged), "{other:?}");
    }
}

#[test]
fn a_client_of_ipv6_keeps_its_pass_within_its_network_of_64_bits() {
    let challenges = challenges();
    let from = |text: &str| Binding {
        source: Some(text.parse().unwrap()),
        ..MINE
    };
    let token = challenges.issue(&from("2001:db8::1"), 7, NOW);
    let pass = challenges
        .answer(&token, Answer::Wait, &from("2001:db8::2"), later(10))
        .unwrap();
    let judge = |text| challenges.pass(&pass.value, &from(text), later(10));
    assert_eq!(judge("2001:db8::ffff"), Ok(()));
    assert_eq!(judge("2001:db8:0:1::1"), Err(No::Forged));
}

#[test]
fn a_token_is_no_pass_and_a_pass_no_token() {
    let challenges = challenges();
    let token = challenges.issue(&MINE, 8, later(5000));
    assert_eq!(challenges.pass(&token, &MINE, NOW), Err(No::Forged));
    let first = challenges.issue(&MINE, 9, NOW);
    let pass = challenges
        .answer(&first, Answer::Wait, &MINE, later(10))
        .unwrap();
    let answer = challenges.answer(&pass.value, Answer::Wait, &MINE, later(4000));
    assert_eq!(answer, Err(No::Forged));
}

#[test]
fn a_token_with_any_character_changed_is_forged() {
    let challenges = challenges();
    let token = challenges.issue(&MINE, 10, NOW);
    assert_eq!(token.len(), 40);
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        let answer = challenges.answer(&changed, Answer::Wait, &MINE, later(10));
        assert_eq!(answer, Err(No::Forged), "{at}");
    }
    for odd in [
        "",
        "!",
        &token[..39],
        &format!("{token}A"),
        &format!("{token}="),
    ] {
        let answer = challenges.answer(odd, Answer::Wait, &MINE, later(10));
        assert_eq!(answer, Err(No::Forged), "{odd}");
    }
}

#[test]
fn another_key_makes_another_node() {
    let token = challenges().issue(&MINE, 11, NOW);
    let other = Challenges::new(&[8; 32], Terms::default(), 0);
    let answer = other.answer(&token, Answer::Wait, &MINE, later(10));
    assert_eq!(answer, Err(No::Forged));
}

#[test]
fn any_of_several_passes_among_the_cookies_is_enough() {
    let challenges = challenges();
    let token = challenges.issue(&MINE, 12, NOW);
    let pass = challenges
        .answer(&token, Answer::Wait, &MINE, later(10))
        .unwrap();
    let has = |cookies: &str| challenges.has_pass(cookies.as_bytes(), &MINE, later(10));
    let (name, value) = (&pass.name, &pass.value);
    assert!(has(&format!("{name}={value}")));
    assert!(has(&format!(
        "a=b; vedette-pass-0000000000000000=old;{name}={value}; c"
    )));
    assert!(!has(&format!("a={value}; vedette-pass-1; vedette-pass-2=")));
    assert!(!has(""));
}

#[test]
fn passes_are_told_from_cookies_of_others_by_their_whole_name() {
    let pass = "vedette-pass-0123456789abcdef=x.y";
    let parted = |cookies: &str| {
        let (passes, others) = part(cookies.as_bytes())?;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Some((text(passes), text(others)))
    };
    let both = |passes: &str, others: &str| Some((passes.to_owned(), others.to_owned()));
    assert_eq!(parted(pass), both(pass, ""));
    assert_eq!(
        parted(&format!("a=1;{pass} ; ;b= 2;")),
        both(&format!("{pass} "), "a=1; ;b= 2;")
    );
    assert_eq!(
        parted(&format!("{pass}; a=1; {pass}2")),
        both(&format!("{pass}; {pass}2"), "a=1")
    );
    assert_eq!(
        parted(&format!("a=\"x;y\";  b=2;{pass}")),
        both(pass, "a=\"x;y\";  b=2")
    );
    for others in [
        "",
        "a=1; b=2;",
        "vedette-pass-=x",
        "vedette-pass-0123456789abcde=x",
        "vedette-pass-0123456789abcdef0=x",
        "vedette-pass-0123456789abcdef",
        "vedette-pass-0123456789abcdeg=x",
        "xvedette-pass-0123456789abcdef=x",
        "a=vedette-pass-0123456789abcdef=x",
    ] {
        assert_eq!(parted(others), None, "{others}");
    }
}

#[test]
fn remembering_answers_takes_no_more_memory_and_forgets_the_oldest_first() {
    let spent = Spent::within(0);
    for number in 0..1_000_000 {
        assert!(spent.spend(number, 1));
        assert!(!spent.spend(number, 1));
    }
    assert!(spent.spend(0, 1), "it was the oldest");
}

#[test]
fn the_kind_of_software_is_told_by_its_name_and_not_its_version() {
    let chrome =
        b"Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36";
    let safari =
        b"Mozilla/5.0 (Macintosh) AppleWebKit/605.1 (KHTML, like Gecko) Version/18 Safari/605.1";
    assert_eq!(Agent::of(chrome), Agent::Chromium);
    assert_eq!(Agent::of(safari), Agent::Safari);
    assert_eq!(
        Agent::of(b"Mozilla/5.0 Gecko/1 Firefox/140.0"),
        Agent::Firefox
    );
    assert_eq!(Agent::of(b"curl/8"), Agent::Other);
}

fn shown(target: &str) -> String {
    page(&Page {
        token: "TOKEN",
        difficulty: 16,
        wait: 10,
        answer_path: "/.well-known/vedette/challenge",
        target,
        request_id: "0192",
    })
}

#[test]
fn the_page_is_small_and_loads_nothing() {
    let html = shown("/");
    assert!(html.len() < 10_000, "{} bytes", html.len());
    for outside in [
        "http:", "https:", "src=", "<link", "import", "fetch(", " on",
    ] {
        let found = html
            .find(outside)
            .map(|at| &html[at..(at + 30).min(html.len())]);
        let is_text = outside == " on";
        assert!(
            found.is_none() || is_text && !html.contains(" onload="),
            "{found:?}"
        );
    }
}

#[test]
fn the_policy_names_the_script_and_the_style_that_the_page_has() {
    use base64::engine::general_purpose::STANDARD;
    let html = shown("/");
    for (open, close) in [("<script>", "</script>"), ("<style>", "</style>")] {
        let content = html
            .split_once(open)
            .unwrap()
            .1
            .split_once(close)
            .unwrap()
            .0;
        let hash = STANDARD.encode(digest(&SHA256, content.as_bytes()));
        let named = format!("-src 'sha256-{hash}'");
        assert!(content_security_policy().contains(&named), "{open}");
    }
}

#[test]
fn nothing_of_the_request_leaves_its_attribute() {
    let html = shown("/\"><script>alert(1)</script>&a='b'");
    assert_eq!(html.matches("<script>").count(), 1);
    assert!(html.contains("&amp;to=/%22%3E%3Cscript%3Ealert%281%29%3C/script%3E%26a%3D%27b%27"));
}

#[test]
fn without_a_script_the_page_goes_on_by_itself_after_the_wait() {
    let html = shown("/cart?x=1");
    let answer = "/.well-known/vedette/challenge?t=TOKEN&amp;to=/cart%3Fx%3D1";
    let refresh = format!(r#"<meta http-equiv="refresh" content="11;url={answer}">"#);
    assert!(html.contains(&refresh));
    assert!(html.contains(&format!(r#"<a href="{answer}">"#)));
}

#[test]
fn only_a_path_of_this_site_is_where_a_client_goes_on() {
    for good in ["/", "/cart?x=1", "/a//b", "/%0d"] {
        assert!(is_local(good), "{good}");
    }
    for bad in [
        "",
        "cart",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/a\r\nb",
        "/ü",
    ] {
        assert!(!is_local(bad), "{bad}");
    }
}
