//! A case: name, group, tolerance class and computation.

use std::fmt;

use backend_api::{Backend, DType, Result, Tensor, Unfused};

use super::compare::{Comparison, Read};
use super::draw::Draw;
use super::tolerance::Class;
use crate::devices::{TestBackend, TestDevice};

/// One property that every backend must have.
pub struct Case {
    /// The group of the case; the report has a line for each group.
    pub group: &'static str,
    /// Its name, unique within the group.
    pub name: String,
    /// The element types in which the case runs.
    pub dtypes: &'static [DType],
    /// The names of the operations that the case tests.
    pub(super) operations: Vec<&'static str>,
    body: Box<dyn Fn(&Setting<'_>) -> Result<Vec<Comparison>> + Send + Sync>,
}

/// The environment of a case.
pub(super) struct Setting<'a> {
    /// The device under test.
    pub(super) device: &'a TestDevice,
    /// The reference backend, which computes the expected results in `f64`.
    pub(super) reference: &'a TestDevice,
    /// The source of the case's numbers.
    pub(super) draw: Draw,
}

impl<'a> Setting<'a> {
    /// The device under test with its numbers.
    pub(super) fn cx(&self) -> CaseContext<'a> {
        CaseContext {
            device: self.device,
            draw: self.draw,
        }
    }
}

/// A device with its numbers.
pub(super) struct CaseContext<'a> {
    /// The device that computes.
    pub(super) device: &'a TestDevice,
    /// The source of numbers, and their element type.
    pub(super) draw: Draw,
}

/// A computation on any backend whose results need no names.
pub(super) trait Program: Send + Sync + 'static {
    /// The names of the operations that the program tests.
    fn operations(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Computes the results.
    fn run<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Vec<Tensor<B>>>;
}

/// Named results that were read from a device.
#[derive(Debug, Default)]
pub(super) struct Results(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    what: String,
    /// The tolerance class, if it differs from the case's.
    class: Option<Class>,
    read: Read,
}

impl Results {
    /// Reads a result, with the tolerance class of the case.
    pub(super) fn push<B: Backend>(
        &mut self,
        what: impl Into<String>,
        t: &Tensor<B>,
    ) -> Result<()> {
        let (what, read) = (what.into(), Read::new(t)?);
        let class = None;
        self.0.push(Entry { what, class, read });
        Ok(())
    }

    /// Adds a result that was already read, with its own tolerance class.
    pub(super) fn push_as(&mut self, class: Class, what: impl Into<String>, read: Read) {
        let (what, class) = (what.into(), Some(class));
        self.0.push(Entry { what, class, read });
    }

    /// Reads all results of a program, with the tolerance class of the case.
    fn of<B: Backend>(results: &[Tensor<B>]) -> Result<Self> {
        let mut all = Self::default();
        for (i, t) in results.iter().enumerate() {
            all.push(format!("result {i}"), t)?;
        }
        Ok(all)
    }

    /// Pairs these results with the expected ones.
    pub(super) fn against(self, expected: Self, class: Class) -> Vec<Comparison> {
        let count = |n: usize| Read::host(&[], DType::I64, vec![n as i64]);
        // A case without results would compare nothing, so it fails.
        let (found, wanted) = (count(self.0.len()), count(expected.0.len().max(1)));
        let mut all = vec![Comparison::exact("the number of results", found, wanted)];
        let pairs = self.0.into_iter().zip(expected.0);
        all.extend(pairs.map(|(found, expected)| Comparison {
            what: found.what,
            class: found.class.unwrap_or(class),
            found: found.read,
            expected: expected.read,
        }));
        all
    }

    /// The results that differ from those of a second run in any bit.
    fn changed(&self, again: Self) -> Vec<Comparison> {
        let pairs = self.0.iter().zip(again.0);
        let changed = pairs.filter(|(first, again)| !first.read.same(&again.read));
        let compare = |(first, again): (&Entry, Entry)| {
            let what = format!("{}, computed again,", first.what);
            Comparison::exact(what, again.read, first.read.clone())
        };
        changed.map(compare).collect()
    }
}

impl Case {
    /// A case that makes its own comparisons.
    pub(super) fn comparing(
        group: &'static str,
        name: impl Into<String>,
        dtypes: &'static [DType],
        body: impl Fn(&Setting<'_>) -> Result<Vec<Comparison>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            group,
            name: name.into(),
            dtypes,
            operations: Vec::new(),
            body: Box::new(body),
        }
    }

    /// Sets the operations that the case tests.
    pub(super) fn about(mut self, operations: Vec<&'static str>) -> Self {
        self.operations = operations;
        self
    }

    /// A case that runs on the device twice, with bit for bit equal results, and on the reference,
    /// within the tolerance.
    pub(super) fn new(
        group: &'static str,
        name: impl Into<String>,
        class: Class,
        dtypes: &'static [DType],
        body: impl Fn(&CaseContext<'_>) -> Result<Results> + Send + Sync + 'static,
    ) -> Self {
        Self::comparing(group, name, dtypes, move |setting| {
            let found = body(&setting.cx())?;
            let mut all = found.changed(body(&setting.cx())?);
            let expected = body(&CaseContext {
                device: setting.reference,
                draw: setting.draw.reference(),
            })?;
            all.extend(found.against(expected, class));
            Ok(all)
        })
    }

    /// A case from a program that runs on the backend directly, without recording gradients.
    pub(super) fn program(
        group: &'static str,
        name: impl Into<String>,
        class: Class,
        dtypes: &'static [DType],
        program: impl Program,
    ) -> Self {
        let operations = program.operations();
        let case = Self::new(group, name, class, dtypes, move |cx| {
            Results::of(&program.run(cx.device.inner(), &cx.draw)?)
        });
        case.about(operations)
    }

    /// A case that compares a device's own fused operations with their default bodies on the same
    /// device.
    pub(super) fn overrides(
        name: impl Into<String>,
        class: Class,
        dtypes: &'static [DType],
        program: impl Program,
    ) -> Self {
        Self::comparing("overrides", name, dtypes, move |setting| {
            let device: &TestBackend = setting.device.inner();
            let own = Results::of(&program.run(device, &setting.draw)?)?;
            let plain = program.run(&Unfused(device.clone()), &setting.draw)?;
            Ok(own.against(Results::of(&plain)?, class))
        })
    }

    /// Group and name.
    pub fn id(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Runs the case. Returns the largest error as a fraction of its tolerance and where it occurs,
    /// or a description of the failure.
    pub(super) fn check(
        &self,
        setting: &Setting<'_>,
        dtype: DType,
    ) -> Result<(f64, String), String> {
        let comparisons = (self.body)(setting).map_err(|error| error.to_string())?;
        if comparisons.is_empty() {
            return Err("compares nothing".into());
        }
        let mut worst = (0.0, String::new());
        for comparison in comparisons {
            let share = comparison.share(dtype)?;
            if share > worst.0 {
                worst = (share, comparison.what);
            }
        }
        Ok(worst)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({})", self.id())
    }
}
