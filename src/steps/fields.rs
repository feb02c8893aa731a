//! Fields of messages, checked on their way in. What is wrong with one is said with its name.

use super::values::{Parameter, Port};
use crate::rpc::v1;

/// A field of a request that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldViolation {
    pub field: String,
    pub problem: String,
}

/// The fields of one kind's message. The name of the kind is that of the contract's oneof.
#[derive(Debug, Clone, Copy)]
pub struct Fields(pub(super) &'static str);

impl Fields {
    pub(super) fn wrong(self, field: &str, problem: impl ToString) -> FieldViolation {
        FieldViolation { field: format!("step.{}.{field}", self.0), problem: problem.to_string() }
    }

    pub(super) fn one<T: TryFrom<String, Error: ToString>>(
        self,
        field: &str,
        text: String,
    ) -> Result<T, FieldViolation> {
        T::try_from(text).map_err(|error| self.wrong(field, error.to_string()))
    }

    /// At least one.
    pub(super) fn some<T: TryFrom<String, Error: ToString>>(
        self,
        field: &str,
        list: Vec<String>,
    ) -> Result<Vec<T>, FieldViolation> {
        if list.is_empty() {
            return Err(self.wrong(field, "is empty"));
        }
        list.into_iter().map(|text| self.one(field, text)).collect()
    }

    pub(super) fn given<T>(self, field: &str, value: Option<T>) -> Result<T, FieldViolation> {
        value.ok_or_else(|| self.wrong(field, "is missing"))
    }

    pub(super) fn port(self, field: &str, number: u32) -> Result<Port, FieldViolation> {
        Port::try_from(i64::from(number)).map_err(|error| self.wrong(field, error))
    }

    pub(super) fn parameters(self, field: &str, list: Vec<v1::Parameter>) -> Result<Vec<Parameter>, FieldViolation> {
        let parse = |item: v1::Parameter| {
            Ok(Parameter { name: self.one(field, item.name)?, value: self.one(field, item.value)? })
        };
        list.into_iter().map(parse).collect()
    }
}

pub(super) fn strings<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

impl From<&Parameter> for v1::Parameter {
    fn from(parameter: &Parameter) -> Self {
        Self { name: parameter.name.to_string(), value: parameter.value.to_string() }
    }
}
