//! Programs of random graphs.

use ::graphs::random::{Kind, Recipe, recipes};
use backend_api::trace::program::{self, Target};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestCaseResult};

use super::*;

fn check(recipe: &Recipe, dtype: DType, limit: Option<f64>) -> TestCaseResult {
    let graph = recipe.graph(dtype, recipe.batch);
    let device = cpu(1);
    let wanted = stepwise(&device, &graph, &recipe.data(&graph, 0.5), recipe.reverse);
    let data = recipe.data(&graph, f64::NAN);
    let found = fused(&device, &graph, &data, recipe.reverse)
        .map_err(|error| TestCaseError::fail(format!("{error}\n{graph}")))?;
    let result = match limit {
        None => same(&found, &wanted),
        Some(limit) => close(&found, &wanted, limit),
    };
    prop_assert!(
        result.is_ok(),
        "{}\n{}\n{}",
        result.unwrap_err(),
        graph,
        compile(&graph).unwrap()
    );
    // Programs of other devices lie in their buffers, too.
    let fixed = program::compile(&graph, Target::Fixed).map_err(TestCaseError::fail);
    prop_assert!(fixed.is_ok(), "{:?}\n{graph}", fixed.err());
    // A row alone.
    let alone = recipe.graph(dtype, 1);
    for r in 0..recipe.batch {
        let row = |all: &[f64], n: usize| -> Vec<f64> {
            let rows = all.chunks_exact(n.max(1)).skip(r).step_by(recipe.batch);
            rows.flatten().copied().collect()
        };
        let rows = |all: &[Vec<f64>], metas: &[Meta]| -> Vec<Vec<f64>> {
            let all = all.iter().zip(metas);
            all.map(|(x, meta)| row(x, meta.shape.count())).collect()
        };
        let one = Data {
            inputs: rows(&data.inputs, &alone.inputs),
            states: rows(&data.states, &alone.states),
            captured: data.captured.clone(),
            lengths: data.lengths.as_ref().map(|lengths| vec![lengths[r]]),
            steps: data.steps,
        };
        let one = fused(&device, &alone, &one, recipe.reverse).unwrap();
        for (i, (all, one)) in found.iter().zip(&one).enumerate() {
            let times = if i < graph.outputs.len() {
                data.steps
            } else {
                1
            };
            if times == 0 {
                continue;
            }
            let n = one.len() / times;
            let rows = all.chunks_exact(n.max(1)).skip(r).step_by(recipe.batch);
            let all: Vec<f64> = rows.flatten().copied().collect();
            let result = same(&[all], std::slice::from_ref(one));
            prop_assert!(result.is_ok(), "row {r} alone: {:?}\n{graph}", result);
        }
    }
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn programs_without_products_have_the_bits_of_the_operations(recipe in recipes(Kind::Exact)) {
        check(&recipe, DType::F32, None)?;
    }

    #[test]
    fn programs_with_products_agree_with_the_operations(recipe in recipes(Kind::Continuous)) {
        check(&recipe, DType::F64, Some(1e-9))?;
    }
}
