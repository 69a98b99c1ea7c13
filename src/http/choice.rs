//! A field that takes one of a few names. By itself serde_json calls any other type than a string bad JSON, and names neither the field nor
//! the values that it takes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::Error as PlainError;
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer as _, Visitor};

/// Characters of a wrong name that are repeated in the refusal.
const MOST_SHOWN: usize = 40;

/// Reads an enum of names, or null for none.
pub(super) fn choice<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    deserializer.deserialize_any(ChoiceVisitor(PhantomData))
}

struct ChoiceVisitor<T>(PhantomData<T>);

impl<T: DeserializeOwned> Visitor<'_> for ChoiceVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Serde tells the names of an enum only to a name that is none of them.
        let refused = named::<T>("").err().unwrap_or_default();
        formatter.write_str(refused.rsplit_once("expected ").map_or("another name", |(_, names)| names))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Option<T>, E> {
        named(name).map(Some).map_err(|_| {
            let shown: String = name.chars().take(MOST_SHOWN).collect();
            E::custom(format!("must be {}, and is {shown:?}", &self as &dyn de::Expected))
        })
    }
}

/// The value of this name, or serde's words for it.
fn named<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    T::deserialize(name.into_deserializer()).map_err(|error: PlainError| error.to_string())
}
