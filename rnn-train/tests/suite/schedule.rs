//! Learning-rate schedules, compared with TensorFlow.

use rnn_train::optim::Schedule;

/// Compares with the values that the formulas of TensorFlow 1.15 (`tf.train.exponential_decay`, ..)
/// give in Python.
fn check(schedule: &Schedule, expected: &[(u64, f64)]) {
    for &(step, rate) in expected {
        let found = schedule.at(step);
        let near = (found - rate).abs() <= 1e-12 * rate.abs().max(1e-3);
        assert!(near, "{schedule:?} at {step}: {found}, not {rate}");
    }
}

#[test]
fn exponential_decays() {
    check(
        &Schedule::Exponential {
            start: 0.1,
            decay_rate: 0.96,
            decay_steps: 10,
            staircase: false,
        },
        &[
            (0, 0.1),
            (1, 0.09959261213978507),
            (5, 0.09797958971132713),
            (10, 0.096),
            (19, 0.09253698444082088),
            (20, 0.09216),
            (33, 0.08739670695325207),
        ],
    );
    check(
        &Schedule::NaturalExp {
            start: 0.1,
            decay_rate: 0.5,
            decay_steps: 10,
            staircase: false,
        },
        &[
            (0, 0.1),
            (1, 0.09512294245007141),
            (5, 0.0778800783071405),
            (10, 0.06065306597126335),
            (19, 0.03867410234545013),
            (20, 0.036787944117144235),
            (33, 0.019204990862075416),
        ],
    );
    check(
        &Schedule::InverseTime {
            start: 0.1,
            decay_rate: 0.5,
            decay_steps: 10,
            staircase: false,
        },
        &[
            (0, 0.1),
            (1, 0.09523809523809523),
            (5, 0.08),
            (10, 0.06666666666666667),
            (19, 0.05128205128205129),
            (20, 0.05),
            (33, 0.03773584905660378),
        ],
    );
    check(
        &Schedule::Exponential {
            start: 0.1,
            decay_rate: 0.96,
            decay_steps: 10,
            staircase: true,
        },
        &[
            (0, 0.1),
            (1, 0.1),
            (5, 0.1),
            (10, 0.096),
            (19, 0.096),
            (20, 0.09216),
            (33, 0.08847359999999999),
        ],
    );
    check(
        &Schedule::NaturalExp {
            start: 0.1,
            decay_rate: 0.5,
            decay_steps: 10,
            staircase: true,
        },
        &[
            (0, 0.1),
            (1, 0.1),
            (5, 0.1),
            (10, 0.06065306597126335),
            (19, 0.06065306597126335),
            (20, 0.036787944117144235),
            (33, 0.022313016014842982),
        ],
    );
    check(
        &Schedule::InverseTime {
            start: 0.1,
            decay_rate: 0.5,
            decay_steps: 10,
            staircase: true,
        },
        &[
            (0, 0.1),
            (1, 0.1),
            (5, 0.1),
            (10, 0.06666666666666667),
            (19, 0.06666666666666667),
            (20, 0.05),
            (33, 0.04),
        ],
    );
}

#[test]
fn polynomial_decays() {
    check(
        &Schedule::Polynomial {
            start: 0.1,
            end: 0.01,
            decay_steps: 10,
            power: 1.0,
            cycle: false,
        },
        &[
            (0, 0.1),
            (1, 0.09100000000000001),
            (5, 0.05500000000000001),
            (10, 0.01),
            (19, 0.01),
            (20, 0.01),
            (33, 0.01),
        ],
    );
    check(
        &Schedule::Polynomial {
            start: 0.1,
            end: 0.01,
            decay_steps: 10,
            power: 0.5,
            cycle: false,
        },
        &[
            (0, 0.1),
            (1, 0.09538149682454625),
            (5, 0.07363961030678928),
            (10, 0.01),
            (19, 0.01),
            (20, 0.01),
            (33, 0.01),
        ],
    );
    check(
        &Schedule::Polynomial {
            start: 0.1,
            end: 0.01,
            decay_steps: 10,
            power: 2.0,
            cycle: false,
        },
        &[
            (0, 0.1),
            (1, 0.0829),
            (5, 0.0325),
            (10, 0.01),
            (19, 0.01),
            (20, 0.01),
            (33, 0.01),
        ],
    );
    check(
        &Schedule::Polynomial {
            start: 0.1,
            end: 0.01,
            decay_steps: 10,
            power: 1.0,
            cycle: true,
        },
        &[
            (0, 0.1),
            (1, 0.09100000000000001),
            (5, 0.05500000000000001),
            (10, 0.01),
            (19, 0.014500000000000006),
            (20, 0.01),
            (33, 0.02575000000000001),
        ],
    );
    check(
        &Schedule::Polynomial {
            start: 0.1,
            end: 0.01,
            decay_steps: 10,
            power: 0.5,
            cycle: true,
        },
        &[
            (0, 0.1),
            (1, 0.09538149682454625),
            (5, 0.07363961030678928),
            (10, 0.01),
            (19, 0.03012461179749812),
            (20, 0.01),
            (33, 0.04764970119403341),
        ],
    );
    check(
        &Schedule::Polynomial {
            start: 0.1,
            end: 0.01,
            decay_steps: 10,
            power: 2.0,
            cycle: true,
        },
        &[
            (0, 0.1),
            (1, 0.0829),
            (5, 0.0325),
            (10, 0.01),
            (19, 0.010225000000000001),
            (20, 0.01),
            (33, 0.012756250000000002),
        ],
    );
}

#[test]
fn cosine_decays() {
    check(
        &Schedule::Cosine {
            start: 0.1,
            decay_steps: 20,
            alpha: 0.0,
        },
        &[
            (0, 0.1),
            (1, 0.0993844170297569),
            (5, 0.08535533905932738),
            (10, 0.05),
            (19, 0.0006155829702431171),
            (20, 0.0),
            (33, 0.0),
        ],
    );
    check(
        &Schedule::Cosine {
            start: 0.1,
            decay_steps: 20,
            alpha: 0.1,
        },
        &[
            (0, 0.1),
            (1, 0.0994459753267812),
            (5, 0.08681980515339464),
            (10, 0.05500000000000001),
            (19, 0.010554024673218807),
            (20, 0.010000000000000002),
            (33, 0.010000000000000002),
        ],
    );
    check(
        &Schedule::CosineRestarts {
            start: 0.1,
            first_decay_steps: 10,
            t_mul: 2.0,
            m_mul: 1.0,
            alpha: 0.0,
        },
        &[
            (0, 0.1),
            (1, 0.09755282581475769),
            (5, 0.05),
            (10, 0.1),
            (19, 0.05782172325201156),
            (29, 0.0006155829702431171),
            (30, 0.1),
            (69, 0.0001541333133436018),
            (70, 0.1),
            (71, 0.09996145181203615),
        ],
    );
    check(
        &Schedule::CosineRestarts {
            start: 0.1,
            first_decay_steps: 10,
            t_mul: 1.0,
            m_mul: 0.5,
            alpha: 0.0,
        },
        &[
            (0, 0.1),
            (1, 0.09755282581475769),
            (5, 0.05),
            (10, 0.05),
            (19, 0.0012235870926211646),
            (29, 0.0006117935463105823),
            (30, 0.0125),
            (69, 3.823709664441096e-05),
            (70, 0.00078125),
            (71, 0.0007621314516777945),
        ],
    );
    check(
        &Schedule::CosineRestarts {
            start: 0.1,
            first_decay_steps: 10,
            t_mul: 2.0,
            m_mul: 0.9,
            alpha: 0.1,
        },
        &[
            (0, 0.1),
            (1, 0.09779754323328192),
            (5, 0.05500000000000001),
            (10, 0.09100000000000001),
            (19, 0.05683559583412937),
            (29, 0.010498622205896925),
            (30, 0.08290000000000002),
            (69, 0.010112363185427487),
            (70, 0.07561000000000001),
            (71, 0.07558470853387694),
        ],
    );
    check(
        &Schedule::CosineRestarts {
            start: 0.1,
            first_decay_steps: 10,
            t_mul: 1.5,
            m_mul: 1.0,
            alpha: 0.0,
        },
        &[
            (0, 0.1),
            (1, 0.09755282581475769),
            (5, 0.05),
            (10, 0.1),
            (19, 0.03454915028125263),
            (29, 0.0924024048078213),
            (30, 0.0883022221559489),
            (69, 0.029133077275909088),
            (70, 0.025000000000000012),
            (71, 0.02108338319160069),
        ],
    );
    check(
        &Schedule::LinearCosine {
            start: 0.1,
            decay_steps: 20,
            num_periods: 0.5,
            alpha: 0.0,
            beta: 0.001,
        },
        &[
            (0, 0.1001),
            (1, 0.09451519617826905),
            (5, 0.06411650429449553),
            (10, 0.0251),
            (19, 0.00013077914851215586),
            (20, 0.0001),
            (33, 0.0001),
        ],
    );
    check(
        &Schedule::LinearCosine {
            start: 0.1,
            decay_steps: 20,
            num_periods: 5.0,
            alpha: 0.1,
            beta: 0.0001,
        },
        &[
            (0, 0.11001000000000001),
            (1, 0.05251),
            (5, 0.04251000000000001),
            (10, 1e-05),
            (19, 0.007509999999999979),
            (20, 0.010010000000000002),
            (33, 0.010010000000000002),
        ],
    );
}

#[test]
fn piecewise_constants() {
    check(
        &Schedule::Piecewise {
            boundaries: vec![5, 19],
            values: vec![0.1, 0.05, 0.01],
        },
        &[
            (0, 0.1),
            (5, 0.1),
            (6, 0.05),
            (19, 0.05),
            (20, 0.01),
            (33, 0.01),
        ],
    );
}

#[test]
fn a_period_that_the_logarithm_rounds_down_begins_in_time() {
    // ln(243) / ln(3) is below 5 in `f64`, and the sixth period begins after 121 steps.
    let restarts = Schedule::CosineRestarts {
        start: 0.1,
        first_decay_steps: 1,
        t_mul: 3.0,
        m_mul: 1.0,
        alpha: 0.0,
    };
    assert_eq!(restarts.at(121), 0.1);
}

#[test]
fn a_warmup_rises_to_the_schedule_after_it() {
    let cosine = Schedule::cosine(0.2, 100);
    let warm = cosine.clone().warmup(50);
    assert_eq!([0, 24, 49].map(|step| warm.at(step)), [0.004, 0.1, 0.2]);
    for step in [0, 1, 60, 1000] {
        assert_eq!(warm.at(50 + step), cosine.at(step));
        assert_eq!(cosine.clone().warmup(0).at(step), cosine.at(step));
    }
    let json = serde_json::to_string(&warm).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), warm);
}
