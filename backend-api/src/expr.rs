//! Definitions of activations as expression trees, which are evaluated on tensors or printed.

use std::ops::{Add, Div, Mul, Sub};
use std::sync::Arc;

use crate::activation::Arithmetic;
use crate::{Backend, Binary, Compare, Result, Tensor};

/// An expression of named arguments. Clones share the tree.
///
/// ```
/// use backend_api::activation::{ActivationFn, functions::Tanh};
/// use backend_api::expr::Expr;
///
/// let gradient = Tanh::gradient(Expr::argument("y"), Expr::argument("dy"));
/// assert_eq!(gradient.to_c(), "return ((T)1 - y * y) * dy;");
/// ```
#[derive(Clone, Debug)]
pub struct Expr(Arc<Node>);

#[derive(Debug)]
enum Node {
    Argument(&'static str),
    Number(f64),
    Binary(Binary, Expr, Expr),
    Call(Function, Expr),
    IfLess([Expr; 4]),
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Abs,
    Exp,
    ExpM1,
    Ln1p,
    Tanh,
    Sigmoid,
}

impl Expr {
    /// An argument.
    pub fn argument(name: &'static str) -> Self {
        Self::of(Node::Argument(name))
    }

    fn of(node: Node) -> Self {
        Self(Arc::new(node))
    }

    fn binary(f: Binary, a: Self, b: Self) -> Self {
        Self::of(Node::Binary(f, a, b))
    }

    fn call(self, f: Function) -> Self {
        Self::of(Node::Call(f, self))
    }

    fn children(&self) -> Vec<&Self> {
        match &*self.0 {
            Node::Argument(_) | Node::Number(_) => Vec::new(),
            Node::Binary(_, a, b) => vec![a, b],
            Node::Call(_, x) => vec![x],
            Node::IfLess(parts) => parts.iter().collect(),
        }
    }

    /// The body of a C++ function template that returns the expression for numbers of type `T`.
    /// A subexpression that occurs several times is computed once.
    pub fn to_c(&self) -> String {
        let mut printer = Printer::default();
        printer.count(self);
        let (text, _) = printer.print(self);
        let mut body = printer.statements;
        body += &format!("return {text};");
        body
    }

    /// The value for tensors of one shape and type.
    ///
    /// # Errors
    /// The device failed.
    pub(crate) fn evaluate<B: Backend>(
        &self,
        arguments: &[(&'static str, &Tensor<B>)],
    ) -> Result<Tensor<B>> {
        let mut evaluation = Evaluation {
            arguments,
            known: Vec::new(),
        };
        let value = evaluation.value(self)?;
        evaluation.tensor(value)
    }
}

impl Arithmetic for Expr {
    fn number(x: f64) -> Self {
        Self::of(Node::Number(x))
    }
    fn abs(self) -> Self {
        self.call(Function::Abs)
    }
    fn exp(self) -> Self {
        self.call(Function::Exp)
    }
    fn exp_m1(self) -> Self {
        self.call(Function::ExpM1)
    }
    fn ln_1p(self) -> Self {
        self.call(Function::Ln1p)
    }
    fn tanh(self) -> Self {
        self.call(Function::Tanh)
    }
    fn sigmoid(self) -> Self {
        self.call(Function::Sigmoid)
    }
    fn if_less(self, limit: Self, yes: Self, no: Self) -> Self {
        Self::of(Node::IfLess([self, limit, yes, no]))
    }
}

macro_rules! operator {
    ($($operator:ident $method:ident),*) => {$(
        impl $operator for Expr {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                Self::binary(Binary::$operator, self, other)
            }
        }
    )*};
}

operator!(Add add, Sub sub, Mul mul, Div div);

/// Prints an expression; subexpressions with several uses become variables.
#[derive(Default)]
struct Printer {
    /// Subexpressions, their number of uses, and the name of the variable once it is declared.
    uses: Vec<(*const Node, usize, Option<String>)>,
    variables: usize,
    statements: String,
}

impl Printer {
    fn count(&mut self, e: &Expr) {
        let node = Arc::as_ptr(&e.0);
        if let Some((_, uses, _)) = self.uses.iter_mut().find(|(known, ..)| *known == node) {
            *uses += 1;
            return;
        }
        self.uses.push((node, 1, None));
        e.children().into_iter().for_each(|child| self.count(child));
    }

    /// The text and the strength of its outermost operator.
    fn print(&mut self, e: &Expr) -> (String, u8) {
        const ATOM: u8 = 3;
        let node = Arc::as_ptr(&e.0);
        let index = self.uses.iter().position(|(known, ..)| *known == node);
        let entry = index.map(|i| self.uses[i].clone());
        if let Some((_, _, Some(variable))) = &entry {
            return (variable.clone(), ATOM);
        }
        let (text, strength) = match &*e.0 {
            Node::Argument(name) => return ((*name).to_owned(), ATOM),
            Node::Number(x) => return (format!("(T){x}"), ATOM),
            Node::Binary(f, a, b) => {
                let (sign, strength) = match f {
                    Binary::Add => ('+', 1),
                    Binary::Sub => ('-', 1),
                    Binary::Mul => ('*', 2),
                    Binary::Div => ('/', 2),
                    other => unreachable!("`Arithmetic` has no {other:?}"),
                };
                let a = self.operand(a, strength);
                let b = self.operand(b, strength + 1);
                (format!("{a} {sign} {b}"), strength)
            }
            Node::Call(f, x) => {
                let name = match f {
                    Function::Abs => "abs_",
                    Function::Exp => "exp_",
                    Function::ExpM1 => "expm1_",
                    Function::Ln1p => "log1p_",
                    Function::Tanh => "tanh_",
                    Function::Sigmoid => "sigmoid_",
                };
                let (x, _) = self.print(x);
                (format!("{name}({x})"), ATOM)
            }
            Node::IfLess([a, limit, yes, no]) => {
                let [a, limit] = [a, limit].map(|x| self.operand(x, 1));
                let [yes, no] = [yes, no].map(|x| self.operand(x, 1));
                (format!("{a} < {limit} ? {yes} : {no}"), 0)
            }
        };
        match (index, entry) {
            (Some(i), Some((_, uses, _))) if uses > 1 => {
                self.variables += 1;
                let name = format!("t{}", self.variables);
                self.statements += &format!("T {name} = {text};\n");
                self.uses[i].2 = Some(name.clone());
                (name, ATOM)
            }
            _ => (text, strength),
        }
    }

    /// An operand of an operator, in parentheses if its own operator is weaker than `strength`.
    fn operand(&mut self, e: &Expr, strength: u8) -> String {
        match self.print(e) {
            (text, own) if own < strength => format!("({text})"),
            (text, _) => text,
        }
    }
}

/// A constant is not a tensor until an operation needs it to be one.
#[derive(Clone)]
enum Value<B: Backend> {
    Number(f64),
    Tensor(Tensor<B>),
}

struct Evaluation<'a, B: Backend> {
    arguments: &'a [(&'static str, &'a Tensor<B>)],
    /// The values of subexpressions.
    known: Vec<(*const Node, Value<B>)>,
}

impl<B: Backend> Evaluation<'_, B> {
    fn value(&mut self, e: &Expr) -> Result<Value<B>> {
        let node = Arc::as_ptr(&e.0);
        if let Some((_, value)) = self.known.iter().find(|(known, _)| *known == node) {
            return Ok(value.clone());
        }
        let value = match &*e.0 {
            Node::Number(x) => Value::Number(*x),
            Node::Argument(name) => {
                let found = self.arguments.iter().find(|(known, _)| known == name);
                let (_, tensor) = found.expect("definitions use the arguments that they declare");
                Value::Tensor((*tensor).clone())
            }
            Node::Binary(Binary::Mul, a, b) if Arc::ptr_eq(&a.0, &b.0) => {
                let x = self.value(a)?;
                Value::Tensor(self.tensor(x)?.square()?)
            }
            Node::Binary(f, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                Value::Tensor(self.binary(*f, a, b)?)
            }
            Node::Call(f, x) => {
                let x = self.value(x)?;
                let x = self.tensor(x)?;
                Value::Tensor(match f {
                    Function::Abs => x.abs()?,
                    Function::Exp => x.exp()?,
                    Function::Tanh => x.tanh()?,
                    Function::Sigmoid => x.sigmoid()?,
                    Function::ExpM1 | Function::Ln1p => {
                        unreachable!("gradients are defined without {f:?}, which is no operation")
                    }
                })
            }
            Node::IfLess([a, limit, yes, no]) => {
                let (a, limit) = (self.value(a)?, self.value(limit)?);
                let (relation, a, limit) = match (a, limit) {
                    // A tensor is compared with a number, in either order.
                    (a @ Value::Number(_), limit) => (Compare::Gt, limit, a),
                    (a, limit) => (Compare::Lt, a, limit),
                };
                let (a, limit) = (self.tensor(a)?, self.tensor(limit)?);
                let (yes, no) = (self.value(yes)?, self.value(no)?);
                let (yes, no) = (self.tensor(yes)?, self.tensor(no)?);
                Value::Tensor(a.compare(relation, &limit)?.select_from(&yes, &no)?)
            }
        };
        self.known.push((node, value.clone()));
        Ok(value)
    }

    fn binary(&self, f: Binary, a: Value<B>, b: Value<B>) -> Result<Tensor<B>> {
        use Value::{Number, Tensor};
        match (f, a, b) {
            (Binary::Add, Tensor(t), Number(x)) | (Binary::Add, Number(x), Tensor(t)) => {
                t.affine(1.0, x)
            }
            (Binary::Sub, Number(x), Tensor(t)) => t.affine(-1.0, x),
            (Binary::Sub, Tensor(t), Number(x)) => t.affine(1.0, -x),
            (Binary::Mul, Tensor(t), Number(x)) | (Binary::Mul, Number(x), Tensor(t)) => {
                t.affine(x, 0.0)
            }
            (f, a, b) => self.tensor(a)?.binary(f, &self.tensor(b)?),
        }
    }

    fn tensor(&self, value: Value<B>) -> Result<Tensor<B>> {
        match value {
            Value::Tensor(tensor) => Ok(tensor),
            Value::Number(x) => {
                let (_, like) = self.arguments[0];
                Tensor::scalar(like.device(), x, like.dtype())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_expressions_keep_their_structure() {
        let [a, b, c] = ["a", "b", "c"].map(Expr::argument);
        let [a, b, c] = [&a, &b, &c].map(|x| move || x.clone());
        let two = || Expr::number(2.5);
        for (e, text) in [
            (a() - (b() - c()), "return a - (b - c);"),
            (a() - b() - c(), "return a - b - c;"),
            ((a() + b()) * c(), "return (a + b) * c;"),
            (a() / (b() * c()), "return a / (b * c);"),
            (
                two().if_less(a(), b(), c()) * a(),
                "return ((T)2.5 < a ? b : c) * a;",
            ),
            (a().exp_m1().ln_1p(), "return log1p_(expm1_(a));"),
        ] {
            assert_eq!(e.to_c(), text);
        }
        let t = a().tanh();
        let shared = (t.clone() * two()) / (t + b());
        assert_eq!(
            shared.to_c(),
            "T t1 = tanh_(a);\nreturn t1 * (T)2.5 / (t1 + b);"
        );
    }
}
