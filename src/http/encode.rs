//! Vectors as they stand in answers: the format of their values, and how these are written.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::parts::Parts;
use crate::engine::Vector;

/// How the values of a vector are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A list of numbers, of floats each in the fewest digits that read back as the same `f32`.
    #[default]
    Float,
    /// Base64 of floats, little-endian, as OpenAI's clients ask for it. What are no floats are numbers all the same.
    Base64,
}

/// What the values of a vector are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    Float,
    /// Each value of the unit vector in parts of 1/127.
    Int8,
    /// The same plus 128.
    Uint8,
    /// [`Ubinary`](Self::Ubinary) minus 128, as signed bytes.
    Binary,
    /// A bit a value, 1 where it is above zero, the first in the highest bit.
    Ubinary,
}

/// Of a float in JSON, at most, with its comma: as `-1.2345678e-10,`, where most take eleven.
pub(super) const JSON_VALUE_BYTES: usize = 15;

impl Dtype {
    /// Bytes of a value in an answer, at most.
    pub(super) fn value_bytes(self, format: Format) -> usize {
        match (self, format) {
            (Self::Float, Format::Float) => JSON_VALUE_BYTES,
            // Four bytes in base64.
            (Self::Float, Format::Base64) => 6,
            // As `-127,`; of packed bits an eighth of that.
            (Self::Int8 | Self::Uint8, _) => 5,
            (Self::Binary | Self::Ubinary, _) => 1,
        }
    }

    /// Whether its scale is that of vectors of unit length.
    pub(super) fn needs_unit_vectors(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }
}

/// A vector in JSON.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// `[dimensions]`
    pub vector: &'a [f32],
    /// What its values become.
    pub dtype: Dtype,
    /// How they are written.
    pub format: Format,
}

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { vector, dtype, format } = *self;
        match (dtype, format) {
            (Dtype::Float, Format::Float) => vector.serialize(serializer),
            (Dtype::Float, Format::Base64) => {
                let mut bytes = Vec::with_capacity(size_of_val(vector));
                push_le_bytes(&mut bytes, vector);
                serializer.serialize_str(&STANDARD.encode(&bytes))
            }
            // Never base64: OpenAI's clients ask for it unasked, and make 32-bit floats of whatever comes.
            (Dtype::Int8, _) => serializer.collect_seq(vector.iter().map(|value| to_int8(*value))),
            (Dtype::Uint8, _) => {
                let values = vector.iter().map(|value| offset(to_int8(*value).cast_unsigned()));
                serializer.collect_seq(values)
            }
            (Dtype::Ubinary, _) => serializer.collect_seq(pack(vector)),
            (Dtype::Binary, _) => {
                serializer.collect_seq(pack(vector).into_iter().map(|byte| offset(byte).cast_signed()))
            }
        }
    }
}

/// Vectors in JSON that several inputs of an answer share. Each is written once: a request of thousands of equal texts is cheap to send, and to
/// write numbers takes longer than to compute them.
pub(super) struct Shared {
    texts: HashMap<*const Vector, Text>,
    dtype: Dtype,
    format: Format,
}

/// A vector of an answer.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Written<'a> {
    /// Of one input.
    Own(Encoded<'a>),
    /// Of several.
    Shared(&'a RawValue),
}

/// The text of a vector, which answers refer to.
#[derive(Clone)]
struct Text(Arc<RawValue>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.get().as_bytes()
    }
}

impl Shared {
    /// Those of `vectors`.
    ///
    /// # Errors
    /// If one cannot be written.
    pub(super) fn of(vectors: &[Arc<Vector>], dtype: Dtype, format: Format) -> serde_json::Result<Self> {
        let mut inputs = HashMap::new();
        for vector in vectors {
            inputs.entry(Arc::as_ptr(vector)).or_insert((vector, 0_usize)).1 += 1;
        }
        let shared = inputs.into_iter().filter(|(_, (_, count))| *count > 1);
        let texts = shared.map(|(place, (vector, _))| {
            Ok((place, Text(to_raw_value(&Encoded { vector, dtype, format })?.into())))
        });
        Ok(Self { texts: texts.collect::<serde_json::Result<_>>()?, dtype, format })
    }

    /// How the vector is to be written.
    pub(super) fn written<'a>(&'a self, vector: &'a Arc<Vector>) -> Written<'a> {
        let Self { dtype, format, .. } = *self;
        match self.texts.get(&Arc::as_ptr(vector)) {
            Some(Text(text)) => Written::Shared(text),
            None => Written::Own(Encoded { vector, dtype, format }),
        }
    }

    /// `body`, in which they are [`written`](Self::written), as JSON that refers to their texts; nothing where no inputs share one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn refer(&self, body: &impl Serialize) -> serde_json::Result<Option<Body>> {
        let Some(shortest) = self.texts.values().map(|text| text.as_ref().len()).min() else {
            return Ok(None);
        };
        let texts: HashMap<*const u8, Bytes> = self
            .texts
            .values()
            .map(|text| (text.as_ref().as_ptr(), Bytes::from_owner(text.clone())))
            .collect();
        // serde_json hands over such a text as it is, whole.
        let known = |written: &[u8]| {
            let text = if written.len() < shortest { None } else { texts.get(&written.as_ptr()) };
            text.filter(|text| text.len() == written.len()).cloned()
        };
        let mut parts = Parts::new(known);
        serde_json::to_writer(&mut parts, body)?;
        Ok(Some(parts.into_body()))
    }
}

/// The values, little-endian, after what `bytes` has.
pub(super) fn push_le_bytes(bytes: &mut Vec<u8>, vector: &[f32]) {
    for value in vector {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
}

/// A value of a unit vector in parts of 1/127, rounded to the nearest, halves away from zero: -127 to 127.
///
/// The scale is the same for all vectors of all models, so those of an index compare with each other, and none is cut off. Of
/// 4,000 sentences of all-MiniLM-L6-v2 the least cosine to the floats is .9988, and .970 of each query's 10 nearest stay.
/// Refused: a scale of each vector's own, with which products of two vectors mean nothing; and one for values as they usually
/// are (.987 of the nearest with 8 standard deviations in 127 parts), which cuts off the large ones that some models have.
fn to_int8(value: f32) -> i8 {
    // Saturates; a unit vector's values are within anyway, but for the last digit.
    (value * 127.0).round().clamp(-127.0, 127.0) as i8
}

/// The signed byte as one from 0, or the reverse: both are 128 apart.
fn offset(byte: u8) -> u8 {
    byte ^ 0x80
}

/// A bit a value, 1 where it is above zero, eight to the byte, the first in the highest bit; the last byte is filled up with
/// zeros. As numpy's `packbits`, sentence-transformers and Voyage have it.
fn pack(vector: &[f32]) -> Vec<u8> {
    let bit = |(place, value): (usize, &f32)| u8::from(*value > 0.0) << (7 - place);
    vector.chunks(8).map(|values| values.iter().enumerate().map(bit).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(vector: &[f32], dtype: Dtype, format: Format) -> serde_json::Value {
        serde_json::to_value(Encoded { vector, dtype, format }).unwrap()
    }

    #[test]
    fn vectors_that_inputs_share_are_written_once_and_as_the_others() {
        let (one, two) = (Arc::new(vec![0.25, -1.0]), Arc::new(vec![0.5, 1.0]));
        let vectors = [Arc::clone(&one), two, one];
        for format in [Format::Float, Format::Base64] {
            for dtype in [Dtype::Float, Dtype::Int8, Dtype::Ubinary] {
                let shared = Shared::of(&vectors, dtype, format).unwrap();
                assert_eq!(shared.texts.len(), 1);
                let written: Vec<Written> = vectors.iter().map(|vector| shared.written(vector)).collect();
                let alone: Vec<_> = vectors.iter().map(|vector| json(vector, dtype, format)).collect();
                assert_eq!(serde_json::to_string(&written).unwrap(), serde_json::to_string(&alone).unwrap());
            }
        }
    }

    #[test]
    fn vectors_are_numbers_or_little_endian_base64() {
        let vector = [1.0, -0.1, 1e-12];
        let text =
            serde_json::to_string(&Encoded { vector: &vector, dtype: Dtype::Float, format: Format::Float });
        let numbers: Vec<f32> = serde_json::from_str(&text.unwrap()).unwrap();
        assert_eq!(numbers, vector);
        let text = json(&vector, Dtype::Float, Format::Base64);
        let bytes = STANDARD.decode(text.as_str().unwrap()).unwrap();
        assert_eq!(
            bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect::<Vec<_>>(),
            vector
        );
    }

    #[test]
    fn bytes_have_a_fixed_scale_and_bits_a_fixed_order() {
        let vector = [1.0, -1.0, 0.0, 0.5, -0.5, 0.003, -0.0, f32::MIN_POSITIVE, -0.004, 1.000_000_1];
        for (dtype, expected) in [
            (Dtype::Int8, vec![127, -127, 0, 64, -64, 0, 0, 0, -1, 127]),
            (Dtype::Uint8, vec![255, 1, 128, 192, 64, 128, 128, 128, 127, 255]),
            (Dtype::Ubinary, vec![0b1001_0101, 0b0100_0000]),
            (Dtype::Binary, vec![0b1001_0101 - 128, 0b0100_0000 - 128]),
        ] {
            for format in [Format::Float, Format::Base64] {
                assert_eq!(json(&vector, dtype, format), serde_json::json!(expected), "{dtype:?} {format:?}");
            }
        }
    }
}
