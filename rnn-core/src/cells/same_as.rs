//! Cells that compute the same as another cell, under their own names.

/// Implements [`Cell`](crate::Cell) for a struct by forwarding to its field `cell`. The scope is
/// its own.
macro_rules! same_as_inner {
    ($name:ident, $state:ty, $scope:literal) => {
        impl<B: backend_api::Backend> crate::Cell for $name<B> {
            type Input = backend_api::Tensor<B>;
            type State = $state;
            type Output = backend_api::Tensor<B>;

            fn scope(&self) -> String {
                $scope.into()
            }

            fn zero_state(&self, batch: usize) -> backend_api::Result<Self::State> {
                self.cell.zero_state(batch)
            }

            fn zero_output(&self, batch: usize) -> backend_api::Result<Self::Output> {
                self.cell.zero_output(batch)
            }

            fn step(
                &self,
                cx: &crate::StepContext,
                x: &Self::Input,
                state: &Self::State,
            ) -> backend_api::Result<(Self::Output, Self::State)> {
                self.cell.step(cx, x, state)
            }
        }
    };
}

pub(crate) use same_as_inner;
