#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

macro_rules! seed {
    ($name:literal) => {
        include_bytes!(concat!("../../../fuzz/seeds/tflite/", $name))
    };
}

const SQUARES: &[u8] = seed!("squares");

fn code(file: &[u8]) -> Option<&'static str> {
    check(file).err().map(|error| error.code)
}

#[test]
fn what_goes_in_and_comes_out_is_named_as_the_signature_has_it() {
    let outline = check(seed!("add")).unwrap();
    let tensor = |name: &str| Tensor {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: vec![1, 4],
    };
    assert_eq!(outline.inputs, [tensor("x")]);
    assert_eq!(outline.outputs, [tensor("y")]);
    assert!(!outline.keeps_state);
}

#[test]
fn without_a_signature_tensors_have_their_own_names_and_any_dimension_is_0() {
    let outline = check(seed!("any_rows")).unwrap();
    let names = |it: &[Tensor]| it.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&outline.inputs), ["x", "y"]);
    assert_eq!(names(&outline.outputs), ["total"]);
    assert_eq!(outline.inputs[0].shape, [0, 4]);
}

#[test]
fn what_reaches_out_of_the_file_is_refused() {
    for file in [
        seed!("custom").as_slice(),
        seed!("outside"),
        seed!("beyond"),
    ] {
        assert_eq!(code(file), Some("model_reaches_out"));
    }
    assert_eq!(code(seed!("placed")), None, "within the file");
}

#[test]
fn a_file_that_ends_anywhere_or_has_any_byte_changed_is_read_without_a_panic() {
    for length in 0..SQUARES.len() {
        let error = check(&SQUARES[..length]).err();
        assert!(
            error.is_some_and(|it| it.code == "model_invalid"),
            "{length}"
        );
    }
    for place in 0..SQUARES.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut file = SQUARES.to_vec();
            file[place] = value;
            if check(&file).is_ok() {
                fold(&file);
            }
        }
    }
}

#[test]
fn a_shape_that_is_computed_within_the_run_is_written_into_its_operator() {
    assert_eq!(fold(seed!("add")), None, "nothing to do");
    let folded = fold(SQUARES).unwrap();
    assert_eq!(folded[..4], SQUARES[..4], "the root stays where it is");
    assert_eq!(check(&folded).unwrap(), check(SQUARES).unwrap());
    assert_eq!(fold(&folded), None, "once is enough");
    let model = Table::root(&folded).unwrap();
    let graph = model.tables(model::SUBGRAPHS).unwrap().get(0).unwrap();
    let operators = graph.tables(subgraph::OPERATORS).unwrap();
    let reshape = operators.get(operators.len() - 1).unwrap();
    let before = Table::root(SQUARES).unwrap();
    let before = before.tables(model::SUBGRAPHS).unwrap().get(0).unwrap();
    let before = before.tables(subgraph::OPERATORS).unwrap();
    let before = before.get(before.len() - 1).unwrap();
    let ints = |it: &Table, field| it.ints(field).unwrap().collect::<Vec<_>>();
    let input = ints(&before, operator::INPUTS)[0];
    assert_eq!(ints(&reshape, operator::INPUTS), [input]);
    assert_eq!(
        ints(&reshape, operator::OUTPUTS),
        ints(&before, operator::OUTPUTS)
    );
    assert_eq!(reshape.byte(3).unwrap(), 17);
}

#[test]
fn parts_that_are_referred_to_over_and_over_are_not_all_read() {
    // One vector of graphs, all of which are one graph with one vector of tensors, all of which are one tensor.
    const MANY: u32 = 5000;
    let mut file = b"\0\0\0\0TFL3".to_vec();
    let put = |file: &mut Vec<u8>, numbers: &[u32]| {
        let at = file.len();
        for number in numbers {
            file.extend_from_slice(&number.to_le_bytes());
        }
        u32::try_from(at).unwrap()
    };
    let vector = |file: &mut Vec<u8>, first: u32| {
        let at = u32::try_from(file.len()).unwrap();
        file.extend_from_slice(&MANY.to_le_bytes());
        for index in 0..MANY {
            let place = at + 4 + 4 * index;
            let target = at + 4 + 4 * MANY + first;
            file.extend_from_slice(&(target - place).to_le_bytes());
        }
        at
    };
    // Root: vtable (20 bytes: 8 fields), table: version, graphs, buffers.
    let vtable = put(&mut file, &[0x0010_0014, 4, 8, 12, 0]);
    let root = put(&mut file, &[20, 3, 8, 0]);
    assert_eq!(root - vtable, 20);
    file[..4].copy_from_slice(&root.to_le_bytes());
    // `buffers` is field 4, at 12: a vector with one empty table would do; it leads to the graphs' vector as well.
    let graphs = vector(&mut file, 8);
    let place = usize::try_from(root + 8).unwrap();
    file[place..place + 4].copy_from_slice(&(graphs - root - 8).to_le_bytes());
    let place = usize::try_from(root + 12).unwrap();
    file[place..place + 4].copy_from_slice(&(graphs - root - 12).to_le_bytes());
    put(&mut file, &[0x0008_0006, 4]); // a vtable with the field 0
    put(&mut file, &[8, 4]); // the table: its vector of tensors follows
    vector(&mut file, 8);
    put(&mut file, &[0x0004_0004, 0]); // an empty vtable
    put(&mut file, &[8]);
    let error = check(&file).unwrap_err();
    assert!(error.message.contains("over and over"), "{error}");
}
