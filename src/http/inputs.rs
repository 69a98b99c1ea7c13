//! The shapes that the inputs of a request may have. Of a list that is too long no more is kept than would be taken: a body of
//! the usual limit has ten million elements of nothing but `[],`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::error::{ApiError, Kind};
use crate::embed::Input;

/// Inputs that are read at all.
const MOST_ITEMS: usize = 1 << 16;
/// Token ids of one input that are read at all.
const MOST_IDS: usize = 1 << 20;

/// One or many inputs of a kind: texts, token arrays, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs<T = Input>(Result<Vec<T>, Excess>);

/// How much there was of what is too much to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    Inputs(usize),
    Ids(usize),
}

/// What a route takes as an input.
pub(super) trait Item: Sized {
    /// One or many of them, in the words of a refusal.
    const EXPECTED: &'static str;

    fn of(input: Input) -> Option<Self>;
}

impl Item for Input {
    const EXPECTED: &'static str = "a string, a list of strings, a token array, or a list of token arrays";

    fn of(input: Input) -> Option<Self> {
        Some(input)
    }
}

impl Item for String {
    const EXPECTED: &'static str = "a string or a list of strings";

    fn of(input: Input) -> Option<Self> {
        match input {
            Input::Text(text) => Some(text),
            Input::Ids(_) => None,
        }
    }
}

impl Item for Vec<i64> {
    const EXPECTED: &'static str = "a token array or a list of token arrays";

    fn of(input: Input) -> Option<Self> {
        match input {
            Input::Text(_) => None,
            Input::Ids(ids) => Some(ids),
        }
    }
}

impl<T> Inputs<T> {
    /// The inputs, if there are any and not more than `most`.
    pub(super) fn counted(self, most: usize) -> Result<Vec<T>, ApiError> {
        match self.0 {
            Ok(items) => check_count(items.len(), most).map(|()| items),
            Err(Excess::Inputs(count)) => Err(too_many(count, most.min(MOST_ITEMS))),
            Err(Excess::Ids(count)) => {
                let message = format!("a token array has {count} ids, at most {MOST_IDS} are read");
                Err(ApiError::new(Kind::TooLarge, message))
            }
        }
    }
}

impl Inputs {
    /// The inputs, if there are any, not more than `most`, and none is an empty text.
    pub(super) fn within(self, most: usize) -> Result<Vec<Input>, ApiError> {
        let items = self.counted(most)?;
        match items.iter().position(|input| *input == Input::Text(String::new())) {
            Some(index) => Err(ApiError::new(Kind::Empty, format!("input {index} is an empty string"))),
            None => Ok(items),
        }
    }
}

impl<T> From<Vec<T>> for Inputs<T> {
    fn from(items: Vec<T>) -> Self {
        Self(Ok(items))
    }
}

/// Refuses an empty list and one of more than `most`.
pub(super) fn check_count(count: usize, most: usize) -> Result<(), ApiError> {
    match count {
        0 => Err(ApiError::new(Kind::Empty, "there is nothing to do: the list is empty")),
        count if count > most => Err(too_many(count, most)),
        _ => Ok(()),
    }
}

fn too_many(count: usize, most: usize) -> ApiError {
    let message = format!("the request has {count} inputs, at most {most} are taken: send it in parts");
    ApiError::new(Kind::TooLarge, message)
}

impl<'de, T: Item> Deserialize<'de> for Inputs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor { expected: T::EXPECTED, item: PhantomData })
    }
}

/// Reads texts where one alone must be in a list too.
pub(super) fn list_of_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Inputs<String>, D::Error> {
    deserializer.deserialize_seq(InputsVisitor { expected: "a list of strings", item: PhantomData })
}

struct InputsVisitor<T> {
    expected: &'static str,
    item: PhantomData<T>,
}

impl<T: Item> InputsVisitor<T> {
    fn item<E: de::Error>(&self, input: Input) -> Result<T, E> {
        let found = match input {
            Input::Text(_) => "a string",
            Input::Ids(_) => "token ids",
        };
        T::of(input).ok_or_else(|| E::custom(format!("invalid type: {found}, expected {}", self.expected)))
    }
}

impl<'de, T: Item> Visitor<'de> for InputsVisitor<T> {
    type Value = Inputs<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Inputs<T>, E> {
        Ok(vec![self.item(Input::Text(text.to_owned()))?].into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs<T>, A::Error> {
        let (mut items, mut ids) = (Vec::new(), Vec::new());
        while let Some(element) = list.next_element()? {
            match element {
                Element::Item(_) if items.len() == MOST_ITEMS => {
                    return Ok(Inputs(Err(Excess::Inputs(MOST_ITEMS + 1 + rest(&mut list)?))));
                }
                Element::Id(_) if ids.len() == MOST_IDS => {
                    return Ok(Inputs(Err(Excess::Ids(MOST_IDS + 1 + rest(&mut list)?))));
                }
                Element::TooLong(count) => {
                    rest(&mut list)?;
                    return Ok(Inputs(Err(Excess::Ids(count))));
                }
                Element::Item(item) if ids.is_empty() => items.push(self.item(item)?),
                Element::Id(id) if items.is_empty() => ids.push(id),
                Element::Item(_) | Element::Id(_) => {
                    return Err(de::Error::custom("numbers and inputs are mixed in one list"));
                }
            }
        }
        if !ids.is_empty() {
            items.push(self.item(Input::Ids(ids))?);
        }
        Ok(items.into())
    }
}

/// How many elements of a list are left.
fn rest<'de, A: SeqAccess<'de>>(list: &mut A) -> Result<usize, A::Error> {
    let mut count = 0;
    while list.next_element::<IgnoredAny>()?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// An element of a list, before it is known whether the list is of inputs or one token array.
enum Element {
    Item(Input),
    Id(i64),
    /// A token array of so many ids.
    TooLong(usize),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string, a token id, or a token array")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Item(Input::Text(text.to_owned())))
    }

    fn visit_i64<E: de::Error>(self, id: i64) -> Result<Element, E> {
        Ok(Element::Id(id))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Element, E> {
        // Larger than any vocabulary either way: refused as out of range, not as malformed.
        Ok(Element::Id(i64::try_from(id).unwrap_or(i64::MAX)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element()? {
            if ids.len() == MOST_IDS {
                return Ok(Element::TooLong(MOST_IDS + 1 + rest(&mut list)?));
            }
            ids.push(id);
        }
        Ok(Element::Item(Input::Ids(ids)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: Item>(json: &str) -> Result<Inputs<T>, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn every_shape_of_input_is_read() {
        let text = |text: &str| Input::Text(text.into());
        for (json, expected) in [
            (r#""a""#, vec![text("a")]),
            (r#"["a","b"]"#, vec![text("a"), text("b")]),
            ("[1,2]", vec![Input::Ids(vec![1, 2])]),
            (r#"["a",[1,-2]]"#, vec![text("a"), Input::Ids(vec![1, -2])]),
            ("[]", vec![]),
        ] {
            assert_eq!(parse(json).unwrap(), Inputs::from(expected), "{json}");
        }
        assert_eq!(parse(r#"["a",""]"#).unwrap(), Inputs::from(vec!["a".to_owned(), String::new()]));
        assert_eq!(parse("[1,2]").unwrap(), Inputs::from(vec![vec![1, 2]]));
        assert_eq!(parse("[[1],[]]").unwrap(), Inputs::from(vec![vec![1], vec![]]));
    }

    #[test]
    fn other_shapes_are_refused_in_words() {
        for (json, expected) in [
            ("3", "expected a string, a list of strings"),
            ("[1.5]", "expected a string, a token id"),
            (r#"[1,"a"]"#, "mixed"),
            (r#"["a",1]"#, "mixed"),
            ("[[[1]]]", "invalid type: sequence"),
            (r#"{"a":1}"#, "invalid type: map"),
            (r#""\ud800""#, "hex escape"),
        ] {
            let error = parse::<Input>(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
        for json in ["[1]", r#"["a",[1]]"#, "7"] {
            let error = parse::<String>(json).unwrap_err();
            assert!(error.contains("expected a string or a list of strings"), "{json}: {error}");
        }
        for json in [r#""a""#, r#"[[1],"a"]"#, "7"] {
            let error = parse::<Vec<i64>>(json).unwrap_err();
            assert!(error.contains("expected a token array or a list of"), "{json}: {error}");
        }
    }

    /// Whether the limit of the server or that of the reader is passed, the refusal is the same, and it counts them all.
    #[test]
    fn what_is_too_much_is_counted_and_not_kept() {
        let list = |element: &str, count: usize| format!("[{}]", vec![element; count].join(","));
        let refused = |inputs: Inputs, most: usize| inputs.within(most).unwrap_err();
        for (json, most, expected) in [
            (list(r#""a""#, 11), 10, "has 11 inputs, at most 10 are taken"),
            (list("[]", MOST_ITEMS + 7), 10, "has 65543 inputs, at most 10 are taken"),
            (list("[]", MOST_ITEMS + 7), 1 << 20, "has 65543 inputs, at most 65536 are taken"),
            (list("1", MOST_IDS + 3), 10, "has 1048579 ids, at most 1048576 are read"),
            (format!(r#"["a",{},"b"]"#, list("1", MOST_IDS + 3)), 10, "has 1048579 ids"),
        ] {
            let error = refused(parse(&json).unwrap(), most);
            assert!(error.kind == Kind::TooLarge && error.message.contains(expected), "{}", error.message);
        }
        assert_eq!(parse(&list("1", MOST_IDS)).unwrap(), Inputs::from(vec![vec![1; MOST_IDS]]));
        // What is not kept must be JSON all the same.
        assert!(parse::<Input>(&list("[]", MOST_ITEMS + 7).replace("]]", "]")).is_err());
    }
}
