//! A sum whose order depends on nothing but the number of its terms.

use backend_api::Result;

/// The sum of the terms `start..start + len`.
#[derive(Clone, Debug)]
pub(super) struct Node<T> {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) value: T,
}

/// Sums terms pairwise: two neighbours that form an aligned block of a power of two become one.
/// However the terms `0..n` are divided into runs, each summed by a tree of its own, a tree of the
/// nodes of these trees has the same sums: floats give the same bits.
#[derive(Clone, Debug)]
pub(super) struct Tree<T> {
    nodes: Vec<Node<T>>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<T> Tree<T> {
    /// Adds the next term, or a node of another tree.
    pub(super) fn push(
        &mut self,
        node: Node<T>,
        mut add: impl FnMut(T, T) -> Result<T>,
    ) -> Result<()> {
        let mut node = node;
        while let Some(left) = self.nodes.pop() {
            let block = 2 * left.len;
            if left.len != node.len
                || left.start + left.len != node.start
                || !left.start.is_multiple_of(block)
            {
                self.nodes.push(left);
                break;
            }
            node = Node {
                start: left.start,
                len: block,
                value: add(left.value, node.value)?,
            };
        }
        self.nodes.push(node);
        Ok(())
    }

    pub(super) fn nodes(&self) -> &[Node<T>] {
        &self.nodes
    }

    /// The sum of all terms; `None` without any.
    pub(super) fn total(mut self, mut add: impl FnMut(T, T) -> Result<T>) -> Result<Option<T>> {
        let Some(last) = self.nodes.pop() else {
            return Ok(None);
        };
        let mut sum = last.value;
        while let Some(node) = self.nodes.pop() {
            sum = add(node.value, sum)?;
        }
        Ok(Some(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(i: u64) -> Node<String> {
        Node {
            start: i,
            len: 1,
            value: i.to_string(),
        }
    }

    fn add(a: String, b: String) -> Result<String> {
        Ok(format!("({a}+{b})"))
    }

    fn sum(n: u64, cuts: &[u64]) -> String {
        let mut whole = Tree::default();
        let mut start = 0;
        for end in cuts.iter().copied().chain([n]) {
            let mut part = Tree::default();
            for i in start..end {
                part.push(leaf(i), add).unwrap();
            }
            start = end;
            for node in part.nodes {
                whole.push(node, add).unwrap();
            }
        }
        whole.total(add).unwrap().unwrap()
    }

    #[test]
    fn the_order_is_that_of_aligned_pairs() {
        assert_eq!(sum(4, &[]), "((0+1)+(2+3))");
        assert_eq!(sum(7, &[]), "(((0+1)+(2+3))+((4+5)+6))");
    }

    #[test]
    fn the_order_does_not_depend_on_the_division() {
        for n in 1..20 {
            for a in 0..=n {
                for b in a..=n {
                    assert_eq!(sum(n, &[a, b]), sum(n, &[]), "{n} {a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_sum_of_nothing_is_none() {
        assert_eq!(Tree::default().total(add).unwrap(), None);
    }
}
