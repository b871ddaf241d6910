use super::*;

fn question(json: &str) -> Option<Question<'_>> {
    Question::read(json.as_bytes(), None)
}

#[test]
fn elements_stay_as_they_were_written() {
    let json = r#" {"inputs" : [ {"name":"x","shape":[1,2],"datatype":"FP64","data":[0.1000000000000000055, 1e3]} ] } "#;
    let read = question(json).unwrap();
    assert_eq!(read.inputs.len(), 1);
    let x = read.inputs.first().unwrap();
    assert_eq!(x.data, Data::Json("[0.1000000000000000055, 1e3]"));
    assert_eq!((x.name.as_str(), x.shape.as_slice()), ("x", &[1, 2][..]));
}

#[test]
fn binary_elements_are_taken_in_the_order_of_their_names() {
    let json = r#"{"inputs":[{"name":"a","datatype":"INT8","shape":[2],"parameters":{"binary_data_size":2}},{"name":"b","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}}],"parameters":{"binary_data_output":true},"outputs":[{"name":"y","parameters":{"binary_data":false}}],"id":"7"}"#;
    let body = [json.as_bytes(), &[1, 2, 3]].concat();
    let read = Question::read(&body, Some(json.len())).unwrap();
    let bytes: Vec<Data<'_>> = read.inputs.iter().map(|it| it.data).collect();
    assert_eq!(bytes, [Data::Binary(&[1, 2]), Data::Binary(&[3])]);
    assert_eq!(read.id.as_deref(), Some("7"));
    assert!(!read.wants_binary("y"));
    assert!(read.wants_binary("z"));
}

#[test]
fn what_two_readers_could_read_in_two_ways_is_none() {
    let tensor = r#"{"name":"x","datatype":"FP32","shape":[1],"data":[1]}"#;
    for json in [
        format!(r#"{{"inputs":[{tensor}],"inputs":[{tensor}]}}"#),
        format!(r#"{{"inputs":[{tensor}],"\u0069nputs":[]}}"#),
        format!(r#"{{"inputs":[{tensor}]}} {{}}"#),
        format!(r#"{{"inputs":[{tensor},]}}"#),
        format!(r#"{{"inputs":[{tensor}]"#),
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":{"binary_data_size":0}}]}"#.to_owned(),
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1],"data":[1]}]}"#.to_owned(),
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#.to_owned(),
        "[]".to_owned(),
        String::new(),
    ] {
        assert_eq!(question(&json), None, "{json}");
    }
}

#[test]
fn bytes_that_belong_to_nobody_are_none() {
    let json = r#"{"inputs":[]}"#;
    let body = [json.as_bytes(), &[1]].concat();
    assert_eq!(Question::read(&body, Some(json.len())), None);
    assert_eq!(Question::read(&body, Some(body.len() + 1)), None);
    assert!(Question::read(json.as_bytes(), None).is_some());
}

#[test]
fn too_many_parts_are_none() {
    let many = |count: usize| {
        let one = r#"{"name":"x","datatype":"INT8","shape":[0],"data":[]}"#;
        format!(r#"{{"inputs":[{}]}}"#, vec![one; count].join(","))
    };
    assert!(question(&many(MOST)).is_some());
    assert_eq!(question(&many(MOST + 1)), None);
}

#[test]
fn an_answer_says_its_model() {
    let json = r#"{"model_name":"m","model_version":"3","outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1.5]}],"more":{"a":[1,{"b":null}]}}"#;
    let read = Answer::read(json.as_bytes(), None).unwrap();
    assert_eq!(
        (read.model.as_str(), read.version.as_deref()),
        ("m", Some("3"))
    );
    let strange = r#"{"model_name":"m","model_version":"3\r\nx","outputs":[]}"#;
    assert_eq!(
        Answer::read(strange.as_bytes(), None).unwrap().version,
        None
    );
    assert_eq!(Answer::read(br#"{"model_name":"m"}"#, None), None);
    assert_eq!(Answer::read(br#"{"outputs":[]}"#, None), None);
    assert_eq!(
        Answer::read(b"{\"model_name\":\"\xff\",\"outputs\":[]}", None),
        None
    );
}
