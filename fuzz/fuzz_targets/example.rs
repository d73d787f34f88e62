//! The parser of examples on arbitrary bytes, against the same message decoded as a whole.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rnn_train::data::{
    ByteStrings, Column, Example, ExampleSpec, FixedLen, FixedLenSequence, Sample, SequenceExample,
    Values, VarLen,
};

/// Specifications of few features each, so that one that is refused does not hide the others.
static SPECS: LazyLock<Vec<ExampleSpec>> = LazyLock::new(|| {
    let of = |declare: &dyn Fn(&mut ExampleSpec)| {
        let mut spec = ExampleSpec::new();
        declare(&mut spec);
        spec
    };
    vec![
        of(&|spec| {
            spec.context(VarLen::<i64>::new("label")).unwrap();
            spec.sequence(VarLen::<i64>::new("tokens")).unwrap();
        }),
        of(&|spec| {
            spec.context(VarLen::<f32>::new("weight")).unwrap();
            spec.sequence(VarLen::<f32>::new("feats")).unwrap();
        }),
        of(&|spec| {
            spec.context(VarLen::<ByteStrings>::new("id")).unwrap();
            spec.sequence(VarLen::<ByteStrings>::new("names")).unwrap();
        }),
        of(&|spec| {
            let label = FixedLen::<i64>::new("label", &[]).default_values([7]);
            spec.context(label).unwrap();
            spec.sequence(FixedLenSequence::<i64>::new("tokens", &[]).allow_missing())
                .unwrap();
        }),
        of(&|spec| {
            spec.sequence(FixedLenSequence::<f32>::new("feats", &[3]))
                .unwrap();
        }),
    ]
});

/// Shapes and bits, so that NaN is like itself.
fn bits(sample: &Sample) -> Vec<(Vec<usize>, Option<Vec<usize>>, String)> {
    let text = |column: &Column| match column.all_values() {
        Values::F32(floats) => format!(
            "{:?}",
            floats.iter().map(|f| f.to_bits()).collect::<Vec<_>>()
        ),
        Values::Bytes(strings) => format!("{:?}", strings.iter().collect::<Vec<_>>()),
        other => format!("{other:?}"),
    };
    let all = |column: &Column| {
        let rows = column.row_lengths().map(<[usize]>::to_vec);
        (column.dims().to_vec(), rows, text(column))
    };
    sample.columns().iter().map(all).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let decoded = SequenceExample::from_bytes(bytes);
    let _ = Example::from_bytes(bytes);
    for spec in SPECS.iter() {
        let parsed = spec.parse(bytes);
        let Ok(decoded) = &decoded else {
            continue;
        };
        match (parsed, spec.parse(&decoded.to_bytes())) {
            (Ok(direct), Ok(again)) => assert_eq!(bits(&direct), bits(&again)),
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => panic!("only the message encoded again is refused: {error}"),
            (Err(error), Ok(_)) => panic!("only the message as given is refused: {error}"),
        }
    }
});
