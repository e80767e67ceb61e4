//! Writes the fields of messages. The generated code calls one function per field.

use super::Value;
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A value in its JSON form.
pub(super) struct Writing<'a, T: Value>(pub(super) &'a T::Stored);

impl<T: Value> Serialize for Writing<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::write(self.0, serializer)
    }
}

/// Writes a field.
pub(crate) fn field<M: SerializeMap, T: Value>(
    json: &mut M,
    name: &str,
    value: &T::Stored,
) -> Result<(), M::Error> {
    json.serialize_entry(name, &Writing::<T>(value))
}

/// Writes a field unless it has its default.
pub(crate) fn value<M: SerializeMap, T: Value>(
    json: &mut M,
    name: &str,
    value: &T::Stored,
) -> Result<(), M::Error> {
    if *value == T::Stored::default() {
        return Ok(());
    }
    field::<M, T>(json, name, value)
}

/// Writes a field that may be absent.
pub(crate) fn optional<M: SerializeMap, T: Value>(
    json: &mut M,
    name: &str,
    value: &Option<T::Stored>,
) -> Result<(), M::Error> {
    value.as_ref().map_or(Ok(()), |value| field::<M, T>(json, name, value))
}
