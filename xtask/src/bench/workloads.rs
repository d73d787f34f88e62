//! The table of workloads.

/// The kind of a recurrent layer. The GRU resets after the product, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Basic,
    Lstm,
    Gru,
    LayerNorm,
    Ugrnn,
    Nas,
    Sru,
    /// A user's own cell, which defines nothing but its step.
    Custom,
}

impl Kind {
    /// The kinds that other frameworks' own layers compute.
    pub(super) const STANDARD: [Self; 3] = [Self::Lstm, Self::Gru, Self::Basic];

    pub(super) const ALL: [Self; 8] = [
        Self::Lstm,
        Self::Gru,
        Self::Basic,
        Self::LayerNorm,
        Self::Ugrnn,
        Self::Nas,
        Self::Sru,
        Self::Custom,
    ];

    /// The name that the programs in `bench/` use.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Basic => "rnn_tanh",
            Self::Lstm => "lstm",
            Self::Gru => "gru",
            Self::LayerNorm => "layer_norm",
            Self::Ugrnn => "ugrnn",
            Self::Nas => "nas",
            Self::Sru => "sru",
            Self::Custom => "custom",
        }
    }

    pub(super) fn gates(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Ugrnn | Self::Custom => 2,
            Self::Gru => 3,
            Self::Lstm | Self::LayerNorm | Self::Sru => 4,
            Self::Nas => 8,
        }
    }

    /// Number of elements of the kernels. The gates of the SRU do not depend on the state.
    fn kernel(self, inputs: usize, units: usize) -> usize {
        let state = if self == Self::Sru { 0 } else { units };
        (inputs + state) * self.gates() * units
    }
}

/// The computation that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The sequence forward, without recording.
    Forward,
    /// Forward, mean of all outputs (or cross-entropy), backward, Adam.
    Train,
    /// One step per call; the state is carried.
    Stream,
    /// Growth of the resident memory in one training step.
    Memory,
}

impl Mode {
    pub(super) const ALL: [Self; 4] = [Self::Forward, Self::Train, Self::Stream, Self::Memory];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forward => "fwd",
            Self::Train => "train",
            Self::Stream => "stream",
            Self::Memory => "memory",
        }
    }
}

/// A network in `f32` and its inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) layers: usize,
    pub(super) batch: usize,
    pub(super) steps: usize,
    pub(super) inputs: usize,
    pub(super) units: usize,
    pub(super) modes: &'static [Mode],
    /// Whether training also differentiates with respect to the inputs.
    pub(super) input_grad: bool,
    /// Number of classes of an output layer on the last state, trained by cross-entropy.
    pub(super) classes: Option<usize>,
    /// The lengths of the shortest and the longest row.
    pub(super) ragged: Option<(u64, u64)>,
}

pub(super) const FORWARD_AND_TRAIN: &[Mode] = &[Mode::Forward, Mode::Train];

/// The workload that the others are derived from.
pub(super) const LSTM: Workload = Workload {
    name: "",
    kind: Kind::Lstm,
    layers: 1,
    batch: 64,
    steps: 100,
    inputs: 512,
    units: 512,
    modes: FORWARD_AND_TRAIN,
    input_grad: true,
    classes: None,
    ragged: None,
};

/// The workloads of `--group standard`.
pub(super) const WORKLOADS: [Workload; 9] = [
    Workload {
        name: "W1_mnist",
        kind: Kind::Basic,
        batch: 150,
        steps: 28,
        inputs: 28,
        units: 150,
        modes: &[Mode::Train],
        input_grad: false,
        classes: Some(10),
        ..LSTM
    },
    Workload {
        name: "W2_ptb",
        layers: 2,
        batch: 20,
        steps: 35,
        inputs: 650,
        units: 650,
        ..LSTM
    },
    Workload {
        name: "W3_lstm512",
        ..LSTM
    },
    Workload {
        name: "W4_gru512",
        kind: Kind::Gru,
        ..LSTM
    },
    Workload {
        name: "W5_stream256",
        batch: 1,
        steps: 1,
        inputs: 256,
        units: 256,
        modes: &[Mode::Stream],
        input_grad: false,
        ..LSTM
    },
    stream("W5_stream512", 1),
    Workload {
        name: "W6_longseq",
        batch: 1,
        steps: 1000,
        inputs: 256,
        units: 256,
        modes: &[Mode::Forward],
        input_grad: false,
        ..LSTM
    },
    Workload {
        name: "W7_ragged",
        steps: 200,
        inputs: 256,
        units: 256,
        ragged: Some((10, 200)),
        ..LSTM
    },
    Workload {
        name: "W8_memory",
        batch: 32,
        steps: 2000,
        inputs: 256,
        units: 256,
        modes: &[Mode::Memory],
        ..LSTM
    },
];

/// The workloads of each cell, with increasing sizes.
macro_rules! cell_sizes {
    ($($prefix:literal $kind:ident;)*) => {
        [$(
            cell(concat!($prefix, "_B1"), Kind::$kind, 1, 200, 64),
            cell(concat!($prefix, "_B16"), Kind::$kind, 16, 100, 64),
            cell(concat!($prefix, "_B64"), Kind::$kind, 64, 100, 256),
            cell(concat!($prefix, "_B256"), Kind::$kind, 256, 50, 512),
        )*]
    };
}

/// As many inputs as units.
const fn cell(
    name: &'static str,
    kind: Kind,
    batch: usize,
    steps: usize,
    units: usize,
) -> Workload {
    Workload {
        name,
        kind,
        batch,
        steps,
        inputs: units,
        units,
        ..LSTM
    }
}

/// The workloads of `--group cells`.
pub(super) const CELLS: [Workload; 20] = cell_sizes! {
    "C1_layer_norm" LayerNorm;
    "C2_ugrnn" Ugrnn;
    "C3_nas" Nas;
    "C4_sru" Sru;
    "C5_custom" Custom;
};

/// The workloads of `--group streams`: W5 with more rows.
pub(super) const STREAMS: [Workload; 4] = [
    stream("S_rows2", 2),
    stream("S_rows3", 3),
    stream("S_rows4", 4),
    stream("S_rows8", 8),
];

const fn stream(name: &'static str, batch: usize) -> Workload {
    Workload {
        name,
        batch,
        steps: 1,
        modes: &[Mode::Stream],
        input_grad: false,
        ..LSTM
    }
}

/// The groups of workloads, by name.
pub(super) const GROUPS: [(&str, &[Workload]); 3] = [
    ("standard", &WORKLOADS),
    ("cells", &CELLS),
    ("streams", &STREAMS),
];

impl Workload {
    /// The same network over five steps, to check its numbers. Ragged rows stay ragged.
    pub(super) fn short(&self) -> Self {
        let steps = if self.modes == [Mode::Stream] {
            5
        } else {
            self.steps.min(5)
        };
        Self {
            steps,
            ragged: self.ragged.map(|_| (1, steps as u64)),
            ..*self
        }
    }

    /// The row lengths, spread evenly by a multiplicative hash. The first row is the longest.
    pub(super) fn lengths(&self) -> Option<Vec<u64>> {
        let (low, high) = self.ragged?;
        let spread = |i: u64| low + (((i * 2_654_435_761 % (1 << 32)) * (high - low + 1)) >> 32);
        let rows = 0..self.batch as u64;
        Some(
            rows.map(|i| if i == 0 { high } else { spread(i) })
                .collect(),
        )
    }

    /// Size of the kernels in bytes.
    pub(super) fn weight_bytes(&self) -> usize {
        let inputs = |layer| if layer == 0 { self.inputs } else { self.units };
        let numbers = |layer| self.kind.kernel(inputs(layer), self.units);
        (0..self.layers).map(numbers).sum::<usize>() * size_of::<f32>()
    }

    /// Additions and multiplications of the matmuls. For a ragged batch only steps within the
    /// lengths count.
    pub(super) fn flops(&self, mode: Mode) -> f64 {
        let padded = (self.batch * self.steps) as f64;
        let steps = self
            .lengths()
            .map_or(padded, |lengths| lengths.iter().sum::<u64>() as f64);
        let forward: f64 = (0..self.layers)
            .map(|layer| if layer == 0 { self.inputs } else { self.units })
            .map(|inputs| 2.0 * steps * self.kind.kernel(inputs, self.units) as f64)
            .sum();
        match mode {
            Mode::Forward | Mode::Stream => forward,
            Mode::Train | Mode::Memory => 3.0 * forward,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_their_range_and_include_the_longest() {
        let ragged = WORKLOADS.iter().find(|w| w.ragged.is_some()).unwrap();
        let lengths = ragged.lengths().unwrap();
        assert_eq!((lengths.len(), lengths[0]), (64, 200));
        assert!(lengths.iter().all(|&n| (10..=200).contains(&n)));
        let short = ragged.short().lengths().unwrap();
        assert!((1..=5).all(|n| short.contains(&n)) && short.len() == 64);
    }

    #[test]
    fn flops_count_the_matmuls() {
        let w3 = WORKLOADS[2];
        let one_step = 2.0 * 64.0 * 1024.0 * 2048.0;
        assert_eq!(w3.flops(Mode::Forward), 100.0 * one_step);
        assert_eq!(w3.flops(Mode::Train), 300.0 * one_step);
        assert_eq!(w3.weight_bytes(), 1024 * 2048 * 4);
        let of = |name| CELLS.iter().find(|w| w.name == name).unwrap();
        let sru = of("C4_sru_B256").flops(Mode::Forward);
        assert_eq!(sru, 50.0 * 2.0 * 256.0 * 512.0 * 2048.0);
        assert_eq!(of("C1_layer_norm_B256").flops(Mode::Forward), 2.0 * sru);
    }
}
