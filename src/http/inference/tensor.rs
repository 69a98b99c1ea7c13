//! Tensors as they come in: values in JSON, nested or flat, or as bytes behind it. What a shape or a size says is held
//! against what is there before anything is made of it.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, SeqAccess, Unexpected, Visitor};

use super::invalid;
use crate::http::error::{ApiError, Kind};
use crate::http::extract::Object;

/// Texts of a tensor that are read at all.
const MOST_TEXTS: usize = 1 << 16;
/// Token ids of a tensor that are read at all: in binary as many as a body of the usual limit holds.
const MOST_NUMBERS: usize = 1 << 22;
/// Tensors of a request, and extents of a shape.
const MOST_FEW: usize = 16;

/// A list of few items. One of millions, in a body of the usual limit, is refused before it is kept.
#[derive(Debug, Default)]
pub(in crate::http) struct Few<T>(pub(super) Vec<T>);

/// A tensor of a request.
#[derive(Debug, serde::Deserialize)]
pub(in crate::http) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Few<u64>,
    datatype: String,
    #[serde(default)]
    parameters: Option<Object<TensorParameters>>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Debug, serde::Deserialize)]
pub(in crate::http) struct TensorParameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
}

/// The elements of a tensor, row-major.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Values {
    Texts(Vec<String>),
    Numbers(Vec<i64>),
}

/// Elements as they stand in JSON.
#[derive(Debug, PartialEq, Eq)]
struct Data {
    values: Values,
    /// Elements that are not among them, because there are too many.
    left_out: usize,
    /// Length of the lists at each depth; one alone for a flat list.
    lengths: Vec<usize>,
}

impl Tensor {
    /// Its elements: of the JSON, or taken off the front of `binary`.
    ///
    /// # Errors
    /// If there are not as many as the shape says, or they are not what the datatype says.
    pub(super) fn values(&mut self, binary: &mut &[u8]) -> Result<Values, ApiError> {
        let (name, shape) = (&self.name, &self.shape.0);
        let size = self.parameters.as_ref().and_then(|Object(parameters)| parameters.binary_data_size);
        let count = shape
            .iter()
            .try_fold(1_usize, |count, &extent| count.checked_mul(usize::try_from(extent).ok()?))
            .ok_or_else(|| invalid(format!("the shape {shape:?} of `{name}` is larger than any tensor")))?;
        match (self.data.take(), size) {
            (Some(data), None) => self.of_json(data, count),
            (None, Some(size)) => {
                let there = binary.len();
                let size = usize::try_from(size).ok().filter(|size| *size <= there).ok_or_else(|| {
                    invalid(format!(
                        "`{name}` has a binary_data_size of {size}, and {there} bytes are left of the body"
                    ))
                })?;
                let (own, rest) = binary.split_at(size);
                *binary = rest;
                self.of_bytes(own, count)
            }
            (Some(_), Some(_)) => {
                Err(invalid(format!("`{name}` has both data and a binary_data_size: send one")))
            }
            (None, None) => Err(invalid(format!("`{name}` has neither data nor a binary_data_size"))),
        }
    }

    fn of_json(&self, Data { values, left_out, lengths }: Data, count: usize) -> Result<Values, ApiError> {
        let Self { name, shape: Few(shape), datatype, .. } = self;
        let (given, most, fits) = match &values {
            Values::Texts(texts) => (texts.len(), MOST_TEXTS, datatype == "BYTES"),
            Values::Numbers(numbers) => {
                (numbers.len(), MOST_NUMBERS, datatype == "INT64" || numbers.is_empty())
            }
        };
        check_most(name, given + left_out, most)?;
        if !fits {
            return Err(invalid(format!(
                "the data of `{name}` are not {datatype}: strings are BYTES, whole numbers INT64"
            )));
        }
        let is_flat = lengths.len() == 1 && given == count;
        // The same elements in rows of another length would be other texts' tokens.
        let as_shaped = lengths.len() == shape.len()
            && lengths.iter().zip(shape).all(|(length, extent)| *length as u64 == *extent);
        if is_flat || as_shaped {
            return Ok(values);
        }
        Err(invalid(format!("`{name}` has the shape {shape:?} and data of the shape {lengths:?}")))
    }

    fn of_bytes(&self, bytes: &[u8], count: usize) -> Result<Values, ApiError> {
        let Self { name, shape: Few(shape), datatype, .. } = self;
        let size = bytes.len();
        match datatype.as_str() {
            "BYTES" => {
                check_most(name, count, MOST_TEXTS)?;
                texts(bytes, count).map(Values::Texts).map_err(|wrong| invalid(format!("`{name}`: {wrong}")))
            }
            "INT64" => {
                check_most(name, count, MOST_NUMBERS)?;
                match bytes.as_chunks::<8>() {
                    (chunks, []) if chunks.len() == count => {
                        Ok(Values::Numbers(chunks.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect()))
                    }
                    _ => Err(invalid(format!(
                        "`{name}` has the shape {shape:?}, which is {} bytes of INT64, and {size} bytes",
                        count * 8
                    ))),
                }
            }
            other => {
                Err(invalid(format!("`{name}` is of the datatype `{other}`: taken are BYTES and INT64")))
            }
        }
    }
}

fn check_most(name: &str, count: usize, most: usize) -> Result<(), ApiError> {
    if count > most {
        let message = format!("`{name}` has {count} elements, at most {most} are read: send it in parts");
        return Err(ApiError::new(Kind::TooLarge, message));
    }
    Ok(())
}

/// `count` texts, each with its length in bytes before it, as 32 bits, little-endian.
fn texts(mut bytes: &[u8], count: usize) -> Result<Vec<String>, String> {
    let mut texts = Vec::new();
    for index in 0..count {
        let cut =
            || format!("element {index} of {count} is cut off: each has its length before it, in four bytes");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (text, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        let text = str::from_utf8(text).map_err(|error| format!("element {index} is not UTF-8: {error}"))?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    match bytes.len() {
        0 => Ok(texts),
        left => Err(format!("{left} bytes are left after {count} elements")),
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FewVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
            type Value = Few<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a list of at most {MOST_FEW}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == MOST_FEW {
                        return Err(de::Error::invalid_length(items.len() + 1, &self));
                    }
                    items.push(item);
                }
                Ok(Few(items))
            }
        }
        deserializer.deserialize_seq(FewVisitor(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut reader = Reader::default();
        let part = Part { reader: &mut reader, depth: 0 };
        part.deserialize(deserializer)?;
        let Reader { texts, numbers, left_out, lengths } = reader;
        let values = if texts.is_empty() { Values::Numbers(numbers) } else { Values::Texts(texts) };
        let lengths = lengths.into_iter().map(|length| length.unwrap_or(0)).collect();
        Ok(Self { values, left_out, lengths })
    }
}

/// Puts the elements of nested lists in a row.
#[derive(Default)]
struct Reader {
    texts: Vec<String>,
    numbers: Vec<i64>,
    left_out: usize,
    /// By depth; none while the first list of a depth is being read.
    lengths: Vec<Option<usize>>,
}

/// A list at some depth, or an element.
struct Part<'a> {
    reader: &'a mut Reader,
    depth: usize,
}

impl Part<'_> {
    /// Refuses an element without a list, one beside lists, and one of another kind than those before.
    fn check<E: de::Error>(&self, element: Unexpected<'_>, of_both: bool) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::invalid_type(element, self));
        }
        if self.depth != self.reader.lengths.len() {
            return Err(E::custom("lists and elements are mixed"));
        }
        if of_both {
            return Err(E::custom("strings and numbers are mixed"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.depth {
            0 => "a list of strings or whole numbers, flat or nested",
            _ => "a string, a whole number, or a list of them",
        })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.check(Unexpected::Str(text), !self.reader.numbers.is_empty())?;
        if self.reader.texts.len() < MOST_TEXTS {
            self.reader.texts.push(text.to_owned());
        } else {
            self.reader.left_out += 1;
        }
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.check(Unexpected::Signed(number), !self.reader.texts.is_empty())?;
        if self.reader.numbers.len() < MOST_NUMBERS {
            self.reader.numbers.push(number);
        } else {
            self.reader.left_out += 1;
        }
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        let number = i64::try_from(number).map_err(|_| E::custom(format!("{number} is no INT64")))?;
        self.visit_i64(number)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { reader, depth } = self;
        let is_first = depth == reader.lengths.len();
        if is_first {
            let elements = reader.texts.len() + reader.numbers.len();
            if elements > 0 || depth == MOST_FEW {
                return Err(de::Error::custom("lists and elements are mixed, or nested too deep"));
            }
            reader.lengths.push(None);
        }
        let mut length = 0;
        while list.next_element_seed(Part { reader: &mut *reader, depth: depth + 1 })?.is_some() {
            length += 1;
        }
        match reader.lengths[depth] {
            Some(before) if before != length => {
                Err(de::Error::custom(format!("lists of {before} and of {length} stand side by side")))
            }
            _ => {
                reader.lengths[depth] = Some(length);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, mut binary: &[u8]) -> Result<Values, String> {
        let mut tensor: Tensor = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let values = tensor.values(&mut binary).map_err(|error| error.message)?;
        assert!(binary.is_empty());
        Ok(values)
    }

    fn tensor(shape: &str, datatype: &str, data: &str) -> String {
        format!(r#"{{"data":{data},"name":"x","shape":{shape},"datatype":"{datatype}"}}"#)
    }

    fn binary(shape: &str, datatype: &str, size: u64) -> String {
        let parameters = format!(r#"{{"binary_data_size":{size},"other":[1]}}"#);
        format!(r#"{{"name":"x","shape":{shape},"datatype":"{datatype}","parameters":{parameters}}}"#)
    }

    #[test]
    fn data_are_nested_or_flat() {
        let numbers = || Values::Numbers(vec![1, 2, 3, 4, 5, 6]);
        for data in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]"] {
            assert_eq!(read(&tensor("[2,3]", "INT64", data), b"").unwrap(), numbers(), "{data}");
        }
        let texts = Values::Texts(vec!["a".into(), "b".into()]);
        assert_eq!(read(&tensor("[2]", "BYTES", r#"["a","b"]"#), b"").unwrap(), texts);
        assert_eq!(read(&tensor("[2,1]", "BYTES", r#"[["a"],["b"]]"#), b"").unwrap(), texts);
        assert_eq!(read(&tensor("[0]", "BYTES", "[]"), b"").unwrap(), Values::Numbers(vec![]));
        let bytes = b"\x01\0\0\0a\x01\0\0\0b";
        assert_eq!(read(&binary("[2]", "BYTES", 10), bytes).unwrap(), texts);
        let bytes: Vec<u8> = (1..=6_i64).flat_map(i64::to_le_bytes).collect();
        assert_eq!(read(&binary("[2,3]", "INT64", 48), &bytes).unwrap(), numbers());
    }

    #[test]
    fn shapes_and_sizes_that_lie_are_refused() {
        let huge = u64::MAX;
        for (json, bytes, expected) in [
            (tensor("[2,3]", "INT64", "[[1,2],[3,4],[5,6]]"), &b""[..], "data of the shape [3, 2]"),
            (tensor("[2,3]", "INT64", "[1,2,3,4,5]"), b"", "data of the shape [5]"),
            (tensor("[3]", "INT64", "[[1],[2],[3]]"), b"", "data of the shape [3, 1]"),
            (tensor("[2]", "INT64", "[[1,2],[3]]"), b"", "lists of 2 and of 1"),
            (tensor("[2]", "INT64", "[[1],2]"), b"", "mixed"),
            (tensor("[2]", "INT64", "[1,[2]]"), b"", "mixed"),
            (tensor("[2]", "INT64", r#"[1,"a"]"#), b"", "strings and numbers"),
            (tensor("[2]", "INT64", "[[],1]"), b"", "mixed"),
            (tensor("[1]", "INT64", "1"), b"", "expected a list"),
            (tensor("[1]", "INT64", "[1.5]"), b"", "expected a string, a whole number"),
            (tensor("[1]", "INT64", &format!("[{huge}]")), b"", "no INT64"),
            (tensor("[1]", "INT64", r#"["1"]"#), b"", "are not INT64"),
            (tensor("[1]", "BYTES", "[1]"), b"", "are not BYTES"),
            (tensor("[1]", "FP32", "[1]"), b"", "are not FP32"),
            (tensor("[-1]", "INT64", "[]"), b"", "expected u64"),
            (tensor(&format!("[{huge},2]"), "INT64", "[]"), b"", "larger than any"),
            (tensor(&format!("[{:?}]", [1; 17])[1..], "INT64", "[]"), b"", "at most 16"),
            (tensor("[1]", "INT64", &format!("{}{}", "[".repeat(40), "]".repeat(40))), b"", "too deep"),
            (binary("[2]", "BYTES", 10), b"\x01\0\0\0a", "5 bytes are left of the body"),
            (binary("[2]", "BYTES", huge), b"", "0 bytes are left"),
            (binary("[2]", "BYTES", 5), b"\x01\0\0\0a", "element 1 of 2 is cut off"),
            (binary("[1]", "BYTES", 5), b"\xff\xff\xff\xffa", "element 0 of 1 is cut off"),
            (binary("[1]", "BYTES", 6), b"\x01\0\0\0ab", "1 bytes are left after 1"),
            (binary("[1]", "BYTES", 5), b"\x01\0\0\0\xff", "not UTF-8"),
            (binary("[1000000000]", "BYTES", 4), b"\0\0\0\0", "at most 65536"),
            (binary("[1000000000]", "INT64", 4), b"\0\0\0\0", "at most 4194304"),
            (binary("[1]", "INT64", 9), b"123456789", "which is 8 bytes of INT64, and 9 bytes"),
            (binary("[1]", "FP16", 2), b"12", "datatype `FP16`"),
            (r#"{"name":"x","shape":[1],"datatype":"INT64"}"#.into(), b"", "neither data nor"),
        ] {
            let error = read(&json, bytes).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
