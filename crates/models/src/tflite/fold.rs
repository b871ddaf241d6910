//! Rewrites a file so that the runtime knows the sizes of what comes out before it runs.
//!
//! Converters write "the first dimension as it came, the others as they are" as four operators: `SHAPE`, `STRIDED_SLICE`,
//! `PACK`, `RESHAPE`. The runtime computes that shape only within a run, and its interface can then not give the result
//! back (`LiteRtRunCompiledModel` succeeds and writes nothing). Where the result says all of its dimensions but one,
//! the number of elements gives the last, so the shape is written into the operator itself (`ReshapeOptions.new_shape`),
//! which the runtime reads beforehand.
//!
//! Owns: that change. Must not: change anything else, or be called with a file that was not checked.

use super::buffer::{Broken, Table, Visits};
use super::{RESHAPE, code_of, codes, model, operator, subgraph, tensor};

/// `BuiltinOptions`: its member for `RESHAPE`.
const RESHAPE_OPTIONS: u8 = 17;
/// What the runtime takes (`kMaxDims` of `ReshapeOptions`).
const MAX_DIMENSIONS: usize = 8;

/// The file with such operators rewritten; `None`: it has none, or no room for more.
pub fn fold(file: &[u8]) -> Option<Vec<u8>> {
    let found = find(file).ok()?;
    if found.is_empty() {
        return None;
    }
    let mut folded = file.to_vec();
    for each in found {
        let table = append(&mut folded, &each);
        let offset = u32::try_from(table.checked_sub(each.place)?).ok()?;
        let place = folded.get_mut(each.place..each.place + 4)?;
        place.copy_from_slice(&offset.to_le_bytes());
    }
    (u64::try_from(folded.len()).ok()? <= super::MAX_FILE).then_some(folded)
}

/// An operator that is to be another.
struct Found {
    /// Where in the file it is said where it is.
    place: usize,
    code: u32,
    input: i32,
    output: i32,
    shape: Vec<i32>,
}

fn find(file: &[u8]) -> Result<Vec<Found>, Broken> {
    let model = Table::root(file)?;
    let codes = codes(&model).map_err(|_| Broken::Outside)?;
    let buffers = model.tables(model::BUFFERS)?;
    let mut visits = Visits::default();
    let mut found = vec![];
    for graph in model.tables(model::SUBGRAPHS)?.iter() {
        let graph = graph?;
        let tensors = graph.tables(subgraph::TENSORS)?;
        let tensor = |index: i32| tensors.get(usize::try_from(index).unwrap_or(usize::MAX));
        let operators = graph.tables(subgraph::OPERATORS)?;
        for index in 0..operators.len() {
            visits.count()?;
            let operator = operators.get(index)?;
            let mut inputs = operator.ints(operator::INPUTS)?;
            let mut outputs = operator.ints(operator::OUTPUTS)?;
            let is_reshape = code_of(&codes, &operator)? == Some(RESHAPE);
            if !is_reshape || (inputs.len(), outputs.len()) != (2, 1) {
                continue;
            }
            let (Some(input), Some(shape), Some(output), Some(place)) = (
                inputs.next(),
                inputs.next(),
                outputs.next(),
                operators.place(index),
            ) else {
                continue;
            };
            let values = tensor(shape)?.uint(tensor::BUFFER)?;
            let values = buffers.get(usize::try_from(values).unwrap_or(usize::MAX))?;
            let is_known = !values.bytes(0)?.is_empty() || values.ulong(1)? > 1;
            let shape: Vec<i32> = known_shape(&tensor(output)?)?;
            let unknown = shape.iter().filter(|it| **it < 0).count();
            let has_none = shape.contains(&0); // which older files mean something else by
            if is_known
                || has_none
                || shape.is_empty()
                || shape.len() > MAX_DIMENSIONS
                || unknown > 1
            {
                continue;
            }
            found.push(Found {
                place,
                code: operator.uint(operator::CODE)?,
                input,
                output,
                shape,
            });
        }
    }
    Ok(found)
}

/// Dimensions as converters say them; -1: any. Empty: it does not say, and what it once was is no proof of what it is.
fn known_shape(output: &Table) -> Result<Vec<i32>, Broken> {
    let signature = output.ints(tensor::SHAPE_SIGNATURE)?;
    let known = signature.take(MAX_DIMENSIONS + 1);
    Ok(known.collect())
}

/// Appends the operator to the file, and says where its table is. What refers to something lies before it, as offsets
/// lead forward.
fn append(file: &mut Vec<u8>, found: &Found) -> usize {
    file.resize(file.len().next_multiple_of(4), 0);
    // vtable: its size, the table's, and where the fields of `Operator` are: code, inputs, outputs, kind of options, options.
    let vtable = file.len();
    for size in [14_u16, 24, 4, 8, 12, 20, 16, 0] {
        file.extend_from_slice(&size.to_le_bytes());
    }
    let table = file.len();
    let options = table + 24;
    let inputs = options + 16;
    let outputs = inputs + 8;
    let shape = outputs + 8;
    let mut number = |number: usize| {
        file.extend_from_slice(&u32::try_from(number).unwrap_or(0).to_le_bytes());
    };
    number(table - vtable);
    number(usize::try_from(found.code).unwrap_or(0));
    number(inputs - (table + 8));
    number(outputs - (table + 12));
    number(options + 8 - (table + 16));
    number(usize::from(RESHAPE_OPTIONS));
    // `ReshapeOptions`: its vtable (size, the table's, the one field, none), the table, its field.
    number(0x0008_0006);
    number(4);
    number(8);
    number(shape - (options + 12));
    for (length, element) in [(1, found.input), (1, found.output)] {
        number(length);
        number(usize::try_from(element).unwrap_or(0));
    }
    number(found.shape.len());
    for dimension in &found.shape {
        file.extend_from_slice(&dimension.to_le_bytes());
    }
    table
}
