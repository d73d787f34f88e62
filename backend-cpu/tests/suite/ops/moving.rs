//! Operations that move elements.
use super::{ALL, FLOATS, seeds};
use crate::common::{Plain, call, check, check_into, each_index, random, random_ids, tolerance};
use backend_api::{DType, Op, Tensor, Unfused};
use backend_cpu::Cpu;

#[test]
fn concatenation() {
    seeds(60, |cpu, rng| {
        let rank = 1 + rng.below(4);
        let mut dims = rng.dims(rank);
        let axis = rng.below(dims.len());
        for dtype in ALL {
            let parts: Vec<_> = (0..1 + rng.below(4))
                .map(|_| {
                    dims[axis] = rng.below(4);
                    random(cpu, rng, &dims, dtype)
                })
                .collect();
            let mut total = dims.clone();
            total[axis] = parts.iter().map(|(_, p)| p.dims[axis]).sum();
            let expected = Plain::build(&total, |index| {
                let mut index = index.to_vec();
                for (_, part) in &parts {
                    if index[axis] < part.dims[axis] {
                        return part.at(&index);
                    }
                    index[axis] -= part.dims[axis];
                }
                unreachable!()
            });
            let tensors: Vec<&Tensor<Cpu>> = parts.iter().map(|(t, _)| t).collect();
            check(
                "concat",
                &Tensor::concat(&tensors, axis).unwrap(),
                &expected,
                0.0,
            );
            check_into(cpu, rng, &Op::Concat { axis }, &tensors);
        }
    });
}

#[test]
fn reversal() {
    seeds(80, |cpu, rng| {
        let rank = 2 + rng.below(3);
        let dims = rng.dims(rank);
        let time = rng.below(rank);
        let batch = (time + 1 + rng.below(rank - 1)) % rank;
        let ints = [DType::I32, DType::I64][rng.below(2)];
        for dtype in ALL {
            let (x, plain) = random(cpu, rng, &dims, dtype);
            let (lengths, plain_lengths) =
                random_ids(cpu, rng, &[dims[batch]], dims[time] + 1, ints);
            let expected = Plain::build(&dims, |index| {
                let mut from = index.to_vec();
                let length = plain_lengths.data[index[batch]] as usize;
                if index[time] < length {
                    from[time] = length - 1 - index[time];
                }
                plain.at(&from)
            });
            let found = x.reverse(&lengths, time, batch).unwrap();
            check("reverse", &found, &expected, 0.0);
            check_into(cpu, rng, &Op::Reverse { time, batch }, &[&x, &lengths]);
        }
    });
}

#[test]
fn gathering_and_scattering() {
    seeds(80, |cpu, rng| {
        let (rank_rest, rank_ids) = (rng.below(3), rng.below(3));
        let (rest, lead) = (rng.dims(rank_rest), rng.dims(rank_ids));
        let rows = 1 + rng.below(5);
        let ints = [DType::I32, DType::I64][rng.below(2)];
        let (ids, plain_ids) = random_ids(cpu, rng, &lead, rows, ints);
        for dtype in ALL {
            let (table, plain) = random(cpu, rng, &[&[rows], rest.as_slice()].concat(), dtype);
            let expected = Plain::build(&[lead.as_slice(), &rest].concat(), |index| {
                let id = plain_ids.at(&index[..lead.len()]) as usize;
                plain.at(&[&[id], &index[lead.len()..]].concat())
            });
            check("gather", &table.gather(&ids).unwrap(), &expected, 0.0);
            check_into(cpu, rng, &Op::Gather, &[&table, &ids]);

            let (new, plain_new) = random(cpu, rng, &[lead.as_slice(), &rest].concat(), dtype);
            let mut expected = plain;
            let width = Plain::count(&rest);
            for (flat, &value) in plain_new.data.iter().enumerate() {
                let id = plain_ids.data[flat / width] as usize;
                expected.data[id * width + flat % width] = value;
            }
            let updated = table.scatter_update(&ids, &new).unwrap();
            check("scatter_update", &updated, &expected, 0.0);
        }
        for dtype in FLOATS {
            let dims = [lead.as_slice(), &rest].concat();
            let (values, plain) = random(cpu, rng, &dims, dtype);
            let table_dims = [&[rows], rest.as_slice()].concat();
            let mut expected = Plain::build(&table_dims, |_| 0.0);
            let width = Plain::count(&rest);
            let mut flat = 0;
            each_index(&dims, |index| {
                let id = plain_ids.at(&index[..lead.len()]) as usize;
                expected.data[id * width + flat % width.max(1)] += plain.at(index);
                flat += 1;
            });
            let op = Op::ScatterAdd { rows };
            let found = &call(cpu, &op, &[&ids, &values]).unwrap()[0];
            check("scatter_add", found, &expected, tolerance(dtype));
            check_into(cpu, rng, &op, &[&ids, &values]);
        }
    });
}

#[test]
fn out_of_range_ids_are_rejected() {
    let cpu = Cpu::new();
    let ids = |data: &[i64]| Tensor::from_slice(&cpu, data, &[data.len()]).unwrap();
    let table = Tensor::from_slice(&cpu, &[0.0f32; 8], &[4, 2]).unwrap();
    let message = |op: &Op, ins: &[&Tensor<Cpu>]| call(&cpu, op, ins).unwrap_err().to_string();

    let found = message(&Op::Gather, &[&table, &ids(&[0, 4])]);
    assert!(
        found.contains("gather") && found.contains("ids") && found.contains("0..=3"),
        "{found}"
    );
    assert!(found.contains(" 4 "), "{found}");
    let found = message(&Op::Gather, &[&table, &ids(&[-1])]);
    assert!(found.contains("-1"), "{found}");
    let rows = Tensor::from_slice(&cpu, &[0.0f32; 4], &[2, 2]).unwrap();
    let found = message(&Op::ScatterAdd { rows: 3 }, &[&ids(&[1, 3]), &rows]);
    assert!(
        found.contains("scatter_add") && found.contains("0..=2"),
        "{found}"
    );
    let update = Op::Fused(backend_api::Fused::ScatterUpdate);
    let ins = [&table, &ids(&[1, 4]), &rows];
    let found = message(&update, &ins);
    assert!(
        found.contains("scatter_update") && found.contains("0..=3"),
        "{found}"
    );
    // The default body returns the same error, and shapes are checked before either runs.
    let unfused = Unfused(cpu.clone());
    let ins: Vec<_> = ins.iter().map(|t| t.on_backend(&unfused)).collect();
    let ins: Vec<_> = ins.iter().collect();
    let composed = Tensor::call_all(&unfused, &update, &ins).unwrap_err();
    assert_eq!(composed.to_string(), found);
    let found = message(&update, &[&table, &ids(&[1, 2, 3]), &rows]);
    assert_eq!(
        found,
        "scatter_update: rows is [2, 2], but [3, 2] is needed"
    );
    let reverse = Op::Reverse { time: 1, batch: 0 };
    let found = message(&reverse, &[&rows, &ids(&[2, 3])]);
    assert!(
        found.contains("reverse") && found.contains("lengths"),
        "{found}"
    );
    let loss = Op::Fused(backend_api::Fused::SoftmaxCrossEntropy);
    let found = message(&loss, &[&rows, &ids(&[0, 2])]);
    assert!(
        found.contains("softmax_cross_entropy") && found.contains("labels"),
        "{found}"
    );
    // The device remains usable.
    assert_eq!(
        table.gather(&ids(&[3])).unwrap().to_vec::<f32>().unwrap(),
        [0.0; 2]
    );
}
