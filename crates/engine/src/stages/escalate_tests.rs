use super::*;
use crate::refusal::Said;

#[test]
fn what_is_the_callers_to_mend_goes_nowhere() {
    for status in [200, 400, 401, 403, 405, 408, 413, 415, 429, 501] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(reason_of_status(status), None, "{status}");
    }
    for (status, reason) in [
        (404, TierOn::Missing),
        (500, TierOn::Failure),
        (502, TierOn::Failure),
        (503, TierOn::Overload),
        (504, TierOn::Failure),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(reason_of_status(status), Some(reason));
    }
    assert_eq!(
        reason_of(&Cause::ModelUnavailable.into()),
        Some(TierOn::Failure)
    );
    for (sentence, reason) in [
        (LOADING, TierOn::Missing),
        ("the queue is full", TierOn::Overload),
    ] {
        let mut busy = Refusal::from(Cause::ModelBusy);
        busy.said = Some(Box::new(Said {
            sentence: sentence.to_owned(),
            allow: None,
        }));
        assert_eq!(reason_of(&busy), Some(reason), "{sentence}");
    }
    for cause in [
        Cause::RequestBroken,
        Cause::RequestTooLarge,
        Cause::BodyTooSlow,
        Cause::DeadlineMalformed,
    ] {
        assert_eq!(reason_of(&cause.into()), None, "{cause:?}");
    }
}

#[test]
fn tiers_that_lead_to_one_another_find_an_end() {
    let mut headers = HeaderMap::new();
    headers.append(VIA, HeaderValue::from_static("1.1 proxy.example"));
    for hops in 1..=MOST_HOPS {
        let said = via(&headers).unwrap();
        assert_eq!(said.to_str().unwrap().matches(PSEUDONYM).count(), hops);
        assert!(!said.to_str().unwrap().contains("proxy"));
        headers.insert(VIA, said);
    }
    assert_eq!(via(&headers), None);
}

#[test]
fn an_answer_without_a_number_is_told_from_one_that_is_not_sure() {
    let confidence = crate::snapshot::Confidence {
        output: "score".to_owned(),
        below_millionths: 500_000,
    };
    let of = |shape: &str, data: &str| {
        let text = format!(
            r#"{{"model_name":"m","outputs":[{{"name":"score","datatype":"FP32","shape":[{shape}],"data":[{data}]}}]}}"#
        );
        sureness(&Answer::read(text.as_bytes(), None).unwrap(), &confidence)
    };
    assert_eq!(of("1,2", "0.2,0.5"), Sureness::Sure);
    assert_eq!(of("1,2", "0.2,0.49"), Sureness::Unsure);
    assert_eq!(of("0,2", ""), Sureness::Empty);
}
