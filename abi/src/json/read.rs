//! Reads the fields of messages. The generated code calls one function per field.

use super::{
    Message, Value,
    error::{Found, in_element, in_member, unexpected},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{collections::HashMap, fmt, marker::PhantomData};

/// A value or `null`.
struct Nullable<T: Value>(Option<T::Stored>);

impl<'de, T: Value> Deserialize<'de> for Nullable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NullableVisitor(PhantomData))
    }
}

struct NullableVisitor<T>(PhantomData<T>);

impl<'de, T: Value> Visitor<'de> for NullableVisitor<T> {
    type Value = Nullable<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&T::expected())
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Nullable(None))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        scalar::<T, E>(Found::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        scalar::<T, E>(Found::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        scalar::<T, E>(Found::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        scalar::<T, E>(Found::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        scalar::<T, E>(Found::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        T::from_list(list).map(|value| Nullable(Some(value)))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::from_object(object).map(|value| Nullable(Some(value)))
    }
}

fn scalar<T: Value, E: Error>(found: Found<'_>) -> Result<Nullable<T>, E> {
    T::from_scalar(found).map(|value| Nullable(Some(value)))
}

/// Reads a value that must not be `null`: a whole frame, or an element of a list or map.
pub(crate) fn root<'de, D: Deserializer<'de>, T: Value>(deserializer: D) -> Result<T::Stored, D::Error> {
    let value = Nullable::<T>::deserialize(deserializer)?.0;
    value.ok_or_else(|| unexpected(T::expected(), Found::Null))
}

/// A value that must not be `null`.
struct NonNull<T: Value>(T::Stored);

impl<'de, T: Value> Deserialize<'de> for NonNull<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        root::<D, T>(deserializer).map(Self)
    }
}

/// Reads a field whose default is the same as absence.
pub(crate) fn value<'de, A, T>(json: &mut A, slot: &mut T::Stored) -> Result<(), A::Error>
where
    A: MapAccess<'de>,
    T: Value,
{
    if let Nullable::<T>(Some(value)) = json.next_value()? {
        *slot = value;
    }
    Ok(())
}

/// Reads a field that may be absent.
pub(crate) fn optional<'de, A, T>(json: &mut A, slot: &mut Option<T::Stored>) -> Result<(), A::Error>
where
    A: MapAccess<'de>,
    T: Value,
{
    *slot = json.next_value::<Nullable<T>>()?.0;
    Ok(())
}

/// Reads one of several alternatives, the JSON names `siblings`.
pub(crate) fn choice<'de, A, T, O>(
    json: &mut A,
    slot: &mut Option<O>,
    siblings: &str,
    variant: fn(T::Stored) -> O,
) -> Result<(), A::Error>
where
    A: MapAccess<'de>,
    T: Value,
{
    let Nullable::<T>(Some(value)) = json.next_value()? else { return Ok(()) };
    match slot.replace(variant(value)) {
        None => Ok(()),
        Some(_) => Err(A::Error::custom(format_args!("expected only one of {siblings}"))),
    }
}

/// Reads the elements of a list.
pub(super) fn elements<'de, A, T>(mut list: A) -> Result<Vec<T::Stored>, A::Error>
where
    A: SeqAccess<'de>,
    T: Value,
{
    let mut values = Vec::new();
    while let Some(NonNull::<T>(value)) =
        list.next_element().map_err(|error| in_element(values.len(), error))?
    {
        values.push(value);
    }
    Ok(values)
}

/// Reads the entries of a map.
pub(super) fn entries<'de, A, T>(mut object: A) -> Result<HashMap<String, T::Stored>, A::Error>
where
    A: MapAccess<'de>,
    T: Value,
{
    let mut values = HashMap::new();
    while let Some(key) = object.next_key::<String>()? {
        let NonNull::<T>(value) = object.next_value().map_err(|error| in_member(&key, error))?;
        if values.insert(key.clone(), value).is_some() {
            return Err(in_member(&key, twice()));
        }
    }
    Ok(values)
}

/// Ignores a value.
pub(crate) fn skip<'de, A: MapAccess<'de>>(json: &mut A) -> Result<(), A::Error> {
    json.next_value::<IgnoredAny>().map(drop)
}

/// Reads a message.
pub(super) fn message<'de, A: MapAccess<'de>, M: Message>(mut object: A) -> Result<M, A::Error> {
    let (mut message, mut seen) = (M::default(), 0_u64);
    while let Some(field) = object.next_key_seed(FieldIndex::<M>(PhantomData))? {
        let Some(index) = field else {
            skip(&mut object)?;
            continue;
        };
        if seen & 1 << index != 0 {
            return Err(in_member(M::schema().fields[index].json_name, twice()));
        }
        seen |= 1 << index;
        message
            .read(index, &mut object)
            .map_err(|error| in_member(M::schema().fields[index].json_name, error))?;
    }
    Ok(message)
}

fn twice<E: Error>() -> E {
    E::custom("the object has this member twice")
}

/// Finds a field by its JSON name or original name. `None` if it is unknown.
struct FieldIndex<M>(PhantomData<M>);

impl<'de, M: Message> DeserializeSeed<'de> for FieldIndex<M> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<M: Message> Visitor<'_> for FieldIndex<M> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(M::field(name))
    }
}
